"""Notifications by a program, by mail and by services; nobody waits for them."""

import json
import stat
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from drainer.smtp.session import Session
from drainer.watch.notify import notifications
from tests.support.command.runner import Bench, Result, call
from tests.support.command.watch import prepare, source, watching
from tests.support.mta.postfix import free_port, wait_until
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, Step, View, per_recipient

GONE = "gone@example.org"
REFUSED = "554 5.7.1 <s@example.com>: host [192.0.2.9] is blocked, see gone@example.org"


def program(root: Path, body: str = 'cat >> "$0.log"') -> Path:
    """Write a program that keeps what it reads."""
    path = root / "notify.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def notified(path: Path) -> list[dict[str, Any]]:
    """Return what the program has read."""
    log = Path(f"{path}.log")
    return [json.loads(x) for x in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[Bench, PeerThread, Path]]:
    """Have a primary, a spool of two, and a program that is notified."""
    with PeerThread(Script(rcpt=per_recipient({GONE: "550 5.1.1 unknown"}))) as peer:
        bench = Bench(tmp_path, peer.port)
        for path in ("a@example.org", GONE):
            bench.add(path)
        heard = program(tmp_path)
        bench.configure(notify={"command": [str(heard)], "interval": "0s"})
        yield bench, peer, heard


def test_the_end_of_a_drain_is_reported_once(
    bench: tuple[Bench, PeerThread, Path],
) -> None:
    """With numbers and what to run; a repeated drain that changes nothing is silent."""
    own, _, heard = bench
    assert own.drain().code == 5
    assert own.drain().code == 5
    (notice,) = notified(heard)
    assert notice["event"] == "done"
    assert notice["subject"] == "the drain is over: 1 recipients remain"
    assert notice["numbers"] == {"delivered": 1, "remaining": 1}
    options = f"--config {own.root}/drainer.toml --ledger {own.ledger}"
    assert notice["command"] == f"drainer status {options}"
    assert notice["cause"].endswith("ended with exit status 5")
    assert notice["host"]
    discarded = ("discard", "--recipient", GONE, "--reason", "moved", "--yes")
    assert own.run(*discarded).code == 0
    assert own.drain().code == 0
    assert notified(heard)[-1]["subject"] == (
        "the drain is over: every recipient is final"
    )


def test_stopped_and_resumed_are_told(bench: tuple[Bench, PeerThread, Path]) -> None:
    """With the cause, in which no address is shown."""
    own, peer, heard = bench
    own.configure(notify={"events": ["stopped", "resumed"]})
    peer.script = Script(banner=REFUSED)
    assert own.drain().code == 4
    (stopped,) = notified(heard)
    assert stopped["event"] == "stopped"
    assert "554 5.7.1" in stopped["cause"]
    assert "@example" not in stopped["cause"]
    assert own.drain().code == 4
    assert len(notified(heard)) == 1
    peer.script = Script()
    assert own.drain().code == 0
    assert [each["event"] for each in notified(heard)] == ["stopped", "resumed"]


def test_a_full_disk_is_reported(bench: tuple[Bench, PeerThread, Path]) -> None:
    """By the size that is configured."""
    own, _, heard = bench
    own.configure(notify={"events": ["disk"], "disk_free": "900000GB"})
    own.drain()
    (notice,) = notified(heard)
    assert notice["event"] == "disk"
    assert notice["numbers"]["free_bytes"] > 0


def test_a_drain_that_stalls_is_reported(
    bench: tuple[Bench, PeerThread, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs: the primary answers when somebody has been notified."""
    own, peer, heard = bench

    def answer(_: View) -> Step:
        wait_until(lambda: bool(notified(heard)), timeout=60, what="a notification")
        return "250 2.0.0 ok"

    monkeypatch.setattr(notifications, "EVERY", 0.1)
    own.configure(
        notify={"events": ["stalled"], "stalled_after": "300ms"},
        primary={"dot_timeout": "60s"},
    )
    peer.script = Script(dot=answer)
    assert own.drain().code == 0
    stalled = notified(heard)[0]
    assert stalled["event"] == "stalled"
    assert stalled["subject"].startswith("nothing was delivered for")
    assert stalled["cause"] == "a drain runs, and 2 recipients wait"
    assert stalled["numbers"] == {"delivered": 0, "remaining": 2}


def test_mail_that_expires_is_reported(bench: tuple[Bench, PeerThread, Path]) -> None:
    """With the one that expires first, and how long it has."""
    own, peer, heard = bench
    own.configure(
        notify={"events": ["expires"], "expires_within": "1h"}, retry={"lifetime": "1h"}
    )
    peer.script = Script(rcpt=per_recipient({GONE: "450 4.2.1 later"}))
    for _ in range(3):
        assert own.drain().code == 5
    (expires,) = notified(heard)
    assert expires["event"] == "expires"
    assert 0 < expires["numbers"]["seconds_left"] < 3600
    assert own.run(*expires["command"].split()[1:]).code == 0


def test_a_defect_of_ours_is_reported(
    bench: tuple[Bench, PeerThread, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message is held, and a person reports it; the others go on."""
    own, _, heard = bench
    send = Session.send

    async def fail_once(*_: object) -> None:
        monkeypatch.setattr(Session, "send", send)
        raise ValueError("a defect")

    monkeypatch.setattr(Session, "send", fail_once)
    own.configure(notify={"events": ["defect"]})
    assert own.drain().code == 1
    (defect,) = notified(heard)
    assert defect["event"] == "defect"
    assert defect["numbers"]["defects"] == 1
    assert own.run(*defect["command"].split()[1:]).code == 0
    assert list(own.states().values()).count("held") == 1


def test_nobody_is_notified_of_a_rehearsal(
    bench: tuple[Bench, PeerThread, Path],
) -> None:
    """It is a test."""
    own, _, heard = bench
    own.drain("--rehearse")
    assert notified(heard) == []


@pytest.mark.parametrize("body", ["sleep 300", "echo no >&2; exit 3"])
def test_a_dead_receiver_delays_no_drain(
    bench: tuple[Bench, PeerThread, Path], body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seconds at the end, and a warning; the exit status is the same."""
    own, _, _ = bench
    monkeypatch.setattr(notifications, "LAST_WAIT", 1.0)
    own.configure(notify={"command": [str(program(own.root, body))]})
    begun = time.monotonic()
    result = own.drain()
    assert result.code == 5
    assert time.monotonic() - begun < 40
    assert "notification" in result.stderr


def test_a_program_gets_no_secret(bench: tuple[Bench, PeerThread, Path]) -> None:
    """Nothing of ours is in its environment."""
    own, _, heard = bench
    heard.write_text('#!/bin/sh\nenv > "$0.env"\n')
    process = own.start(
        "drain", source_of(own), "--no-check",
        env={"PATH": "/usr/bin:/bin", "DRAINER_PRIMARY__PASSWORD": "s3cr3t"},
    )  # fmt: skip
    process.communicate(timeout=60)
    assert "DRAINER" not in Path(f"{heard}.env").read_text()


def run(bench: Bench, *arguments: str) -> Result:
    """Run a command that needs no ledger."""
    return call(*arguments, "--config", bench.config)


def source_of(bench: Bench) -> str:
    """Return the source of a bench."""
    return f"postfix:{bench.spool}"


def test_by_mail_and_by_a_program(tmp_path: Path) -> None:
    """`notify --test` uses every way, and names the one that failed."""
    heard = program(tmp_path)
    with PeerThread() as relay:
        bench = Bench(tmp_path, 1)
        bench.configure(
            notify={
                "command": [str(heard)],
                "mail": "admin@example.net",
                "via": f"127.0.0.1:{relay.port}",
            }
        )
        arguments = ("notify", "--test", "--json")
        sent = run(bench, *arguments)
        assert sent.code == 0, sent.stderr
        assert [row["sent"] for row in sent.lines] == [True, True]
        (mail,) = relay.accepted
    assert mail.forward_paths == ["admin@example.net"]
    text = (mail.content or b"").decode()
    assert "Subject: drainer on " in text
    assert "this is a test" in text
    assert "Auto-Submitted: auto-generated" in text
    assert notified(heard)[0]["event"] == "test"
    bench.configure(notify={"command": ["/absent"], "via": f"127.0.0.1:{free_port()}"})
    failed = run(bench, *arguments)
    assert failed.code == 1
    assert [row["sent"] for row in failed.lines] == [False, False]
    assert "/absent" in failed.stderr


def test_by_services_of_apprise(tmp_path: Path) -> None:
    """Their URLs come from a file: they hold tokens."""
    pytest.importorskip("apprise")
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        urls = tmp_path / "urls"
        urls.write_text(f"json://127.0.0.1:{server.server_port}/token\n")
        bench = Bench(tmp_path, 1)
        bench.configure(notify={"urls_file": str(urls)})
        result = run(bench, "notify", "--test")
        assert result.code == 0, result.stderr
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    (message,) = posted
    assert "this is a test" in message["title"]
    assert "Run: drainer status" in message["message"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"events": ["doomsday"]}, "stopped"),
        ({"via": "mx:25"}, "mail"),
        ({"mail": "nobody"}, "notify"),
        ({"disk_free": "much"}, "disk_free"),
    ],
)
def test_what_is_no_configuration(
    tmp_path: Path, keys: dict[str, Any], words: str
) -> None:
    """Named with what is legal."""
    bench = Bench(tmp_path, 1)
    bench.configure(notify=keys)
    refused = run(bench, "config")
    assert refused.code == 2
    assert words in refused.stderr


def test_without_a_way_the_test_says_what_to_set(tmp_path: Path) -> None:
    """And without --test that there is nothing else to do."""
    bench = Bench(tmp_path, 1)
    assert "urls_file" in run(bench, "notify", "--test").stderr
    assert "--test" in run(bench, "notify").stderr


def test_the_end_of_a_watch_is_reported(tmp_path: Path) -> None:
    """Also when a signal ends it: then nobody drains any more."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        prepare(bench)
        heard = program(tmp_path)
        bench.configure(notify={"command": [str(heard)], "events": ["ended"]})
        with watching(bench, source(bench)) as watch:
            watch.wait_for("armed")
    (notice,) = notified(heard)
    assert notice["event"] == "ended"
    assert notice["cause"] == "by a signal"
