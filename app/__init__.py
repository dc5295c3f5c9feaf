"""Poolkeeper: the control plane for multi-tenant Postgres connection pools.

Imports point one way: main, cli → api → control → pools, catalog → domain.
"""

__version__ = "0.1.0"
