"""Who calls: API keys, principals, scopes, rate limits."""
