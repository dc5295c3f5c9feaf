"""What TAB offers where a command takes the name of a resource: what a running service has.

While the service is away, slow, or refuses the key, nothing is offered and nothing said: an error
would be printed into the line that is being typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from threading import Thread
from typing import Any

from app.cli.client.api_client import ApiError, path_segment
from app.cli.client.session import Session

# Longer than this nobody waits for a TAB.
_SECONDS = 1.0
_MOST = 200
# A shell puts what is offered into the line as it is.
_NAME = re.compile(r"[\w.@-]+", re.ASCII)


def names(*lists: tuple[str, str], search: bool = False) -> Callable[[Any, str], list[str]]:
    """The completion of names in *lists* of the API: paths, and the field with the name.

    A path may contain `{tenant}`, which the line names before. With *search*, the service looks
    for those that contain what was typed.
    """

    def complete(ctx: Any, incomplete: str) -> list[str]:
        found: list[str] = []

        def fetch() -> None:
            with suppress(ApiError):
                wanted = {"search": incomplete} if search else {}
                found.extend(_fetch(ctx.params, lists, wanted))

        # Nothing bounds the lookup of a host's name but to leave it alone.
        thread = Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(_SECONDS)
        return sorted({each for each in found if _NAME.fullmatch(each)})

    return complete


def _fetch(
    params: Mapping[str, Any], lists: Iterable[tuple[str, str]], wanted: Mapping[str, str]
) -> list[str]:
    session = Session(url=params.get("url"), api_key_file=params.get("api_key_file"))
    with session.client(timeout=_SECONDS, attempts=1) as client:
        return [
            str(item[field])
            for path, field in lists
            for item in client.page(_filled(path, params), limit=_MOST, **wanted)["items"]
        ]


def _filled(path: str, params: Mapping[str, Any]) -> str:
    if "{tenant}" not in path:
        return path
    return path.format(tenant=path_segment(params.get("tenant") or ""))


tenant_names = names(("/v1/tenants", "id"), search=True)
# A pool that is not open has the name of its tenant.
pool_names = names(("/v1/pools", "pool_id"), ("/v1/tenants", "id"), search=True)
node_names = names(("/v1/nodes", "name"))
server_names = names(("/v1/servers", "name"))
recommendation_ids = names(("/v1/recommendations", "id"))
event_ids = names(("/v1/events", "id"))
refusal_ids = names(("/v1/refusals", "id"))
credential_names = names(("/v1/tenants/{tenant}/credentials", "name"))
