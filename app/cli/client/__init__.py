"""Commands that talk to a running service: an HTTP client of the public API.

Imports nothing of the service, which may run elsewhere and in another version.
"""
