"""A lost final dot: the message is in doubt (RFC 1047).

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

import contextlib
import sqlite3
from typing import Any

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import ALICE, BOB, StartPeer, sent
from tests.support.smtp_peer.script import (
    Drop,
    Script,
    in_turn,
)


def test_a_lost_last_reply_rests_goes_alone_and_is_held_the_third_time(
    peer: StartPeer, bench: Bench
) -> None:
    """It is never bounced, and every attempt carries the same bytes."""
    server = peer(
        dot=lambda view: (
            Drop()
            if view.message and view.message.forward_paths == [ALICE]
            else "250 2.0.0 ok"
        )
    )
    bench.port = server.port
    queue_id = bench.add(ALICE)
    bench.configure(retry={"unknown": "1h"})
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "unknown"}
    assert bench.drain().code == 5
    assert len(server.messages) == 1, "it must rest"
    for attempt, state in ((2, "unknown"), (3, "held")):
        due(bench)
        others = [f"other{attempt}{n}@example.org" for n in range(3)]
        for other in others:
            bench.add(other)
        before = len(server.messages)
        assert bench.drain().code == 5
        assert bench.states()[ALICE] == state
        mine = [m for m in server.messages[before:] if m.forward_paths == [ALICE]]
        assert len(mine) == 1
        rivals = [m for m in server.transactions if m.connection == mine[0].connection]
        assert rivals == mine, "it must be alone on its connection"
    contents = {m.content for m in server.messages if m.forward_paths == [ALICE]}
    assert len(contents) == 1
    assert [v["verdict"] for v in bench.verdicts(queue_id)] == ["unknown"] * 3
    bench.assert_balanced()


def due(bench: Bench) -> None:
    """Let what rests be due, as an hour would."""
    with contextlib.closing(sqlite3.connect(bench.ledger)) as database:
        database.execute("UPDATE recipients SET due = 1 WHERE due IS NOT NULL")
        database.commit()


@pytest.mark.parametrize("stage", ["rcpt", "dot"])
def test_a_refusal_after_doubt_is_never_a_bounce(
    peer: StartPeer, bench: Bench, stage: str
) -> None:
    """It may mean "I have it already": a person must look."""
    server = peer(dot=Drop())
    bench.port = server.port
    bench.add(ALICE)
    bench.drain()
    assert bench.states() == {ALICE: "unknown"}
    due(bench)
    refusal: dict[str, Any] = {stage: "554 5.6.0 duplicate message"}
    server.script = Script(**refusal)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held"}


def test_a_doubt_that_clears_up_is_delivered(peer: StartPeer, bench: Bench) -> None:
    """The second attempt got its reply: exit 0."""
    server = peer(dot=in_turn(Drop(), "250 2.0.0 ok"))
    bench.port = server.port
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    due(bench)
    assert bench.drain().code == 0
    assert sent(server) == [(ALICE, BOB)]
