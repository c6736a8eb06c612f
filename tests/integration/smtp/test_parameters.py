"""A primary that refuses a parameter it announced gets the mail without it."""

import json

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import ALICE, PATIENT, PIPELINING, StartPeer
from tests.support.smtp_peer.script import Step, View

REPLIES = [
    "555 5.5.4 parameters not recognized",
    "501 5.5.4 syntax",
    "501 unknown option {word}",
    "504 {word} is not implemented",
]
WORDS = {
    "RET": "mail",
    "ENVID": "mail",
    "SIZE": "mail",
    "BODY": "mail",
    "NOTIFY": "rcpt",
    "ORCPT": "rcpt",
}


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
@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("word", WORDS)
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
