"""Forwarding: what a standby does with requests, and how the active instance accepts them."""
