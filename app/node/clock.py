"""Time since the machine started, which goes on while it is suspended and through new agents."""

from __future__ import annotations

import time
from pathlib import Path


def boot_time() -> float:
    """Seconds since the machine started, those in which it was suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Which start of the machine that was."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
