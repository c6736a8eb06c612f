"""[scan]: a scanner, or drainer, is killed while a message is scanned."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command.runner import Bench, end
from tests.support.mta.clamd import EICAR, Clamd
from tests.support.mta.postfix import wait_until
from tests.support.mta.rspamd import Rspamd
from tests.support.mta.scan_daemon import ScanDaemon
from tests.support.mta.spamd import Spamd
from tests.support.smtp_peer.peer import PeerThread

BOB, CAROL = "bob@example.org", "carol@example.org"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
SCANNERS: dict[str, Callable[[Path], ScanDaemon]] = {
    "clamd": Clamd,
    "rspamd": Rspamd,
    "spamd": lambda _: Spamd(),
}


@pytest.fixture
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ScanDaemon]:
    """Give a running scanner of the kind that the test names."""
    (tmp_path / "scanner").mkdir()
    made = SCANNERS[request.param](tmp_path / "scanner")
    if reason := made.missing_reason():
        pytest.skip(reason)
    with made as running:
        yield running


@pytest.fixture
def primary(peer: Callable[..., PeerThread]) -> PeerThread:
    """Give a primary that takes everything."""
    return peer()


@pytest.fixture
def bench(tmp_path: Path, daemon: ScanDaemon, primary: PeerThread) -> Bench:
    """Give a bench with a clean message for BOB; each scanner objects to CAROL's."""
    bench = Bench(tmp_path, primary.port)
    bench.add(BOB)
    text = b"Subject: bargain offer\n\n" + GTUBE + b"\n" + EICAR + b"\n"
    bench.add(CAROL, text=text)
    scan = {"protocol": daemon.program, "address": daemon.address, "timeout": "50s"}
    bench.configure(**{"scan.one": scan})
    return bench


def start_scan(bench: Bench, daemon: ScanDaemon) -> subprocess.Popen[str]:
    """Start a drain in a process of its own; return when the scanner is asked."""
    daemon.freeze()
    drain = bench.start("drain", f"postfix:{bench.spool}", "--json", "--no-check")
    wait_until(daemon.is_asked, timeout=60, what="a question")
    return drain


@pytest.mark.parametrize("daemon", SCANNERS, indirect=True)
def test_a_scanner_killed_while_it_scans(
    bench: Bench, daemon: ScanDaemon, primary: PeerThread
) -> None:
    """Nothing is sent unscanned; the next drain scans both messages."""
    drain = start_scan(bench, daemon)
    daemon.kill()
    assert end(drain).code == 5
    assert set(bench.states().values()) == {"deferred"}
    assert {row["rule"] for row in bench.recipients().values()} == {"unscanned"}
    assert {row["attempts"] for row in bench.recipients().values()} == {0}
    assert primary.accepted == []
    daemon.start()
    assert bench.drain("--give-up-after", "20s").code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "held"}
    bench.assert_balanced()


@pytest.mark.parametrize("daemon", ["clamd"], indirect=True)
def test_drainer_killed_while_a_scanner_scans(
    bench: Bench, daemon: ScanDaemon, primary: PeerThread
) -> None:
    """No attempt was open: nothing is in doubt, and nothing is sent twice."""
    drain = start_scan(bench, daemon)
    drain.kill()
    end(drain)
    daemon.thaw()
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "held"}
    assert [mail.forward_paths for mail in primary.accepted] == [[BOB]]
    bench.assert_balanced()
