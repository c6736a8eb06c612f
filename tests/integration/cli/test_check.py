"""`check` for a person who waits: each stage as it ends, and what Ctrl-C leaves."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.installed import Drainer
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Raw, View

OK = "250 2.1.0 ok"


@pytest.mark.parametrize("ending", ["in order", "interrupted"])
def test_a_stage_is_printed_when_it_has_ended(
    tmp_path: Path, peer: Callable[..., PeerThread], ending: str
) -> None:
    """The primary answers MAIL only after the test has read the stages before it."""
    was_read = threading.Event()

    def mail(_: View) -> str:
        was_read.wait(60)
        return OK

    primary = peer(mail=mail, lenient=True)
    process = Drainer(tmp_path / "ledger.db").start(
        "check", "--to", f"127.0.0.1:{primary.port}"
    )
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and lines[-1].startswith("ehlo ")):
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    assert "our name in EHLO is backup.example" in lines[0]
    if ending == "interrupted":
        process.send_signal(signal.SIGINT)
    was_read.set()
    rest, _ = process.communicate(timeout=60)
    if ending == "interrupted":
        assert process.returncode == 130
    else:
        assert process.returncode == 0
        assert "quit" in rest


def test_a_name_that_is_not_a_full_one_is_a_warning(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """Many servers refuse `EHLO localhost`; the setting is named."""
    primary = peer()
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment["DRAINER_PRIMARY__HELO"] = "localhost"
    done = drainer.run("check", "--to", f"127.0.0.1:{primary.port}", "--json")
    assert done.code == 0, done.stderr
    assert done.objects[0]["helo"] == "localhost"
    stages = {each["stage"]: each for each in done.objects[0]["stages"]}
    assert stages["our name"]["verdict"] == "warn"
    assert "[primary] helo" in stages["our name"]["hint"]


def test_an_error_that_quotes_the_peer_has_no_line_of_its_own(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """A line end that the primary sent is escaped, as on standard output."""
    primary = peer(banner=Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    to = f"127.0.0.1:{primary.port}"
    done = Drainer(tmp_path / "ledger.db").run("check", "--to", to)
    assert done.code == 3
    assert done.stderr.count("error:") == 1
