"""Poll, snapshot, sample, retain; health checks; the isolation audit."""
