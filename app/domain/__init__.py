"""THINK: frozen values and pure functions; every rule of the service can be read here.

The domain owns what a tenant, a pool, a plan and a recommendation are, and how one follows from
another. It must not await, read a clock, do I/O or know anybody: no framework, no driver, and
none of the other rooms.
"""
