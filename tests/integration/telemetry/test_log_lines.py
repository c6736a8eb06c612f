"""Log lines: one for each recipient of each attempt, of committed decisions."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from drainer.telemetry.log_lines import FORMATS, LEVELS
from tests.support.command.runner import Bench, Result, end
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, per_recipient

GONE, LATER = "gone@example.org", "later@example.org"
HOSTILE = '550 5.1.1 <gone@example.org>: \x1b[31mno such "user"'


def drained(bench: Bench, style: str, **variables: str) -> Result:
    """Drain three recipients in a process of its own, with log lines."""
    bench.add("a@example.org", LATER)
    bench.add(GONE)
    bench.configure(telemetry={"logs": style, "addresses": "plain"})

    environment = {k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}
    source = f"postfix:{bench.spool}"
    arguments = ("drain", source, "--no-check", "--json")
    return end(bench.start(*arguments, env=environment | variables))


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    """Have a primary that refuses one recipient, and defers one."""
    refusals = per_recipient({GONE: HOSTILE, LATER: "451 4.7.1 later"})
    with PeerThread(Script(rcpt=refusals)) as peer:
        yield Bench(tmp_path, peer.port)


def lines_of(result: Result) -> list[dict[str, Any]]:
    """Return the JSON objects on standard error."""
    found = result.stderr.splitlines()
    return [json.loads(line) for line in found if line.startswith("{")]


def test_a_line_agrees_with_the_ledger(bench: Bench) -> None:
    """State, rule, reply and ids of the span; a level that says how bad it is."""
    found = lines_of(drained(bench, "json"))
    decided = [
        (fact["forward_path"], fact["rule"], fact["trace_id"], fact["span_id"])
        for row in {r["id"] for r in bench.recipients().values()}
        for fact in bench.why(row)["decisions"]
        if fact["kind"] == "verdict"
    ]
    told = [(x["to"], x["rule"], x["trace_id"], x["span_id"]) for x in found]
    assert sorted(told) == sorted(decided)
    levels = {line["to"]: line["level"] for line in found}
    assert levels == {"a@example.org": "info", LATER: "notice", GONE: "warning"}
    (refused,) = [line for line in found if line["to"] == GONE]
    assert refused["code"] == 550
    assert refused["enhanced"] == "5.1.1"
    assert refused["from"] == "s@example.com"
    assert refused["delay"] > 0
    assert refused["relay"].startswith("127.0.0.1:")
    assert "\x1b" not in refused["reply"]


def test_the_next_run_repeats_no_line(bench: Bench) -> None:
    """The cursor goes on where it was."""
    first = {line["span_id"] for line in lines_of(drained(bench, "json"))}
    again = lines_of(end(bench.start("drain", f"postfix:{bench.spool}", "--no-check")))
    assert {line["to"] for line in again} == {LATER}
    assert not first & {line["span_id"] for line in again}


def test_logfmt_can_be_parsed(bench: Bench) -> None:
    """Quoted where there are blanks or quotes."""
    result = drained(bench, "logfmt")
    found = [x for x in result.stderr.splitlines() if x.startswith("time=")]
    pairs = [dict(part.split("=", 1) for part in shlex.split(x)) for x in found]
    assert {pair["to"] for pair in pairs} == {"a@example.org", LATER, GONE}
    (refused,) = [pair for pair in pairs if pair["to"] == GONE]
    assert 'no such "user"' in refused["reply"]


def test_a_journal_gets_priorities(bench: Bench) -> None:
    """As sd-daemon(3) reads them; a person reads the rest."""
    result = drained(bench, "human", JOURNAL_STREAM="1:2")
    found = [line for line in result.stderr.splitlines() if "status=" in line]
    assert {line[:3] for line in found} == {"<4>", "<5>", "<6>"}
    assert any("to=<a@example.org>" in line for line in found)


def test_every_format_and_level_is_known() -> None:
    """The configuration offers the same formats; the states have levels."""
    assert set(FORMATS) == {"json", "logfmt", "human"}
    assert set(LEVELS.values()) == {"info", "notice", "warning", "error"}
