"""The service's instances over HTTP."""

import re

from app import __version__
from tests.fixtures.app import Api, ok
from tests.fixtures.waiting import eventually


async def test_a_single_service_is_the_active_instance(api: Api) -> None:
    async def is_registered() -> bool:
        return bool(ok(await api.client.get("/v1/instances"))["items"])

    await eventually(is_registered)
    answer = ok(await api.client.get("/v1/instances"))
    [instance] = answer["items"]
    assert answer["next_cursor"] is None
    epoch = api.service.election.epoch
    assert (instance["state"], instance["url"], instance["epoch"]) == ("active", None, epoch)
    assert instance["version"] == __version__
    assert instance["started_at"] <= instance["seen_at"]
    metrics = (await api.client.get("/metrics")).text
    assert re.search(
        r'^poolkeeper_leader\{instance_id="[0-9a-f]{8}",url=""\} 1\.0$', metrics, re.MULTILINE
    )
    [shown] = re.findall(r"^poolkeeper_leadership_epoch (.*)$", metrics, re.MULTILINE)
    assert float(shown) == epoch
    assert "\npoolkeeper_failovers_total 0.0\n" in metrics
