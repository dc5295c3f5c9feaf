"""Leadership: which instance is active, and how long it may trust that."""
