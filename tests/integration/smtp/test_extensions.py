"""What the primary offers, and what is held without it.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

from typing import Any

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import ALICE, BOB, CAROL, StartPeer
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Script,
)
from tests.support.spools.postfix_files import record


def test_a_message_over_the_size_limit_never_leaves(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 1870: it is held with the limit named; the next one goes."""
    limited = tuple(w for w in EXTENSIONS if not w.startswith("SIZE"))
    server = peer(extensions=(*limited, "SIZE 1000"))
    bench.port = server.port
    bench.add(ALICE, text=b"Subject: x\n\n" + b"y" * 990 + b"\n")
    bench.add(BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}
    assert bench.recipients()[ALICE]["rule"] == "local-too-large"
    assert "1000" in bench.recipients()[ALICE]["reply"]
    assert len(server.transactions) == 1


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE many"])
def test_a_size_without_a_limit_limits_nothing(
    peer: StartPeer, bench: Bench, size: str
) -> None:
    """RFC 1870 3: zero or nothing means that no limit is stated."""
    server = peer(extensions=("PIPELINING", size))
    bench.port = server.port
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert "SIZE" in server.accepted[0].parameters


@pytest.mark.parametrize(
    ("missing", "rule", "message"),
    [
        ("8BITMIME", "local-needs-8bitmime", {"text": b"Subject: x\n\n\xc3\xa4\n"}),
        ("SMTPUTF8", "local-needs-smtputf8", {"sender": "j\u00fcrgen@example.com"}),
    ],
)
def test_what_the_primary_cannot_take_is_held_with_the_reason(
    peer: StartPeer, bench: Bench, missing: str, rule: str, message: dict[str, Any]
) -> None:
    """It is never sent all the same, and never altered to fit."""
    offered = tuple(word for word in EXTENSIONS if word != missing)
    server = peer(extensions=offered)
    bench.port = server.port
    bench.add(ALICE, **message)
    bench.add(BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}
    assert bench.recipients()[ALICE]["rule"] == rule
    assert len(server.transactions) == 1
    assert missing in bench.recipients()[ALICE]["reply"]


def test_parameters_are_passed_on_as_the_backup_recorded_them(
    peer: StartPeer, bench: Bench
) -> None:
    """SIZE, BODY, SMTPUTF8, RET, ENVID, NOTIFY and ORCPT reach the primary."""
    server = peer()
    bench.port = server.port
    text = "Subject: \u00e4\n\nb\u00f6dy\n".encode()
    bench.add(
        sender="j\u00fcrgen@example.com",
        text=text,
        envelope=[
            record("A", "envelope_id=a+2Bb"),
            record("A", "ret_flags=1"),
            record("A", "dsn_orig_rcpt=rfc822;bob+40x@example.org"),
            record("A", "notify_flags=6"),
            record("R", BOB),
            record("R", CAROL),
        ],
    )
    assert bench.drain().code == 0
    (message,) = server.accepted
    assert message.reverse_path == "j\u00fcrgen@example.com"
    assert message.parameters["SMTPUTF8"] == ""
    assert message.parameters["BODY"] == "8BITMIME"
    assert message.parameters["SIZE"] == str(len(message.content or b""))
    assert [r.forward_path for r in message.recipients] == [BOB, CAROL]


def test_a_primary_without_extensions_gets_bare_commands(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 3461 4.5: DSN parameters are dropped where nobody understands them."""
    server = peer(extensions=())
    bench.port = server.port
    bench.add(envelope=[record("A", "notify_flags=1"), record("R", BOB)])
    assert bench.drain().code == 0
    (message,) = server.accepted
    assert message.parameters == {}
    assert message.recipients[0].parameters == {}


def test_verp_gives_every_recipient_a_transaction_and_a_sender_of_its_own(
    peer: StartPeer, bench: Bench
) -> None:
    """The delimiters of the backup's record shape the reverse-path."""
    server = peer()
    bench.port = server.port
    bench.add(
        sender="list@example.com",
        envelope=[record("V", "+="), record("R", ALICE), record("R", BOB)],
    )
    assert bench.drain().code == 0
    assert {(m.reverse_path, *m.forward_paths) for m in server.accepted} == {
        ("list+alice=example.org@example.com", ALICE),
        ("list+bob=example.org@example.com", BOB),
    }


def test_the_null_sender_stays_null(peer: StartPeer, bench: Bench) -> None:
    """A bounce that lay in the spool is sent as one."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE, sender="")
    assert bench.drain().code == 0
    assert server.accepted[0].reverse_path == ""
    assert b"MAIL FROM:<>" in server.accepted[0].mail.line


def test_an_ignored_extension_is_not_used(peer: StartPeer, bench: Bench) -> None:
    """[primary] ignore_extensions names it in any case; nothing else is left out."""
    server = peer()
    bench.port = server.port
    bench.configure(primary={"ignore_extensions": ["pipelining", "Size"]})
    bench.add("alice@example.org")
    assert bench.drain().code == 0
    lines = [command.line for command in server.commands]
    assert not any(b"SIZE=" in line for line in lines)
    answered = [command.answered_at for command in server.commands]
    assert all(
        before is not None and before <= after.at
        for before, after in zip(answered, server.commands[1:], strict=False)
    )


@pytest.mark.parametrize(
    ("primary", "words"),
    [
        ({"ignore_extensions": ["no keyword"]}, "EHLO keyword"),
        ({"ignore_extensions": ["STARTTLS"], "tls": "required"}, "STARTTLS"),
    ],
    ids=["not-a-keyword", "a-contradiction"],
)
def test_an_ignored_extension_is_a_keyword_that_is_not_needed(
    bench: Bench, primary: dict[str, object], words: str
) -> None:
    """The error names the key."""
    bench.configure(primary=primary)
    result = bench.drain()
    assert result.code == 2
    assert "ignore_extensions" in result.stderr
    assert words in result.stderr


def test_only_a_domain_that_is_not_ascii_needs_no_smtputf8(
    peer: StartPeer, bench: Bench
) -> None:
    """The primary gets the A-label, and [primary] domains may name the U-label."""
    server = peer(extensions=("PIPELINING", "8BITMIME"))
    bench.port = server.port
    bench.configure(primary={"domains": ["müller.example"]})
    bench.add("a@müller.example", "b@xn--mller-kva.example")
    assert bench.drain().code == 0
    (message,) = server.accepted
    assert message.forward_paths == [
        "a@xn--mller-kva.example",
        "b@xn--mller-kva.example",
    ]


def test_all_spellings_of_a_domain_take_one_way(peer: StartPeer, bench: Bench) -> None:
    """What [primary] domains and a filter name in one spelling is meant in each."""
    server = peer(extensions=("PIPELINING", "8BITMIME"))
    bench.port = server.port
    bench.configure(primary={"domains": ["stra\u00dfe.example", "ex.example"]})
    wide = ("c@\uff45x.example", "d@ex\u3002Example")
    bench.add("a@STRA\u1e9eE.example", "b@XN--strae-oqa.example", *wide)
    assert bench.drain().code == 0
    (message,) = server.accepted
    sharp, plain = "xn--strae-oqa.example", "ex.example"
    assert message.forward_paths == [
        f"a@{sharp}", "b@XN--strae-oqa.example", f"c@{plain}", f"d@{plain}",
    ]  # fmt: skip
    found = bench.run("list", "--json", "--domain", plain).lines
    assert {each["forward_path"] for each in found} == set(wide)


def test_an_address_that_needs_smtputf8_holds_itself_alone(
    peer: StartPeer, bench: Bench
) -> None:
    """The recipients beside it are delivered, and the message remains for it."""
    server = peer(extensions=("PIPELINING", "8BITMIME"))
    bench.port = server.port
    paths = ("a@example.org", "j\u00f6rg@example.org", "b@example.org")
    bench.add(*paths)
    assert bench.drain().code == 5
    (message,) = server.accepted
    assert message.forward_paths == [paths[0], paths[2]]
    assert bench.states() == {
        paths[0]: "delivered",
        paths[1]: "held",
        paths[2]: "delivered",
    }
    bench.assert_balanced()
    server.script = Script()
    assert bench.run("release", "--state", "held", "--reason", "x").code == 0
    assert bench.drain().code == 0
    assert [m.forward_paths for m in server.accepted[1:]] == [[paths[1]]]
