"""A real backend stores the traces and answers queries: Arize Phoenix, if installed.

It is too heavy for every run: name its command in PHOENIX, or have it on PATH.
"""

import json
import os
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command.installed import Drainer, write_maildir
from tests.support.mta.postfix import free_port, wait_until
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, per_recipient

PHOENIX = os.environ.get("PHOENIX") or shutil.which("phoenix")
GONE = "user3@example.org"


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[str]:
    """Start Phoenix on loopback ports; return its URL."""
    port = free_port()
    environment = os.environ | {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    (tmp_path / "phoenix").mkdir()
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "phoenix.log").open("wb") as log:
        command = [str(PHOENIX), "serve"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: is_up(url), timeout=180, what="Phoenix")
            yield url
        finally:
            process.terminate()
            process.wait(30)


def is_up(url: str) -> bool:
    """Return whether Phoenix answers."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5):  # noqa: S310 - loopback
            return True
    except OSError:
        return False


def spans_in(url: str) -> list[dict[str, Any]]:
    """Return every span that Phoenix has stored, as its API gives them."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        more = f"&cursor={cursor}" if cursor else ""
        path = f"{url}/v1/projects/default/spans?limit=500{more}"
        with urllib.request.urlopen(path, timeout=30) as answer:  # noqa: S310 - loopback
            page = json.load(answer)
        found += page["data"]
        cursor = page.get("next_cursor") or ""
        if not cursor:
            return found


@pytest.mark.skipif(not PHOENIX, reason="Phoenix is not installed")
def test_phoenix_stores_and_finds_every_message(tmp_path: Path, phoenix: str) -> None:
    """One trace for each message; the failed ones are found by their status."""
    write_maildir(tmp_path / "spool", 10)
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment |= {
        "DRAINER_TELEMETRY__TRACES": "otlp",
        "DRAINER_TELEMETRY__ENDPOINT": phoenix,
    }
    refused = per_recipient({GONE: "550 5.1.1 unknown"})
    with PeerThread(Script(rcpt=refused)) as peer:
        assert drainer.drain(tmp_path / "spool", peer.port, "--no-check").code == 5
        discard = ("discard", "--recipient", GONE, "--reason", "gone", "--yes")
        assert drainer.run(*discard).code == 0
        assert drainer.drain(tmp_path / "spool", peer.port, "--no-check").code == 0

    def roots() -> list[dict[str, Any]]:
        return [span for span in spans_in(phoenix) if span["name"] == "message"]

    wait_until(lambda: len(roots()) >= 10, timeout=60, what="the spans")
    found = roots()
    assert len({span["context"]["trace_id"] for span in found}) == 10
    assert Counter(span["status_code"] for span in found) == {"UNSET": 9, "ERROR": 1}
    (failed,) = [span for span in found if span["status_code"] == "ERROR"]
    why = drainer.run("why", failed["context"]["trace_id"], "--json").objects[0]
    assert why["states"] == {GONE: "discarded"}
