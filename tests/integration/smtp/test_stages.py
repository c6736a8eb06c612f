"""From MAIL on: the table of stages, pipelined and one by one.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import (
    ALICE,
    BOB,
    NOBODY,
    PATIENT,
    PLAIN,
    SHORT,
    SILENT,
    StartPeer,
)
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Answer,
    Drop,
    Garbage,
    Raw,
    ReplyThenDrop,
    Reset,
    Script,
    Step,
    View,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: what the peer does, and what becomes of the recipients."""

    script: dict[str, Any]
    state: str
    rule: str
    attempts: int = 1
    code: int = 5
    settings: Mapping[str, object] = field(default_factory=dict)


TABLE: dict[str, Cell] = {
    "mail-450": Cell({"mail": "450 4.7.1 greylisted"}, "deferred", "text-greylisted"),
    "mail-451": Cell({"mail": "451 try later"}, "deferred", "text-later"),
    "mail-421": Cell({"mail": ReplyThenDrop("421 bye")}, "deferred", "mail-421", 0),
    "mail-452-4.3.1": Cell(
        {"mail": "452 4.3.1 disk full"}, "deferred", "mail-4.3.1", 0
    ),
    "mail-451-4.3.0": Cell(
        {"mail": "451 4.3.0 queue file write error"}, "deferred", "mail-4.3.0", 0
    ),
    "mail-552": Cell({"mail": "552 5.3.4 too big"}, "bounce-pending", "enhanced-5.3.4"),
    "mail-550": Cell({"mail": "550 no"}, "bounce-pending", "basic-550"),
    "mail-530": Cell({"mail": "530 5.7.0 log in"}, "deferred", "basic-530", 0, code=4),
    "mail-503": Cell({"mail": "503 5.5.1 bad sequence"}, "held", "enhanced-5.5.1"),
    "mail-555": Cell({"mail": "555 5.5.4 no parameters"}, "held", "enhanced-5.5.4"),
    "mail-dropped": Cell({"mail": Drop()}, "deferred", "mail-lost"),
    "mail-reset": Cell({"mail": Reset()}, "deferred", "mail-lost"),
    "mail-never": Cell({"mail": SILENT}, "deferred", "mail-lost", settings=SHORT),
    "mail-garbage": Cell({"mail": Garbage()}, "deferred", "mail-lost"),
    "mail-is-354": Cell({"mail": "354 go ahead"}, "deferred", "mail-protocol"),
    "rcpt-450": Cell({"rcpt": "450 4.2.1 busy"}, "deferred", "enhanced-4.2.1"),
    "rcpt-451": Cell({"rcpt": "451 4.7.1 later"}, "deferred", "basic-451"),
    "rcpt-421": Cell({"rcpt": ReplyThenDrop("421 bye")}, "deferred", "", 0),
    "rcpt-550": Cell({"rcpt": "550 5.1.1 unknown"}, "bounce-pending", "enhanced-5.1.1"),
    "rcpt-554": Cell({"rcpt": "554 no"}, "bounce-pending", "basic-554"),
    "rcpt-579": Cell({"rcpt": "579 policy"}, "bounce-pending", "basic-579"),
    "rcpt-556": Cell(
        {"rcpt": "556 5.1.10 null MX"}, "deferred", "enhanced-5.1.10", 0, code=4
    ),
    "rcpt-552-full": Cell({"rcpt": "552 5.2.2 full"}, "deferred", "enhanced-5.2.2"),
    "rcpt-dropped": Cell({"rcpt": Drop()}, "deferred", "rcpt-lost"),
    "rcpt-reset": Cell({"rcpt": Reset()}, "deferred", "rcpt-lost"),
    "rcpt-never": Cell({"rcpt": SILENT}, "deferred", "rcpt-lost", settings=SHORT),
    "rcpt-is-354": Cell({"rcpt": "354 what?"}, "deferred", ""),
    "data-451": Cell({"data": "451 4.3.0 later"}, "deferred", "enhanced-4.3.0"),
    "data-421": Cell({"data": ReplyThenDrop("421 bye")}, "deferred", "data-421", 0),
    "data-554": Cell({"data": "554 no"}, "bounce-pending", "basic-554"),
    "data-503": Cell({"data": "503 bad sequence"}, "held", "basic-503"),
    "data-is-250": Cell({"data": "250 ok"}, "deferred", "data-protocol"),
    "data-is-350": Cell({"data": "350 ok"}, "deferred", "data-protocol"),
    "data-dropped": Cell({"data": Drop()}, "deferred", "data-lost"),
    "data-reset": Cell({"data": Reset()}, "deferred", "data-lost"),
    "data-never": Cell({"data": SILENT}, "deferred", "data-lost", settings=SHORT),
    "dot-451": Cell({"dot": "451 4.3.0 later"}, "deferred", "enhanced-4.3.0"),
    "dot-452": Cell({"dot": "452 later"}, "deferred", "basic-452"),
    "dot-421": Cell({"dot": ReplyThenDrop("421 bye")}, "deferred", "dot-421"),
    "dot-554": Cell({"dot": "554 no"}, "bounce-pending", "basic-554"),
    "dot-550-spf": Cell({"dot": "550 5.7.23 SPF"}, "held", "enhanced-5.7.23"),
    "dot-dropped": Cell({"dot": Drop()}, "unknown", "dot-lost"),
    "dot-reset": Cell({"dot": Reset()}, "unknown", "dot-lost"),
    "dot-never": Cell({"dot": SILENT}, "unknown", "dot-lost", settings=SHORT),
    "dot-is-354": Cell({"dot": "354 go ahead"}, "unknown", "dot-lost"),
    "dot-garbage": Cell({"dot": Garbage()}, "unknown", "dot-lost"),
    "dot-of-100-kB": Cell(
        {"dot": Raw(b"250-x\r\n" * 15000 + b"250 x\r\n")}, "unknown", "dot-lost"
    ),
    "dot-line-of-9-kB": Cell(
        {"dot": Raw(b"250 " + b"x" * 9000 + b"\r\n")}, "unknown", "dot-lost"
    ),
    "dot-line-of-5-kB": Cell(
        {"dot": Raw(b"250 " + b"x" * 5000 + b"\r\n")}, "unknown", "dot-lost"
    ),
    "quit-dropped": Cell({"quit": Drop()}, "delivered", "dot-accepted", code=0),
    "quit-never": Cell(
        {"quit": SILENT}, "delivered", "dot-accepted", code=0, settings=SHORT
    ),
    "quit-500": Cell({"quit": "500 what?"}, "delivered", "dot-accepted", code=0),
    "quit-garbage": Cell({"quit": Garbage()}, "delivered", "dot-accepted", code=0),
}


#: What stops or pauses the whole route, or is said once a session: a drain for each.
ALONE = {
    name
    for name, cell in TABLE.items()
    if cell.attempts == 0 or cell.settings or "quit" in cell.script
}


def of_cell(stage: str, usual: str) -> Answer:
    """Answer as the cell wants that the sender of the transaction names."""

    def answer(view: View) -> Step:
        message = view.message or NOBODY
        path = view.path if stage == "mail" else message.reverse_path
        step: Step = TABLE[path.partition("@")[0]].script.get(stage, usual)
        refused = stage == "data" and step == usual and not message.forward_paths
        return "554 5.5.1 no valid recipients" if refused else step

    return answer


@pytest.fixture(
    scope="module", params=[EXTENSIONS, PLAIN], ids=["pipelined", "one-by-one"]
)
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Any]]]:
    """Drain a message for each cell, each on a connection of its own."""
    bench = Bench(tmp_path_factory.mktemp("table"))
    bench.configure(primary={"max_messages": 1, "connections": 4}, **PATIENT)
    bench.configure(breaker=dict.fromkeys(("run", "votes", "first_votes"), 10_000))
    usual = {"mail": "250 ok", "rcpt": "250 ok", "data": "354 go", "dot": "250 taken"}
    answers: dict[str, Any] = {
        stage: of_cell(stage, reply) for stage, reply in usual.items()
    }
    with PeerThread(Script(extensions=request.param, **answers)) as server:
        bench.port = server.port
        for name in set(TABLE) - ALONE:
            people = (f"1-{name}@example.org", f"2-{name}@example.org")
            bench.add(*people, sender=f"{name}@cell.example")
        assert bench.drain().code == 5
        bench.assert_balanced()
        yield bench.recipients()
    assert server.violations == []
    taken = {message.reverse_path.partition("@")[0] for message in server.accepted}
    assert {TABLE[name].state for name in taken} <= {"delivered", "unknown"}


@pytest.mark.parametrize("name", sorted(set(TABLE) - ALONE))
def test_stage_table(table: dict[str, dict[str, Any]], name: str) -> None:
    """What a stage ends with decides for both recipients of the message."""
    cell = TABLE[name]
    for person in (1, 2):
        fact = table[f"{person}-{name}@example.org"]
        assert fact["state"] == cell.state, fact
        if cell.rule:
            assert (fact["rule"], fact["attempts"]) == (cell.rule, cell.attempts)


ROUTE = [
    pytest.param(name, extensions, id=name + suffix)
    for extensions, suffix in ((EXTENSIONS, ""), (PLAIN, "-one-by-one"))
    for name in sorted(ALONE)
    if extensions is EXTENSIONS or name.endswith("-421")
]


@pytest.mark.parametrize(("name", "extensions"), ROUTE)
def test_stage_table_for_the_route(
    peer: StartPeer, bench: Bench, name: str, extensions: tuple[str, ...]
) -> None:
    """The same for what concerns the whole route: a drain for each."""
    cell = TABLE[name]
    server = peer(extensions=extensions, **cell.script)
    bench.port = server.port
    patience = PATIENT if cell.settings else {}  # a silent host is asked once more
    bench.configure(primary=cell.settings, **patience)
    bench.add(ALICE, BOB)
    result = bench.drain()
    found = bench.recipients()
    assert {fact["state"] for fact in found.values()} == {cell.state}, found
    if cell.rule:
        assert {fact["rule"] for fact in found.values()} == {cell.rule}
        assert {fact["attempts"] for fact in found.values()} == {cell.attempts}
    assert result.code == cell.code
    assert result.json["recipients"][cell.state] == 2
    bench.assert_balanced()
    if cell.state not in ("delivered", "unknown"):
        assert server.accepted == []
