"""Known attacks: how each works, its outcome, and the defence against it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from unittest.mock import patch

import asyncpg

from app.domain.errors import PoolkeeperError
from app.domain.tenant import PoolStrategy
from app.pools import session_reset
from app.wire import Login
from tests.isolation.arena import PER_DATABASE, PER_TENANT, SHARED, Arena, Attack

Without = Callable[[Arena], AbstractAsyncContextManager[None]]


class Verdict(StrEnum):
    """The outcome of an attack."""

    HELD = "held"
    OPEN = "open by design"


ALL_HELD = dict.fromkeys(PoolStrategy, Verdict.HELD)
ALL_OPEN = dict.fromkeys(PoolStrategy, Verdict.OPEN)
OWN_HELD = dict.fromkeys((PER_TENANT, PER_DATABASE), Verdict.HELD)
SHARED_HELD = {SHARED: Verdict.HELD}
SHARED_OPEN = {SHARED: Verdict.OPEN}
OPEN_WITHIN_A_DATABASE = {
    SHARED: Verdict.OPEN,
    PER_TENANT: Verdict.OPEN,
    PER_DATABASE: Verdict.HELD,
}


@dataclass(frozen=True, slots=True)
class Vector:
    """One known attack.

    Attributes:
        attack: true if it reached what it wanted.
        verdicts: under the strategies that it concerns.
        without: removes its defence for a block; not needed if it is open anyway.
        extension: an extension that Postgres needs for it.
    """

    name: str
    attack: Attack
    verdicts: Mapping[PoolStrategy, Verdict]
    without: Without | None = None
    extension: str | None = None

    async def succeeds(self, arena: Arena) -> bool:
        """Whether the attack reaches what it wants; refused is not."""
        try:
            return await self.attack(arena)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, PoolkeeperError):
            return False


def sql(switch_off: str, switch_on: str, *, at_home: bool = False) -> Without:
    """Remove a defence, and restore it, with a superuser's statements."""

    @asynccontextmanager
    async def without(arena: Arena) -> AsyncIterator[None]:
        database = arena.home(arena.mallory) if at_home else ""
        await arena.run(switch_off, database)
        await arena.recycled()
        try:
            yield
        finally:
            await arena.run(switch_on, database)
            await arena.recycled()

    return without


def each(**by_strategy: Without) -> Without:
    """Another defence under each strategy."""
    return lambda arena: by_strategy[arena.strategy](arena)


def both(*withouts: Without) -> Without:
    """Several defences, each of which would be enough."""

    @asynccontextmanager
    async def without(arena: Arena) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for one in withouts:
                await stack.enter_async_context(one(arena))
            yield

    return without


def patched(target: object, name: str, value: object) -> Without:
    """Remove a defence in our own code."""

    @asynccontextmanager
    async def without(arena: Arena) -> AsyncIterator[None]:
        await arena.recycled()
        with patch.object(target(arena) if callable(target) else target, name, value):
            yield
        await arena.recycled()

    return without


def logging_in(change: Callable[[Arena, Login], Login]) -> Without:
    """Change everybody's login."""

    @asynccontextmanager
    async def without(arena: Arena) -> AsyncIterator[None]:
        login = arena.isolation.login
        await arena.recycled()
        with patch.object(
            arena.isolation, "login", lambda server, spec: change(arena, login(server, spec))
        ):
            yield
        await arena.recycled()

    return without


def unset(*names: str) -> Without:
    """Log in without these settings."""

    def change(_: Arena, login: Login) -> Login:
        return replace(
            login, settings={name: v for name, v in login.settings.items() if name not in names}
        )

    return logging_in(change)


@asynccontextmanager
async def without_audits(arena: Arena) -> AsyncIterator[None]:
    """Let no isolation audit repair anything."""
    arena.audits = False
    try:
        yield
    finally:
        arena.audits = True


@asynccontextmanager
async def unproven(arena: Arena) -> AsyncIterator[None]:
    """Do not check that the lease's transaction and its context are still in place."""
    with (
        patch.object(arena.isolation, "context_check", lambda _: "SELECT 1"),
        patch.object(asyncpg.Connection, "is_in_transaction", lambda _: True),
    ):
        yield


SUPERUSER = sql("ALTER ROLE {me} SUPERUSER", "ALTER ROLE {me} NOSUPERUSER")
MEMBERSHIP = sql("GRANT {other} TO {me}", "REVOKE {other} FROM {me}")
NO_RESET = patched(session_reset, "RESET", "SELECT 1")
ROW_SECURITY_OFF = sql(
    "ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "ALTER TABLE notes ENABLE ROW LEVEL SECURITY"
)


def in_the_same_database(arena: Arena) -> AbstractAsyncContextManager[None]:
    """Let both work in alice's database."""
    let_in = sql(
        "GRANT CONNECT ON DATABASE {theirs} TO {me}",
        "REVOKE CONNECT ON DATABASE {theirs} FROM {me}",
    )
    there = logging_in(lambda arena, login: login.for_database(arena.home(arena.alice)))
    return both(let_in, there)(arena)
