"""HTTP and nothing else: routes, the models of their bodies, and the layers around them.

Rules, SQL and connections belong to other packages; changes go through `app.control`.
"""
