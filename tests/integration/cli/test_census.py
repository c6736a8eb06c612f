"""The census: which recipients of a spool exist, by lists."""

import os
import time
from pathlib import Path

import pytest

from tests.support.command.runner import Bench

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
