"""A primary whose replies do not match the commands: no recipient gets another's reply.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer.
"""

import pytest

from tests.support.command.runner import Bench, call
from tests.support.scenarios.sessions import (
    ALICE,
    BOB,
    CAROL,
    PATIENT,
    PLAIN,
    StartPeer,
    sent,
    verbs,
)
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Answer,
    Drop,
    Raw,
    Stall,
    Step,
    View,
    in_turn,
    per_recipient,
)

GOOD = [f"good{n}@example.org" for n in range(8)]
BAD = [f"bad{n}@example.org" for n in range(8)]
NO = "550 5.1.1 no such user"
OK = b"250 2.0.0 ok\r\n"


def twice(first: str, second: str = "") -> Raw:
    """Return two replies to one command, in one packet."""
    return Raw(f"{first}\r\n{second or first}\r\n".encode())


def only(nth: int, step: Step, otherwise: Step) -> Answer:
    """Return an answer that is different for one transaction."""
    return lambda view: step if view.transaction == nth else otherwise


def rcpt(view: View) -> Step:
    """Accept the good recipients only."""
    return NO if view.path.startswith("bad") else "250 2.1.5 ok"


def rcpt_twice(view: View) -> Step:
    """Answer the same, and say it twice."""
    step = rcpt(view)
    assert isinstance(step, str)
    return twice(step)


STRAY: dict[str, dict[str, Answer]] = {
    "each-dot-twice": {"dot": twice("250 2.0.0 ok")},
    "each-dot-and-a-refusal": {"dot": twice("250 2.0.0 ok", NO)},
    "each-dot-and-a-354": {"dot": twice("250 2.0.0 ok", "354 go on")},
    "each-dot-and-an-echo-of-data": {"dot": twice("354 go on", "250 2.0.0 ok")},
    "each-mail-twice": {"mail": twice("250 2.1.0 ok")},
    "each-mail-and-a-refusal": {"mail": twice("250 2.1.0 ok", NO)},
    "each-rcpt-twice": {"rcpt": rcpt_twice},
    "each-data-twice": {"data": twice("354 go on")},
    "each-data-and-a-refusal": {"data": twice("354 go on", "554 5.6.0 no")},
    **{
        f"dot-{n}-and-a-refusal": {"dot": only(n, twice("250 2.0.0 ok", NO), "250 ok")}
        for n in (1, 2, 3, 8)
    },
    **{
        f"dot-{n}-three-times": {
            "dot": only(n, Raw(OK + b"550 5.1.1 no\r\n" * 2), "250 ok")
        }
        for n in (1, 3)
    },
}
#: With one command at a time it is all the same which of the final dots it is.
ROWS = [
    *(pytest.param(name, EXTENSIONS, id=f"{name}-pipelined") for name in STRAY),
    *(
        pytest.param(name, PLAIN, id=f"{name}-one-by-one")
        for name in STRAY
        if name.startswith(("each", "dot-1"))
    ),
]


@pytest.mark.parametrize(("name", "extensions"), ROWS)
def test_a_stray_reply_decides_nothing_about_another_recipient(
    peer: StartPeer, bench: Bench, name: str, extensions: tuple[str, ...]
) -> None:
    """A good recipient is never refused, and a bad one never delivered."""
    script: dict[str, Answer] = {"rcpt": rcpt} | STRAY[name]
    server = peer(extensions=extensions, **script)
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **PATIENT)
    for good, bad in zip(GOOD, BAD, strict=True):
        bench.add(good)
        bench.add(bad)
        bench.add(f"2{good}", bad.replace("bad", "bad2"))
    bench.drain()
    states = bench.states()
    bench.assert_balanced()
    allowed = {"delivered", "deferred", "unknown"}
    assert {states[p] for p in states if "good" in p} <= allowed, states
    refused = {states[p] for p in states if p.startswith("bad")}
    assert refused <= {"bounce-pending", "deferred"}, states
    taken = {path for message in server.messages for path in message.forward_paths}
    assert {p for p in states if states[p] == "delivered"} <= taken


@pytest.mark.parametrize("name", ["dot-1-and-a-refusal", "dot-3-three-times"])
def test_one_stray_reply_costs_pipelining_and_no_message(
    peer: StartPeer, bench: Bench, name: str
) -> None:
    """What was in between is sent again at once, and the log says why."""
    script: dict[str, Answer] = {"rcpt": rcpt} | STRAY[name]
    server = peer(**script)
    bench.port = server.port
    bench.configure(primary={"connections": 1}, **PATIENT)
    for good in GOOD:
        bench.add(good)
    result = bench.drain()
    states = bench.states()
    assert set(states.values()) <= {"delivered", "unknown"}
    assert len(sent(server)) == len(GOOD)
    assert "PIPELINING" in result.stderr


def test_a_contradicted_acceptance_is_in_doubt(peer: StartPeer, bench: Bench) -> None:
    """With one command at a time both replies belong to the final dot."""
    server = peer(extensions=PLAIN, dot=twice("250 2.0.0 ok", "554 5.6.0 no"))
    bench.port = server.port
    bench.configure(**PATIENT)
    bench.add(ALICE)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "unknown"}


def test_more_replies_than_commands_before_mail_end_the_session(
    peer: StartPeer, bench: Bench
) -> None:
    """An extra reply behind that to EHLO would be taken for the reply to MAIL."""
    offer = b"250-peer.example\r\n250 PIPELINING\r\n"
    server = peer(ehlo=Raw(offer + OK))
    bench.port = server.port
    bench.configure(breaker={"pauses": ["50ms"], "give_up_after": "300ms"})
    bench.add(ALICE)
    result = bench.drain()
    assert result.code == 4
    assert bench.states() == {ALICE: "pending"}
    assert "MAIL" not in verbs(server)
    check = call("check", "--config", bench.config)
    assert "more replies than commands" in check.stdout


@pytest.mark.parametrize(
    "step", [Drop(), Stall()], ids=["it-hangs-up", "it-says-nothing"]
)
def test_a_host_that_does_not_read_a_group_gets_one_command_at_a_time(
    peer: StartPeer, bench: Bench, step: Step
) -> None:
    """PIPELINING is trusted no more there, and no attempt is counted for it."""
    server = peer(rcpt=in_turn(step, "250 2.1.5 ok"))
    bench.port = server.port
    primary = {"command_timeout": "300ms", "connections": 1}
    bench.configure(primary=primary, **PATIENT)
    bench.add(ALICE)
    bench.add(BOB)
    result = bench.drain()
    assert result.code == 0
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}
    assert result.stderr.count("PIPELINING") == 1


@pytest.mark.parametrize(
    "script",
    [{"mail": Raw(b"")}, {"rcpt": per_recipient({ALICE: Raw(b""), BOB: NO})}],
    ids=["mail", "rcpt"],
)
def test_a_missing_reply_gives_nobody_the_reply_of_another(
    peer: StartPeer, bench: Bench, script: dict[str, Answer]
) -> None:
    """What followed in that group answers other commands than it seems to."""
    bench.port = peer(**script).port
    bench.configure(primary={"command_timeout": "300ms"}, **PATIENT)
    bench.configure(primary={"data_timeout": "300ms"})
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "deferred", BOB: "deferred"}


def test_a_2xx_after_a_refused_mail_refuses_nobody(
    peer: StartPeer, bench: Bench
) -> None:
    """A recipient is not accepted when MAIL was not: these are other replies."""
    server = peer(
        extensions=EXTENSIONS,
        mail=in_turn(twice("550 5.7.1 no", "250 ok"), "250 2.1.0 ok"),
    )
    bench.port = server.port
    bench.configure(**PATIENT)
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert bench.states() == {ALICE: "delivered"}


def test_a_421_behind_another_reply_ends_the_session_only(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 5321 3.8: a 421 may come at any time, and is no sign of a lost step."""
    server = peer(
        rcpt=per_recipient({BOB: NO}),
        rset=twice("250 2.0.0 ok", "421 4.3.2 bye"),
    )
    bench.port = server.port
    bench.configure(**PATIENT)
    bench.add(BOB)
    bench.add(CAROL)
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "bounce-pending", CAROL: "delivered"}
