"""docker-compose.yml, as far as it can be judged without Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def services() -> dict[str, dict[str, Any]]:
    """Every service of the composition, by name."""
    said = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = said["services"]
    return found


def test_images_of_others_are_of_a_named_version() -> None:
    images = [each["image"] for each in services().values() if "image" in each]
    assert images
    assert all(re.search(r":v?\d[\d.]*$", image) for image in images)


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = [port for each in services().values() for port in each.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_mounted_from_the_checkout_is_there_and_read_only() -> None:
    volumes = [volume for each in services().values() for volume in each.get("volumes", ())]
    ours = [volume.split(":") for volume in volumes if volume.startswith("./")]
    assert ours
    for source, _, mode in ours:
        assert (ROOT / source).exists(), source
        assert mode == "ro", source


def test_monitoring_is_asked_for() -> None:
    extra = {name for name, each in services().items() if each.get("profiles") == ["monitoring"]}
    assert extra == {"prometheus", "grafana"}


def test_prometheus_finds_its_key_and_the_service() -> None:
    scrape = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    job = scrape["scrape_configs"][0]
    name = Path(job["authorization"]["credentials_file"]).name
    assert name in services()["prometheus"]["secrets"]
    target, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert services()[target]["ports"] == [f"127.0.0.1:{port}:{port}"]
