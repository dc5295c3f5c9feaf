"""HOLD: everything that touches a tenant's connections.

This room owns opening, lending, resizing and closing them, within each server's budget and in
each tenant's isolation. It knows asyncpg; it must not know HTTP or the catalog, and nothing in it
has to survive the process.
"""
