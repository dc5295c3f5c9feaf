"""Sizes that a node may have in force: many entries change together, each with its own past."""

from hypothesis import given
from hypothesis import strategies as st

from app.control.nodes.offered_sizes import OfferedSizes
from app.domain.nodes.configuration import NodeConfiguration
from tests.node import configurations

NAMES = ("acme", "bravo", "coral")
SIZES = st.fixed_dictionaries({name: st.integers(0, 3) for name in NAMES})


def offered(version: int, sizes: dict[str, int]) -> NodeConfiguration:
    entries = [
        configurations.entry(name, size=size, logins=(f"{name}.web",))
        for name, size in sizes.items()
    ]
    return configurations.configuration(*entries, version=version)


@given(st.lists(st.tuples(SIZES, st.integers(0, 5)), max_size=8))
def test_entries_that_change_together_are_counted_as_if_each_were_alone(
    steps: list[tuple[dict[str, int], int]],
) -> None:
    together, alone = OfferedSizes(), {name: OfferedSizes() for name in NAMES}
    for version, (sizes, behind) in enumerate(steps, start=1):
        together.offer(offered(version, sizes))
        together.settle(version - behind)
        for name, one in alone.items():
            one.offer(offered(version, {name: sizes[name]}))
            one.settle(version - behind)
            assert together.most(name) == one.most(name) >= together.latest(name) == sizes[name]
