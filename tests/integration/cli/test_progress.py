"""The progress of a drain on a terminal, and how a second signal ends it."""

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.command.runner import Bench, environment
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Step, View

TIMEOUT = 60


def read_until(terminal: int, words: bytes) -> bytes:
    """Return what a terminal shows up to these words, or to its end."""
    shown, end = b"", time.monotonic() + TIMEOUT
    while words not in shown and time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # its last process has ended
            break
    return shown


def test_a_second_signal_restores_the_cursor_and_says_what_is_in_doubt(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """The drain dies of the signal, and the next one has that message as unknown."""
    at_dot = threading.Event()

    def dot(_view: View) -> Step:
        at_dot.set()
        return Delay(TIMEOUT, "250 too late")

    bench = Bench(tmp_path, peer(dot=dot).port)
    id_ = bench.add("bob@example.org")
    ours, theirs = pty.openpty()
    source = f"postfix:{bench.spool}?ack=remove"
    drain = bench.arguments("drain", source, "--no-check")
    process = subprocess.Popen(
        [sys.executable, "-m", "drainer", *drain],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment(TERM="xterm"),
    )
    os.close(theirs)
    try:
        assert at_dot.wait(TIMEOUT)
        shown = read_until(ours, b"0/1 sent")
        process.send_signal(signal.SIGINT)
        shown += read_until(ours, b"press again to stop at once")
        process.send_signal(signal.SIGINT)
        shown += read_until(ours, b"never shown")
        assert process.wait(TIMEOUT) == -signal.SIGINT
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert shown.count(b"\x1b[?25l") == 1, shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    assert f"1 messages in transfer are in doubt: {id_}".encode() in shown
    assert f"drainer spool give-back postfix:{bench.spool}".encode() in shown
