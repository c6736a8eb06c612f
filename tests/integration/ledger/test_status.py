"""Where a drain stands: what expires first, and what is grouped by its reason."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import per_recipient

BOB, CAROL = "bob@example.org", "carol@example.org"
StartPeer = Callable[..., PeerThread]
LIFETIME_SECONDS = 5 * 24 * 3600


@pytest.fixture
def waiting(tmp_path: Path, peer: StartPeer, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a ledger with two that were put off, BOB longer than CAROL."""
    monkeypatch.chdir(tmp_path)
    later = {BOB: "450 4.2.1 busy", CAROL: "450 4.2.1 busy"}
    bench = Bench(tmp_path, peer(rcpt=per_recipient(later)).port)
    bench.configure(retry={"lifetime": "5d"})
    bench.add(BOB)
    bench.drain()
    bench.add(CAROL)
    while any(row["attempts"] < 2 for row in bench.recipients().values()):
        assert bench.drain().code in {4, 5}
    return bench


@pytest.mark.parametrize("command", ["plan", "status"])
def test_what_expires_first_is_shown(waiting: Bench, command: str) -> None:
    """Whoever has waited longest for a primary that answered, and what is left."""
    url = f"postfix:{waiting.spool}"
    facts = waiting.run(command, url, "--json").json["expires_first"]
    assert facts["forward_path"] == BOB
    assert 0 < LIFETIME_SECONDS - facts["left"] < 3600
    assert facts["native_id"] in waiting.run("show", facts["id"]).stdout
    words = waiting.run(command, url).stdout
    assert f"first to expire: {facts['native_id']} to {BOB}, after" in words


@pytest.mark.parametrize("command", ["plan", "status"])
def test_without_anybody_put_off_nothing_expires(
    tmp_path: Path, peer: StartPeer, command: str
) -> None:
    """What is delivered does not; and without a ledger plan knows of nobody."""
    bench = Bench(tmp_path, peer().port)
    bench.add(BOB)
    url = f"postfix:{bench.spool}"
    assert bench.run("plan", url, "--json").json["expires_first"] is None
    assert not bench.ledger.exists()
    assert bench.drain().code == 0
    assert bench.run(command, url, "--json").json["expires_first"] is None
    assert "first to expire" not in bench.run(command, url).stdout


def test_a_stopped_route_has_its_remedy_and_a_reply_is_printed_once(
    tmp_path: Path, peer: StartPeer
) -> None:
    """What is waiting for it was refused with the same words. The route is named."""
    bench = Bench(tmp_path, peer(rcpt="550 5.7.1 Relaying denied").port)
    for n in range(12):
        bench.add(f"user{n}@example.org")
    assert bench.drain().code == 4
    (breaker,) = bench.run("status", "--json").json["breakers"]
    assert breaker["state"] == "open"
    assert "mynetworks" in breaker["remedy"]
    words = " ".join(bench.run("status").stdout.split())
    assert breaker["remedy"] in words
    assert words.count("Relaying denied") == 1
    at = f"127.0.0.1:{bench.port}"
    named = {"route": f"the route {at}"}.get(breaker["scope"], f"example.org at {at}")
    assert f"breaker of {named} open" in words


def test_a_drain_prints_once_how_many_are_pending(
    tmp_path: Path, peer: StartPeer
) -> None:
    """What has no reason beside its state is not listed again."""
    server = peer()
    server.stop()
    bench = Bench(tmp_path, server.port)
    bench.configure(breaker={"give_up_after": "100ms", "pauses": ["50ms"]})
    bench.add("user@example.org")
    result = bench.run("drain", f"postfix:{bench.spool}", "--no-check")
    assert result.stdout.count("1 pending") == 1


def test_one_reply_of_several_is_called_an_example(
    tmp_path: Path, peer: StartPeer
) -> None:
    """Who reads it must not take it for the reply to everybody of the group."""
    later = {BOB: "450 4.2.1 busy: bob", CAROL: "450 4.2.1 busy: carol"}
    bench = Bench(tmp_path, peer(rcpt=per_recipient(later)).port)
    bench.add(BOB)
    bench.drain()
    words = bench.run("status").stdout
    assert "(450 4.2.1 busy: bob)" in words
    bench.add(CAROL)
    words = bench.run("drain", f"postfix:{bench.spool}", "--no-check").stdout
    assert "enhanced-4.2.1 for example: 450 4.2.1 busy: carol" in words
    assert "(for example: 450 4.2.1 busy: carol)" in bench.run("status").stdout
