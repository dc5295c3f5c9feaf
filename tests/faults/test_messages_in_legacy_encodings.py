"""A server reports errors in ISO-8859-1, as it does until it knows the client's encoding."""

import pytest

from app.domain.errors import TenantLoginFailed
from app.pools import driver
from tests.fixtures.hostile import OK, Caller, hostile_server, login_to

FRENCH = "SFATAL\0VFATAL\0C{}\0Mécrit à la française : rôle « ñ »\0\0".encode("iso-8859-1")


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        (b"28P01", "the password is wrong"),
        (b"28000", "may not log in"),
        (b"3D000", "does not exist"),
        (b"42501", "may not connect"),
    ],
)
async def test_a_refusal_is_recognised_by_its_sqlstate(sqlstate: bytes, reason: str) -> None:
    async def refusing(caller: Caller) -> None:
        await caller.say(b"E", FRENCH.replace(b"{}", sqlstate))

    async with hostile_server(refusing) as server:
        with pytest.raises(TenantLoginFailed, match=reason):
            await driver.connect(login_to(server.port), timeout=5)


async def test_notices_and_parameters_do_not_hinder_a_login() -> None:
    async def greeting(caller: Caller) -> None:
        await caller.say(b"N", FRENCH.replace(b"{}", b"01000"))
        await caller.ask(OK)
        for name, value in (
            (b"server_version", b"15.0"),
            (b"client_encoding", b"UTF8"),
            (b"in_hot_standby", b"off"),
            (b"search_path", b"sch\xe9ma"),
        ):
            await caller.say(b"S", name + b"\0" + value + b"\0")
        await caller.say(b"K", bytes(8))
        await caller.say(b"Z", b"I")

    async with hostile_server(greeting) as server:
        connection = await driver.connect(login_to(server.port), timeout=5)
        assert connection.get_settings().search_path == "sch\N{REPLACEMENT CHARACTER}ma"
        connection.terminate()
