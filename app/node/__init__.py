"""The agent of a node: it runs a connection pooler as the service tells it.

It imports only the domain, so that a node needs no settings, no catalog and no server of its own.
"""
