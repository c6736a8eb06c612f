"""The snippets for what watches a primary, in the programs that read them."""

import contextlib
import http.client
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from msgspec.structs import replace

from drainer.watch.http.auth import HookKeys
from tests.deploy import DEPLOY
from tests.deploy.commands import parses
from tests.deploy.programs import ask, program
from tests.support.mta.postfix import free_port, wait_until
from tests.support.web.http_server import OPEN, hooked

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
        thread = threading.Thread(
            target=server.serve_forever, args=(0.01,), daemon=True
        )
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


def test_keepalived_takes_its_part(tmp_path: Path) -> None:
    """As root: with another script_user its own test ends itself (2.2.7)."""
    place = tmp_path / "keepalived.conf"
    text = (HOOKS / "keepalived.conf").read_text("utf-8")
    place.write_text(text.replace("script_user nobody", "script_user root"), "utf-8")
    ask("keepalived", "--config-test", "--use-file", place)


def test_monit_takes_its_part(tmp_path: Path) -> None:
    """It insists on mode 0600."""
    place = tmp_path / "monitrc"
    files = f"set idfile {tmp_path}/id\nset statefile {tmp_path}/state\n"
    place.write_text(files + (HOOKS / "monitrc").read_text("utf-8"), "utf-8")
    place.chmod(0o600)
    ask("monit", "-t", "-c", place)


#: What the part about the primary refers to, as short as Nagios takes it.
NAGIOS: Final = """
define timeperiod {
  timeperiod_name always
  alias always
}
define command {
  command_name check_smtp
  command_line /bin/true
}
define contact {
  contact_name admin
  host_notification_period always
  host_notification_commands check_smtp
  service_notification_period always
  service_notification_commands check_smtp
}
define host {
  host_name mx1
  address 192.0.2.1
  max_check_attempts 1
  check_period always
  contacts admin
}
define service {
  name generic-service
  register 0
  check_period always
  contacts admin
}
"""


def test_nagios_takes_its_part(tmp_path: Path) -> None:
    """Beside the host and the template that it refers to."""
    (tmp_path / "rest.cfg").write_text(NAGIOS)
    place = tmp_path / "nagios.cfg"
    files = (tmp_path / "rest.cfg", HOOKS / "nagios.cfg")
    lines = [f"cfg_file={each}" for each in files]
    lines += [f"check_result_path={tmp_path}", f"temp_path={tmp_path}"]
    lines += [f"nagios_user={os.geteuid()}", f"nagios_group={os.getegid()}"]
    lines += [f"{each}_file={tmp_path}/{each}" for each in ("log", "lock", "temp")]
    place.write_text("\n".join(lines))
    assert "Total Errors:   0" in ask("nagios4", "--verify-config", place)


def test_cron_takes_every_line(tmp_path: Path) -> None:
    """As a person's own, which has no field for the user: cron checks no other."""
    place = tmp_path / "crontab"
    text = (HOOKS / "crontab").read_text("utf-8")
    place.write_text(text.replace("  drainer  drainer ", "  drainer "))
    ask("crontab", "-n", place)


class Alertmanager:
    """One that runs with the receiver of deploy/, and is told of alerts."""

    def __init__(self, folder: Path, url: str) -> None:
        """Configure it: its hooks lead to ``url``, and it does not wait."""
        (folder / "token").write_text(TOKEN.removeprefix("Bearer "))
        text = (HOOKS / "alertmanager.yaml").read_text("utf-8")
        for old, new in (
            ("http://127.0.0.1:8025", url),
            ("/etc/alertmanager/drainer.token", str(folder / "token")),
            ("group_interval: 1m", "group_interval: 100ms"),
        ):
            assert old in text
            text = text.replace(old, new)
        self.place = folder / "alertmanager.yaml"
        self.place.write_text(text)
        self._storage = folder / "storage"
        self._api = f"127.0.0.1:{free_port()}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run it."""
        command = [
            program("prometheus-alertmanager"),
            f"--config.file={self.place}",
            f"--storage.path={self._storage}",
            f"--web.listen-address={self._api}",
            "--cluster.listen-address=",
            "--log.level=error",
        ]
        process = subprocess.Popen(command)
        try:
            wait_until(
                lambda: self._ask("GET", "/-/ready"), timeout=30, what=command[0]
            )
            yield
        finally:
            process.kill()
            process.wait()

    def alert(self, **times: str) -> bool:
        """Tell it of the alert of primary.yaml."""
        labels = {"alertname": "PrimaryMailServerDown"}
        words = {"summary": "the primary mail server does not answer"}
        body = [{"labels": labels, "annotations": words, **times}]
        return self._ask("POST", "/api/v2/alerts", json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None = None) -> bool:
        headers = {"Content-Type": "application/json"}
        with contextlib.closing(http.client.HTTPConnection(self._api)) as connection:
            try:
                connection.request(method, path, body, headers)
                return connection.getresponse().status == 200
            except OSError:
                return False


def test_a_real_alertmanager_tells_that_it_fires_and_that_it_resolves(
    tmp_path: Path,
) -> None:
    """To both URLs, with the token; each takes the news that it is named after."""
    keys = HookKeys(token=TOKEN.removeprefix("Bearer "))
    with hooked(tmp_path, replace(OPEN, keys=keys)).running() as server:
        manager = Alertmanager(tmp_path, f"http://127.0.0.1:{server.port}")
        ask("amtool", "check-config", manager.place)
        with manager.running():
            begun = datetime.now(UTC)
            assert manager.alert(startsAt=begun.isoformat())
            wait_until(lambda: server.asks() == ["down"], timeout=30, what="down")
            ended = datetime.now(UTC).isoformat()
            assert manager.alert(startsAt=begun.isoformat(), endsAt=ended)
            wait_until(lambda: server.asks() == ["down", "up"], timeout=30, what="up")
        words = {control.reason for control in server.controls()}
    assert all("the primary mail server does not answer" in each for each in words)


def test_prometheus_takes_the_rule_about_the_primary() -> None:
    """The one that Alertmanager's route waits for."""
    ask("promtool", "check", "rules", HOOKS / "primary.yaml")
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
    deliveries = [
        line.split() for line in lines if line[:1].isdigit() or line[:1] == "*"
    ]
    assert len(deliveries) == 2
    for delivery in deliveries:
        assert delivery[5] == "drainer"
        parses(delivery[6 : delivery.index("2>&1")])
