"""Numbers of things, in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """As in `1 connection`, `2 connections`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
