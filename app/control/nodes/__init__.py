"""Nodes: declares them, configures them, hears their reports, and divides each server's budget."""
