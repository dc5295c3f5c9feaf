"""Which min_size of a file cannot fit a server's budget together."""

from app.cli.client.manifest import Manifest
from app.cli.client.minimum_sizes import too_many


def file(**tenants: str) -> Manifest:
    return Manifest.parse(
        f"tenants: {{{', '.join(f'{name}: {{{body}}}' for name, body in tenants.items())}}}"
    )


def test_the_sum_is_known_before_anything_is_applied() -> None:
    names = [f"t{n:02}" for n in range(30)]
    manifest = file(**dict.fromkeys(names, "pool: {min_size: 2}"))
    refused = too_many(manifest, {}, {}, {"main": 43})
    assert list(refused) == names[21:]
    assert refused["t21"] == (
        "min_size 2 does not fit: other pools of this file keep 42 of the 43 connections of "
        "server main."
    )


def test_what_a_pool_of_the_file_gives_up_makes_room_whatever_its_name() -> None:
    pools = {"z": {"desired": {"min_size": 40}}, "a": {"desired": {"min_size": 3}}}
    manifest = file(
        a="pool: {min_size: 30}", b="pool: {min_size: 9}", z="pool: {min_size: 4}", other=""
    )
    assert not too_many(manifest, {}, pools, {"main": 43})
    assert list(too_many(manifest, {}, pools, {"main": 42})) == ["b"]


def test_each_server_has_a_budget_of_its_own() -> None:
    manifest = file(
        a="server: one, pool: {min_size: 5}",
        b="server: two, pool: {min_size: 5}",
        c="pool: {min_size: 5}",
        d="pool: {min_size: 90}",
        e="strategy: shared, server: one, pool: {min_size: 90}",
    )
    # The server of d is not known before it is created.
    actual = {"c": {"server": "one", "strategy": "per_tenant"}}
    assert list(too_many(manifest, actual, {}, {"one": 9, "two": 9})) == ["c"]
