"""The canary on a real socket: what it asks, and what each answer proves.

It may open or close a breaker, so that what proves nothing must stay unclear.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from drainer.mail.reply import Stage
from drainer.policy.breaker.breaker import CanaryOutcome
from drainer.smtp.canary import CanaryQuestion, CanaryResult, ask_canary
from drainer.smtp.connection import ConnectFailure
from drainer.smtp.route import Route, Timeouts
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Drop,
    Garbage,
    ReplyThenDrop,
    Reset,
    Stall,
    Step,
    View,
    in_turn,
    per_recipient,
)

StartPeer = Callable[..., PeerThread]
BOSS, ROOT, AMY = "boss@example.org", "root@example.net", "amy@example.com"
UNKNOWN, RELAY = "550 5.1.1 User unknown", "554 5.7.1 Relay access denied"
GREY = "450 4.7.1 Greylisted"
#: Accepts who must exist, and nobody else.
HEALTHY = per_recipient({BOSS: "250 ok", ROOT: "250 ok"}, UNKNOWN)


def ask(
    peer: PeerThread, *good: str, sender: str = AMY, any_domain: bool = False
) -> CanaryResult | ConnectFailure:
    """Let a canary ask for addresses of example.org."""
    timeouts = Timeouts(banner=5, ehlo=5, command=0.5)
    route = Route(
        host="127.0.0.1",
        port=peer.port,
        helo="backup.example",
        tls="off",
        timeouts=timeouts,
    )
    question = CanaryQuestion(
        sender=sender, good=good, domain="example.org", any_domain=any_domain
    )
    return asyncio.run(ask_canary(route, question))


def told(
    peer: PeerThread, *good: str, sender: str = AMY, any_domain: bool = False
) -> CanaryResult:
    """Let it ask, on a session that could be opened."""
    answer = ask(peer, *good, sender=sender, any_domain=any_domain)
    assert isinstance(answer, CanaryResult)
    return answer


def lines(peer: PeerThread) -> list[bytes]:
    """Return the commands that the peer got."""
    return [command.line for command in peer.commands]


def test_a_known_good_recipient_that_is_accepted_proves_it(peer: StartPeer) -> None:
    """In the name of a real sender, and while a stranger is refused; never DATA."""
    primary = peer(rcpt=HEALTHY)
    answer = told(primary, BOSS)
    assert answer.outcome is CanaryOutcome.ACCEPTED
    assert answer.accepted == (BOSS,)
    ehlo, mail, rcpt, stranger, leave = lines(primary)
    assert (ehlo, leave) == (b"EHLO backup.example", b"QUIT")
    assert mail == b"MAIL FROM:<amy@example.com>"
    assert rcpt == b"RCPT TO:<boss@example.org>"
    assert stranger.startswith(b"RCPT TO:<drainer-canary-")
    assert stranger.endswith(b"@example.org>")
    assert primary.messages == []


def test_no_two_canaries_ask_for_the_same_stranger(peer: StartPeer) -> None:
    """Else somebody could create it."""
    primary = peer(rcpt=HEALTHY)
    for _ in range(2):
        told(primary, BOSS)
    strangers = [line for line in lines(primary) if b"canary" in line]
    assert len(set(strangers)) == 2


CASES: dict[str, tuple[dict[str, Step | Any], CanaryOutcome, str]] = {
    # name: (what the peer does, what that proves, its words)
    "unknown": ({"rcpt": UNKNOWN}, CanaryOutcome.REFUSED, UNKNOWN),
    "relay denied": ({"rcpt": RELAY}, CanaryOutcome.REFUSED, RELAY),
    "MAIL refused": ({"mail": "550 5.7.1 no"}, CanaryOutcome.REFUSED, "550 5.7.1 no"),
    "greylisted": ({"rcpt": GREY}, CanaryOutcome.UNCLEAR, GREY),
    "MAIL greylisted": ({"mail": "451 4.7.1 x"}, CanaryOutcome.UNCLEAR, "451 4.7.1 x"),
    "MAIL closes": ({"mail": ReplyThenDrop("421 x")}, CanaryOutcome.UNCLEAR, "421 x"),
    "a catch-all": ({}, CanaryOutcome.UNCLEAR, "the primary accepts any address"),
    "MAIL is 354": ({"mail": "354 go ahead"}, CanaryOutcome.UNCLEAR, "354 go ahead"),
    "RCPT is 354": ({"rcpt": "354 go on"}, CanaryOutcome.UNCLEAR, "354 go on"),
    "RCPT closes": ({"rcpt": ReplyThenDrop("421 x")}, CanaryOutcome.UNCLEAR, "421 x"),
}


@pytest.mark.parametrize(
    ("script", "outcome", "reply"), CASES.values(), ids=list(CASES)
)
def test_an_answer_proves_what_it_says(
    peer: StartPeer, script: dict[str, Any], outcome: CanaryOutcome, reply: str
) -> None:
    """Refused for good: it is everybody. Anything else that is no yes: unclear."""
    answer = told(peer(**script), BOSS)
    assert (answer.outcome, answer.reply) == (outcome, reply)


def test_a_greylisted_sender_is_no_refused_recipient(peer: StartPeer) -> None:
    """What RCPT gets after such a MAIL, "MAIL first", is about the sequence."""
    primary = peer(mail=GREY)
    answer = told(primary, BOSS)
    assert (answer.outcome, dict(answer.refused)) == (CanaryOutcome.UNCLEAR, {})
    assert not [line for line in lines(primary) if line.startswith(b"RCPT")]


LOSSES: Mapping[str, Step] = {
    "dropped": Drop(),
    "reset": Reset(),
    "garbage": Garbage(),
    "silent": Stall(),
}


@pytest.mark.parametrize("step", LOSSES.values(), ids=list(LOSSES))
@pytest.mark.parametrize("command", ["mail", "rcpt"])
def test_a_session_that_is_lost_proves_nothing(
    peer: StartPeer, command: str, step: Step
) -> None:
    """It neither raises nor waits for longer than a reply may take."""
    answer = told(peer(**{command: step}), BOSS)
    assert answer.outcome is CanaryOutcome.UNCLEAR
    assert (answer.accepted, dict(answer.refused)) == ((), {})


@pytest.mark.parametrize("step", LOSSES.values(), ids=list(LOSSES))
def test_who_was_accepted_before_it_was_lost_is_accepted(
    peer: StartPeer, step: Step
) -> None:
    """That the stranger got no answer takes nothing back."""
    answer = told(peer(rcpt=in_turn("250 ok", step)), BOSS)
    assert (answer.outcome, answer.accepted) == (CanaryOutcome.ACCEPTED, (BOSS,))


@pytest.mark.parametrize(
    ("script", "stage"),
    [
        ({"banner": "554 5.7.1 no"}, Stage.BANNER),
        ({"banner": Drop()}, Stage.BANNER),
        ({"ehlo": "550 5.7.1 no"}, Stage.EHLO),
        ({"ehlo": Drop()}, Stage.EHLO),
    ],
)
def test_without_a_session_the_stage_is_reported(
    peer: StartPeer, script: dict[str, Any], stage: Stage
) -> None:
    """What that means the breaker decides."""
    answer = ask(peer(**script), BOSS)
    assert isinstance(answer, ConnectFailure)
    assert answer.steps[-1].stage is stage


def test_a_primary_with_our_own_name_is_refused(peer: StartPeer) -> None:
    """It is a loop: the primary's name leads back to us."""
    primary = peer(name="backup.example", banner="220 backup.example ESMTP")
    answer = told(primary, BOSS)
    assert answer.outcome is CanaryOutcome.REFUSED
    assert [line for line in lines(primary) if line.startswith(b"MAIL")] == []


# ---- several domains


@pytest.mark.parametrize(
    ("any_domain", "outcome"),
    [(True, CanaryOutcome.ACCEPTED), (False, CanaryOutcome.REFUSED)],
)
def test_one_dead_domain_is_not_the_route(
    peer: StartPeer, outcome: CanaryOutcome, *, any_domain: bool
) -> None:
    """Who was refused is told all the same; of one domain each must be accepted."""
    primary = peer(rcpt=per_recipient({BOSS: "250 ok"}, UNKNOWN))
    answer = told(primary, ROOT, BOSS, any_domain=any_domain)
    assert answer.outcome is outcome
    assert answer.accepted == (BOSS,)
    assert dict(answer.refused) == {ROOT: UNKNOWN}


def test_when_every_domain_is_refused_it_is_the_route(peer: StartPeer) -> None:
    """With the words of the first."""
    answer = told(peer(rcpt=RELAY), ROOT, BOSS, any_domain=True)
    assert (answer.outcome, answer.reply) == (CanaryOutcome.REFUSED, RELAY)


def test_a_recipient_that_is_greylisted_leaves_it_to_the_others(
    peer: StartPeer,
) -> None:
    """One that is accepted is an answer."""
    rcpt = per_recipient({BOSS: "250 ok", ROOT: GREY}, UNKNOWN)
    answer = told(peer(rcpt=rcpt), ROOT, BOSS)
    assert (answer.outcome, answer.accepted) == (CanaryOutcome.ACCEPTED, (BOSS,))


# ---- nobody to ask for


def test_postmaster_alone_proves_nothing(peer: StartPeer) -> None:
    """Many servers exempt it, and the null sender, from every restriction."""
    primary = peer()
    answer = told(primary)
    assert answer.outcome is CanaryOutcome.UNCLEAR
    assert lines(primary)[1:] == [
        b"MAIL FROM:<amy@example.com>",
        b"RSET",
        b"MAIL FROM:<>",
        b"RCPT TO:<postmaster@example.org>",
        b"QUIT",
    ]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ({"rcpt": UNKNOWN}, CanaryOutcome.REFUSED),
        ({"rcpt": GREY}, CanaryOutcome.UNCLEAR),
        ({"rcpt": Drop()}, CanaryOutcome.UNCLEAR),
        ({"rset": Drop()}, CanaryOutcome.UNCLEAR),
        ({"mail": in_turn("250 ok", "451 4.7.1 later")}, CanaryOutcome.UNCLEAR),
        ({"mail": in_turn("250 ok", "550 5.7.1 no bounces")}, CanaryOutcome.UNCLEAR),
        ({"mail": in_turn("250 ok", Drop())}, CanaryOutcome.UNCLEAR),
    ],
)
def test_postmaster_must_exist(
    peer: StartPeer, script: dict[str, Any], outcome: CanaryOutcome
) -> None:
    """RFC 5321 4.5.1; that the null sender is disliked is another matter."""
    assert told(peer(**script)).outcome is outcome


# ---- what enters a command


HOSTILE = [
    "a@example.org>\r\nDATA\r\n",
    "a\r\nRSET\r\nb@example.org",
    "a\x00b@example.org",
    "a b@example.org",
    "<>",
    "no-domain",
    "j\u00f6rg@example.org",
    "a@" + "x" * 300,
    "a" * 600 + "@example.org",
]


@pytest.mark.parametrize("address", HOSTILE)
def test_nothing_but_a_mailbox_enters_a_command(peer: StartPeer, address: str) -> None:
    """Not from a configuration, a ledger or a spool; what is left is asked."""
    primary = peer(rcpt=HEALTHY)
    answer = told(primary, address, BOSS, sender=address)
    assert answer.outcome is CanaryOutcome.ACCEPTED
    assert lines(primary)[1:3] == [b"MAIL FROM:<>", b"RCPT TO:<boss@example.org>"]
    assert len(primary.commands) == 5


def test_a_domain_that_is_none_is_not_asked_for(peer: StartPeer) -> None:
    """Without one there is neither postmaster nor a stranger."""
    primary = peer(rcpt=HEALTHY)
    route = Route(host="127.0.0.1", port=primary.port, helo="b.example", tls="off")
    hostile = CanaryQuestion(sender=AMY, good=(), domain="x>\r\nDATA")
    answer = asyncio.run(ask_canary(route, hostile))
    assert isinstance(answer, CanaryResult)
    assert answer.outcome is CanaryOutcome.UNCLEAR
    assert lines(primary)[1:] == [b"MAIL FROM:<amy@example.com>", b"QUIT"]


def test_hostile_words_come_back_as_text(peer: StartPeer) -> None:
    """They are escaped by whoever prints them."""

    def hostile(view: View) -> Step:
        return "550 5.1.1 \x1b[2J no" if view.path == BOSS else UNKNOWN

    answer = told(peer(rcpt=hostile), BOSS)
    assert answer.reply == "550 5.1.1 \x1b[2J no"
