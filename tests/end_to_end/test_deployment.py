"""The files in examples/deploy/: linters and schemas accept them, and they fit the server."""

import configparser
import json
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from tests.documents import CHECKOUT
from twistedsock.config import read_settings

pytestmark = pytest.mark.end_to_end

FOLDER = CHECKOUT / "examples" / "deploy"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
KUBERNETES = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))


def resource(kind: str, name: str = "sockbridge") -> Any:
    [found] = [each for each in KUBERNETES if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


@pytest.fixture
def server() -> Any:
    """The container of the Deployment."""
    return resource("Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_hadolint_finds_no_fault_in_the_containerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    checked = subprocess.run([hadolint, FOLDER / "Containerfile"], capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_containerfile_copies_all_that_the_package_is_built_from() -> None:
    names = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.MULTILINE):
        *sources, target = line.split()
        assert [source for source in sources if not (CHECKOUT / source).exists()] == []
        names |= set(sources) if target == "./" else {target}
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    packages = {package.partition(".")[0] for package in setup["options"]["packages"].split()}
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", *packages} <= names


def test_image_does_not_listen_without_access_control() -> None:
    settings = read_settings(str(FOLDER / "default.toml"), {})
    assert (settings.tcp, settings.web, settings.allow_insecure) == (("tcp:8081",), ("tcp:8082",), False)
    assert "access" not in tomllib.loads((FOLDER / "default.toml").read_text())


def test_compose_file_fits_the_specification_and_the_proxy() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema_rs.validate(schema, COMPOSE)
    services = COMPOSE["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            # The certificate is the operator's.
            assert source in COMPOSE["volumes"] or source.endswith(".pem") or (FOLDER / source).exists(), volume
    address = {name: service["networks"]["bridge"]["ipv4_address"] for name, service in services.items()}
    folder = CHECKOUT / "examples" / "proxies" / "several-servers"
    for name in ("one", "two"):
        assert f"server {name} {address[name]}:8082" in (folder / "haproxy.cfg").read_text()
    settings = tomllib.loads((folder / "sockbridge.toml").read_text())
    assert settings["trusted-proxy"] == address["proxy"]
    assert settings["backplane"] == f"redis://{address['redis']}:6379/0"


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_accepts_each_resource(version: str) -> None:
    for each in KUBERNETES:
        assert kubernetes_validate.validate(each, version, strict=True).startswith(version)


def test_configuration_for_kubernetes_is_one_of_the_server(server: Any, tmp_path: Path) -> None:
    file = tmp_path / "sockbridge.toml"
    file.write_text(resource("ConfigMap")["data"]["sockbridge.toml"])
    settings = read_settings(str(file), {})
    ports = {each["name"]: each["containerPort"] for each in server["ports"]}
    assert (settings.tcp, settings.web) == ((f"tcp:{ports['lines']}",), (f"tcp:{ports['web']}",))
    folder, _, name = str(settings.backplane_password_file).rpartition("/")
    assert folder in [mount["mountPath"] for mount in server["volumeMounts"]] and name == "password"
    redis = resource("Service", "sockbridge-redis")
    assert settings.backplane == f"redis://{redis['metadata']['name']}:{redis['spec']['ports'][0]['port']}/0"


def test_kubernetes_gives_a_server_the_time_to_stop(server: Any) -> None:
    pod = resource("Deployment")["spec"]["template"]["spec"]
    before = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + read_settings(None, {}).shutdown_timeout
    assert COMPOSE["services"]["one"]["stop_grace_period"] == "15s"


def test_no_server_is_root_or_can_write_to_its_image(server: Any) -> None:
    user = re.findall(r"^USER (\d+):", CONTAINERFILE, re.MULTILINE)
    for pod in (resource("Deployment"), resource("StatefulSet", "sockbridge-redis")):
        template = pod["spec"]["template"]["spec"]
        assert template["securityContext"]["runAsNonRoot"]
        assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in template["containers"])
    assert user == [str(resource("Deployment")["spec"]["template"]["spec"]["securityContext"]["runAsUser"])]
    assert all(service["read_only"] for service in COMPOSE["services"].values())


def test_every_image_has_a_version() -> None:
    images = re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE)
    images += [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
    images += re.findall(r"image: (\S+)", (FOLDER / "kubernetes.yaml").read_text())
    assert [image for image in images if not re.search(r":[0-9.]+(-|$)", image)] == []
