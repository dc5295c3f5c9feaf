"""Use cases of tenants: declare, provision, rotate, delete."""
