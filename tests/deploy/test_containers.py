"""Dockerfile, compose file and Kubernetes manifests: read, checked, and made to run."""

import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from drainer.config import Config
from drainer.config.load import load
from tests.deploy import DEPLOY
from tests.deploy.commands import parses
from tests.deploy.programs import ask

ROOT: Final = DEPLOY.parent
CONTAINER: Final = DEPLOY / "container"
MANIFESTS: Final = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VERSIONS: Final = ("1.29", "1.34")
SECRETS: Final = {"hook.token", "operator.token"}


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, continued lines joined."""
    text = (CONTAINER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    return [(word, rest.strip()) for word, _, rest in (x.partition(" ") for x in lines)]


def last(word: str) -> str:
    """Return the last of the instructions of this name."""
    return [rest for name, rest in instructions() if name == word][-1]


def words(text: str) -> list[str]:
    """Return the words of an instruction in its exec form."""
    found: list[str] = yaml.safe_load(text[text.index("[") :])
    return found


def test_the_image_is_built_from_the_wheel_alone() -> None:
    """With extras of pyproject.toml; nothing else of the repository is let in."""
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY"]
    sources = {s for each in copied if not each[0].startswith("--") for s in each}
    ignored = (CONTAINER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert sources == {"dist/*.whl"}
    assert ignored == ["*", "!dist/*.whl"]
    assert "\nDIST := dist\n" in (ROOT / "Makefile").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (CONTAINER / "Dockerfile").read_text("utf-8")
    (extras,) = re.findall(r"drainer-\*\.whl\)\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    """Names cannot be checked by Kubernetes."""
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER"))
    assert last("STOPSIGNAL") == "SIGTERM"


def test_the_image_runs_a_command_that_exists() -> None:
    """Entry point and arguments, of all three ways to run it."""
    entry = words(last("ENTRYPOINT"))
    parses([*entry, *words(last("CMD"))])
    for pod in pods():
        (container,) = pod["containers"]
        parses([*entry, *container["args"]])


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_tells_well_from_ill(status: int, *, healthy: bool) -> None:
    """The command of the image, at a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, args=(0.01,), daemon=True
        )
        thread.start()
        _, option, code = words(last("HEALTHCHECK"))
        port = str(server.server_address[1])
        done = subprocess.run(
            [sys.executable, option, code.replace("8025", port)],
            capture_output=True,
            check=False,
            timeout=30,
        )
        server.shutdown()
        thread.join()
    assert (done.returncode == 0) is healthy


def test_compose_gives_the_container_nothing_to_spare() -> None:
    """Read-only, without capabilities, reached from this host alone."""
    compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text("utf-8"))
    service = compose["services"]["drainer"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == last("USER")
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service["secrets"]) == set(compose["secrets"]) == SECRETS
    build = service["build"]
    context = (CONTAINER / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).exists()
    for volume in service["volumes"]:
        source = volume.rpartition(":/")[0].partition(":/")[0]
        if source.startswith("."):
            assert (CONTAINER / source).exists()
    assert_known(service["environment"])


def test_compose_itself_takes_the_file() -> None:
    """And finds in it what is read here."""
    place = CONTAINER / "compose.yaml"
    text = ask("docker-compose", "--file", place, "config", SPOOL="/srv/spool")
    service = yaml.safe_load(text)["services"]["drainer"]
    assert service["build"]["context"] == str(ROOT)
    assert "/srv/spool:/var/spool/drainer:rw" in service["volumes"]
    assert "ledger:/var/lib/drainer:rw" in service["volumes"]


def assert_known(environment: dict[str, str]) -> None:
    """Check that the configuration has every variable, and takes its value."""
    for name, value in environment.items():
        section, key = name.removeprefix("DRAINER_").lower().split("__")
        field = Config.model_fields[section].annotation
        assert isinstance(field, type)
        assert key in field.model_fields, name
        assert value


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of the manifests, with its file."""
    for place in MANIFESTS:
        for document in yaml.safe_load_all(place.read_text("utf-8")):
            if place.name != "kustomization.yaml":
                yield place.name, document


def of_kind(kind: str) -> dict[str, Any]:
    """Return the one object of a kind."""
    (found,) = (each for _, each in documents() if each["kind"] == kind)
    return found


def pods() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pods of the Deployment and of the CronJob."""
    deployment = of_kind("Deployment")["spec"]["template"]["spec"]
    delivery = of_kind("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return deployment, delivery


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_manifest(version: str) -> None:
    """By the schemas of an old and of a new release, unknown fields refused."""
    for _, document in documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_the_kustomization_names_every_manifest_but_the_secret() -> None:
    """Which is an example."""
    (place,) = (p for p in MANIFESTS if p.name == "kustomization.yaml")
    listed = set(yaml.safe_load(place.read_text("utf-8"))["resources"])
    assert listed == {p.name for p in MANIFESTS} - {place.name, "secret.yaml"}


def test_kustomize_itself_builds_all_of_them() -> None:
    """As `kubectl apply -k` would send them."""
    text = ask("kubectl", "kustomize", DEPLOY / "kubernetes")
    built = {
        (each["kind"], each["metadata"]["name"]) for each in yaml.safe_load_all(text)
    }
    ours = {(each["kind"], each["metadata"]["name"]) for _, each in documents()}
    assert built == ours - {("Secret", "drainer")}


def test_pods_satisfy_the_restricted_standard() -> None:
    """As the namespace demands: each field of the Pod Security Standards."""
    labels = of_kind("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == last("USER")
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        kinds = {kind for volume in pod["volumes"] for kind in volume} - {"name"}
        assert kinds <= {"configMap", "secret", "persistentVolumeClaim", "emptyDir"}
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}


def test_what_pods_mount_and_services_select_exists() -> None:
    """Names agree between the files."""
    claims = {d["metadata"]["name"] for f, d in documents() if f == "storage.yaml"}
    for pod in pods():
        volumes = {each["name"]: each for each in pod["volumes"]}
        (container,) = pod["containers"]
        assert {m["name"] for m in container["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in claims
    assert set(of_kind("Secret")["stringData"]) == SECRETS
    selector = of_kind("Service")["spec"]["selector"]
    template = of_kind("Deployment")["spec"]["template"]
    assert template["metadata"]["labels"] == selector
    environment = {e["name"]: e["value"] for e in pods()[0]["containers"][0]["env"]}
    assert_known(environment)


@pytest.mark.parametrize("name", ["drainer.toml", "kubernetes/configmap.yaml"])
def test_configurations_are_taken(name: str, tmp_path: Path) -> None:
    """Every key known, every value legal; and a source of the name that is drained."""
    text = (DEPLOY / name).read_text("utf-8")
    if name.endswith(".yaml"):
        text = yaml.safe_load(text)["data"]["drainer.toml"]
    place = tmp_path / "drainer.toml"
    place.write_text(text, "utf-8")
    assert set(load(place, {}).sources) == {"backup"}
