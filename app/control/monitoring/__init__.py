"""Poll, snapshot, sample, retain; health checks; isolation audit."""
