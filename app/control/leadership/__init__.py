"""Leadership: which instance is active, and for how long it may trust that."""
