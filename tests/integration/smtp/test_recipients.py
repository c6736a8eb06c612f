"""Recipients of one transaction (RFC 5321 4.2, 4.5.3.1.10).

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
    PIPELINING,
    StartPeer,
    sent,
)
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Answer,
    Drop,
    Step,
    View,
    per_recipient,
)


@PIPELINING
def test_replies_belong_to_recipients_by_order_not_by_their_text(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """A reply that names somebody else is still the reply to its command."""
    server = peer(
        extensions=extensions,
        rcpt=per_recipient(
            {BOB: f"550 5.1.1 <{ALICE}> unknown", CAROL: f"450 4.2.1 <{BOB}> busy"}
        ),
    )
    bench.port = server.port
    bench.add(ALICE, BOB, CAROL)
    assert bench.drain().code == 5
    expected = {ALICE: "delivered", BOB: "bounce-pending", CAROL: "deferred"}
    assert bench.states() == expected
    assert sent(server) == [(ALICE,)]
    assert len(server.messages) == 1
    bench.assert_balanced()


@PIPELINING
def test_mail_refused_gives_every_recipient_that_reply(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """The 503 of pipelined RCPT and DATA is noise; the next message is not lost."""
    server = peer(
        extensions=extensions,
        mail=per_recipient({"bad@example.com": "550 5.1.8 sender domain bad"}),
    )
    bench.port = server.port
    bench.add(ALICE, BOB, sender="bad@example.com")
    bench.add(CAROL)
    assert bench.drain().code == 5
    found = bench.recipients()
    assert {found[ALICE]["rule"], found[BOB]["rule"]} == {"enhanced-5.1.8"}
    assert bench.states()[CAROL] == "delivered"
    assert server.connections == 1


DOTS = {
    "451": ("451 4.3.0 later", "deferred"),
    "554": ("554 5.7.1 spam", "bounce-pending"),
    "dropped": (Drop(), "unknown"),
}


@pytest.mark.parametrize(("dot", "state"), DOTS.values(), ids=list(DOTS))
def test_the_last_reply_is_shared_by_accepted_recipients_alone(
    peer: StartPeer, bench: Bench, dot: Step, state: str
) -> None:
    """Who was refused at RCPT keeps that reply, whatever the final dot brings."""
    refusals: dict[str, Step] = {BOB: "550 5.1.1 unknown", CAROL: "452 4.2.2 full"}
    server = peer(rcpt=per_recipient(refusals), dot=dot)
    bench.port = server.port
    bench.add(BOB, ALICE, CAROL)
    assert bench.drain().code == 5
    expected = {ALICE: state, BOB: "bounce-pending", CAROL: "deferred"}
    assert bench.states() == expected
    assert bench.recipients()[BOB]["reply"] == "550 5.1.1 unknown"
    assert bench.recipients()[CAROL]["reply"] == "452 4.2.2 full"


def at_most(count: int, reply: str) -> Answer:
    """Accept so many recipients in a transaction."""

    def answer(view: View) -> Step:
        taken = view.message.forward_paths if view.message else []
        return "250 2.1.5 ok" if len(taken) < count else reply

    return answer


@PIPELINING
@pytest.mark.parametrize(
    "reply",
    ["452 4.5.3 too many recipients", "452 too many", "552 too many", "550 5.5.3 no"],
    ids=["452-4.5.3", "452", "552", "550-5.5.3"],
)
def test_too_many_recipients_are_sent_at_once_in_more_transactions(
    peer: StartPeer, bench: Bench, reply: str, extensions: tuple[str, ...]
) -> None:
    """No attempt is counted, nothing is waited for, and the limit is learnt."""
    server = peer(extensions=extensions, rcpt=at_most(3, reply))
    bench.port = server.port
    people = [f"user{n}@example.org" for n in range(10)]
    bench.add(*people)
    assert bench.drain().code == 0
    assert set(bench.states()) == set(people)
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}
    assert sorted(sum(sent(server), ())) == sorted(people)
    first, *rest = server.transactions
    assert len(first.recipients) == 10
    assert [len(message.recipients) for message in rest] == [3, 3, 1]


def test_too_many_recipients_at_the_first_one_is_a_refusal(
    peer: StartPeer, bench: Bench
) -> None:
    """With nobody accepted it is no limit: the recipients are tried later."""
    server = peer(rcpt="452 4.5.3 too many recipients")
    bench.port = server.port
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}


def test_a_stated_recipient_limit_is_kept(peer: StartPeer, bench: Bench) -> None:
    """RFC 9422: LIMITS RCPTMAX says beforehand how many a transaction may have."""
    server = peer(extensions=(*EXTENSIONS, "LIMITS RCPTMAX=3"))
    bench.port = server.port
    people = [f"user{n}@example.org" for n in range(7)]
    bench.add(*people)
    assert bench.drain().code == 0
    assert sorted(len(message.recipients) for message in server.accepted) == [1, 3, 3]
    assert sorted(sum(sent(server), ())) == people
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}
