"""The callout on real sockets: what it asks, and when it ends."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest

from drainer.delivery.census.callout import Callout
from drainer.delivery.settings import PacingSettings, RouteSettings
from drainer.policy.census.existence import (
    ACCEPTS_ANY,
    Existence,
)
from drainer.policy.pacing.rate import UNLIMITED, Rates, message_rate
from drainer.smtp.callout import MAX_REFUSALS, MAX_TRANSACTIONS
from drainer.smtp.health_check import HealthProbe
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.route import Route, Timeouts
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Answer,
    Delay,
    Drop,
    ReplyThenDrop,
    Step,
    View,
    in_turn,
    per_recipient,
)

StartPeer = Callable[..., PeerThread]
UNKNOWN_USER = "550 5.1.1 User unknown"
KNOWN, UNKNOWN = Existence.KNOWN, Existence.UNKNOWN


def users(count: int, domain: str = "example.org") -> list[str]:
    """Return so many addresses."""
    return [f"u{n}@{domain}" for n in range(count)]


def answer_known(known: Iterable[str]) -> Answer:
    """Return the script of a primary that knows these users only."""
    return per_recipient(dict.fromkeys(known, "250 ok"), UNKNOWN_USER)


def make(
    peer: PeerThread, *, connections: int = 1, rates: Rates = UNLIMITED
) -> tuple[Callout, RateLimiter]:
    """Return a callout at a peer."""
    route = Route(
        host="127.0.0.1",
        port=peer.port,
        helo="backup.example",
        tls="off",
        timeouts=Timeouts(banner=10, ehlo=10, command=10),
    )
    limiter = RateLimiter(rates)
    settings = RouteSettings(
        route=route,
        probe=HealthProbe(),
        connections=connections,
        rates=rates,
        pace=PacingSettings(),
        pauses=(timedelta(minutes=1),),
        give_up_after=timedelta(minutes=15),
    )
    return Callout(settings, limiter), limiter


def ask(
    peer: PeerThread,
    recipients: list[str],
    *,
    connections: int = 1,
    rates: Rates = UNLIMITED,
) -> Callout:
    """Ask for recipients; return the callout when it has ended."""

    async def run() -> Callout:
        callout, limiter = make(peer, connections=connections, rates=rates)
        await limiter.resize(1.0)
        await callout.run(recipients)
        return callout

    return asyncio.run(run())


def refusals_by_session(peer: PeerThread) -> list[int]:
    """Return how many recipients each session of a peer had refused."""
    found = dict.fromkeys(range(1, peer.connections + 1), 0)
    for command in peer.commands:
        if command.line.startswith(b"RCPT"):
            found[command.connection] += command.reply.startswith("5")
    return list(found.values())


def test_it_asks_for_each_recipient_once_and_sends_no_message(peer: StartPeer) -> None:
    """Several RCPT travel together, and a transaction holds only so many."""
    primary = peer(extensions=("PIPELINING",))
    recipients = users(250)
    callout = ask(primary, recipients)
    assert [callout.said[each].existence for each in recipients] == [KNOWN] * 250
    assert callout.ended == ""
    lines = [command.line.split()[0] for command in primary.commands]
    assert lines.count(b"RCPT") == 250
    assert b"DATA" not in lines
    assert lines.count(b"MAIL") == 3
    assert lines[-2:] == [b"RSET", b"QUIT"]
    assert primary.connections == 1


def test_a_session_ends_before_the_primary_bans_us(peer: StartPeer) -> None:
    """No session hears more refusals than that, however many are under way."""
    recipients = users(60)
    known = recipients[::2]
    primary = peer(rcpt=answer_known(known), extensions=("PIPELINING",))
    callout = ask(primary, recipients, connections=3)
    assert {m for m, said in callout.said.items() if said.existence is KNOWN} == set(
        known
    )
    assert len(callout.said) == 60
    refusals = refusals_by_session(primary)
    assert sum(refusals) == 30
    assert max(refusals) <= MAX_REFUSALS


def test_without_pipelining_it_waits_for_each_reply(peer: StartPeer) -> None:
    """RFC 2920 3: commands travel together only where the server offers it."""
    primary = peer(extensions=())
    assert len(ask(primary, users(5)).said) == 5


def test_it_keeps_the_limit_of_recipients(peer: StartPeer) -> None:
    """No more travel together than the burst."""
    primary = peer(extensions=("PIPELINING",))
    rates = Rates(recipients=message_rate(20.0, 2))
    ask(primary, users(12), rates=rates)
    times = [c.at for c in primary.commands if c.line.startswith(b"RCPT")]
    assert times[-1] - times[0] >= 0.4  # 12, of which 2 at once, at 20 a second


@pytest.mark.parametrize(
    "rcpt",
    [
        in_turn("250 ok", ReplyThenDrop("421 4.7.0 too many"), "250 ok"),
        in_turn("250 ok", "554 5.7.1 Relay access denied", "250 ok"),
    ],
)
def test_it_ends_when_the_primary_refuses_us(peer: StartPeer, rcpt: Step) -> None:
    """What was answered before counts; nothing more is asked."""
    primary = peer(rcpt=rcpt, extensions=())
    callout = ask(primary, users(10))
    assert callout.ended
    assert list(callout.said) == ["u0@example.org"]
    assert primary.connections == 1


def test_a_limit_of_recipients_ends_the_transaction(peer: StartPeer) -> None:
    """RFC 5321 4.5.3.1.10: those that were too many are asked for in another one."""

    def rcpt(view: View) -> Step:
        assert view.message is not None
        is_full = len(view.message.forward_paths) >= 10
        return "452 4.5.3 Too many recipients" if is_full else "250 ok"

    callout = ask(peer(rcpt=rcpt, extensions=("PIPELINING",)), users(60))
    assert [said.existence for said in callout.said.values()] == [KNOWN] * 60


def test_a_session_ends_before_its_resets_count_as_junk(peer: StartPeer) -> None:
    """Another one asks for the rest; so it does where MAIL is refused in between."""
    primary = peer(extensions=("PIPELINING", "LIMITS RCPTMAX=5"))
    assert len(ask(primary, users(120)).said) == 120
    lines = [(c.connection, c.line[:4]) for c in primary.commands]
    resets = Counter(number for number, verb in lines if verb == b"RSET")
    assert max(resets.values()) <= MAX_TRANSACTIONS
    primary = peer(
        mail=in_turn("250 ok", "452 4.3.2 too many messages in this session", "250 ok"),
        extensions=("LIMITS RCPTMAX=5",),
    )
    callout = ask(primary, users(10))
    assert callout.ended == ""
    assert len(callout.said) == 10


def test_fewer_sessions_than_allowed_are_enough(peer: StartPeer) -> None:
    """A primary may limit how many it takes from a client."""
    primary = peer(
        banner=in_turn("220 hello", "421 4.7.0 too many connections"),
        rcpt=lambda _view: Delay(0.02, "250 ok"),
    )
    callout = ask(primary, users(40), connections=3)
    assert callout.ended == ""
    assert len(callout.said) == 40


def test_a_refused_sender_is_no_refused_recipient(peer: StartPeer) -> None:
    """It ends, and nobody is unknown."""
    callout = ask(peer(mail="550 5.1.8 sender refused"), users(6))
    assert "5.1.8" in callout.ended
    assert callout.said == {}


def test_a_primary_that_refuses_everybody_is_asked_no_further(peer: StartPeer) -> None:
    """Its refusals are about no recipient, as the refusal detector finds."""
    primary = peer(rcpt=UNKNOWN_USER, extensions=())
    callout = ask(primary, users(100))
    assert callout.refuses_everybody
    assert len(callout.said) < 20
    worth = callout.answers()
    assert {a.existence for a in worth.values()} == {Existence.CANNOT_TELL}


def test_a_lost_session_is_followed_by_another(peer: StartPeer) -> None:
    """A recipient is asked for again; after three lost sessions it ends."""
    primary = peer(rcpt=in_turn("250 ok", Drop(), "250 ok"), extensions=())
    callout = ask(primary, users(6))
    assert len(callout.said) == 6
    assert ask(peer(rcpt=Drop()), users(6)).said == {}


def test_a_domain_that_accepts_any_address_says_nothing(peer: StartPeer) -> None:
    """A random address shows it; drainer asks for no other address of it."""

    def rcpt(view: View) -> Step:
        path = view.path
        return (
            "250 ok"
            if "@all.example" in path or path.startswith("u0@")
            else UNKNOWN_USER
        )

    primary = peer(rcpt=rcpt)

    async def run() -> Callout:
        callout, limiter = make(primary)
        await limiter.resize(1.0)
        await callout.find_catch_alls(["all.example", "example.org"])
        await callout.run([*users(3), *users(3, "all.example")])
        return callout

    answers = asyncio.run(run()).answers()
    asked = [c.line for c in primary.commands if b"@all.example" in c.line]
    assert len(asked) == 1
    assert len(answers) == 6
    assert answers["u0@example.org"].existence is KNOWN
    assert answers["u1@example.org"].existence is UNKNOWN
    assert answers["u1@all.example"].reason == ACCEPTS_ANY


def test_random_addresses_are_refused_by_a_healthy_primary(peer: StartPeer) -> None:
    """Their refusals do not show that it refuses everybody, however many domains."""
    domains = [f"d{n}.example" for n in range(30)]
    known = [f"u0@{domain}" for domain in domains]
    primary = peer(rcpt=answer_known(known), extensions=("PIPELINING",))

    async def run() -> Callout:
        callout, limiter = make(primary)
        await limiter.resize(1.0)
        await callout.find_catch_alls(domains)
        await callout.run(known)
        return callout

    callout = asyncio.run(run())
    assert callout.ended == ""
    assert {a.existence for a in callout.answers().values()} == {KNOWN}


def test_several_sessions_share_the_work(peer: StartPeer) -> None:
    """A slow primary is asked on as many sessions as the route allows."""
    primary = peer(rcpt=lambda _view: Delay(0.02, "250 ok"))
    assert len(ask(primary, users(40), connections=4).said) == 40
    assert primary.max_concurrent == 4
