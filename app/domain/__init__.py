"""Frozen values and pure functions: every rule of the service.

It must not await, read a clock, do I/O or import another package of the service.
"""
