"""Statements of tenants: run in one transaction, with results as JSON."""
