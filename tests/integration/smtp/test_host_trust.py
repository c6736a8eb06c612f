"""A primary that ends sessions, or limits their number: it is no less healthy for it.

Each test tells the peer what to do, drains, and then asks what became of every
recipient, and how the peer was reached.
"""

from collections.abc import Callable

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import PATIENT, PLAIN, StartPeer, sent
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Drop,
    ReplyThenDrop,
    Reset,
    Step,
    View,
)

PATHS = [f"user{n}@example.org" for n in range(30)]
BYE = ReplyThenDrop("421 4.7.0 too many messages in this session")
ENDS: dict[str, Step] = {
    "421": BYE,
    "drop": Drop(),
    "reset": Reset(),
    "450": "450 4.7.1 Too many messages in this session",
    "550": "550 5.5.3 maximum number of messages per SMTP connection exceeded",
}
#: A pause of the route would end the drain with another exit status.
NO_PAUSE = PATIENT | {"breaker": {"pauses": ["1h"], "give_up_after": "30s"}}


@pytest.mark.parametrize("step", ENDS.values(), ids=list(ENDS))
@pytest.mark.parametrize(
    ("limit", "extensions"),
    [(1, EXTENSIONS), (3, EXTENSIONS), (10, EXTENSIONS), (3, PLAIN)],
    ids=["1", "3", "10", "3-one-by-one"],
)
def test_a_limit_of_messages_in_a_session_is_learned(
    peer: StartPeer,
    bench: Bench,
    limit: int,
    step: Step,
    extensions: tuple[str, ...],
) -> None:
    """No attempt is counted for it, no route waits, and few sessions are in vain."""
    server = peer(
        extensions=extensions,
        mail=lambda view: step if view.transaction > limit else "250 2.1.0 ok",
    )
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **NO_PAUSE)
    for path in PATHS:
        bench.add(path)
    result = bench.drain()
    assert result.code == 0
    assert sorted(sum(sent(server), ())) == sorted(PATHS)
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}
    assert server.connections <= len(PATHS) / limit + 5
    assert "drainer ends each session after" in result.stderr


@pytest.mark.parametrize(
    "reply",
    [
        "554 5.7.0 session limit reached",
        "451 4.7.1 Please reconnect for further messages",
        "503 5.5.1 Error: too many transactions",
        "450 4.3.2 Open a new connection for the next message",
    ],
)
def test_a_limit_of_a_session_is_named_in_many_words(
    peer: StartPeer, bench: Bench, reply: str
) -> None:
    """With any code: the message goes at once in another session."""
    server = peer(mail=lambda view: reply if view.transaction > 3 else "250 2.1.0 ok")
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **NO_PAUSE)
    for path in PATHS[:12]:
        bench.add(path)
    assert bench.drain().code == 0
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}


@pytest.mark.parametrize("stage", ["rcpt", "data"])
@pytest.mark.parametrize("step", [BYE, Drop()], ids=["421", "drop"])
def test_a_session_may_end_behind_mail_as_well(
    peer: StartPeer, bench: Bench, stage: str, step: Step
) -> None:
    """A primary may count recipients instead; the message is sent again at once."""

    def answer(view: View) -> Step:
        if view.transaction > 4:
            return step
        return "354 go ahead" if stage == "data" else "250 2.1.5 ok"

    server = peer(**{stage: answer})
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **NO_PAUSE)
    for path in PATHS[:12]:
        bench.add(path)
    assert bench.drain().code == 0
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}


@pytest.mark.parametrize("stage", ["mail", "rcpt"])
@pytest.mark.parametrize("step", [BYE, Drop()], ids=["421", "drop"])
def test_a_message_that_ends_every_session_shortens_none(
    peer: StartPeer, bench: Bench, stage: str, step: Step
) -> None:
    """It is sent again alone; then it is the cause, and waits by itself."""
    server = peer(
        **{
            stage: lambda view: (
                step
                if "evil" in view.command.line.decode() + _sender(view)
                else "250 ok"
            )
        }
    )
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **NO_PAUSE)
    for n, path in enumerate(PATHS):
        sender = "s@evil.example" if n % 6 == 5 else "s@example.com"
        bench.add(path, sender=sender)
    result = bench.drain()
    assert result.code == 5
    states = bench.states()
    evil = [path for n, path in enumerate(PATHS) if n % 6 == 5]
    assert {states.pop(path) for path in evil} == {"deferred"}
    assert set(states.values()) == {"delivered"}
    assert server.connections <= 3 * len(evil)


@pytest.mark.parametrize("step", [BYE, Drop()], ids=["421", "drop"])
def test_messages_that_end_two_sessions_alike_are_no_limit(
    peer: StartPeer, bench: Bench, step: Step
) -> None:
    """Each is the second of its session; that it ends its own, too, clears the host."""
    server = peer(
        mail=lambda view: step if "evil" in str(view.command.line) else "250 ok"
    )
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **NO_PAUSE)
    for n, path in enumerate(PATHS):
        bench.add(
            path,
            sender="s@evil.example" if n in (1, 3, 5) else "s@example.com",
            text=b"Subject: hello\n\n" + b"x" * n + b"\n",
        )
    assert bench.drain("--order", "smallest").code == 5
    assert len(sent(server)) == len(PATHS) - 3
    assert server.connections <= 3 * 3


def _sender(view: View) -> str:
    return view.message.reverse_path if view.message else ""


def test_one_end_of_a_session_teaches_nothing(peer: StartPeer, bench: Bench) -> None:
    """A restart of the primary ends sessions as well."""
    server = peer(
        mail=lambda view: (
            BYE if (view.connection, view.transaction) == (1, 2) else "250 2.1.0 ok"
        )
    )
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **NO_PAUSE)
    for path in PATHS:
        bench.add(path)
    result = bench.drain()
    assert result.code == 0
    assert "ends each session" not in result.stderr
    assert server.connections <= 3


@pytest.mark.parametrize("size", [100, 200_000], ids=["small", "large"])
@pytest.mark.parametrize(
    "step",
    [Drop(), ReplyThenDrop("421 4.3.0 bye"), ReplyThenDrop("500 Line too long")],
    ids=["drop", "421", "500"],
)
def test_a_content_that_ends_the_session_costs_the_next_message_nothing(
    peer: StartPeer, bench: Bench, size: int, step: Step
) -> None:
    """What was sent behind its final dot is sent again at once, and not counted."""
    server = peer(
        dot=lambda view: step if "evil" in _sender(view) else "250 2.0.0 taken"
    )
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **NO_PAUSE)
    for n, path in enumerate(PATHS[:9]):
        sender = "s@evil.example" if n % 3 == 0 else "s@example.com"
        text = b"Subject: x\n\n" + b"x" * size + b"\n"
        bench.add(path, sender=sender, text=text)
    result = bench.drain()
    assert result.code == 5
    facts = bench.recipients()
    others = [path for n, path in enumerate(PATHS[:9]) if n % 3]
    assert {facts[path]["state"] for path in others} == {"delivered"}
    assert {facts[path]["attempts"] for path in others} == {1}
    assert "ends each session" not in result.stderr


# ---- too many sessions at once


REFUSALS: dict[str, Step] = {
    "421": ReplyThenDrop("421 4.7.0 too many concurrent connections"),
    "450": ReplyThenDrop("450 4.7.1 no more than 2 at a time"),
    "554": ReplyThenDrop("554 5.7.0 too many connections from your host"),
    "drop": Drop(),
}


def _limited(
    start: StartPeer, stage: str, step: Step, usual: Callable[[View], Step]
) -> PeerThread:
    """Start a peer that serves two connections at a time."""
    servers: list[PeerThread] = []

    def answer(view: View) -> Step:
        return step if servers[0].open_connections > 2 else usual(view)

    servers.append(start(**{stage: answer}))
    return servers[0]


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("stage", ["banner", "ehlo"])
def test_a_session_too_many_is_done_without(
    peer: StartPeer, bench: Bench, stage: str, name: str
) -> None:
    """The others deliver meanwhile; the route neither pauses nor stops."""
    usual = {"banner": "220 peer.example ESMTP", "ehlo": "250 peer.example"}[stage]
    server = _limited(peer, stage, REFUSALS[name], lambda _: usual)
    bench.port = server.port
    bench.configure(primary={"connections": 6}, **NO_PAUSE)
    for path in PATHS:
        bench.add(path)
    assert bench.drain("--rate", "15/second").code == 0
    assert sorted(sum(sent(server), ())) == sorted(PATHS)
    assert server.connections <= 12
