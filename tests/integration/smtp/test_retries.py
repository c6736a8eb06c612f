"""Within one run: retries, and nothing twice.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

from drainer.sources.common.marker import MARKER
from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import ALICE, BOB, StartPeer, sent, verbs
from tests.support.smtp_peer.script import (
    in_turn,
)


def test_a_temporary_refusal_is_tried_again_within_the_run(
    peer: StartPeer, bench: Bench
) -> None:
    """On the schedule, until it is accepted: exit 0."""
    later = "451 4.7.1 try again later"
    server = peer(rcpt=in_turn(later, later, "250 2.1.5 ok"))
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "10s"})
    queue_id = bench.add(ALICE)
    assert bench.drain().code == 0
    assert bench.recipients()[ALICE]["attempts"] == 3
    verdicts = [v["verdict"] for v in bench.verdicts(queue_id)]
    assert verdicts == ["retry", "retry", "deliver"]


def test_what_is_refused_for_good_is_neither_bounced_nor_sent_again(
    peer: StartPeer, bench: Bench
) -> None:
    """It rests in bounce-pending, the spool keeps it, a second drain leaves it alone."""  # noqa: E501
    server = peer(rcpt="550 5.1.1 unknown")
    bench.port = server.port
    bench.add(ALICE)
    files = sorted({*bench.spool.rglob("*"), bench.spool / MARKER})
    assert bench.drain().code == 5
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "bounce-pending"}
    assert verbs(server).count("MAIL") == 1
    assert sorted(bench.spool.rglob("*")) == files


def test_what_was_delivered_is_never_sent_again(peer: StartPeer, bench: Bench) -> None:
    """A second drain of the same spool finds nothing to do: exit 0."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE, BOB)
    assert bench.drain().code == 0
    assert bench.drain().code == 0
    assert sent(server) == [(ALICE, BOB)]
