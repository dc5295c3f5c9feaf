"""PgBouncer nodes: their state, and the rules by which they share a server's budget.

A node is a connection pooler with an agent beside it. The service decides how many connections of a
server each node may have (`allotment`, `budget_division`), and how many of a tenant (`size_split`).
The agent decides which tenants may use these connections now (`gate`).
"""
