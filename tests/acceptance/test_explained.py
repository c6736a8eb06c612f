"""Promise P7: every decision is explained, in the ledger and in the trace."""

import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from drainer.cli.why import next_step
from drainer.mail.message import PROBLEMS
from tests.support.command.installed import Drainer, maildir_message, write_maildir
from tests.support.command.runner import Bench, call
from tests.support.mta.postfix import free_port
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, Step, View
from tests.support.web.collector import Collector, Span, spans_of_file

DELIVERED, DEFERRED, REFUSED, SHARED = (f"user{n}@example.org" for n in range(4))
HELD = "stranger@example.net"
LAST_WORDS = 15
"""Seconds that a command may take longer in all because its collector is away."""


def _answer() -> Script:
    """Refuse one for ever and two for now."""
    deferred = {DEFERRED, "later@example.org"}

    def rcpt(view: View) -> Step:
        if view.path in deferred:
            deferred.remove(view.path)
            return "451 4.7.1 not yet, try again"
        return "550 5.1.1 unknown" if view.path == REFUSED else "250 2.1.5 ok"

    return Script(rcpt=rcpt)


def _spool(root: Path, more: int = 0) -> None:
    """Write a message for each of the ends, and more that are just delivered."""
    write_maildir(root, 4 + more)
    path = root / "new" / "1795453785.M000003P1.backup"
    late = b"X-Original-To: later@example.org\nDelivered-To:"
    path.write_bytes(path.read_bytes().replace(b"Delivered-To:", late, 1))
    foreign = root / "new" / "1795453785.M900000P1.backup"
    foreign.write_bytes(maildir_message(900, HELD))


def _drainer(folder: Path, traces: str) -> Drainer:
    drainer = Drainer(folder / "ledger.db")
    drainer.environment |= {
        "DRAINER_TELEMETRY__TRACES": traces,
        "DRAINER_PRIMARY__DOMAINS": '["example.org"]',
    }
    return drainer


def _why(drainer: Drainer) -> dict[str, dict[str, Any]]:
    """Return what `why --json` says of one message of each kind, by a recipient."""
    rows = {row["forward_path"]: row["id"] for row in drainer.recipients()}
    kinds = (DELIVERED, DEFERRED, REFUSED, SHARED, HELD)
    told = ("why", "--json", "--ledger", drainer.ledger)
    return {path: call(*told, rows[path]).json for path in kinds}


def _roots(spans: Iterable[Span]) -> Counter[str]:
    """Count the root spans of messages, by trace."""
    return Counter(span.trace_id for span in spans if span.name == "message")


def _places(spans: Iterable[Span]) -> set[tuple[str, str]]:
    return {(span.trace_id, span.span_id) for span in spans}


def _verdicts(why: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (fact["forward_path"], fact["verdict"], fact["reply"])
        for fact in why["decisions"]
        if fact["kind"] in ("verdict", "scanned")
    ]


def test_every_decision_is_told_by_why_and_found_in_the_trace(tmp_path: Path) -> None:
    """Of a delivered, a deferred, a refused, a shared and a held message.

    Each decision has rule, verdict, time, reply and the ids of a span that the trace
    file holds. The root span of a message comes once it is final, and once only.
    """
    _spool(tmp_path / "spool", more=40)
    drainer = _drainer(tmp_path, f"file:{tmp_path}/traces.jsonl")
    with PeerThread(_answer()) as peer:
        # Slow enough for several exports while it runs.
        result = drainer.drain(tmp_path / "spool", peer.port, "--no-check",
                               "--rate", "20/second")  # fmt: skip
    assert result.code == 5, result.stderr
    why = _why(drainer)
    spans = spans_of_file(tmp_path / "traces.jsonl")
    places = _places(spans)
    for path, told in why.items():
        for fact in told["decisions"]:
            assert fact["rule"]
            assert datetime.fromisoformat(fact["at"]).tzinfo
            if fact["kind"] in ("verdict", "scanned"):
                assert fact["verdict"]
                assert fact["reply"] or fact["evidence"]["reason"]
            assert (fact["trace_id"], fact["span_id"]) in places, (path, fact)
            assert fact["trace_id"] == told["decisions"][0]["trace_id"]
    later = "451 4.7.1 not yet, try again"
    taken = "250 2.0.0 taken"
    assert _verdicts(why[DELIVERED]) == [(DELIVERED, "deliver", taken)]
    assert _verdicts(why[DEFERRED]) == [
        (DEFERRED, "retry", later),
        (DEFERRED, "deliver", taken),
    ]
    assert _verdicts(why[REFUSED]) == [(REFUSED, "bounce", "550 5.1.1 unknown")]
    assert sorted(_verdicts(why[SHARED])) == [
        ("later@example.org", "deliver", taken),
        ("later@example.org", "retry", later),
        (SHARED, "deliver", taken),
    ]
    [(held, verdict, _)] = _verdicts(why[HELD])
    assert (held, verdict) == (HELD, "hold")
    assert "throttle.wait" not in {span.name for span in spans}, "it is an event"
    roots = _roots(spans)
    assert set(roots.values()) == {1}, "a root span came twice"
    traces = {path: each["decisions"][0]["trace_id"] for path, each in why.items()}
    finished = {trace for path, trace in traces.items() if path not in (REFUSED, HELD)}
    assert finished <= set(roots)
    assert len(roots) == 43
    assert not {traces[REFUSED], traces[HELD]} & set(roots)
    listed = {span.trace_id for span in spans if span.name == "scanned"}
    assert {traces[REFUSED], traces[HELD]} <= listed


def test_the_root_span_comes_when_an_operator_makes_a_message_final(
    tmp_path: Path,
) -> None:
    """Discarded ones get it in the next run; the others' is not repeated."""
    _spool(tmp_path / "spool")
    drainer = _drainer(tmp_path, f"file:{tmp_path}/traces.jsonl")
    with PeerThread(_answer()) as peer:
        first = drainer.drain(tmp_path / "spool", peer.port, "--no-check")
        assert first.code == 5, first.stderr
        before = _roots(spans_of_file(tmp_path / "traces.jsonl"))
        for state in ("held", "bounce-pending"):
            verb = ("discard", "--state", state, "--reason", "nobody misses it")
            assert drainer.run(*verb).code == 0
        assert drainer.drain(tmp_path / "spool", peer.port, "--no-check").code == 0
    spans = spans_of_file(tmp_path / "traces.jsonl")
    roots = _roots(spans)
    assert len(before) == 3
    assert len(roots) == 5
    assert set(roots.values()) == {1}
    places = _places(spans)
    for told in _why(drainer).values():
        for fact in told["decisions"]:
            assert (fact["trace_id"], fact["span_id"]) in places, fact
    parents = {span.parent_id for span in spans if span.trace_id in roots}
    assert parents <= {span.span_id for span in spans} | {""}
    discarded = [s for s in spans if s.name == "message" and s.is_error]
    assert [s.attributes["error.type"] for s in discarded] == ["discarded"] * 2


def test_without_its_collector_a_drain_is_as_fast_and_loses_no_span(
    tmp_path: Path,
) -> None:
    """Nothing listens at the endpoint: same exit code; the next run sends it all."""
    _spool(tmp_path / "spool", more=60)
    port = free_port()
    drainer = _drainer(tmp_path, "otlp")
    endpoint = f"http://127.0.0.1:{port}/v1/traces"
    drainer.environment["DRAINER_TELEMETRY__ENDPOINT"] = endpoint
    with PeerThread(_answer()) as peer:
        begun = time.monotonic()
        result = drainer.drain(tmp_path / "spool", peer.port, "--no-check")
        assert time.monotonic() - begun < LAST_WORDS
        assert result.code == 5, result.stderr
        assert "not all traces could be sent" in result.stderr
        assert "Traceback" not in result.stderr
        sent = peer.messages
        assert sent[-1].mail_at - sent[0].mail_at < 5
        assert result.objects[-1]["seconds"] < 5, "waiting for it is no draining"
        with Collector(port) as collector:
            again = drainer.drain(tmp_path / "spool", peer.port, "--no-check")
            assert again.code == 5, again.stderr
            assert again.objects[-1]["sent_messages"] == 0
            assert "traces" not in again.stderr
    places = _places(collector.spans)
    for told in _why(drainer).values():
        for fact in told["decisions"]:
            assert (fact["trace_id"], fact["span_id"]) in places, fact
    roots = _roots(collector.spans)
    assert len(roots) == 63
    assert set(roots.values()) == {1}
    runs = [span for span in collector.spans if span.name == "drain"]
    assert len(runs) == 2


@pytest.mark.parametrize("kind", ["unfinished", "foreign"])
def test_a_hold_that_a_scan_lifts_is_a_decision(tmp_path: Path, kind: str) -> None:
    """A queue file that is finished by now, and a domain that is served by now."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        name = bench.add(DELIVERED if kind == "unfinished" else HELD)
        path = bench.spool / "deferred" / name[0] / name
        if kind == "unfinished":
            (bench.spool / "incoming").mkdir()
            path = path.rename(bench.spool / "incoming" / name)
            path.chmod(0o600)  # as Postfix leaves a file that it is still writing
        assert bench.drain().code == 5
        before = bench.why(name)
        assert "release" not in before["next"] or kind == "foreign"
        path.chmod(0o700)
        bench.configure(primary={"domains": []})
        assert bench.drain().code == 0
    decisions = bench.why(name)["decisions"]
    (lifted,) = [fact for fact in decisions if fact["rule"] == "reappeared"]
    assert lifted["evidence"]["before"] == "held"
    assert lifted["evidence"]["state"] == "pending"
    assert "no longer" in lifted["evidence"]["reason"]
    kinds = [fact["kind"] for fact in decisions]
    assert kinds.index("scanned") < decisions.index(lifted) < kinds.index("verdict")


@pytest.mark.parametrize("rule", [f"local-{code}" for code in PROBLEMS])
def test_the_next_step_of_a_held_recipient_follows_its_rule(rule: str) -> None:
    """It names `release` exactly where a release lets the message go."""
    row = {"state": "held", "rule": rule, "due": None, "forward_path": HELD}
    words = next_step([row])
    helps = PROBLEMS[rule.removeprefix("local-")][1]
    assert ("`drainer release`" in words) is helps, words
    assert "drainer" in words
