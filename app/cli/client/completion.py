"""Completion by TAB of resource names, from a running service.

If the service is away, slow, or refuses the key, it offers nothing and prints nothing: an error
would appear in the line that is being typed.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Thread
from typing import Any

from app.cli.client.api_client import ApiError, path_segment
from app.cli.client.session import Session

# Nobody waits longer than this for a TAB.
_SECONDS = 1.0
_MOST = 200
# A shell inserts an offered name unchanged into the line.
_NAME = re.compile(r"[\w.@-]+", re.ASCII)


def names(*lists: tuple[str, str], search: bool = False) -> Callable[[Any, str], list[str]]:
    """Complete names from *lists* of the API: paths, and the field with the name.

    A path may contain `{tenant}`, which the line already names. With *search*, the service looks
    for names that contain the typed text.
    """

    def complete(ctx: Any, incomplete: str) -> list[str]:
        found: list[str] = []

        def fetch() -> None:
            params = ctx.params
            session = Session(url=params.get("url"), api_key_file=params.get("api_key_file"))
            wanted = {"search": incomplete} if search else {}
            with suppress(ApiError), session.client(timeout=_SECONDS, attempts=1) as client:
                # All or nothing: the only name of one list would be completed at once.
                found[:] = [
                    str(item[field])
                    for path, field in lists
                    for item in client.page(_filled(path, params), limit=_MOST, **wanted)["items"]
                ]

        # The lookup of a host name cannot be limited except by abandoning it.
        thread = Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(_SECONDS)
        return sorted({each for each in found if _NAME.fullmatch(each)})

    return complete


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
