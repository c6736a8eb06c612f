"""Replies and losses in the middle of the content.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import (
    ALICE,
    LARGE,
    PIPELINING,
    StartPeer,
)
from tests.support.smtp_peer.script import (
    BodyAnswer,
    DropInBody,
    EarlyReply,
    Script,
    StallInBody,
)

EARLY: dict[str, tuple[BodyAnswer, str, str]] = {
    "552-then-rst": (
        EarlyReply(20_000, "552 5.3.4 too big", then_drop=True),
        "bounce-pending",
        "552 5.3.4 too big",
    ),
    "552-and-goes-on": (
        EarlyReply(20_000, "552 5.3.4 too big"),
        "bounce-pending",
        "552 5.3.4 too big",
    ),
    "452-then-rst": (
        EarlyReply(20_000, "452 4.3.1 disk full", then_drop=True),
        "deferred",
        "452 4.3.1 disk full",
    ),
    "421-then-rst": (
        EarlyReply(20_000, "421 4.3.2 closing", then_drop=True),
        "deferred",
        "421 4.3.2 closing",
    ),
    "250-too-early": (EarlyReply(20_000, "250 2.0.0 taken"), "deferred", ""),
    "dropped": (DropInBody(20_000), "deferred", ""),
}


@PIPELINING
@pytest.mark.parametrize(("body", "state", "reply"), EARLY.values(), ids=list(EARLY))
def test_an_answer_amid_a_large_content_counts_as_the_last_reply(  # noqa: PLR0913, PLR0917
    peer: StartPeer,
    bench: Bench,
    extensions: tuple[str, ...],
    body: BodyAnswer,
    state: str,
    reply: str,
) -> None:
    """It is read even though the connection broke while we were writing."""
    server = peer(extensions=extensions, body=body)
    bench.port = server.port
    bench.add(ALICE, text=LARGE)
    assert bench.drain().code == 5
    fact = bench.recipients()[ALICE]
    assert fact["state"] == state, fact
    if reply:
        assert fact["reply"] == reply
    assert server.accepted == []
    bench.assert_balanced()


def test_a_primary_that_stops_reading_is_given_up(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 5321 4.5.3.2.5: a block that cannot be written in time ends the attempt."""
    server = peer(body=StallInBody(20_000))
    bench.port = server.port
    bench.configure(primary={"body_timeout": "200ms"})
    bench.add(ALICE, text=LARGE * 5)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "deferred"}
    assert bench.recipients()[ALICE]["rule"] == "body-lost"


def test_a_content_that_was_interrupted_is_sent_whole_the_next_time(
    peer: StartPeer, bench: Bench
) -> None:
    """The primary discards the part it had; the second attempt is complete."""
    server = peer(body=DropInBody(50_000))
    bench.port = server.port
    bench.add(ALICE, text=LARGE)
    assert bench.drain().code == 5
    server.script = Script()
    bench.configure(breaker={"give_up_after": "5s"})
    assert bench.drain().code == 0
    (message,) = server.accepted
    assert message.content is not None
    assert message.content.endswith(LARGE.replace(b"\n", b"\r\n"))
