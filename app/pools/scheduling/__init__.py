"""Who gets a connection, and when: the pools of a server share its budget.

`policy` decides, and `policy_executor` does it. They read the budget of a server, the claims of its
pools and the queue of each pool. Nothing here awaits.
"""
