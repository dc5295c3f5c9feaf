"""The way to any Postgres server: the one place where asyncpg is asked to connect.

Knows addresses and logins as plain values; must not know whose they are, nor why.
"""

from app.wire.connect import Refused, Tls, connect

__all__ = ["Refused", "Tls", "connect"]
