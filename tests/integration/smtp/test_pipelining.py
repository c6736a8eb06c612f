"""Pipelining (RFC 2920), and RSET after a refusal.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import (
    ALICE,
    BOB,
    CAROL,
    PATIENT,
    PIPELINING,
    StartPeer,
    sent,
)
from tests.support.smtp_peer.script import (
    Drop,
    Garbage,
    ReplyThenDrop,
    Reset,
    Script,
    Step,
    View,
    in_turn,
    per_recipient,
)


def test_nobody_accepted_and_354_is_answered_with_a_lone_dot(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 2920 3.1: no content leaves, and the session goes on."""
    server = peer(
        rcpt=per_recipient({ALICE: "550 5.1.1 no", BOB: "450 4.2.1 busy"}),
        data="354 go ahead",
    )
    bench.port = server.port
    bench.configure(retry=PATIENT["retry"])
    bench.add(ALICE, BOB)
    bench.add(CAROL)
    assert bench.drain().code == 5
    expected = {ALICE: "bounce-pending", BOB: "deferred", CAROL: "delivered"}
    assert bench.states() == expected
    empty, full = sorted(server.messages, key=lambda m: len(m.content or b""))
    assert empty.content == b""
    assert full.forward_paths == [CAROL]
    assert server.connections == 1


def test_an_empty_message_to_nobody_that_is_accepted_ends_the_session(
    peer: StartPeer, bench: Bench
) -> None:
    """A 2xx to the lone dot means that the primary has lost step."""
    server = peer(
        rcpt=per_recipient({ALICE: "550 5.1.1 no"}),
        data="354 go ahead",
        dot="250 2.0.0 taken",
    )
    bench.port = server.port
    bench.add(ALICE)
    bench.add(CAROL)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "bounce-pending", CAROL: "delivered"}
    if len({command.connection for command in server.commands}) == 1:
        assert server.messages[-1].content == b""


@PIPELINING
def test_421_amid_a_group_leaves_the_unanswered_without_a_verdict(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """Who was answered keeps the reply; who was not is tried again."""
    server = peer(
        extensions=extensions,
        rcpt=per_recipient(
            {ALICE: "550 5.1.1 unknown", CAROL: ReplyThenDrop("421 4.3.2 closing")}
        ),
    )
    bench.port = server.port
    bench.add(ALICE, BOB, CAROL, "dave@example.org")
    assert bench.drain().code == 5
    assert bench.states() == {
        ALICE: "bounce-pending",
        BOB: "deferred",
        CAROL: "deferred",
        "dave@example.org": "deferred",
    }
    assert bench.recipients()[CAROL]["attempts"] == 0
    assert server.messages == []
    server.script = Script()
    bench.drain()
    assert bench.run("requeue", "--state", "deferred", "--reason", "x").code == 0
    bench.drain()
    assert sorted(sum(sent(server), ())) == [BOB, CAROL, "dave@example.org"]


@PIPELINING
@pytest.mark.parametrize("step", [Drop(), Reset()], ids=["dropped", "reset"])
def test_a_connection_lost_amid_a_group_keeps_the_answers_before(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...], step: Step
) -> None:
    """The unanswered recipients are tried again, and the accepted ones as well."""
    server = peer(
        extensions=extensions,
        rcpt=per_recipient(
            {ALICE: "550 5.1.1 unknown", CAROL: step}, default="250 2.1.5 ok"
        ),
    )
    bench.port = server.port
    bench.add(ALICE, BOB, CAROL)
    assert bench.drain().code == 5
    if isinstance(step, Drop):  # a reset may overtake the answers before it
        assert bench.states()[ALICE] == "bounce-pending"
    assert bench.states()[BOB] == "deferred"
    assert bench.states()[CAROL] == "deferred"
    assert server.messages == []


def test_421_to_the_next_mail_does_not_touch_the_message_before(
    peer: StartPeer, bench: Bench
) -> None:
    """What was accepted before the primary closed is delivered; the rest goes later."""
    server = peer(mail=in_turn("250 ok", "250 ok", ReplyThenDrop("421 4.3.2 bye")))
    bench.port = server.port
    for path in (ALICE, BOB, CAROL):
        bench.add(path)
    assert bench.drain().code in (4, 5)
    states = list(bench.states().values())
    assert sorted(states) in (
        ["deferred", "delivered", "delivered"],
        ["delivered", "delivered", "pending"],
    )
    attempts = {fact["attempts"] for fact in bench.recipients().values()}
    assert attempts == {0, 1}


def test_at_most_one_message_of_a_session_is_in_doubt(
    peer: StartPeer, bench: Bench
) -> None:
    """P2: the MAIL behind a lost final dot was never answered, so it is not unknown."""
    server = peer(dot=in_turn("250 ok", "250 ok", Drop(), "250 ok"))
    bench.port = server.port
    bench.configure(retry=PATIENT["retry"])
    for n in range(5):
        bench.add(f"user{n}@example.org")
    assert bench.drain().code == 5
    states = list(bench.states().values())
    assert states.count("unknown") == 1
    assert set(states) <= {"unknown", "delivered", "deferred"}


@pytest.mark.parametrize("apart", [False, True])
def test_a_refusal_of_us_that_one_recipient_alone_meets_holds_it(
    peer: StartPeer, bench: Bench, *, apart: bool
) -> None:
    """Another one is delivered, in the same transaction or in another."""
    refused = "554 5.7.1 <x>: Client host rejected: Access denied"
    bench.port = peer(rcpt=per_recipient({ALICE: refused})).port
    if apart:
        bench.add(ALICE)
        bench.add(BOB)
    else:
        bench.add(ALICE, BOB)
    bench.configure(breaker={"give_up_after": "5s"})
    assert bench.drain("--no-check").code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}


def test_a_session_is_used_for_many_messages(peer: StartPeer, bench: Bench) -> None:
    """One connection, until it has carried what it may carry."""
    server = peer()
    bench.port = server.port
    bench.configure(primary={"max_messages": 3})
    for n in range(7):
        bench.add(f"user{n}@example.org")
    assert bench.drain().code == 0
    carried = [message.connection for message in server.accepted]
    assert [carried.count(n) for n in (1, 2, 3)] == [3, 3, 1]


# ---- RSET


@pytest.mark.parametrize(
    "rset", ["500 what?", "421 bye", Drop(), Garbage()], ids=["500", "421", "drop", "?"]
)
def test_rset_that_fails_ends_the_session_and_judges_nothing(
    peer: StartPeer, bench: Bench, rset: Step
) -> None:
    """The next message takes another connection."""
    server = peer(rcpt=per_recipient({ALICE: "550 5.1.1 unknown"}), rset=rset)
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "5s"})
    bench.add(ALICE)
    bench.add(BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "bounce-pending", BOB: "delivered"}


@pytest.mark.parametrize("behind", ["503 5.5.1 RCPT", "250 2.1.5 ok"])
def test_a_mail_that_came_too_early_behind_a_dot_is_sent_again(
    peer: StartPeer, bench: Bench, behind: str
) -> None:
    """503 judges no message; that session sends none behind a dot any more."""
    refused: list[int] = []

    def mail(view: View) -> Step:
        if view.transaction > 1 and not refused:
            refused.append(view.transaction)
            return "503 5.5.1 the last transaction is still being processed"
        return "250 2.1.0 ok"

    def rcpt(view: View) -> Step:
        return behind if view.message is None else "250 2.1.5 ok"

    server = peer(mail=mail, rcpt=rcpt, lenient=True)
    bench.port = server.port
    paths = [f"user{n}@example.org" for n in range(6)]
    for path in paths:
        bench.add(path)
    assert bench.drain().code == 0
    assert refused
    assert server.connections == 1
    got = sorted(path for m in server.accepted for path in m.forward_paths)
    assert got == paths


def test_503_to_a_mail_in_its_turn_is_judged(peer: StartPeer, bench: Bench) -> None:
    """It was not sent behind a dot, so it is about something else."""
    server = peer(mail="503 5.5.1 bad sequence", lenient=True)
    bench.port = server.port
    bench.add(ALICE)
    assert bench.drain().code != 0
    assert bench.states()[ALICE] != "delivered"
    assert len([c for c in server.commands if c.line.startswith(b"MAIL")]) == 1
