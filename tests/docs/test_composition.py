"""The files for containers: docker-compose.yml and deploy/, checked without running them."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from app.api.http.load_shedding import PROBES
from app.cli.main import ENTRIES
from app.settings import load_settings
from tests.fixtures.canary import SECRET_KEY

ROOT = Path(__file__).parents[2]


COMPOSE = ["docker-compose.yml", "deploy/compose-ha.yml"]


class Loader(yaml.SafeLoader):
    """Reads Compose's own tag, too."""


Loader.add_constructor("!reset", lambda *_: [])


def services(file: str = COMPOSE[0]) -> dict[str, dict[str, Any]]:
    """The services by name."""
    content = yaml.load((ROOT / file).read_text(encoding="utf-8"), Loader)  # noqa: S506 - a safe one
    found: dict[str, dict[str, Any]] = content["services"]
    return found


@pytest.mark.parametrize("file", COMPOSE)
def test_images_have_a_version(file: str) -> None:
    images = [each["image"] for each in services(file).values() if "image" in each]
    assert images
    assert all(re.search(r":v?\d[\d.]*$", image) for image in images)


@pytest.mark.parametrize("file", COMPOSE)
def test_ports_are_published_on_loopback_only(file: str) -> None:
    ports = [port for each in services(file).values() for port in each.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("file", COMPOSE)
def test_mounts_from_the_checkout_exist_and_are_read_only(file: str) -> None:
    volumes = [volume for each in services(file).values() for volume in each.get("volumes", ())]
    ours = [volume.split(":") for volume in volumes if volume.startswith("./")]
    assert ours
    for source, _, mode in ours:
        assert (ROOT / source).exists(), source
        assert mode == "ro", source


def test_two_instances_in_compose_have_a_name_each_and_share_the_rest() -> None:
    base, override = services()["poolkeeper"], services(COMPOSE[1])["poolkeeper"]
    assert base.keys() >= {"environment", "volumes"}
    assert override["ports"] == []
    shell, option, script, *_ = override["entrypoint"]
    ran = subprocess.run(
        [shell, option, script.replace("exec poolkeeper", "exec env").replace("$$", "$"), "x"],
        env={"HOSTNAME": "3f2a9c1b", "PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "POOLKEEPER_ADVERTISE_URL=http://3f2a9c1b:8080" in ran.stdout.splitlines()


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """The objects in deploy/kubernetes.yaml, by kind and name."""
    text = (ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8")
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}


def pod_of(declared: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = declared["Deployment", "poolkeeper"]["spec"]["template"]["spec"]
    return pod


def test_the_settings_in_kubernetes_are_valid_and_fit_the_pod(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declared = manifests()
    pod = pod_of(declared)
    [container] = pod["containers"]
    monkeypatch.chdir(tmp_path)
    given = declared["ConfigMap", "poolkeeper"]["data"]
    given |= declared["Secret", "poolkeeper"]["stringData"]
    assert "CHANGE-ME" in given["POOLKEEPER_SECRET_KEY"]  # the start is refused until it is changed
    given["POOLKEEPER_SECRET_KEY"] = SECRET_KEY
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(to_serve=False)
    assert container["ports"] == [{"name": "http", "containerPort": settings.port}]
    mounted = {Path(each["mountPath"]) for each in container["volumeMounts"]}
    assert {settings.keys_path.parent, settings.data_dir} <= mounted
    stop = settings.shutdown_delay_seconds + 2 * settings.shutdown_seconds
    assert pod["terminationGracePeriodSeconds"] > stop
    replica = services(COMPOSE[1])["poolkeeper"]
    assert int(replica["stop_grace_period"].removesuffix("s")) > stop
    # The Service's own variables would be taken for settings.
    assert pod["enableServiceLinks"] is False
    for each in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container[each]["httpGet"]["path"] in PROBES


def test_the_parts_in_kubernetes_belong_together() -> None:
    declared = manifests()
    deployment = declared["Deployment", "poolkeeper"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["replicas"] == 2
    assert deployment["selector"]["matchLabels"] == labels
    for service in ("poolkeeper", "poolkeeper-instances"):
        assert declared["Service", service]["spec"]["selector"] == labels
    budget = declared["PodDisruptionBudget", "poolkeeper"]["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert budget["minAvailable"] < deployment["replicas"]


@pytest.mark.parametrize(
    ("address", "name"), [("10.0.0.7", "10-0-0-7"), ("fd00::7", "fd00--7")], ids=["IPv4", "IPv6"]
)
def test_instances_in_kubernetes_reach_each_other_over_tls(address: str, name: str) -> None:
    declared = manifests()
    pod = pod_of(declared)
    [container], [proxy] = pod["containers"], pod["initContainers"]
    shell, option, script, *_ = container["command"]
    ran = subprocess.run(
        [shell, option, script.replace("exec poolkeeper", "exec env"), "x"],
        env={"POD_IP": address, "POD_NAMESPACE": "default", "PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    given = dict(line.partition("=")[::2] for line in ran.stdout.splitlines())
    url = urlsplit(given["POOLKEEPER_ADVERTISE_URL"])
    service = declared["Service", "poolkeeper-instances"]
    host = f"{name}.{service['metadata']['name']}.default.svc"
    assert (url.scheme, url.hostname, url.port) == ("https", host, 8443)
    # There each pod has its own name from the start.
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert proxy["restartPolicy"] == "Always"
    assert proxy["ports"] == [{"name": "https", "containerPort": url.port}]
    configuration = declared["ConfigMap", "poolkeeper-tls"]["data"]["haproxy.cfg"]
    certificate = re.search(r"bind :::8443 v4v6 ssl crt (\S+)", configuration)
    assert certificate is not None
    [trusted] = [each["value"] for each in container["env"] if each["name"] == "SSL_CERT_FILE"]
    assert trusted == certificate[1]
    paths = {each["mountPath"] for each in [*container["volumeMounts"], *proxy["volumeMounts"]]}
    assert {trusted, str(Path(certificate[1]).parent)} <= paths
    [port] = container["ports"]
    assert f"server local 127.0.0.1:{port['containerPort']}" in configuration


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


def node_options(arguments: list[str]) -> dict[str, str]:
    """Options of `poolkeeper node`, which must accept them."""
    word, *given = arguments
    assert word == "node"
    known = {name for option in ENTRIES["node"].load("node").params for name in option.opts}
    options = dict(each.partition("=")[::2] for each in given)
    assert options.keys() <= known
    return options


def test_the_node_in_compose_gets_passwords_on_loopback_only() -> None:
    declared = services("deploy/compose-node.yml")
    options = node_options(declared["node"]["command"])
    assert options["--server"] == "http://127.0.0.1:8080"
    assert declared["node"]["network_mode"] == "service:poolkeeper"
    port = options["--listen"].rpartition(":")[2]
    assert declared["poolkeeper"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    secrets = {f"/run/secrets/{name}" for name in declared["node"]["secrets"]}
    assert {options[name] for name in ("--key-file", "--tls-cert", "--tls-key")} == secrets
    [tmpfs] = declared["node"]["tmpfs"]
    assert tmpfs.startswith("/run/poolkeeper-node:mode=0700")


def test_the_node_in_kubernetes_has_a_key_for_each_pod() -> None:
    text = (ROOT / "deploy" / "kubernetes-node.yaml").read_text(encoding="utf-8")
    declared = {each["kind"]: each for each in yaml.safe_load_all(text)}
    pod = declared["StatefulSet"]["spec"]["template"]["spec"]
    [sidecar] = pod["initContainers"]
    options = node_options(sidecar["args"])
    assert options["--server"].startswith("https://")
    mounts = {each["mountPath"]: each["name"] for each in sidecar["volumeMounts"]}
    assert options["--key-file"] == "/etc/poolkeeper/$(POD_NAME)"
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes[mounts["/run/poolkeeper-node"]]["emptyDir"] == {"medium": "Memory"}
    assert "secret" in volumes[mounts["/etc/poolkeeper"]]
