"""The programs in docs/application.md, run as they are."""

import os
import re
import sys
from pathlib import Path

import pytest
from pydantic import AnyHttpUrl

from app.settings import Settings, SettingsError
from poolkeeper import embedding
from tests.fixtures.processes import completed
from tests.fixtures.served import Serve

ROOT = Path(__file__).parents[2]
_PROGRAMS = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVE = ("-m", "uvicorn", "service:app", "--port", "{port}")


@pytest.mark.long
async def test_the_script_and_the_service_of_the_document_work(
    serve: Serve, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "application.md").read_text(encoding="utf-8")
    script, service = _PROGRAMS.findall(text)
    (tmp_path / "service.py").write_text(service, encoding="utf-8")
    async with serve(serve=SERVE) as running:
        said = await run(script, str(running.client.base_url))
        assert said.splitlines() == [
            "0 notes",
            "acme 1 of 5",
            "['close', 'disable_login', 'forget']",
            "tenant-not-found There is no tenant nobody. " + said.split()[-1],
        ]
        for notes in (["hello"], ["hello", "hello"]):
            added = await running.client.post("/notes/acme", params={"text": "hello"})
            assert (added.status_code, added.json()) == (200, notes)
        refused = await running.client.post("/notes/nobody", params={"text": "hello"})
        assert (refused.status_code, refused.json()["code"]) == (404, "tenant-not-found")
        # Leases of the application count like those of the API.
        stats = (await running.client.get("/v1/tenants/acme/stats")).json()
        assert stats["connections_acquired"] == 4


def test_an_application_is_no_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_construct(advertise_url=AnyHttpUrl("http://a:8080"))
    monkeypatch.setattr(embedding, "load_settings", lambda: settings)
    with pytest.raises(SettingsError, match="ADVERTISE_URL"):
        embedding.create_service()


async def run(program: str, url: str) -> str:
    """The output of a program."""
    done = await completed(
        *(sys.executable, "-c", program),
        env={**os.environ, "POOLKEEPER_URL": url, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
