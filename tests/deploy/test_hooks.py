"""The snippets for what watches a primary, in the programs that read them."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy import DEPLOY
from tests.deploy.commands import parses

HOOKS: Final = DEPLOY / "hooks"
NOTIFY: Final = HOOKS / "drainer-notify"
TOKEN: Final = "Bearer 0123456789abcdef"  # noqa: S105 - of this test
WAYS: Final = ("http://127.0.0.1:8025/hooks/primary-up",
               "http://127.0.0.1:8025/hooks/primary-down")  # fmt: skip


class Hook(ThreadingHTTPServer):
    """A server that notes what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str | None, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers["Authorization"]
        self.server.requests.append((self.path, token, json.loads(body)))
        self.send_response(202 if token == TOKEN else 401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Give a running server."""
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def call(script: Path, *arguments: str, **environment: str) -> int:
    """Run a script as a monitor would, with little of an environment."""
    done = subprocess.run(
        [script, *arguments],
        env={"PATH": os.defpath} | environment,
        check=False,
        capture_output=True,
        timeout=30,
    )
    return done.returncode


@pytest.mark.parametrize("news", ["up", "down"])
def test_the_script_tells_a_hook_elsewhere(
    hook: Hook, tmp_path: Path, news: str
) -> None:
    """With the token from a file, and a reason that stays JSON."""
    header = tmp_path / "header"
    header.write_text(f"Authorization: {TOKEN}\n")
    url = f"http://127.0.0.1:{hook.server_address[1]}"
    place = {"DRAINER_HOOK_URL": url, "DRAINER_HOOK_HEADER": str(header)}
    assert call(NOTIFY, news, 'say "hi"\\', "\n there", **place) == 0
    assert hook.requests == [
        (f"/hooks/primary-{news}", TOKEN, {"reason": "say hi   there"})
    ]
    header.write_text("Authorization: Bearer wrong\n")
    assert call(NOTIFY, news, **place) != 0


def test_the_script_calls_the_command_on_the_same_host(tmp_path: Path) -> None:
    """Every word in its place, so that no reason is taken for an option."""
    said = tmp_path / "said"
    drainer = tmp_path / "drainer"
    drainer.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {said}\n')
    drainer.chmod(0o755)
    assert call(NOTIFY, "up", "--all", "$(x)", DRAINER=str(drainer)) == 0
    words = said.read_text().splitlines()
    assert words[:4] == ["hook", "up", "--reason", "--all $(x)"]
    parses(["drainer", *words])


@pytest.mark.parametrize("arguments", [(), ("sideways",), ("up; true",)])
def test_the_script_refuses_what_is_no_news(arguments: tuple[str, ...]) -> None:
    """Usage, and nothing is told."""
    assert call(NOTIFY, *arguments, DRAINER="/bin/true") == 64


@pytest.mark.parametrize(
    ("state", "kind", "news"),
    [("OK", "HARD", "up"), ("CRITICAL", "HARD", "down"), ("CRITICAL", "SOFT", "")],
)
def test_nagios_tells_hard_states_only(
    tmp_path: Path, state: str, kind: str, news: str
) -> None:
    """One failed check is no outage."""
    said = tmp_path / "said"
    notify = tmp_path / "notify"
    notify.write_text(f'#!/bin/sh\nprintf "%s" "$1" > {said}\n')
    notify.chmod(0o755)
    handler = HOOKS / "nagios-event-handler"
    assert call(handler, state, kind, DRAINER_NOTIFY=str(notify)) == 0
    assert (said.read_text() if said.exists() else "") == news


def checked(*command: str | Path) -> None:
    """Run a program that checks its configuration."""
    program = shutil.which(str(command[0]), path=f"{os.defpath}:/usr/sbin")
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_keepalived_takes_its_part(tmp_path: Path) -> None:
    """As root: with another script_user its own test ends itself (2.2.7)."""
    place = tmp_path / "keepalived.conf"
    text = (HOOKS / "keepalived.conf").read_text("utf-8")
    place.write_text(text.replace("script_user nobody", "script_user root"), "utf-8")
    checked("keepalived", "--config-test", "--use-file", place)


def test_monit_takes_its_part(tmp_path: Path) -> None:
    """It insists on mode 0600."""
    place = tmp_path / "monitrc"
    files = f"set idfile {tmp_path}/id\nset statefile {tmp_path}/state\n"
    place.write_text(files + (HOOKS / "monitrc").read_text("utf-8"), "utf-8")
    place.chmod(0o600)
    checked("monit", "-t", "-c", place)


def test_prometheus_takes_the_rule_about_the_primary() -> None:
    """The one that Alertmanager's route waits for."""
    checked("promtool", "check", "rules", HOOKS / "primary.yaml")
    rules = yaml.safe_load((HOOKS / "primary.yaml").read_text("utf-8"))
    name = rules["groups"][0]["rules"][0]["alert"]
    routes = yaml.safe_load((HOOKS / "alertmanager.yaml").read_text("utf-8"))["route"]
    assert routes["routes"][0]["matchers"] == [f'alertname="{name}"']


def test_every_monitor_tells_both_kinds_of_news_to_both_urls() -> None:
    """A URL ignores what it is not named after, so that each needs everything."""
    manager = yaml.safe_load((HOOKS / "alertmanager.yaml").read_text("utf-8"))
    (receiver,) = [r for r in manager["receivers"] if r["name"] == "drainer"]
    hooks = receiver["webhook_configs"]
    assert all(each["send_resolved"] for each in hooks)
    grafana = yaml.safe_load((HOOKS / "grafana.yaml").read_text("utf-8"))
    points = grafana["contactPoints"][0]["receivers"]
    assert not any(each["disableResolveMessage"] for each in points)
    kuma = json.loads((HOOKS / "uptime-kuma.json").read_text("utf-8"))
    for each in kuma:
        assert json.loads(each["webhookAdditionalHeaders"])["Authorization"]
    assert tuple(each["url"] for each in hooks) == WAYS
    assert tuple(each["settings"]["url"] for each in points) == WAYS
    assert tuple(each["webhookURL"] for each in kuma) == WAYS


def test_cron_runs_commands_that_exist() -> None:
    """Each line: five fields, a user, a command of ours."""
    lines = (HOOKS / "crontab").read_text("utf-8").splitlines()
    jobs = [line.split() for line in lines if line[:1].isdigit() or line[:1] == "*"]
    assert len(jobs) == 2
    for job in jobs:
        assert job[5] == "drainer"
        parses(job[6 : job.index("2>&1")])
