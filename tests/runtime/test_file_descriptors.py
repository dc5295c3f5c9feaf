"""File descriptors: as many as possible, and enough for each part of the service."""

import subprocess
import sys

import pytest

from app.runtime.file_descriptors import max_clients

RAISE = """
import resource
from app.runtime.file_descriptors import raise_descriptor_limit
print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [("256:1024", "1024 1024 1024"), ("300:300", "300 300 300")],
)
def test_the_soft_limit_is_raised_to_the_hard_one(before: str, after: str) -> None:
    output = subprocess.run(
        ["prlimit", f"--nofile={before}", sys.executable, "-c", RAISE],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    )
    assert output.stdout.split() == after.split()


@pytest.mark.parametrize(
    ("limit", "budgets", "room"),
    [
        (1024, 92, 832),
        (256, 92, 64),  # a quarter at least
        (256, 1000, 64),
        (65_536, 92, 10_000),  # more would only wait
    ],
)
def test_clients_get_what_postgres_does_not_need(limit: int, budgets: int, room: int) -> None:
    assert max_clients(limit, budgets) == room
