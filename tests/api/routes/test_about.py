"""The service's version and links over HTTP."""

import pytest
from pydantic import ValidationError

from app import __version__
from app.settings import Settings
from tests.fixtures.app import Api, ApiWith, ok

URL = "/v1/about"


async def test_without_settings_only_the_version_is_known(api: Api) -> None:
    instance = {"id": api.service.election.instance.id, "url": None}
    expected = {"version": __version__, "documents_url": None, "grafana_url": None}
    assert ok(await api.client.get(URL)) == {**expected, "instance": instance}


async def test_the_addresses_are_those_of_the_settings(api_with: ApiWith) -> None:
    links = {"documents_url": "https://docs.example/pk", "grafana_url": "http://grafana:3000"}
    async with api_with(**links) as api:
        shown = ok(await api.client.get(URL))
    assert shown["documents_url"] == "https://docs.example/pk"
    assert shown["grafana_url"] == "http://grafana:3000/"


@pytest.mark.parametrize("name", ["documents_url", "grafana_url"])
@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://me:hidden@grafana.example/"])
def test_no_address_runs_a_script_or_has_credentials(name: str, url: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: url})
