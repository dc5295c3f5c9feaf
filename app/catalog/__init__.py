"""The catalog: the service's own schema, and the only SQL about it.

Rows in, domain values out. It decides nothing, and knows neither pools nor HTTP.
"""
