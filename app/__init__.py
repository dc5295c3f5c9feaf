"""Poolkeeper: the control plane for multi-tenant Postgres connection pools.

Five rooms and a door: `domain` thinks, `pools` hold, `catalog` remembers, `control` decides
when, `api` talks; `main` wires them and `cli` is the way in. Nothing happens on import.
"""

__version__ = "0.1.0"
