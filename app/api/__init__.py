"""HTTP and nothing else: routes, the models of their bodies, and the layers around them.

Rules, SQL and connections are below; a change goes through `app.control`.
"""
