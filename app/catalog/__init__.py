"""REMEMBER: the service's own Postgres schema.

This room owns every SQL statement about desired state, samples, recommendations and events: rows
in, domain values out. It must not know pools, tenants' data or HTTP, and it decides nothing.
"""
