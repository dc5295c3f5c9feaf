"""A declared Postgres server: its health, limits and load, the service's own connections to it."""
