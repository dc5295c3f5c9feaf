"""docker-compose.yml, checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def services() -> dict[str, dict[str, Any]]:
    """The services by name."""
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = content["services"]
    return found


def test_images_have_a_version() -> None:
    images = [each["image"] for each in services().values() if "image" in each]
    assert images
    assert all(re.search(r":v?\d[\d.]*$", image) for image in images)


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for each in services().values() for port in each.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_mounts_from_the_checkout_exist_and_are_read_only() -> None:
    volumes = [volume for each in services().values() for volume in each.get("volumes", ())]
    ours = [volume.split(":") for volume in volumes if volume.startswith("./")]
    assert ours
    for source, _, mode in ours:
        assert (ROOT / source).exists(), source
        assert mode == "ro", source


def test_monitoring_is_an_optional_profile() -> None:
    extra = {name for name, each in services().items() if each.get("profiles") == ["monitoring"]}
    assert extra == {"prometheus", "grafana"}


def test_prometheus_has_its_key_and_the_address_of_the_service() -> None:
    scrape = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    job = scrape["scrape_configs"][0]
    name = Path(job["authorization"]["credentials_file"]).name
    assert name in services()["prometheus"]["secrets"]
    target, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert services()[target]["ports"] == [f"127.0.0.1:{port}:{port}"]
