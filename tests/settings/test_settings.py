"""The settings: defaults, precedence of sources, and errors."""

import json
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from app.api.http.client_connections import ClientLimits
from app.domain.tenant import PoolStrategy
from app.settings import Settings, SettingsError, load_settings

SERVER = {
    "POOLKEEPER_SERVERS__MAIN__HOST": "db.example",
    "POOLKEEPER_SERVERS__MAIN__USER": "keeper",
    "POOLKEEPER_SERVERS__MAIN__PASSWORD": "s3cret-main",
    "POOLKEEPER_CATALOG__HOST": "db.example",
    "POOLKEEPER_CATALOG__USER": "keeper",
    "POOLKEEPER_CATALOG__PASSWORD": "s3cret-catalog",
}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def settings_error() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


def declare(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    for name, value in {**SERVER, **more}.items():
        monkeypatch.setenv(name, value)


def test_nothing_set_means_an_embedded_server_on_loopback() -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.is_embedded
    assert settings.default_strategy is PoolStrategy.SHARED
    assert settings.read_secret_key() is None


def test_clients_close_idle_connections_before_the_service_does() -> None:
    # With equal timeouts a request may be sent at the moment the service closes its connection.
    expiry = httpx.Limits().keepalive_expiry
    assert expiry is not None
    assert Settings().keep_alive_seconds == ClientLimits().keep_alive > 2 * expiry


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_arguments_override_the_environment_which_overrides_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("poolkeeper.toml").write_text("port = 1001\nmax_waiting = 7\nwarmup_size = 2\n")
    monkeypatch.setenv("POOLKEEPER_PORT", "1002")
    monkeypatch.setenv("POOLKEEPER_WARMUP_SIZE", "3")
    settings = Settings(warmup_size=4)
    assert (settings.port, settings.max_waiting, settings.warmup_size) == (1002, 7, 4)


def test_another_file_can_be_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("port = 1003\n")
    monkeypatch.setenv("POOLKEEPER_CONFIG_FILE", str(file))
    assert load_settings().port == 1003


def test_a_configured_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_CONFIG_FILE", "missing.toml")
    assert settings_error() == "POOLKEEPER_CONFIG_FILE: There is no file missing.toml."


def test_a_broken_file_is_named_with_its_line() -> None:
    Path("poolkeeper.toml").write_text("port = \n")
    assert settings_error().startswith("Cannot read poolkeeper.toml: Invalid value (at line 1")


def test_a_bad_value_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_PORT", "70000")
    expected = "POOLKEEPER_PORT (port): Must be 65535 or less."
    assert settings_error() == expected


def test_each_problem_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_PORT", "none")
    monkeypatch.setenv("POOLKEEPER_LOG_FORMAT", "xml")
    monkeypatch.setenv("POOLKEEPER_PROT", "1")
    assert [line.split(" ")[0] for line in settings_error().splitlines()] == [
        "POOLKEEPER_PROT",
        "POOLKEEPER_PORT",
        "POOLKEEPER_LOG_FORMAT",
    ]


def test_an_unknown_variable_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_PROT", "8080")
    assert settings_error() == "POOLKEEPER_PROT is not a setting; did you mean POOLKEEPER_PORT?"


@pytest.mark.parametrize(
    "variable",
    [
        "POOLKEEPER_SERVICE_HOST",
        "POOLKEEPER_INSTANCES_SERVICE_PORT_HTTPS",
        "POOLKEEPER_PORT_8080_TCP_ADDR",
        "POOLKEEPER_PORT_8080_TCP",
    ],
)
def test_a_variable_of_a_service_of_kubernetes_is_named_with_its_switch(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "10.0.0.1")
    [said] = settings_error().splitlines()
    assert said.startswith(f"{variable} is not a setting: Kubernetes")
    assert said.endswith("Set enableServiceLinks: false for the pod.")


def test_an_unknown_variable_unlike_any_setting_gets_no_suggestion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POOLKEEPER_ZZ9", "1")
    assert settings_error() == "POOLKEEPER_ZZ9 is not a setting."


def test_a_plain_setting_has_no_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_PORT__X", "1")
    assert settings_error().startswith("POOLKEEPER_PORT__X is not a setting")


def test_an_unknown_key_in_the_file_gets_a_suggestion() -> None:
    Path("poolkeeper.toml").write_text("prot = 1\n")
    assert settings_error() == "POOLKEEPER_PROT (prot) is not a setting; did you mean port?"


def test_an_unknown_key_of_a_server_gets_a_suggestion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare(monkeypatch, POOLKEEPER_SERVERS__MAIN__PROT="1")
    expected = "POOLKEEPER_SERVERS__MAIN__PROT (servers.main.prot) is not a setting"
    assert settings_error() == f"{expected}; did you mean port?"


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "301"])
def test_the_acquire_timeout_is_positive_and_bounded(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("POOLKEEPER_ACQUIRE_TIMEOUT_SECONDS", value)
    assert "acquire_timeout_seconds" in settings_error()


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_intervals_are_finite(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("POOLKEEPER_POLL_INTERVAL_SECONDS", value)
    assert "poll_interval_seconds" in settings_error()


LISTS = {
    "trusted_hosts": ["a.example", "[::1]", "*.b.example"],
    "extension_schemas": ["tools", "gis"],
    "sql_origins": ["https://a.example", "http://b.example:8000"],
    "metrics_tenants_always": ["acme", "b-1"],
}


def test_a_list_is_written_with_commas_or_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {
        name for name, field in Settings.model_fields.items() if "list" in str(field.annotation)
    }
    assert lists == set(LISTS)
    for name, items in LISTS.items():
        variable = f"POOLKEEPER_{name.upper()}"
        for value, expected in (
            (",".join(items), items),
            (" , ".join(items), items),
            (items[0], items[:1]),
            (items[1], items[1:2]),
            (json.dumps(items), items),
            ("[]", []),
        ):
            monkeypatch.setenv(variable, value)
            assert getattr(load_settings(), name) == expected
        for value in ("", "a,,b", "a,"):
            monkeypatch.setenv(variable, value)
            problem = "Must be a list without empty items, such as a,b; [] for none."
            assert settings_error() == f"{variable} ({name}): {problem}"
        monkeypatch.delenv(variable)


def test_a_list_of_a_server_is_written_in_the_same_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "POOLKEEPER_SERVERS__MAIN__OPEN_DATABASES"
    for value in ("postgres,a-b", '["postgres", "a-b"]'):
        declare(monkeypatch, **{variable: value})
        assert load_settings().servers["main"].open_databases == ["postgres", "a-b"]
    monkeypatch.setenv(variable, "a,,b")
    assert settings_error() == (
        f"{variable} (servers.main.open_databases): Must be a list without empty items, such as"
        " a,b; [] for none."
    )


def test_null_means_the_default_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = load_settings().trusted_hosts
    monkeypatch.setenv("POOLKEEPER_TRUSTED_HOSTS", "null")
    assert load_settings().trusted_hosts == usual


def test_an_item_of_a_list_is_named_with_what_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_TRUSTED_HOSTS", "a.example,https://b.example")
    assert settings_error() == (
        "POOLKEEPER_TRUSTED_HOSTS (trusted_hosts): Item 2: Must be a host name without a scheme"
        " or a port, `*.` and a name, or `*`."
    )


# --- servers, their credentials, the catalog -------------------------------------------------


def test_a_server_is_declared_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)
    settings = load_settings()
    main = settings.servers["main"]
    assert not settings.is_embedded
    assert (main.host, main.port, main.database, main.tls) == (
        "db.example",
        5432,
        "postgres",
        "verify-full",
    )
    assert main.read_password().get_secret_value() == "s3cret-main"
    assert settings.catalog is not None
    assert settings.catalog.database == "poolkeeper"


def test_a_server_in_the_file_can_have_its_password_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("poolkeeper.toml").write_text(
        '[servers.eu-west]\nhost = "a"\nuser = "k"\n[catalog]\nhost = "b"\nuser = "k"\n'
    )
    monkeypatch.setenv("POOLKEEPER_SERVERS__EU-WEST__PASSWORD", "123")
    monkeypatch.setenv("POOLKEEPER_CATALOG__PASSWORD", '{"a": 1}')
    settings = load_settings()
    assert settings.servers["eu-west"].read_password().get_secret_value() == "123"
    assert settings.catalog is not None
    assert settings.catalog.read_password().get_secret_value() == '{"a": 1}'


def test_passwords_are_in_no_representation_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, POOLKEEPER_SECRET_KEY="s3cret-key" * 4)
    settings = load_settings()
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    monkeypatch.setenv("POOLKEEPER_SERVERS__MAIN__PASSWORD_FILE", "too")
    expected = "POOLKEEPER_SERVERS__MAIN (servers.main): Give exactly one of password"
    assert settings_error() == f"{expected} and password_file."


def test_a_password_comes_from_a_file_without_its_newline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(" with spaces \r\n")
    declare(monkeypatch, POOLKEEPER_CATALOG__PASSWORD_FILE=str(file))
    monkeypatch.delenv("POOLKEEPER_CATALOG__PASSWORD")
    catalog = load_settings().catalog
    assert catalog is not None
    assert catalog.read_password().get_secret_value() == " with spaces "


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), (b"\n", "it is empty"), (b"\xff\xfe", "not UTF-8 text")],
)
def test_a_password_file_that_cannot_be_used_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    declare(monkeypatch, POOLKEEPER_SERVERS__MAIN__PASSWORD_FILE=str(file))
    monkeypatch.delenv("POOLKEEPER_SERVERS__MAIN__PASSWORD")
    text = settings_error()
    key = "POOLKEEPER_SERVERS__MAIN__PASSWORD_FILE (servers.main.password_file)"
    assert text.startswith(f"{key}: Cannot ")
    assert text.endswith(f"{file}: {reason}.")


def test_a_secret_key_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k3y" * 11 + "\n")
    monkeypatch.setenv("POOLKEEPER_SECRET_KEY_FILE", str(file))
    key = load_settings().read_secret_key()
    assert key is not None
    assert key.get_secret_value() == "k3y" * 11


def test_a_short_secret_key_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed = "at least 32 characters are required."
    monkeypatch.setenv("POOLKEEPER_SECRET_KEY", "x" * 31)
    assert settings_error() == f"POOLKEEPER_SECRET_KEY (secret_key): {needed.capitalize()}"
    monkeypatch.delenv("POOLKEEPER_SECRET_KEY")
    file = tmp_path / "key"
    file.write_text("x" * 31 + "\n")
    monkeypatch.setenv("POOLKEEPER_SECRET_KEY_FILE", str(file))
    key = "POOLKEEPER_SECRET_KEY_FILE (secret_key_file)"
    assert settings_error() == f"{key}: Cannot use {file}: {needed}"


@pytest.mark.parametrize("key", ["CHANGE-ME", "change-me-to-at-least-32-random-characters"])
def test_a_placeholder_is_no_secret_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    problem = (
        "verybody knows the placeholder CHANGE-ME; `openssl rand -hex 32` generates a secret key."
    )
    monkeypatch.setenv("POOLKEEPER_SECRET_KEY", key)
    assert settings_error() == f"POOLKEEPER_SECRET_KEY (secret_key): E{problem}"
    monkeypatch.delenv("POOLKEEPER_SECRET_KEY")
    file = tmp_path / "key"
    file.write_text(f"{key}\n")
    monkeypatch.setenv("POOLKEEPER_SECRET_KEY_FILE", str(file))
    assert settings_error().endswith(f"Cannot use {file}: e{problem}")


def test_instances_need_a_secret_key_and_learn_how_to_give_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare(monkeypatch, POOLKEEPER_ADVERTISE_URL="http://a:8080")
    needed = "Requires POOLKEEPER_SECRET_KEY (secret_key) or POOLKEEPER_SECRET_KEY_FILE"
    assert needed in settings_error()


def test_a_secret_key_file_that_is_missing_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_SECRET_KEY_FILE", "missing")
    assert settings_error().startswith(
        "POOLKEEPER_SECRET_KEY_FILE (secret_key_file): Cannot read missing"
    )


def test_two_secret_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_SECRET_KEY", "a" * 32)
    monkeypatch.setenv("POOLKEEPER_SECRET_KEY_FILE", "b")
    assert settings_error().startswith("Give at most one of POOLKEEPER_SECRET_KEY (secret_key) and")


def test_secrets_are_refused_in_the_file() -> None:
    Path("poolkeeper.toml").write_text('secret_key = "x1"\n[servers.main]\npassword = "x2"\n')
    lines = settings_error().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "POOLKEEPER_SECRET_KEY (secret_key)",
        "POOLKEEPER_SERVERS__MAIN__PASSWORD (servers.main.password)",
    ]
    assert "x1" not in lines[0]
    assert "x2" not in lines[1]


def test_servers_need_a_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)
    for name in SERVER:
        if "CATALOG" in name:
            monkeypatch.delenv(name)
    assert settings_error() == "POOLKEEPER_CATALOG (catalog): Required if servers are declared."


def test_a_catalog_needs_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)
    for name in SERVER:
        if "SERVERS" in name:
            monkeypatch.delenv(name)
    expected = "POOLKEEPER_CATALOG (catalog): Requires declared servers"
    assert settings_error() == f"{expected}; the embedded server has its own catalog."


def test_the_name_of_a_server_is_a_slug(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)
    Path("poolkeeper.toml").write_text('[servers."Eu_West"]\nhost = "a"\n')
    expected = "POOLKEEPER_SERVERS__EU_WEST (servers.Eu_West): A server's name is a slug"
    assert expected in settings_error()


@pytest.mark.parametrize("variable", ["POOLKEEPER_SERVERS", "POOLKEEPER_CATALOG"])
def test_invalid_json_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, '{"password": "s3cret"')
    text = settings_error()
    assert variable in text
    assert "s3cret" not in text


def test_the_default_server_must_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, POOLKEEPER_DEFAULT_SERVER="mian")
    expected = "POOLKEEPER_DEFAULT_SERVER (default_server): Not a declared server"
    assert settings_error() == f"{expected}; declared: main."


def test_the_embedded_server_can_be_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_DEFAULT_SERVER", "local")
    assert load_settings().default_server == "local"


def test_the_variables_of_an_operators_shell_for_psql_do_not_stop_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They have no effect either: `tests/runtime/test_egress.py`."""
    for variable in ("PGPASSWORD", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGSSLKEY"):
        monkeypatch.setenv(variable, "s3cret")
    declare(monkeypatch)
    assert "s3cret" not in repr(load_settings())


# --- callers --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_is_always_allowed(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("POOLKEEPER_HOST", host)
    assert load_settings().host == host


OTHERS = pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "keeper.example", ""],  # noqa: S104
)


@OTHERS
def test_other_addresses_require_keys(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("POOLKEEPER_HOST", host)
    text = settings_error()
    assert text.startswith("POOLKEEPER_HOST (host): Only a loopback address is allowed")
    assert "poolkeeper keys create" in text
    assert str(Path(".poolkeeper/keys.json")) in text


@OTHERS
def test_other_addresses_are_allowed_with_keys(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("POOLKEEPER_HOST", host)
    Path(".poolkeeper").mkdir()
    Path(".poolkeeper/keys.json").touch()
    settings = load_settings()
    assert settings.requires_keys
    assert settings.keys_path == Path(".poolkeeper/keys.json")


def test_a_configured_key_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_KEYS_FILE", "mine.json")
    assert settings_error().startswith(
        "POOLKEEPER_KEYS_FILE (keys_file): There is no file mine.json;"
    )
    Path("mine.json").touch()
    assert load_settings().requires_keys


def test_the_first_key_can_be_created_before_the_file_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POOLKEEPER_HOST", "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("POOLKEEPER_KEYS_FILE", "mine.json")
    assert load_settings(to_serve=False).keys_path == Path("mine.json")


def test_loopback_requires_no_keys() -> None:
    assert not load_settings().requires_keys


def test_no_setting_disables_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKEEPER_ALLOW_NO_AUTH", "true")
    assert settings_error().startswith("POOLKEEPER_ALLOW_NO_AUTH is not a setting")
