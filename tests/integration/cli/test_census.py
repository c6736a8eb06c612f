"""The census: which recipients of a spool exist, by lists."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Answer, per_recipient

StartPeer = Callable[..., PeerThread]

USERS = "alice@example.org\nbob@example.org\n@all.example\n"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a spool with mail for known and unknown recipients, and a list."""
    made = Bench(tmp_path)
    (tmp_path / "users").write_text(USERS, "utf-8")
    made.add("Alice@Example.org", "nobody@example.org")
    made.add("alice@example.org", "bob+tag@example.org", "any@all.example")
    made.add("x@other.example", sender="")
    return made


def test_recipients_are_grouped_and_nothing_is_changed(bench: Bench) -> None:
    """It needs neither a primary nor a ledger, and makes none."""
    known = bench.root / "users"
    source = f"postfix:{bench.spool}"
    result = bench.run("census", source, "--known", known, "--json")
    assert result.code == 0, result.stderr
    facts = result.json
    assert {k: facts[k] for k in ("recipients", "known", "unknown", "cannot_tell")} == {
        "recipients": 5,
        "known": 3,
        "unknown": 1,
        "cannot_tell": 1,
    }
    groups = {(g["domain"], g["reason"]): g for g in facts["groups"]}
    assert groups["example.org", "listed"]["messages"] == 3
    assert groups["example.org", "not-listed"]["samples"] == ["nobody@example.org"]
    assert groups["all.example", "catch-all"]["recipients"] == 1
    assert groups["other.example", "no-entries"]["existence"] == "cannot-tell"
    assert [each["entries"] for each in facts["lists"]] == [3]
    assert not bench.ledger.exists()
    shown = bench.run("census", source, "--known", known)
    assert "5 recipients: 3 known, 1 unknown, 1 cannot tell" in shown.stdout


def test_one_kind_is_listed_one_a_line(bench: Bench) -> None:
    """For a script, or to hand on; the selection applies as for other commands."""
    bench.configure(recipients={"lists": [str(bench.root / "users")]})
    source = f"postfix:{bench.spool}"
    listed = bench.run("census", source, "--list", "unknown").stdout
    assert listed == "nobody@example.org\n"
    facts = bench.run("census", source, "--list", "cannot-tell", "--json").lines
    assert [each["recipient"] for each in facts] == ["x@other.example"]
    chosen = bench.run("census", source, "--list", "known", "--domain", "all.example")
    assert chosen.stdout == "any@all.example\n"
    assert bench.run("census", source, "--list", "some").code == 2


def test_a_list_that_is_too_old_says_nothing(bench: Bench) -> None:
    """It is named in a warning; a domain that it does not have is no affair of it."""
    known = bench.root / "users"
    long_ago = time.time() - 40 * 86400
    os.utime(known, (long_ago, long_ago))
    source = f"postfix:{bench.spool}"
    result = bench.run("census", source, "--known", known, "--json")
    assert result.json["cannot_tell"] == 5
    assert "max_age" in result.stderr
    bench.configure(recipients={"max_age": "60d"})
    again = bench.run("census", source, "--known", known, "--json")
    assert again.json["unknown"] == 1


def test_lines_that_are_not_understood_are_named(bench: Bench) -> None:
    """Their recipients would count as unknown. A drain warns of them, too."""
    known = bench.root / "users"
    known.write_text(f"{USERS}nobody@example.org,No Body\n", "utf-8")
    source = f"postfix:{bench.spool}"
    result = bench.run("census", source, "--known", known, "--json")
    assert result.json["lists"][0]["ignored"] == 1
    assert "'nobody@example.org,No'" in result.stderr
    bench.port = 1
    assert "1 entries of the list" in bench.drain("--known", known).stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent", "cannot read"), ("empty", "no address"), ("folder", "irectory")],
)
def test_a_list_that_cannot_be_used_is_named(
    bench: Bench, name: str, words: str
) -> None:
    """Exit 2, and nothing was looked up."""
    (bench.root / "empty").write_text("# nothing\n/regexp/ OK\n", "utf-8")
    (bench.root / "folder").mkdir()
    source = f"postfix:{bench.spool}"
    result = bench.run("census", source, "--known", bench.root / name)
    assert result.code == 2
    assert words in result.stderr
    assert str(bench.root / name) in result.stderr


def test_without_a_source_it_reads_the_ledger(bench: Bench) -> None:
    """Recipients that are final are not asked for."""
    domains = ["example.org", "all.example", "other.example"]
    bench.configure(primary={"domains": domains, "port": 1})
    bench.drain()
    known = bench.root / "users"
    assert bench.run("census", "--known", known, "--json").json["recipients"] == 5


# ---- the callout


def _primary(*known: str) -> Answer:
    return per_recipient(dict.fromkeys(known, "250 ok"), "550 5.1.1 User unknown")


@pytest.fixture
def asking(bench: Bench) -> Bench:
    """Give a spool with mail for one domain, of which the list has a part."""
    bench.configure(
        primary={"domains": ["example.org", "all.example", "other.example"]},
        health={"accept": ["boss@example.org"]},
    )
    return bench


def test_the_primary_says_what_no_list_does(asking: Bench, peer: StartPeer) -> None:
    """And what it said is not asked again for a while; no message is sent."""
    server = peer(rcpt=_primary("boss@example.org", "Alice@Example.org"))
    asking.port = server.port
    source = f"postfix:{asking.spool}"
    facts = asking.run("census", source, "--callout", "--json").json
    assert (facts["known"], facts["unknown"], facts["cannot_tell"]) == (1, 4, 0)
    assert {group["reason"] for group in facts["groups"]} == {"accepted", "refused"}
    assert facts["callouts"][0]["asked"] == 5
    assert server.messages == []
    count = len(server.commands)
    again = asking.run("census", source, "--callout", "--json").json
    assert (again["known"], again["unknown"]) == (1, 4)
    assert again["callouts"][0] | {"route": ""} == {
        "route": "",
        "asked": 0,
        "remembered": 5,
        "ended": None,
    }
    assert len(server.commands) == count


def test_contradictions_between_list_and_primary_are_named(
    asking: Bench, peer: StartPeer
) -> None:
    """A stale entry, and an address that the list lacks; asked again each time."""
    known = asking.root / "users"
    asking.port = peer(rcpt=_primary("boss@example.org", "nobody@example.org")).port
    source = f"postfix:{asking.spool}"
    result = asking.run("census", source, "--known", known, "--callout", "--json")
    found = {each["kind"]: each for each in result.json["contradictions"]}
    assert set(found) == {"stale-entries", "not-listed"}
    assert len(found["stale-entries"]["recipients"]) == 2
    assert found["stale-entries"]["asked"] == 2
    assert found["not-listed"]["recipients"] == ["nobody@example.org"]
    assert "stale" in result.stderr
    asking.port = peer().port
    whole = asking.run("census", source, "--known", known, "--callout", "--json").json
    assert [each["kind"] for each in whole["contradictions"]] == []


def test_a_primary_that_accepts_any_address_says_nothing(
    asking: Bench, peer: StartPeer
) -> None:
    """It is a catch-all, or checks its users only after DATA."""
    asking.port = peer().port
    source = f"postfix:{asking.spool}"
    facts = asking.run("census", source, "--callout", "--json").json
    assert facts["cannot_tell"] == 5
    assert {group["reason"] for group in facts["groups"]} == {"accepts-any-address"}


def test_a_drain_holds_what_the_callout_finds_unknown(
    asking: Bench, peer: StartPeer
) -> None:
    """Before it sends anything; others get the message."""
    users = ("Alice@Example.org", "alice@example.org", "boss@example.org")
    server = peer(rcpt=_primary(*users, "x@other.example"))
    asking.port = server.port
    asking.drain("--callout", check=True)
    states = asking.states()
    held = {path for path, state in states.items() if state == "held"}
    assert held == {"nobody@example.org", "bob+tag@example.org", "any@all.example"}
    assert sorted(states.values()) == ["delivered"] * 3 + ["held"] * 3
