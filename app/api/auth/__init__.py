"""Authentication: API keys, principals, scopes, rate limits."""
