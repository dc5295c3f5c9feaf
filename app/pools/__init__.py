"""Everything that touches a tenant's connections in this process.

This package opens, lends, resizes and closes them, within each server's budget and with each
tenant's isolation. `manager` finds a tenant's pool, `pool` lends its connections, `scheduling`
decides who is served next, and `servers` has what the pools of a server share. It knows asyncpg; it
must not know HTTP or the catalog, and none of its state needs to survive the process.
"""
