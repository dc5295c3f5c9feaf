"""Configurations of nodes, as the service gives them to an agent."""

from dataclasses import replace
from functools import cache

from app.domain.nodes.allotment import Allotment
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry, NodeLogin, NodeServer
from app.domain.scram import scram_verifier
from tests.fixtures.postgres import Database

ITERATIONS = 4096
SERVER = "local"


def password_of(user: str) -> str:
    """The password of an application's user."""
    return f"password of {user}"


@cache
def login(user: str) -> NodeLogin:
    return NodeLogin(user=user, verifier=scram_verifier(password_of(user), iterations=ITERATIONS))


def entry(
    name: str,
    *,
    size: int = 2,
    database: Database | None = None,
    password: str | None = None,
    logins: tuple[str, ...] = (),
    weight: int = 1,
    paused: bool = False,
) -> NodeEntry:
    """A tenant whose role has the name that provisioning gives it."""
    return NodeEntry(
        name=name,
        server=SERVER,
        database=database.database if database else "poolkeeper",
        role=f"tenant_{name}",
        password=password or "secret",
        size=size,
        weight=weight,
        paused=paused,
        logins=tuple(map(login, logins)),
    )


def configuration(
    *entries: NodeEntry,
    version: int = 1,
    allotment: int = 24,
    generation: int = 1,
    database: Database | None = None,
) -> NodeConfiguration:
    """A configuration of these entries on one server."""
    server = NodeServer(
        host=database.host if database else "127.0.0.1",
        port=database.port if database else 5432,
        tls_mode="disable",
        allotment=Allotment(generation=generation, connections=allotment),
    )
    return NodeConfiguration(version=version, servers={SERVER: server}, entries=entries)


def allotted(node: NodeConfiguration, connections: int, generation: int = 1) -> NodeConfiguration:
    """The configuration with another allotment."""
    allotment = Allotment(generation=generation, connections=connections)
    return replace(node, servers={SERVER: replace(node.servers[SERVER], allotment=allotment)})
