"""The one error of this room. Its message is a sentence for the person who started the service."""


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot be started or stopped; the message says why, without secrets."""
