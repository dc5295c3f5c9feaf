"""Use cases and background tasks: they decide when, record, then apply; measure, then advise.

What to do is decided by `app.domain`; connections are opened and closed by `app.pools`.
"""
