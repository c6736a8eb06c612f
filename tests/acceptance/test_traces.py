"""What an operator sees in a tracing backend, over refusals, a SIGKILL and a restart.

A strict collector, built on the official protobufs, takes everything; what it shows is
compared with the ledger.
"""

import re
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from drainer.mail.envelope import domain_of
from drainer.telemetry.names import ATTRIBUTES, SPANS
from tests.support.command.installed import Drainer, drain_arguments, write_maildir
from tests.support.command.runner import Result, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Drop, Script, Step, View
from tests.support.web.collector import Collector, Span, spans_of_file

GONE, LATER = "user0@example.org", "user1@example.org"
HELD = "user2@example.org"
PARENT_TRACE, PARENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT = 3


class Scene:
    """A primary that refuses, defers and kills, a spool, and a collector."""

    def __init__(self, root: Path) -> None:
        """Write the spool."""
        self.spool = root / "spool"
        self.paths = write_maildir(self.spool, 20)
        self.drainer = Drainer(root / "ledger.db")
        self.process: Any = None
        self.kill_at = 0
        self._dots = 0
        self._deferred = {LATER}

    def script(self) -> Script:
        """Return what the primary answers."""
        return Script(rcpt=self._rcpt, dot=self._dot)

    def _rcpt(self, view: View) -> Step:
        if view.path in self._deferred:
            self._deferred.remove(view.path)
            return f"451 4.7.1 <{LATER}>: later"
        if view.path == GONE:
            return "550 5.1.1 <user0>: no such user, see USER0@Example.org"
        return "250 2.1.5 ok"

    def _dot(self, view: View) -> Step:
        del view
        self._dots += 1
        if self._dots == self.kill_at:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return Drop()
        return "250 2.0.0 taken"

    def export_to(self, collector: Collector, **more: str) -> None:
        """Let the drains export to a collector."""
        self.drainer.environment |= {
            "DRAINER_TELEMETRY__TRACES": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            **more,
        }

    def killed_and_repeated(self, peer: PeerThread) -> int:
        """Drain, killed at the fifth message; then drain again and discard the rest."""
        self.kill_at = 5
        arguments = drain_arguments(self.spool, peer.port, "--connections", 1)
        self.process = self.drainer.start(*arguments, "--no-check")
        self.process.communicate(timeout=60)
        assert self.process.returncode == -signal.SIGKILL
        again = self.drainer.drain(self.spool, peer.port, "--no-check")
        assert again.code == 5, again.stderr
        verb = ("discard", "--state", "bounce-pending", "--reason", "moved away")
        assert self.drainer.run(*verb).code == 0
        return self.drainer.drain(self.spool, peer.port, "--no-check").code

    def call(self, *arguments: str) -> Result:
        """Call a command on the ledger, in this process."""
        return call(*arguments, "--ledger", self.drainer.ledger)

    def ids(self) -> dict[str, str]:
        """Return the drainer id of the message to each recipient."""
        rows = self.call("list", "--json").lines
        return {row["forward_path"]: row["id"] for row in rows}


def by_name(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Group spans; a span that came twice counts once, the later one."""
    latest = {span.place: span for span in spans}
    found: dict[str, list[Span]] = {}
    for span in latest.values():
        found.setdefault(span.name, []).append(span)
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Collector]:
    """Drain with a kill, once for all tests of this module."""
    scene = Scene(tmp_path_factory.mktemp("traces"))
    with Collector(0) as collector, PeerThread(scene.script()) as peer:
        more = {
            "OTEL_SERVICE_NAME": "backup-mx",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "TRACEPARENT": f"00-{PARENT_TRACE}-{PARENT_SPAN}-01",
        }
        scene.export_to(collector, **more)
        assert scene.killed_and_repeated(peer) == 0
    return scene, collector


def test_the_collector_finds_no_fault(scene: tuple[Scene, Collector]) -> None:
    """Ids, times, kinds, types of values; nothing empty, no number in a text."""
    _, collector = scene
    assert collector.spans
    assert collector.faults == []


def test_every_name_is_in_the_tables(scene: tuple[Scene, Collector]) -> None:
    """Of spans, events and attributes: docs/traces.md is made of them."""
    _, collector = scene

    def is_known(name: str, table: Iterable[str]) -> bool:
        return any(
            name.startswith(known[:-1]) if known.endswith("*") else name == known
            for known in table
        )

    for span in collector.spans:
        assert is_known(span.name, SPANS), span.name
        pairs = [span.attributes, *(attributes for _, attributes in span.events)]
        names = {name for attributes in pairs for name in attributes}
        assert [name for name in names if not is_known(name, ATTRIBUTES)] == []
        assert [name for name, _ in span.events if not is_known(name, SPANS)] == []


def test_ids_parents_and_links_lead_to_spans_that_came(
    scene: tuple[Scene, Collector],
) -> None:
    """Over a SIGKILL and two restarts; each span of `why` is there."""
    own, collector = scene
    places = {span.place for span in collector.spans} | {(PARENT_TRACE, PARENT_SPAN)}
    for span in collector.spans:
        assert not span.parent_id or (span.trace_id, span.parent_id) in places, span
        for link in span.links:
            assert link in places, (span.name, link)
    for id_ in own.ids().values():
        for fact in own.call("why", id_, "--json").json["decisions"]:
            assert (fact["trace_id"], fact["span_id"]) in places, fact


def test_a_killed_run_has_a_root_and_its_attempts(
    scene: tuple[Scene, Collector],
) -> None:
    """The run that took over sends both: how they ended, linked to who made them."""
    _, collector = scene
    found = by_name(collector.spans)
    died, *others = sorted(found["drain"], key=lambda span: span.times)
    assert died.is_error
    assert died.attributes["error.type"] == died.attributes["drainer.verdict"] == "died"
    assert len(others) == 2
    (lost,) = [
        span
        for span in found["attempt"]
        if span.attributes.get("error.type") == "owner-died"
    ]
    assert lost.is_error
    assert lost.attributes["drainer.run"] == died.attributes["drainer.run"]
    assert died.place in lost.links
    assert died.times[0] <= lost.times[0] <= lost.times[1]


def test_root_spans_tell_the_outcome(scene: tuple[Scene, Collector]) -> None:
    """Of a message its state and age; of a run its sums, equal to the ledger's."""
    own, collector = scene
    found = by_name(collector.spans)
    assert len(found["message"]) == len(own.paths)
    states = Counter(span.attributes["drainer.state"] for span in found["message"])
    assert states == {"delivered": 19, "discarded": 1}
    for span in found["message"]:
        is_bad = span.attributes["drainer.state"] == "discarded"
        assert span.is_error is is_bad
        assert span.attributes.get("error.type") == ("discarded" if is_bad else None)
        assert span.attributes["drainer.recipients.total"] == 1
        assert span.attributes["drainer.attempts"] >= 1
        assert ("drainer.age_seconds" in span.attributes) is not is_bad
    last = max(found["drain"], key=lambda span: span.times)
    assert last.attributes["drainer.exit"] == 0
    assert last.attributes["drainer.recipients.delivered"] == 19
    assert last.attributes["drainer.recipients.discarded"] == 1
    assert last.attributes["drainer.recipients.total"] == len(own.paths)
    sent = sum(span.attributes.get("drainer.messages", 0) for span in found["drain"])
    assert 14 <= sent <= 19
    assert last.attributes["drainer.version"]
    assert not last.is_error


def test_the_resource_and_the_caller_come_from_the_environment(
    scene: tuple[Scene, Collector],
) -> None:
    """OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, TRACEPARENT."""
    _, collector = scene
    for span in collector.spans:
        assert span.resource["service.name"] == "backup-mx"
        assert span.resource["deployment.environment.name"] == "test"
        assert span.resource["host.name"]
        assert re.fullmatch(r"[0-9a-f-]{36}", span.resource["service.instance.id"])
    for span in by_name(collector.spans)["drain"]:
        assert (PARENT_TRACE, PARENT_SPAN) in span.links


def test_an_attempt_says_whom_it_spoke_with(scene: tuple[Scene, Collector]) -> None:
    """By the semantic conventions; linked to its connection, a CLIENT span."""
    _, collector = scene
    found = by_name(collector.spans)
    connections = {span.place: span for span in found["smtp.connect"]}
    for span in (*found["attempt"], *connections.values()):
        assert span.kind == CLIENT
        assert span.attributes["server.address"] == "127.0.0.1"
        assert isinstance(span.attributes["server.port"], int)
        assert span.attributes["network.peer.address"] == "127.0.0.1"
        assert span.attributes["network.protocol.name"] == "smtp"
        assert span.attributes["drainer.route"].startswith("127.0.0.1:")
    for span in found["attempt"]:
        assert [link for link in span.links if link in connections]
    refused = [
        s for s in found["attempt"] if s.attributes.get("drainer.smtp.code") == 550
    ]
    assert refused
    assert {s.attributes["drainer.smtp.enhanced_code"] for s in refused} == {"5.1.1"}


def test_no_address_is_shown_and_why_turns_a_hash_back(
    scene: tuple[Scene, Collector],
) -> None:
    """Also not where the primary quotes one, in another case or without its domain."""
    own, collector = scene
    text = repr(collector.spans)
    for path in own.paths:
        assert path not in text.lower()
    assert "<user0>" not in text
    assert "sender.example" not in text
    (message,) = [
        span
        for span in by_name(collector.spans)["message"]
        if span.attributes["drainer.state"] == "discarded"
    ]
    sender = message.attributes["drainer.sender"]
    found = own.call("why", sender, "--json").json
    assert found["id"] == message.attributes["drainer.message"]
    assert own.call("why", sender).stdout.startswith(f"{sender} is sender0@")
    (domain,) = message.attributes["drainer.domains"]
    meaning = own.call("why", domain, "--json").json
    assert meaning["text"] == domain_of(GONE)
    assert own.call("why", message.trace_id, "--json").json["id"] == found["id"]
    assert own.call("why", "0" * 32).code == 2


def test_why_prints_the_same_trace_as_a_tree(scene: tuple[Scene, Collector]) -> None:
    """With addresses, for it is the operator's own; as JSON, too."""
    own, collector = scene
    id_ = own.ids()[LATER]
    tree = own.call("why", id_, "--trace")
    assert tree.code == 0, tree.stderr
    lines = tree.stdout.splitlines()
    trace = own.call("why", id_, "--json").json["decisions"][0]["trace_id"]
    assert lines[0].startswith(f"{trace} message ")
    assert [line for line in lines if line.startswith("  ") and " attempt " in line]
    assert LATER in tree.stdout
    printed = own.call("why", id_, "--trace", "--json").json
    spans = printed["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ours = {span.span_id for span in collector.spans if span.trace_id == trace}
    assert {span["spanId"] for span in spans} <= ours


def test_why_follows_a_message_until_it_is_final(tmp_path: Path) -> None:
    """It prints what a drain decides meanwhile, once, and ends by itself."""
    scene = Scene(tmp_path)
    later = ("--recipient", LATER)
    with PeerThread(Script(rcpt=f"451 4.7.1 <{LATER}>: later")) as peer:
        assert (
            scene.drainer.drain(scene.spool, peer.port, "--no-check", *later).code == 5
        )
        id_ = scene.ids()[LATER]
        follows = scene.drainer.start("why", id_, "--follow")
        assert follows.stdout is not None
        head = [follows.stdout.readline() for _ in range(2)]
        peer.script = Script()
        assert (
            scene.drainer.drain(scene.spool, peer.port, "--no-check", *later).code == 0
        )
        out, err = follows.communicate(timeout=60)
    assert follows.returncode == 0, err
    assert id_[:12] in head[0]
    assert "retry" in head[1]
    assert out.count("deliver by") == 1
    assert "every recipient is final" in out.splitlines()[-1]


def test_a_rehearsal_and_another_ledger_have_traces_of_their_own(
    tmp_path: Path,
) -> None:
    """The same spool, three times: no trace is shared; the rehearsal is marked."""
    write_maildir(tmp_path / "spool", 3)
    found: list[list[Span]] = []
    with PeerThread() as peer:
        for n, more in enumerate((["--rehearse"], ["--rehearse"], [])):
            drainer = Drainer(tmp_path / f"ledger{n}.db")
            traces = tmp_path / f"traces{n}.jsonl"
            drainer.environment["DRAINER_TELEMETRY__TRACES"] = f"file:{traces}"
            assert (
                drainer.drain(tmp_path / "spool", peer.port, "--no-check", *more).code
                == 0
            )
            found.append(spans_of_file(traces))
    traces_of = [{s.trace_id for s in spans if s.name == "message"} for spans in found]
    assert [len(each) for each in traces_of] == [3, 3, 3]
    assert len(set().union(*traces_of)) == 9
    for n, spans in enumerate(found):
        for span in spans:
            assert ("drainer.rehearsal" in span.resource) is (n < 2)
            if span.name in ("drain", "message"):
                assert span.attributes.get("drainer.rehearsal", False) is (n < 2)


def test_an_attempt_with_several_recipients_counts_its_verdicts(
    tmp_path: Path,
) -> None:
    """A message to two, of whom the primary refuses one."""
    write_maildir(tmp_path / "spool", 1)
    (path,) = (tmp_path / "spool" / "new").iterdir()
    second = b"X-Original-To: user1@example.org\nDelivered-To: user1@example.org\nD"
    path.write_bytes(path.read_bytes().replace(b"Delivered-To: user0", second, 1))
    path.write_bytes(
        path.read_bytes().replace(b"\nD@example.org", b"\nDelivered-To: x@example.org")
    )
    scene = Scene(tmp_path / "other")
    drainer = Drainer(tmp_path / "ledger.db")
    traces = tmp_path / "traces.jsonl"
    drainer.environment["DRAINER_TELEMETRY__TRACES"] = f"file:{traces}"
    with PeerThread(scene.script()) as peer:
        assert drainer.drain(tmp_path / "spool", peer.port, "--no-check").code == 5
    attempts = by_name(spans_of_file(traces))["attempt"]
    first = min(attempts, key=lambda span: span.times)
    counts = {
        name: value
        for name, value in first.attributes.items()
        if name.startswith("drainer.verdicts.")
    }
    assert sum(counts.values()) == first.attributes["drainer.recipients.total"] == 2
    assert [name for name, _ in first.events].count("classify") == 2


def test_telemetry_can_be_disabled_by_the_environment(tmp_path: Path) -> None:
    """OTEL_SDK_DISABLED outranks everything."""
    write_maildir(tmp_path / "spool", 1)
    drainer = Drainer(tmp_path / "ledger.db")
    traces = tmp_path / "traces.jsonl"
    drainer.environment["DRAINER_TELEMETRY__TRACES"] = f"file:{traces}"
    drainer.environment["OTEL_SDK_DISABLED"] = "true"
    with PeerThread() as peer:
        assert drainer.drain(tmp_path / "spool", peer.port, "--no-check").code == 0
    assert not traces.exists()
