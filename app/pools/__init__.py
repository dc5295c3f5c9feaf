"""Everything that touches a tenant's connections in this process.

This package opens, lends, resizes and closes them, within each server's budget and in each tenant's
isolation. `manager` finds a tenant's pool, `pool` lends, `scheduling_policy` says who is
served next. It knows asyncpg; it must not know HTTP or the catalog, and nothing in it has to
survive the process.
"""
