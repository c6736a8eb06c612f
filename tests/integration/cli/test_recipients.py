"""`list`: which recipients, in which order, in which form, and how many."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import per_recipient
from tests.support.spools.postfix_files import record

BUSY, GONE = "busy@example.org", "gone@example.org"


@pytest.fixture
def bench(
    tmp_path: Path, peer: Callable[..., PeerThread], monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """Give a ledger with recipients that were delivered, deferred and refused."""
    monkeypatch.chdir(tmp_path)
    replies = {BUSY: "450 4.2.1 busy", GONE: "550 5.1.1 no such user"}
    made = Bench(tmp_path, peer(rcpt=per_recipient(replies)).port)
    made.add("ok@example.org", "ok@sub.example.org", sender="a@one.example")
    made.add(BUSY, sender="b@two.example")
    made.add(GONE, sender="")
    made.configure(primary={"domains": ["example.org", "sub.example.org"]})
    assert made.drain().code in {4, 5}
    return made


def test_each_recipient_has_its_sender_and_its_times(bench: Bench) -> None:
    """In JSON as RFC 3339, in the table with a zone."""
    rows = bench.recipients()
    assert rows[BUSY]["reverse_path"] == "b@two.example"
    assert rows[BUSY]["arrived"] < rows[BUSY]["last_attempt"] <= rows[BUSY]["since"]
    head, *lines = bench.run("list").stdout.splitlines()
    assert head.split()[:5] == ["id", "native", "id", "sender", "recipient"]
    assert len(lines) == 4
    (busy,) = [line for line in lines if BUSY in line]
    assert "b@two.example" in busy
    assert rows[BUSY]["last_attempt"][:10] in busy


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--sort", "recipient", "--limit", "2"], [BUSY, GONE]),
        (["--sort", "-recipient", "--limit", "1"], ["ok@sub.example.org"]),
        (["--since", "1h", "--state", "deferred"], [BUSY]),
        (["--until", "1h"], []),
        (["--since", "2026-01-01T00:00", "--sender", "<>"], [GONE]),
    ],
)
def test_which_and_in_which_order(
    bench: Bench, options: list[str], expected: list[str]
) -> None:
    """Filters, a window of the last change, an order and a limit."""
    found = bench.run("list", "--json", *options).lines
    assert [fact["forward_path"] for fact in found] == expected


@pytest.mark.parametrize(
    "options", [(), ("--sort", "-sender"), ("--sender", "example")]
)
def test_a_limit_is_the_start_of_the_list(
    bench: Bench, options: tuple[str, ...]
) -> None:
    """Also inside a message of two recipients, and beside one that has none left."""
    bench.add(sender="z@example.org", envelope=(record("D", b"done@example.org"),))
    bench.drain()
    whole = bench.run("list", "--json", *options).lines
    for limit in range(1, len(whole) + 2):
        found = bench.run("list", "--json", *options, "--limit", str(limit)).lines
        assert found == whole[:limit]


def test_the_form_of_a_line_is_the_operators(bench: Bench) -> None:
    """Columns, or a template; names that do not exist are named."""
    bench_list = ("list", "--state", "deferred", "--format")
    lines = bench.run(*bench_list, "recipient,domain,rule").stdout.splitlines()
    assert lines[0].split() == ["recipient", "domain", "rule"]
    assert lines[1].split() == [BUSY, "example.org", "enhanced-4.2.1"]
    line = bench.run(*bench_list, r"{sender}\t{reply} (100%)").stdout
    assert line == "b@two.example\t450 4.2.1 busy (100%)\n"
    for wrong in ("{nothing}", "recipient,nothing"):
        refused = bench.run(*bench_list, wrong)
        assert refused.code == 2
        assert "legal: id, native_id" in refused.stderr


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("state", {"delivered": 2, "deferred": 1, "bounce-pending": 1}),
        ("domain", {"example.org": 3, "sub.example.org": 1}),
        ("sender", {"a@one.example": 2, "b@two.example": 1, "": 1}),
        ("reason", {"dot-accepted": 2, "enhanced-4.2.1": 1, "enhanced-5.1.1": 1}),
    ],
)
def test_recipients_are_counted(
    bench: Bench, key: str, expected: dict[str, int]
) -> None:
    """Most first, with the oldest, for people and for scripts."""
    done = bench.run("list", "--count-by", key, "--json")
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    assert {fact[key]: fact["recipients"] for fact in facts} == expected
    assert facts[0]["oldest"] <= facts[0]["newest"]
    first = bench.run("list", "--count-by", key, "--limit", "1").stdout.splitlines()
    assert len(first) == 2
    assert first[1].split()[0] == str(max(expected.values()))


@pytest.mark.parametrize(
    "options", [("--sort", "colour"), ("--format", "id", "--count-by", "state")]
)
def test_what_cannot_be_is_refused(bench: Bench, options: tuple[str, ...]) -> None:
    """With the legal values; in JSON too, if JSON was asked for."""
    refused = bench.run("list", *options, "--json")
    assert refused.code == 2
    assert refused.json["exit"] == 2
    assert refused.json["error"] in " ".join(refused.stderr.split())
    assert refused.json["hint"]
