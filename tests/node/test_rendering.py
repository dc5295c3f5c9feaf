"""PgBouncer's files say what the configuration says, whatever its texts contain."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.nodes.configuration import NodeConfiguration, NodeLogin
from app.node.errors import CannotRender
from app.node.rendering import PoolerSettings, RenderedFiles, render
from tests.node.configurations import SERVER, configuration, entry

PLACE = Path("/run/node")
TLS: dict[str, Any] = {"certificate": Path("/tls/cert.pem"), "key": Path("/tls/key.pem")}


def rendered(
    node: NodeConfiguration, *, version: tuple[int, int] = (1, 18), **knobs: Any
) -> RenderedFiles:
    settings = PoolerSettings(**knobs)
    return render(node, settings, directory=PLACE, version=version, former_users=())


def test_an_entry_is_a_line_in_each_file() -> None:
    files = rendered(configuration(entry("acme", logins=("acme.web", "acme.jobs"))))
    assert (
        "acme = host='127.0.0.1' port=5432 dbname='poolkeeper' user='tenant_acme'"
        " pool_size=2 max_db_connections=2"
        " connect_query='SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())"
        " WHERE pg_catalog.pg_is_in_recovery(); SET client_connection_check_interval = 50'\n"
    ) in files.ini
    assert files.hba == (
        'host "acme" "acme.web","acme.jobs" 127.0.0.0/8 scram-sha-256\n'
        'host "acme" "acme.web","acme.jobs" ::1/128 scram-sha-256\n'
    )
    users = [line.split('"')[1] for line in files.users.splitlines()]
    assert users == ["acme.jobs", "acme.web", "tenant_acme"]


@pytest.mark.parametrize(
    ("knobs", "seconds"),
    [({}, 20), ({"max_wait": 1}, 1), ({"max_wait": 9, "max_idle_transaction": 60}, 60)],
)
def test_clients_wait_for_longer_than_another_may_be_idle_unless_an_operator_says_otherwise(
    knobs: dict[str, Any], seconds: int
) -> None:
    files = rendered(configuration(entry("acme")), **knobs)
    assert f"\nidle_transaction_timeout = {seconds}\n" in files.ini


def test_the_same_configuration_is_the_same_text() -> None:
    one, other = entry("acme", logins=("acme.web",)), entry("bravo", logins=("bravo.web",))
    settings = PoolerSettings()
    former = ["gone.web", "lost.web"]
    assert render(
        configuration(one, other),
        settings,
        directory=PLACE,
        version=(1, 18),
        former_users=former,
    ) == render(
        configuration(other, one),
        settings,
        directory=PLACE,
        version=(1, 18),
        former_users=reversed(former),
    )


def test_an_entry_without_users_lets_nobody_in() -> None:
    assert rendered(configuration(entry("acme"))).hba == ""


def test_sizes_stay_inside_the_allotment_and_are_never_zero() -> None:
    assert (
        "pool_size=3 max_db_connections=3"
        in rendered(configuration(entry("acme", size=9), allotment=3)).ini
    )
    assert (
        "pool_size=1 max_db_connections=1"
        in rendered(configuration(entry("acme", size=9), allotment=0)).ini
    )


@pytest.mark.parametrize("name", ["pgbouncer", "*", "a b", 'a"b', "a=b", "", "x" * 64, "a\nb"])
def test_a_name_that_pgbouncer_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(CannotRender, match="cannot have an entry"):
        rendered(configuration(entry(name)))


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_a_text_that_would_end_its_line_is_refused(text: str) -> None:
    node = configuration(entry("acme", logins=("acme.web",)))
    with pytest.raises(CannotRender, match="cannot have the value"):
        rendered(replace(node, entries=(replace(node.entries[0], database=text),)))
    with pytest.raises(CannotRender, match="cannot have the user"):
        rendered(configuration(entry("acme", password=text)))
    with pytest.raises(CannotRender, match="cannot have the user"):
        rendered(configuration(entry("acme", logins=(text,))))


def test_what_would_end_the_users_file_early_is_refused() -> None:
    for user, verifier in (("u" * 128, "x"), ("acme.web", "x" * 2048), ("acme.web", "")):
        acme = replace(entry("acme"), logins=(NodeLogin(user=user, verifier=verifier),))
        with pytest.raises(CannotRender, match="cannot have the user"):
            rendered(configuration(acme))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "*", "10.0.0.1", "node.example.com"])  # noqa: S104
def test_beyond_loopback_clients_must_use_tls(address: str) -> None:
    with pytest.raises(CannotRender, match="in clear"):
        PoolerSettings(address=address)
    files = rendered(configuration(entry("acme", logins=("acme.web",))), address=address, **TLS)
    assert "client_tls_sslmode = require\n" in files.ini
    assert files.hba.startswith('hostssl "acme" "acme.web" 0.0.0.0/0 ')
    assert "host " not in files.hba


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_on_loopback_they_need_not(address: str) -> None:
    assert PoolerSettings(address=address).is_loopback


def test_half_of_a_certificate_is_refused() -> None:
    with pytest.raises(CannotRender, match="needs a certificate and its key"):
        PoolerSettings(certificate=Path("/tls/cert.pem"))


def test_servers_with_different_tls_modes_need_different_nodes() -> None:
    node = configuration(entry("acme"))
    strict = replace(node.servers[SERVER], tls_mode="verify-full")
    assert (
        "server_tls_sslmode = verify-full\n"
        in rendered(replace(node, servers={SERVER: strict}), server_ca=Path("/tls/ca.pem")).ini
    )
    with pytest.raises(CannotRender, match="disable, verify-full"):
        rendered(replace(node, servers=dict(node.servers) | {"other": strict}))


def test_prepared_statements_are_on_where_there_are_any() -> None:
    assert "max_prepared_statements" not in rendered(configuration()).ini
    assert "max_prepared_statements" in rendered(configuration(), version=(1, 21)).ini


def test_what_only_a_start_of_pgbouncer_reads_is_no_reason_to_let_it_read_its_files() -> None:
    node = configuration(entry("acme"))
    servers = {SERVER: replace(node.servers[SERVER], reports_search_path=False)}
    later = rendered(node, version=(1, 20))
    earlier = rendered(replace(node, servers=servers), version=(1, 20))
    assert later.ini != earlier.ini
    assert later.digests == earlier.digests
    other = rendered(configuration(entry("bravo")), version=(1, 20))
    assert other.digests != later.digests


@pytest.mark.parametrize(
    ("knobs", "most"),
    [
        ({}, 250),
        ({"max_clients": 3}, 1),
        ({"max_clients": 40, "max_tenant_clients": 30}, 30),
    ],
)
def test_a_tenant_may_have_a_part_of_the_clients_where_pgbouncer_can_limit_it(
    knobs: dict[str, int], most: int
) -> None:
    limit = f"max_db_client_connections = {most}\n"
    assert limit in rendered(configuration(), version=(1, 24), **knobs).ini
    assert "max_db_client_connections" not in rendered(configuration(), version=(1, 23)).ini
