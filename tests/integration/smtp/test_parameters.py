"""A primary that refuses a parameter it announced gets the mail without it."""

import json
from collections.abc import Callable

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import (
    ALICE,
    BOB,
    CAROL,
    PATIENT,
    PIPELINING,
    StartPeer,
)
from tests.support.smtp_peer.script import ReplyThenDrop, Step, View

REPLIES = [
    "555 5.5.4 parameters not recognized",
    "501 5.5.4 syntax",
    "501 unknown option {word}",
    "504 {word} is not implemented",
    "501 Syntax error in parameters or arguments",
    "503 unknown option {word}",
    "550 5.5.2 parameter {word} is not supported",
]
WORDS = {
    "RET": "mail",
    "ENVID": "mail",
    "SIZE": "mail",
    "BODY": "mail",
    "NOTIFY": "rcpt",
    "ORCPT": "rcpt",
}
#: Each reply about a parameter of MAIL and one of RCPT, each parameter more than once.
ROWS = [
    pair
    for n, reply in enumerate(REPLIES)
    for pair in ((list(WORDS)[n % 4], reply), (list(WORDS)[4 + n % 2], reply))
]


def add_with_parameters(bench: Bench) -> str:
    """Spool a message with every parameter; return its source."""
    folder = bench.root / "eml"
    folder.mkdir()
    recipient = {
        "forward_path": ALICE,
        "orcpt": f"rfc822;{ALICE}",
        "notify": ["FAILURE"],
    }
    sidecar = {
        "reverse_path": "s@sender.example",
        "recipients": [recipient],
        "ret": "HDRS",
        "envid": "e1",
        "body": "8bit",
    }
    (folder / "m.eml").write_text("Subject: x\n\nbody\n", "utf-8")
    (folder / "m.json").write_text(json.dumps(sidecar), "utf-8")
    return f"eml:{folder}"


@PIPELINING
@pytest.mark.parametrize(("word", "reply"), ROWS)
def test_a_refused_parameter_is_left_out(
    peer: StartPeer, bench: Bench, word: str, reply: str, extensions: tuple[str, ...]
) -> None:
    """The message is delivered at the first counted attempt, and the log says why."""
    stage = WORDS[word]

    def answer(view: View) -> Step:
        is_there = f" {word}=".encode() in view.command.line
        return reply.format(word=word) if is_there else "250 2.1.0 ok"

    script = {stage: answer}
    server = peer(extensions=extensions, **script)
    bench.port = server.port
    bench.configure(**PATIENT)
    source = add_with_parameters(bench)
    result = bench.run("drain", source, "--no-check", "--json")
    assert result.code == 0, result
    assert bench.states() == {ALICE: "delivered"}
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}
    assert "no longer uses" in result.stderr


def test_a_refused_address_is_no_refused_parameter(
    peer: StartPeer, bench: Bench
) -> None:
    """501 5.1.3 is about the address: DSN stays in use."""
    server = peer(rcpt="501 5.1.3 bad address syntax")
    bench.port = server.port
    bench.configure(**PATIENT)
    source = add_with_parameters(bench)
    result = bench.run("drain", source, "--no-check", "--json")
    assert result.code == 5
    assert "no longer uses" not in result.stderr


COMPLAINTS = [
    "554 SMTP synchronization error",
    "503 5.5.0 <DATA>: Data command rejected: Improper use of SMTP command pipelining",
    "421 4.7.0 pipelining is not allowed here",
]
USUAL = {"mail": "250 2.1.0 ok", "rcpt": "250 2.1.5 ok", "data": "354 go ahead"}


@pytest.mark.parametrize("step", [str, ReplyThenDrop], ids=["open", "closed"])
@pytest.mark.parametrize("stage", USUAL)
@pytest.mark.parametrize("reply", COMPLAINTS)
def test_who_complains_of_pipelining_gets_one_command_at_a_time(
    peer: StartPeer, bench: Bench, reply: str, stage: str, step: Callable[[str], Step]
) -> None:
    """All mail is delivered at its first counted attempt, and the log says why."""
    together: set[int] = set()

    def complain(at: str) -> Callable[[View], Step]:
        def answer(view: View) -> Step:
            if at == "mail" and server.wires[view.connection - 1].buffer:
                together.add(view.connection)
            is_it = at == stage and view.connection in together
            return step(reply) if is_it else USUAL[at]

        return answer

    server = peer(**{at: complain(at) for at in USUAL})
    bench.port = server.port
    bench.configure(primary={"connections": 2}, **PATIENT)
    for path in (ALICE, BOB, CAROL):
        bench.add(path)
    result = bench.drain()
    assert result.code == 0, result
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}
    assert "no longer uses PIPELINING" in result.stderr


def test_a_stranger_cannot_turn_an_extension_off(peer: StartPeer, bench: Bench) -> None:
    """The words of an address that the primary quotes are not the primary's."""
    server = peer(
        mail=lambda view: (
            f"501 {view.path} is refused" if "evil" in view.path else "250 2.1.0 ok"
        )
    )
    bench.port = server.port
    bench.configure(**PATIENT)
    bench.add(ALICE, sender="unknown parameter size pipelining@evil.example")
    assert "no longer uses" not in bench.drain().stderr
    assert bench.states() != {ALICE: "delivered"}
