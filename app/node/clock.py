"""Seconds since the machine started; they also count while it is suspended, and across agents."""

import time
from pathlib import Path


def boot_time() -> float:
    """Seconds since the machine started, including suspended time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Identifies the present start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
