"""Background tasks and their supervisor."""
