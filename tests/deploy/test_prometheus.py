"""Dashboard and alerts in a Prometheus that scrapes the server of a watch."""

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from msgspec.structs import replace

from drainer.watch.http.auth import HookKeys
from tests.deploy import DEPLOY
from tests.deploy.programs import program
from tests.deploy.test_metrics import ALERTS, DASHBOARD
from tests.support.mta.postfix import free_port, wait_until
from tests.support.web.browser import cruising
from tests.support.web.http_server import OPEN, TOKEN, hooked


class Prometheus:
    """One that runs, and is asked."""

    def __init__(self, folder: Path, port: int) -> None:
        """Let it scrape our server at a port, every few moments."""
        (folder / "token").write_text(TOKEN)
        shutil.copy(ALERTS, folder)
        text = (DEPLOY / "prometheus" / "scrape.yaml").read_text("utf-8")
        for old, new in (
            ("127.0.0.1:8025", f"127.0.0.1:{port}"),
            ("/etc/prometheus/drainer.token", str(folder / "token")),
            ("scrape_interval: 15s", "scrape_interval: 250ms"),
        ):
            assert old in text
            text = text.replace(old, new)
        self._place = folder / "prometheus.yml"
        self._place.write_text("global: {evaluation_interval: 100ms}\n" + text)
        self._storage = folder / "storage"
        self._port = free_port()

    @contextlib.contextmanager
    def running(self) -> Iterator["Prometheus"]:
        """Run it, until it has scraped us twice."""
        command = [
            program("prometheus"),
            f"--config.file={self._place}",
            f"--storage.tsdb.path={self._storage}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=error",
        ]
        process = subprocess.Popen(command)
        try:
            wait_until(self._has_scraped, timeout=30, what="scrapes")
            yield self
        finally:
            process.kill()
            process.wait()

    def _has_scraped(self) -> bool:
        with contextlib.suppress(URLError):  # it does not listen yet
            return bool(self.answers("count_over_time(drainer_info[1m]) > 1"))
        return False

    def answers(self, question: str) -> list[Any]:
        """Return what it finds now; HTTPError when it cannot read the question."""
        found = self.asked(f"query?{urlencode({'query': question})}")
        return list(found["result"])

    def asked(self, path: str) -> Any:
        """Return the data of its API at a path."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        with urlopen(url, timeout=30) as response:
            return json.load(response)["data"]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Give a Prometheus with deploy's own configuration, that scrapes a drain."""
    folder = tmp_path_factory.mktemp("prometheus")
    keys = HookKeys(token=TOKEN)
    watched = cruising(time.time())
    with hooked(folder, replace(OPEN, keys=keys), watched).running() as server:
        server.post("/hooks/primary-up", token=TOKEN)
        with Prometheus(folder, server.port).running() as prometheus:
            yield prometheus


def test_the_dashboard_shows_a_drain_that_runs(scraped: Prometheus) -> None:
    """Every panel but for mail that waits: there is none."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    questions = [(p["title"], t["expr"]) for p in board["panels"] for t in p["targets"]]

    def empty() -> set[str]:
        return {
            title
            for title, text in questions
            if not scraped.answers(re.sub(r"\$(job|instance)", ".*", text))
        }

    rightly = {"First to expire", "What waits, and why"}
    wait_until(lambda: empty() == rightly, timeout=30, what="every other panel")


def test_no_alert_is_raised_by_a_drain_that_runs(scraped: Prometheus) -> None:
    """Every rule is evaluated against what we really give."""
    wait_until(lambda: "unknown" not in told(scraped, "health"), timeout=30, what="all")
    assert told(scraped, "health") == {"ok"}
    assert told(scraped, "state") == {"inactive"}


def told(prometheus: Prometheus, key: str) -> set[str]:
    """Return what it says of the alerts."""
    (group,) = prometheus.asked("rules")["groups"]
    return {rule[key] for rule in group["rules"]}
