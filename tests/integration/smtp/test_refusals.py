"""Refusals of us from MAIL on: the circuit breaker in whole drains.

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
    PLAIN,
    StartPeer,
    sent,
    verbs,
)
from tests.support.smtp_peer.script import (
    Delay,
    ReplyThenDrop,
    in_turn,
    per_recipient,
)


def test_one_message_alone_never_stops_a_drain(peer: StartPeer, bench: Bench) -> None:
    """A refusal worded like one of us hits that message only."""
    server = peer(mail=per_recipient({"odd@example.net": "530 5.7.0 log in first"}))
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "5s"})
    bench.add(ALICE, sender="odd@example.net")
    for n in range(5):
        bench.add(f"user{n}@example.org", sender=f"s{n}@example.com")
    assert bench.drain().code == 5
    states = bench.states()
    assert states.pop(ALICE) == "held"  # refused again, while others were taken
    assert set(states.values()) == {"delivered"}


@PIPELINING
def test_refusals_of_us_for_two_sender_domains_stop_the_drain(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """Exit 4: nothing is judged, no attempt is counted, the rest is not even tried."""
    server = peer(extensions=extensions, mail="530 5.7.0 log in first")
    bench.port = server.port
    for n in range(30):
        bench.add(f"user{n}@example.org", sender=f"s@example{n}.com")
    result = bench.drain()
    assert result.code == 4
    assert set(bench.states().values()) == {"deferred", "pending"}
    assert {fact["attempts"] for fact in bench.recipients().values()} == {0}
    assert verbs(server).count("MAIL") <= 4
    bench.assert_balanced()


def test_an_open_breaker_is_not_closed_by_what_was_under_way(
    peer: StartPeer, bench: Bench
) -> None:
    """A message that another session had begun may end well: exit 4 all the same."""
    server = peer(
        extensions=PLAIN,
        mail=lambda view: (
            "250 ok" if view.path == "ok@ok.example" else Delay(0.3, "530 5.7.0 no")
        ),
        dot=Delay(0.8, "250 2.0.0 ok"),
    )
    bench.port = server.port
    bench.configure(primary={"connections": 7})
    bench.add(ALICE, sender="ok@ok.example")
    for n in range(6):
        bench.add(f"user{n}@example.org", sender=f"s@example{n}.com")
    assert bench.drain().code == 4
    states = bench.states()
    assert states.pop(ALICE) == "delivered"
    assert set(states.values()) <= {"deferred", "pending"}


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_421_pauses_the_route_and_the_drain_goes_on(
    peer: StartPeer, bench: Bench, stage: str
) -> None:
    """A short stop: everything is delivered in the same run, no attempt lost by it."""
    usual = "354 go ahead" if stage == "data" else "250 ok"
    bye = ReplyThenDrop("421 4.3.2 restarting")
    server = peer(**{stage: in_turn(bye, usual)})
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "10s"})
    for path in (ALICE, BOB, CAROL):
        bench.add(path)
    assert bench.drain().code == 0
    assert sorted(sum(sent(server), ())) == [ALICE, BOB, CAROL]
