"""PgBouncer nodes: what they and the service's own pools may have together, and what they cost."""
