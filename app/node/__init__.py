"""The agent of a node: it runs a connection pooler beside it as the service wants it.

It imports the domain alone, so that a node needs no settings, no catalog and no server of its own.
"""
