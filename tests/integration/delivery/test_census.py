"""A drain with a list of recipients: unknown ones are held, known ones are sent."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drainer.config.load import load
from drainer.watch.plan import WatchPlan, make_plan
from tests.support.command.runner import Bench, end
from tests.support.mta.postfix import wait_until
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, per_recipient

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
    assert (
        "a list of recipients, or the primary, does not have it"
        in bench.run("status").stdout
    )
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


def test_a_signal_ends_a_drain_that_reads_a_list(bench: Bench) -> None:
    """The program may hang, and drainer does not wait for it."""
    started = bench.root / "started"
    program = f"command:sh -c 'echo $$ > {started}.new; mv {started}.new {started}"
    known = f"{program}; exec sleep 600'"
    process = bench.start(
        "drain", f"postfix:{bench.spool}", "--no-check", "--known", known
    )
    wait_until(started.exists, timeout=60, what="the program")
    process.send_signal(signal.SIGTERM)
    try:
        assert end(process).code == 130
    finally:
        os.kill(int(started.read_text("ascii")), signal.SIGKILL)


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


# ---- a primary that lacks recipients of the list


USERS = [f"u{n}@example.org" for n in range(10)]


@pytest.fixture
def outage(bench: Bench) -> Bench:
    """Give a spool with mail for ten listed users of one domain."""
    for user in USERS:
        bench.add(user)
    write_list(bench, ALICE, BOB, *USERS)
    return bench


def test_a_primary_that_lost_half_of_its_users_gets_no_message(
    outage: Bench, peer: StartPeer
) -> None:
    """Exit 3; no recipient was judged, and all is delivered when they are back."""
    lost = dict.fromkeys(USERS[:6], "550 5.1.1 User unknown")
    broken = peer(rcpt=per_recipient(lost))
    outage.port = broken.port
    result = outage.drain(check=True)
    assert result.code == 3
    assert "lost users" in result.stderr
    assert "lost users" in result.json["error"]
    assert "restore the users" in result.json["hint"]
    assert "example.org" in result.stderr
    assert broken.messages == []
    assert not any(c.line.startswith(b"DATA") for c in broken.commands)
    assert outage.run("list", "--json").lines == []
    broken.script = Script()
    outage.configure(primary={"port": broken.port})
    assert outage.drain(check=True).code == 5  # nobody@example.org is unknown
    assert outage.run("status", "--json").json["states"]["bounce-pending"] == 0
    assert {USERS[0], USERS[5], BOB} <= asked(broken)
    assert outage.states()[USERS[0]] == "delivered"


def test_a_stale_entry_of_the_list_is_reported_and_stops_nothing(
    outage: Bench, peer: StartPeer
) -> None:
    """The list has it, so its refusal is never final without an operator."""
    server = peer(rcpt=per_recipient({USERS[3]: "550 5.1.1 User unknown"}))
    outage.port = server.port
    outage.configure(bounce={"confirm_after": "20ms"})
    result = outage.drain(check=True)
    assert "1 of 12 listed recipients" in result.stderr
    for _ in range(3):
        outage.drain()
    stale = outage.recipients()[USERS[3]]
    assert stale["attempts"] > 1
    assert stale["state"] in ("bounce-pending", "deferred")  # due once more
    assert outage.states()[USERS[4]] == "delivered"
    refused = outage.verdicts(outage.recipients()[USERS[3]]["id"])[-1]
    assert "the list" in refused["evidence"]["reason"]


def test_without_a_check_the_primary_is_not_asked(
    outage: Bench, peer: StartPeer
) -> None:
    """As for the other questions of the check."""
    server = peer(rcpt="550 5.1.1 User unknown")
    outage.port = server.port
    assert outage.drain().code != 3


def test_only_the_route_with_the_lost_users_is_left_out(
    outage: Bench, peer: StartPeer
) -> None:
    """Mail of the other routes is sent."""
    broken = peer(rcpt=per_recipient(dict.fromkeys(USERS, "550 5.1.1 no such user")))
    other = peer()
    outage.port = broken.port
    outage.configure(primary={"domains": ["example.org"]})
    outage.routes.append(
        {"domains": ["example.net"], "host": "127.0.0.1", "port": other.port}
    )
    result = outage.drain(check=True)
    assert "sends nothing there" in result.stderr
    assert broken.messages == []
    assert [m.forward_paths for m in other.accepted] == [[OTHER]]


def test_a_watch_reads_the_lists_at_each_drain(bench: Bench) -> None:
    """Not at its start; a reload that changes no list restarts no drain."""

    def plan() -> WatchPlan:
        config = load(bench.config, {"ledger": {"url": str(bench.ledger)}})
        return make_plan(config, (f"postfix:{bench.spool}",))

    (bench.root / "users").unlink()
    first = plan()
    assert first.drains_like(plan())
    bench.configure(recipients={"max_age": "1d"})
    assert not first.drains_like(plan())
