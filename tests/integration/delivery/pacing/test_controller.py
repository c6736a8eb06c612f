"""What moves the throttle of a drain that goes: the primary, people, its own load."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from drainer.delivery.pacing.load import (
    LoadError,
    LoadMonitor,
    LoadSource,
    parse_load,
)
from tests.support.command.installed import write_maildir
from tests.support.command.runner import Bench, end
from tests.support.scenarios.arrivals import most_over
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script
from tests.support.web.collector import spans_of_file

RECEIVER_STALL = 0.1
"""Seconds for which the peer's thread may not run while mail piles up before it."""


def records(bench: Bench) -> list[tuple[str, dict[str, Any]]]:
    """Return what the ledger tells of the throttle: rules and facts, in order."""
    query = "SELECT rule, evidence FROM decisions WHERE kind = 'throttle' ORDER BY id"
    with closing(sqlite3.connect(bench.ledger)) as connection:
        rows = connection.execute(query).fetchall()
    return [(rule, json.loads(evidence)) for rule, evidence in rows]


def test_a_drain_narrows_when_the_primary_slows_down_and_widens_again(
    tmp_path: Path,
) -> None:
    """A peer that is quick for three connections and ever slower beyond."""
    seen: list[int] = []

    def dot(_: object) -> Delay:
        seen.append(peer.open_connections)
        crowd = max(0, peer.open_connections - 3)
        return Delay(0.02 + 0.25 * crowd, "250 2.0.0 taken")

    with PeerThread(Script(dot=dot)) as peer:
        bench = Bench(tmp_path, peer.port)
        bench.configure(throttle={"ramp": "1s"}, primary={"connections": 8})
        write_maildir(tmp_path / "mail", 400)
        result = bench.run("drain", f"maildir:{tmp_path / 'mail'}", "--no-check")
    assert result.code == 0, result.stderr
    assert len(peer.accepted) == 400
    assert seen[0] == 1
    assert 3 < max(seen) < 8, "it found out before all were open"
    told = records(bench)
    n, facts = next(
        (n, facts) for n, (rule, facts) in enumerate(told) if rule == "throttle-narrow"
    )
    assert "the primary slows down: the end of data takes" in facts["reason"]
    assert facts["connections"] < facts["connections_before"]
    later = [facts for rule, facts in told[n:] if rule == "throttle-widen"]
    assert later, "and widens again"
    assert later[0]["connections"] > facts["connections"]


def test_a_running_drain_is_paused_resumed_and_set_to_another_rate(
    tmp_path: Path,
) -> None:
    """By commands that know nothing of it but the ledger; each is on record."""
    traces = tmp_path / "traces.jsonl"
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        bench.configure(telemetry={"traces": f"file:{traces}"})
        for n in range(60):
            bench.add(f"user{n}@example.org")
        source = f"postfix:{bench.spool}"
        drain = bench.start(
            "drain", source, "--no-check", "--json", "--rate", "2/second"
        )
        peer.wait(lambda: len(peer.accepted) >= 5)
        words = ("--reason", "it reboots", "--json")
        paused = bench.run("throttle", "pause", "--for", "1h", *words).json
        peer.wait(lambda: not peer.open_connections)
        held = len(peer.accepted)
        shown = bench.run("throttle", "show", "--json").json
        bench.run("throttle", "set", "500/second", "--for", "10m", *words)
        assert len(peer.accepted) == held, "a rate does not end a pause"
        bench.run("throttle", "resume")
        result = end(drain)
    assert result.code == 0, result.stderr
    assert len(peer.accepted) == 60
    assert held < 30
    [run] = paused["drains"]
    assert run == result.json["run_id"]
    assert (shown["rate"], shown["pause"]["reason"]) == ("unlimited", "it reboots")
    assert shown["pause"]["by"].startswith("cli ")
    assert [each["run"] for each in shown["drains"]] == [run]
    assert shown["drains"][0]["rule"] == "throttle-pause"
    assert result.json["seconds"] < 25, "60 messages at 2 a second take 30"
    told = dict(records(bench))
    assert set(told) == {"throttle-pause", "throttle-set", "throttle-resume"}
    assert told["throttle-set"]["per_second"] == 500
    assert "because it reboots until" in told["throttle-set"]["reason"]
    names = {span.name for span in spans_of_file(traces)}
    assert {"throttle.set", "throttle.pause", "throttle.resume"} <= names
    assert {"control.pause", "control.throttle", "control.resume"} <= names


def test_what_was_set_holds_for_a_drain_that_begins_later(tmp_path: Path) -> None:
    """Also when it is less than configured, and no drain goes on meanwhile."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        for n in range(8):
            bench.add(f"user{n}@example.org")
        given = bench.run("throttle", "set", "4/s", "--reason", "office hours")
        assert "the next one will follow it" in given.stderr
        assert bench.drain().code == 0
        times = [message.mail_at for message in peer.transactions]
    assert max(times) - min(times) >= 0.9, "a burst of 4 at once, the others after it"


def test_recipients_and_new_connections_are_limited_on_the_wire(
    tmp_path: Path,
) -> None:
    """One message a connection: two at once, then five new ones a second."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        bench.configure(
            throttle={"new_connections": "5/second", "recipients": "40/second"},
            primary={"connections": 2, "max_messages": 1},
        )
        for n in range(10):
            bench.add(*(f"user{n}.{m}@example.org" for m in range(4)))
        assert bench.drain().code == 0
        greeted = [c.at for c in peer.commands if c.line.startswith(b"EHLO")]
        asked = [c.at for c in peer.commands if c.line.startswith(b"RCPT")]
    assert (len(greeted), len(asked)) == (10, 40)
    assert most_over(greeted, 5) <= 2 + 5 * RECEIVER_STALL
    assert most_over(asked, 40) <= 4 + 4 + 40 * RECEIVER_STALL


REFUSED = {
    ("set", "fast", "--reason", "x"): "is not a rate",
    ("set", "unlimited", "--reason", "x"): "leave the primary without protection",
    ("set", "5/second"): "needs --reason",
    ("pause",): "needs --reason",
    ("pause", "--reason", "x", "--for", "soon"): "--for: ",
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.items())
def test_an_order_that_makes_no_sense_is_exit_2(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """It says what is wrong, and gives nothing."""
    bench = Bench(tmp_path)
    result = bench.run("throttle", *arguments)
    assert result.code == 2
    assert words in result.stderr
    assert not bench.ledger.exists()


def test_clear_gives_the_configured_rate_back(tmp_path: Path) -> None:
    """And show says so."""
    bench = Bench(tmp_path)
    bench.run("throttle", "set", "50/s", "--for", "10m", "--reason", "quiet [hours]")
    shown = bench.run("throttle", "show").stdout
    assert "50/s set by cli" in shown
    assert "because quiet [hours] until" in shown
    bench.run("throttle", "clear", "--reason", "noise")
    assert bench.run("throttle", "show", "--json").json["throttle"] is None


# ---- its own load


def asked(*sources: LoadSource) -> tuple[list[float | None], list[str]]:
    """Ask each; return what it is, and what was told."""
    told: list[str] = []

    async def ask() -> list[float | None]:
        loads = LoadMonitor(None, told.append)
        values: list[float | None] = []
        for source in sources:
            await loads.ask(source)
            values.append(loads.latest.value if loads.latest else None)
        return values

    return asyncio.run(ask()), told


def test_a_command_is_asked_and_its_failure_is_reported_once() -> None:
    """Then the load is not known, until it answers again."""
    good = LoadSource(command=("echo", "0.9"))
    bad = LoadSource(command=("false",))
    away = LoadSource(command=("/nonexistent/load",))
    values, told = asked(good, bad, bad, away, good, away)
    assert values == [0.9, None, None, None, 0.9, None]
    assert told[:2] == ["false ended with exit status 1", ""]
    assert "/nonexistent/load" in told[2]


@pytest.mark.parametrize("text", ["", "high", "nan", "inf", "-1", "0.5 0.6"])
def test_what_is_no_load_is_not_taken_for_one(text: str) -> None:
    """Hostile or broken, it does not move the throttle."""
    with pytest.raises(LoadError):
        parse_load(text)


def test_a_busy_primary_is_yielded_to(tmp_path: Path) -> None:
    """Its own load narrows a drain, in words that an operator understands."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        bench.configure(throttle={"rate": "40/second", "load_command": "echo 0.95"})
        for n in range(60):
            bench.add(f"user{n}@example.org")
        assert bench.drain().code == 0
    rule, facts = records(bench)[0]
    assert (rule, facts["per_second"]) == ("throttle-narrow", 20)
    assert facts["reason"] == "the primary is busy: its load is 0.95, the limit 0.8"
