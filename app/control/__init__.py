"""DECIDE WHEN: the one door for changes, and the loops that keep actual state close to desired.

This room owns the order of things: record, then apply; measure, then advise. What to do is
decided by the domain and done by the pools; nothing here may know HTTP or write SQL.
"""
