"""TALK: HTTP and nothing else.

Each file owns its routes and the models of their requests and responses, translates at the
border, and picks the status of an error. Rules, SQL and connections live in the rooms below;
nothing here may reach past `control` for a change.
"""
