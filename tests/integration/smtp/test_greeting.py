"""Before MAIL: a refusal judges no message.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

from typing import Any

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import (
    ALICE,
    SILENT,
    StartPeer,
    refused_before_mail,
    verbs,
)
from tests.support.smtp_peer.script import (
    Drop,
    Garbage,
    Raw,
    ReplyThenDrop,
    Reset,
    Step,
    in_turn,
)

BEFORE_MAIL: dict[str, tuple[dict[str, Any], bool]] = {
    # name: (what the peer does, whether it is tried again within the run)
    "banner-421": ({"banner": ReplyThenDrop("421 4.3.2 shutting down")}, True),
    "banner-554": ({"banner": "554 5.3.2 no SMTP service here"}, False),
    "banner-521": ({"banner": "521 5.3.2 this host accepts no mail"}, False),
    "banner-550": ({"banner": "550 5.7.1 blocked using a list"}, False),
    "banner-dropped": ({"banner": Drop()}, True),
    "banner-reset": ({"banner": Reset()}, True),
    "banner-never": ({"banner": SILENT}, True),
    "banner-garbage": ({"banner": Garbage()}, True),
    "banner-is-250": ({"banner": "250 hello"}, True),
    "banner-is-354": ({"banner": "354 go ahead"}, True),
    "ehlo-421": ({"ehlo": ReplyThenDrop("421 4.7.0 too many connections")}, True),
    "ehlo-451": ({"ehlo": "451 4.3.0 later"}, True),
    "ehlo-504": ({"ehlo": "504 5.5.2 need fully-qualified hostname"}, False),
    "ehlo-550": ({"ehlo": "550 5.7.1 client host rejected"}, False),
    "ehlo-500-helo-refused": (
        {"ehlo": "500 5.5.1 what?", "helo": "550 5.7.1 no"},
        False,
    ),
    "ehlo-dropped": ({"ehlo": Drop()}, True),
    "ehlo-never": ({"ehlo": SILENT}, True),
    "ehlo-garbage": ({"ehlo": Garbage()}, True),
    "ehlo-is-354": ({"ehlo": "354 go ahead"}, True),
    "ehlo-of-100-kB": ({"ehlo": Raw(b"250-x\r\n" * 15000 + b"250 x\r\n")}, True),
}


@pytest.mark.parametrize(
    ("script", "again"), BEFORE_MAIL.values(), ids=list(BEFORE_MAIL)
)
def test_a_refusal_before_mail_stops_the_drain_and_judges_nothing(
    peer: StartPeer, bench: Bench, script: dict[str, Any], *, again: bool
) -> None:
    """A temporary one is tried again within the run, a permanent one is not."""
    refused_before_mail(peer, bench, script, again=again)


def test_a_name_that_does_not_resolve_stops_the_drain(bench: Bench) -> None:
    """There is nobody to ask: exit 4, and every recipient stays pending."""
    bench.configure(primary={"host": "primary.invalid"})
    bench.add(ALICE)
    assert bench.drain().code == 4
    assert bench.states() == {ALICE: "pending"}


@pytest.mark.parametrize(
    "banner",
    [ReplyThenDrop("421 4.3.2 starting"), Drop(), Reset()],
    ids=["421", "dropped", "reset"],
)
def test_a_temporary_refusal_is_waited_out(
    peer: StartPeer, bench: Bench, banner: Step
) -> None:
    """The drain pauses, asks again, and goes on when it is let in."""
    server = peer(banner=in_turn(banner, banner, "220 peer.example ESMTP"))
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "10s"})
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert bench.states() == {ALICE: "delivered"}
    assert server.connections == 3


@pytest.mark.parametrize("reply", ["500 5.5.1 what?", "502 5.5.1 not implemented"])
def test_a_primary_without_ehlo_is_greeted_with_helo(
    peer: StartPeer, bench: Bench, reply: str
) -> None:
    """RFC 5321 4.1.4: an old server gets HELO, and no parameter of any extension."""
    server = peer(ehlo=reply)
    bench.port = server.port
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert verbs(server) == ["EHLO", "HELO", "MAIL", "RCPT", "DATA", ".", "QUIT"]
    assert server.accepted[0].parameters == {}


def test_helo_is_no_way_out_when_tls_is_required(peer: StartPeer, bench: Bench) -> None:
    """A server without EHLO cannot offer STARTTLS: the drain stops."""
    bench.configure(primary={"tls": "required"})
    script = {"ehlo": "502 5.5.1 not implemented"}
    server = refused_before_mail(peer, bench, script, again=False)
    assert "HELO" not in verbs(server)


def test_a_primary_that_calls_itself_by_our_name_is_a_loop(
    peer: StartPeer, bench: Bench
) -> None:
    """Without the health check the session itself notices: exit 2, nothing sent."""
    server = peer(name="backup.example", banner="220 other.example ESMTP")
    bench.port = server.port
    bench.add(ALICE)
    result = bench.drain()
    assert result.code == 2
    assert "loop" in result.stderr
    assert bench.states() == {ALICE: "pending"}
    assert "MAIL" not in verbs(server)
