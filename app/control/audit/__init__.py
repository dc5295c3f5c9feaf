"""Audit events, and the outbox that keeps them while the catalog is unreachable."""
