class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot be started or stopped; the message says why, without secrets."""
