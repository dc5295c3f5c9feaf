"""Observe, advise, apply, what-if, placement."""
