"""A drain with a list of recipients: unknown ones are held, known ones are sent."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread

StartPeer = Callable[..., PeerThread]
ALICE, BOB, NOBODY = "alice@example.org", "bob@example.org", "nobody@example.org"
OTHER = "x@example.net"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a spool of two messages, and a list that has two of its recipients."""
    made = Bench(tmp_path)
    made.configure(
        primary={"domains": ["example.org", "example.net"]},
        recipients={"lists": [str(tmp_path / "users")]},
    )
    write_list(made, ALICE, BOB)
    made.add(ALICE, NOBODY)
    made.add(BOB, OTHER)
    return made


def write_list(bench: Bench, *addresses: str) -> None:
    """Write the list of recipients."""
    (bench.root / "users").write_text("\n".join(addresses) + "\n", "utf-8")


def asked(peer: PeerThread) -> set[str]:
    """Return every recipient that the peer was asked for, with a message or not."""
    lines = [each.line.decode() for each in peer.commands]
    return {
        line.partition("<")[2].partition(">")[0]
        for line in lines
        if line.startswith("RCPT TO:")
    }


def test_an_unknown_recipient_is_held_and_the_others_get_the_message(
    bench: Bench, peer: StartPeer
) -> None:
    """One decision names the list; the domain of no list is sent."""
    server = peer()
    bench.port = server.port
    result = bench.drain()
    assert result.code == 5, result.stderr
    assert asked(server) == {ALICE, BOB, OTHER}
    states = {ALICE: "delivered", BOB: "delivered", OTHER: "delivered", NOBODY: "held"}
    assert bench.states() == states
    (decision,) = [
        each
        for each in bench.why("A0001")["decisions"]
        if each["rule"] == "unknown-recipient"
    ]
    assert decision["verdict"] == "hold"
    assert str(bench.root / "users") in decision["reply"]
    assert "no list of recipients has this address" in bench.run("status").stdout
    bench.assert_balanced()


def test_a_release_sends_it_anyway(bench: Bench, peer: StartPeer) -> None:
    """It stays released at later drains, whatever the list says."""
    bench.port = 1  # nothing listens there
    bench.drain()
    assert bench.run("release", "A0001", "--reason", "he exists").code == 0
    bench.drain()
    assert bench.states()[NOBODY] != "held"
    server = peer()
    bench.port = server.port
    assert bench.drain().code == 0
    assert NOBODY in asked(server)


def test_mail_of_earlier_drains_is_held_before_anything_is_sent(
    bench: Bench, peer: StartPeer
) -> None:
    """The list came after the first drain; no session asks for who is not in it."""
    bench.configure(recipients={"lists": []})
    bench.port = peer(rcpt="450 4.2.1 later").port
    bench.drain()
    assert bench.states()[NOBODY] == "deferred"
    bench.configure(recipients={"lists": [str(bench.root / "users")]})
    server = peer()
    bench.port = server.port
    assert bench.drain().code == 5
    assert bench.states()[NOBODY] == "held"
    assert NOBODY not in asked(server)


def test_a_held_recipient_is_sent_once_a_list_has_it(
    bench: Bench, peer: StartPeer
) -> None:
    """A list that says nothing any more changes nothing."""
    server = peer()
    bench.port = server.port
    bench.drain()
    long_ago = time.time() - 40 * 86400
    os.utime(bench.root / "users", (long_ago, long_ago))
    result = bench.drain()
    assert bench.states()[NOBODY] == "held"
    assert "max_age" in result.stderr
    write_list(bench, ALICE, NOBODY)
    assert bench.drain().code == 0
    assert bench.states()[NOBODY] == "delivered"
    assert bench.recipients()[ALICE]["attempts"] == 1
    bench.assert_balanced()


def test_a_drain_without_a_census_sends_to_everybody(
    bench: Bench, peer: StartPeer
) -> None:
    """By the flag or by the configuration; a flag without a list is an error."""
    server = peer()
    bench.port = server.port
    assert bench.drain("--no-census").code == 0
    assert asked(server) == {ALICE, BOB, NOBODY, OTHER}
    bench.configure(recipients={"lists": []})
    refused = bench.drain("--census")
    assert refused.code == 2
    assert "--known" in refused.stderr
    bench.configure(recipients={"lists": [str(bench.root / "absent")]})
    assert bench.drain().code == 2


def test_plan_says_what_would_be_held(bench: Bench) -> None:
    """The same lists, and the addresses that recipients are mapped to."""
    source = f"postfix:{bench.spool}"
    assert bench.run("plan", source, "--json").json["held"] == {"unknown-recipient": 1}
    mapped = ("--map-recipient", f"{NOBODY}={ALICE}")
    assert bench.run("plan", source, "--json", *mapped).json["held"] == {}


def test_a_mapped_recipient_is_looked_for_by_its_new_address(
    bench: Bench, peer: StartPeer
) -> None:
    """What the primary would be asked for."""
    server = peer()
    bench.port = server.port
    more = ("--map-recipient", f"{NOBODY}={BOB}", "--map-recipient", f"{BOB}={NOBODY}")
    bench.drain(*more)
    assert bench.states()[BOB] == "held"
    assert bench.states()[NOBODY] == "delivered"
