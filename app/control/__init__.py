"""Use cases and background tasks: they decide when, record, then apply; they measure, then advise.

`app.domain` decides what to do; `app.pools` opens and closes connections.
"""
