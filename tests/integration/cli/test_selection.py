"""`plan` and `inspect` say what is left, if there is a ledger."""

from collections.abc import Callable
from pathlib import Path

from tests.support.command.installed import Drainer, write_maildir
from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import per_recipient


def test_what_the_ledger_knows_does_not_count_again(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """Delivered mail is finished, refused mail waits, the rest is to be tried."""
    primary = peer(rcpt=per_recipient({"no@example.org": "550 5.1.1 no"}))
    bench = Bench(tmp_path, primary.port)
    for n in range(3):
        bench.add(f"user{n}@example.org")
    bench.add("no@example.org")
    source = f"postfix:{bench.spool}?ack=keep"
    before = bench.run("plan", source, "--json").json
    assert (before["messages"], before["recipients"]) == (4, 4)
    assert (before["finished"], before["known"]) == (0, {})
    assert bench.run("drain", source, "--no-check").code == 5
    bench.add("new@example.org")
    for command in (("plan",), ("drain", "--dry-run")):
        after = bench.run(*command, source, "--json").json
        assert (after["messages"], after["recipients"]) == (2, 1)
        assert after["finished"] == 3
        assert after["known"] == {"delivered": 3, "bounce-pending": 1}
    words = bench.run("plan", source).stdout
    assert "3 more messages are finished in the ledger" in words
    assert "1 bounce-pending" in words
    listed = bench.run("inspect", source, "--json").lines
    states = {path: s for each in listed for path, s in each["states"].items()}
    assert states == {
        **{f"user{n}@example.org": "delivered" for n in range(3)},
        "no@example.org": "bounce-pending",
    }
    assert "3 of them finished in the ledger" in bench.run("inspect", source).stdout


def test_a_ledger_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The plan is made without it."""
    write_maildir(tmp_path / "mail", 1)
    drainer = Drainer(tmp_path / "damaged.db")
    drainer.ledger.write_bytes(b"no database" * 100)
    done = drainer.run("plan", f"maildir:{tmp_path}/mail", "--json")
    assert done.code == 0, done.stderr
    assert done.objects[0]["messages"] == 1
    assert "cannot tell what is delivered already" in done.stderr
