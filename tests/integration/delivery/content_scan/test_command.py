"""[scan] with a program: what it is given, and what its exit status means."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread

BOB, CAROL = "bob@example.org", "carol@example.org"


@pytest.fixture
def bench(tmp_path: Path, peer: Callable[..., PeerThread]) -> Bench:
    """Give a bench with one message for BOB and CAROL, and a primary that takes it."""
    bench = Bench(tmp_path, peer().port)
    bench.add(BOB, CAROL, sender="s+$(id)@example.com", text=b"Subject: x\n\n.\nend\n")
    return bench


def let_scan(bench: Bench, script: str, **keys: object) -> None:
    """Configure a shell script as the scanner."""
    program = bench.root / "check"
    program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    program.chmod(stat.S_IRWXU)
    scan = {"protocol": "command", "command": [str(program), "one two"], **keys}
    bench.configure(**{"scan.own": scan})


def test_it_gets_message_and_envelope(bench: Bench) -> None:
    """Arguments and variables are data: no shell looks at them."""
    let_scan(bench, 'cat >content; echo "$1" >argument; env >environment')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bench.root)
        patch.setenv("DRAINER_PRIMARY__PASSWORD", "secret")
        assert bench.drain().code == 0
    content = (bench.root / "content").read_bytes()
    assert content.endswith(b"\r\n\r\n.\r\nend\r\n")
    assert (bench.root / "argument").read_text() == "one two\n"
    found = (bench.root / "environment").read_text()
    assert 'SENDER="s+$(id)"@example.com\n' in found
    assert f"RECIPIENTS={BOB}\n{CAROL}\n" in found
    assert f"SIZE={len(content)}\n" in found
    assert "QUEUE_ID=A0001\n" in found
    assert "secret" not in found


@pytest.mark.parametrize(
    ("script", "rule", "words"),
    [
        ("cat >/dev/null; echo an invoice; exit 1", "scan-own", "own: an invoice"),
        ("exit 1", "scan-own", "own: exit status 1"),
        ("printf '\\033[31mred\\n'; exit 1", "scan-own", r"own: \x1b[31mred"),
        ("echo broken; exit 2", "unscanned", "own: exit status 2: broken"),
        ("kill -9 $$", "unscanned", "own: signal 9"),
        ("sleep 60", "unscanned", "own: no answer within 1s"),
        ("sleep 60 & exit 3", "unscanned", "own: exit status 3"),
    ],
)
def test_what_its_end_means(bench: Bench, script: str, rule: str, words: str) -> None:
    """1 is a hit, and whatever is neither 0 nor 1 says nothing about the message."""
    let_scan(bench, script, timeout="1s" if script == "sleep 60" else "30s")
    assert bench.drain().code == 5
    found = bench.recipients()
    assert {row["rule"] for row in found.values()} == {rule}
    assert {row["reply"] for row in found.values()} == {words}


def test_a_program_need_not_read_the_whole_message(bench: Bench) -> None:
    """Its exit status counts, however much of a large message it has read."""
    bench.add("dan@example.org", text=b"Subject: x\n\n" + b"line\n" * 400_000)
    let_scan(bench, "head -c 100000 >/dev/null; echo bad; exit 1")
    assert bench.drain().code == 5
    assert {row["reply"] for row in bench.recipients().values()} == {"own: bad"}


def test_a_program_that_is_absent_lets_mail_wait(bench: Bench) -> None:
    """As any scanner that cannot be reached."""
    bench.configure(**{"scan.own": {"protocol": "command", "command": ["/absent"]}})
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}


def test_more_recipients_than_a_variable_holds(bench: Bench) -> None:
    """It is told of the first ones, whole, and the message is scanned all the same."""
    many = [f"{'ü' * 29}{n}@example.org" for n in range(3000)]
    bench.add(*many)
    let_scan(bench, 'cat >/dev/null; echo "$RECIPIENTS" >>seen; exit 1')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bench.root)
        assert bench.drain().code == 5
    seen = (bench.root / "seen").read_text("utf-8").splitlines()
    assert len(seen) > 500
    assert set(seen) <= {BOB, CAROL, *many}
    assert {row["rule"] for row in bench.recipients().values()} == {"scan-own"}
