"""The command line's view of a running service: an HTTP client of the public API, nothing more.

Knows the API's paths and words; imports nothing of the service, which may run elsewhere and be
of another version.
"""
