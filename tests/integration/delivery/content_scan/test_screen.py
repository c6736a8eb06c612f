"""[scan] for many messages: asked once, paused, limited, and who need not wait."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.runner import Bench, call, end
from tests.support.mta.postfix import wait_until
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import in_turn

BOB, CAROL = "bob@example.org", "carol@example.org"


@pytest.fixture
def bench(tmp_path: Path, peer: Callable[..., PeerThread]) -> Bench:
    """Give a bench, and a primary that takes everything."""
    return Bench(tmp_path, peer().port)


def let_scan(bench: Bench, script: str, name: str = "own", **keys: object) -> Path:
    """Configure a shell script as a scanner; return the file that it may write."""
    program, log = bench.root / name, bench.root / f"{name}.log"
    text = f"#!/bin/sh\nlog={log}\ncat >/dev/null\n{script}\n"
    program.write_text(text, "utf-8")
    program.chmod(stat.S_IRWXU)
    scan = {"protocol": "command", "command": [str(program)], **keys}
    bench.configure(**{f"scan.{name}": scan})
    return log


@pytest.mark.parametrize(("cache", "asked"), [("1d", 1), ("0s", 2)])
def test_a_retry_asks_no_scanner_again(
    tmp_path: Path, peer: Callable[..., PeerThread], cache: str, asked: int
) -> None:
    """The content is the same, for as long as the answer counts."""
    primary = peer(rcpt=in_turn("450 4.2.1 busy", "250 2.1.5 ok"))
    bench = Bench(tmp_path, primary.port)
    bench.add(BOB)
    log = let_scan(bench, "echo x >>$log", cache=cache)
    assert bench.drain("--give-up-after", "20s").code == 0
    assert bench.states() == {BOB: "delivered"}
    assert log.read_text().count("x") == asked


def test_a_scanner_that_fails_gets_a_pause(bench: Bench) -> None:
    """It is not asked for every message, and the log says so once."""
    for n in range(12):
        bench.add(f"u{n}@example.org")
    log = let_scan(bench, "echo x >>$log; exit 9", concurrency=1)
    bench.configure(breaker={"pauses": ["1h"]})
    ended = bench.drain()
    assert ended.code == 5
    assert ended.stderr.count("the scanner own fails (exit status 9)") == 1
    assert log.read_text().count("x") == 3
    assert {row["rule"] for row in bench.recipients().values()} == {"unscanned"}


def test_no_more_at_once_than_configured(bench: Bench) -> None:
    """Whatever the primary could take."""
    for n in range(8):
        bench.add(f"u{n}@example.org")
    log = let_scan(bench, "echo + >>$log; sleep 0.1; echo - >>$log", concurrency=2)
    assert bench.drain().code == 0
    steps = [1 if line == "+" else -1 for line in log.read_text().split()]
    assert max(sum(steps[:n]) for n in range(len(steps))) <= 2


def test_what_needs_no_scan_does_not_wait(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """A large message passes those that a slow scanner looks at."""
    primary = peer()
    bench = Bench(tmp_path, primary.port)
    bench.add(BOB)
    bench.add(CAROL, text=b"Subject: x\n\n" + b"x" * 70 + b"\n" * 3000)
    log = let_scan(bench, "while [ ! -e $log ]; do sleep 0.05; done", max_size="2KB")
    drain = bench.start("drain", f"postfix:{bench.spool}", "--json", "--no-check")
    wait_until(lambda: bool(primary.accepted), timeout=50, what="the large message")
    assert [mail.forward_paths for mail in primary.accepted] == [[CAROL]]
    log.touch()
    assert end(drain).code == 0
    assert [mail.forward_paths for mail in primary.accepted] == [[CAROL], [BOB]]


def test_a_hit_decides_while_another_scanner_fails(bench: Bench) -> None:
    """What one objects to is held, whatever the other would say."""
    bench.add(BOB)
    let_scan(bench, "exit 9", "a")
    let_scan(bench, "echo bad; exit 1", "b")
    let_scan(bench, "exit 0", "c")
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "held"}
    assert bench.recipients()[BOB]["rule"] == "scan-b"


def test_a_plan_counts_what_would_be_held(bench: Bench) -> None:
    """By scanner and symbol; nothing is sent, and nothing is written."""
    for name in ("bad", "bad", "good", "late"):
        bench.add(BOB, text=b"Subject: %s\n\nx\n" % name.encode())
    source = f"postfix:{bench.spool}"
    assert "needs a scanner" in bench.run("plan", source, "--scan").stderr
    script = "case $TEXT in *bad*) echo worm; exit 1;; *late*) exit 9;; esac"
    let_scan(bench, script)
    program = bench.root / "own"
    text = program.read_text("utf-8").replace("cat >/dev/null", "TEXT=$(cat)")
    program.write_text(text, "utf-8")
    assert "scan" not in bench.run("plan", source, "--json").json
    found = bench.run("plan", source, "--scan", "--json").json["scan"]
    assert found == {
        "scanned": 4,
        "held": {"scan-own": 2},
        "symbols": {"scan-own": {"worm": 2}},
        "unscanned": {"own: exit status 9": 1},
    }
    words = bench.run("plan", source, "--scan").stdout
    assert "scanners would hold 2 of 4 messages" in words
    assert "1 would wait: own: exit status 9" in words
    assert bench.run("plan", source, "--scan", "--order", "oldest").code == 2
    assert not bench.ledger.exists()


def test_check_asks_each_scanner(bench: Bench) -> None:
    """Who answers is named, and what happens to mail while one does not."""
    let_scan(bench, "exit 0", primary_filters=True)
    for name, choice in (("down", "defer"), ("gone", "send")):
        scan: dict[str, object] = {"protocol": "clamd", "address": "unix:/absent"}
        scan |= {"unreachable": choice, "primary_filters": True}
        bench.configure(**{f"scan.{name}": scan})
    listed = call("check", "--json", "--config", bench.config).lines
    found = {each["scanner"]: each for each in listed if "scanner" in each}
    assert found["own"]["reply"] == str(bench.root / "own")
    assert [found[name]["verdict"] for name in found] == ["ok", "warn", "warn"]
    assert "no effect" in found["own"]["hint"]
    assert "mail waits" in found["down"]["hint"]
    assert "no effect" in found["down"]["hint"]
    assert "without it" in found["gone"]["hint"]
    bench.configure(primary={"forward_client": "auto"})
    words = call("check", "--config", bench.config).stdout
    assert "scanner down" in words
    assert "it is not asked about mail whose client XCLIENT names" in words
