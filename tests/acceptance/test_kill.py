"""Promise P8: killed at every step and at any moment, it goes on from there."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command.installed import Drainer, drain_arguments, write_maildir
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Drop, Script, Step, View

if TYPE_CHECKING:
    import subprocess

MESSAGES = 240
Hook = Callable[[View], Step]


class Executioner:
    """Kills the drain when the peer sees a certain step of a certain message."""

    def __init__(self, reply: str, *, at: int) -> None:
        """Answer ``reply``, but kill at the ``at``-th time."""
        self.process: subprocess.Popen[str] | None = None
        self._reply = reply
        self._left = at

    def __call__(self, _: View) -> Step:
        """Answer, or kill."""
        self._left -= 1
        if self._left == 0 and self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return Drop()
        return self._reply


def _kill_at(step: str, at: int) -> tuple[Script, Executioner]:
    replies = {"mail": "250 2.1.0 ok", "rcpt": "250 2.1.5 ok",
               "data": "354 go", "dot": "250 2.0.0 ok"}  # fmt: skip
    executioner = Executioner(replies[step], at=at)
    answers: dict[str, Any] = {step: executioner}
    return Script(**answers), executioner


def _finish(drainer: Drainer, source: Path, port: int) -> set[str]:
    """Rerun until everything is final; return whom `list` had named in doubt."""
    named: set[str] = set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        result = drainer.drain(source, port, "--connections", 5, "--no-check")
        named |= {r["forward_path"] for r in drainer.recipients("--state", "unknown")}
        if result.code == 0:
            assert drainer.status()["balanced"]
            return named
        assert result.code == 5, result.stderr
    pytest.fail("the drain never became final")


def _judge(peer: PeerThread, expected: list[str], named: set[str]) -> None:
    """No recipient is missing; whoever got two copies had been named."""
    copies = Counter(path for m in peer.accepted for path in m.forward_paths)
    assert set(copies) == set(expected)
    assert {path for path, count in copies.items() if count > 1} <= named
    assert not peer.violations


@pytest.mark.parametrize(
    ("step", "at"), [("mail", 1), ("rcpt", 3), ("data", 7), ("dot", 1), ("dot", 7)]
)
def test_killed_at_a_step_the_rerun_completes(
    tmp_path: Path, step: str, at: int
) -> None:
    """SIGKILL while MAIL, RCPT, DATA or the final dot waits for its reply."""
    expected = write_maildir(tmp_path / "spool", 12)
    drainer = Drainer(tmp_path / "ledger.db")
    script, executioner = _kill_at(step, at)
    with PeerThread(script) as peer:
        arguments = drain_arguments(tmp_path / "spool", peer.port, "--connections", 3)
        executioner.process = drainer.start(*arguments, "--no-check")
        executioner.process.communicate(timeout=60)
        assert executioner.process.returncode == -signal.SIGKILL
        peer.script = Script()
        rows = drainer.recipients("--state", "in-flight")
        in_flight = {row["forward_path"] for row in rows}
        assert len(in_flight) <= 3, "at most one message per session is in doubt"
        named = _finish(drainer, tmp_path / "spool", peer.port)
        assert named <= in_flight
        _judge(peer, expected, in_flight)


def test_a_dot_that_was_answered_to_nobody_is_unknown_then_sent_alone(
    tmp_path: Path,
) -> None:
    """The primary took it, the process died: in doubt, by name, then sent again."""
    expected = write_maildir(tmp_path / "spool", 1)
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment["DRAINER_RETRY__UNKNOWN"] = "1h"
    holder: dict[str, subprocess.Popen[str]] = {}

    def accept_and_kill(_: View) -> Step:
        process = holder.pop("process", None)
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return "250 2.0.0 queued"

    with PeerThread(Script(dot=accept_and_kill)) as peer:
        arguments = drain_arguments(tmp_path / "spool", peer.port, "--no-check")
        process = drainer.start(*arguments)
        holder["process"] = process
        process.communicate(timeout=60)
        again = drainer.drain(tmp_path / "spool", peer.port, "--no-check")
        assert again.code == 5
        rows = drainer.recipients("--state", "unknown")
        assert [row["forward_path"] for row in rows] == expected
        assert len(peer.messages) == 1, "nothing was sent twice meanwhile"


def test_killed_at_random_moments_nothing_is_lost_and_doubles_were_named(
    tmp_path: Path,
) -> None:
    """Hundreds of messages, killed over and over, then left to finish."""
    seed = random.randrange(1 << 30)  # noqa: S311 - printed, to repeat a failure
    print(f"seed {seed}")
    dice = random.Random(seed)  # noqa: S311
    expected = write_maildir(tmp_path / "spool", MESSAGES)
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment["DRAINER_RETRY__UNKNOWN"] = "2s"
    script = Script(dot=lambda _: Delay(dice.uniform(0, 0.01), "250 2.0.0 ok"))
    named: set[str] = set()
    with PeerThread(script) as peer:
        for _ in range(5):
            seen = len(peer.messages)
            arguments = drain_arguments(tmp_path / "spool", peer.port, "--no-check",
                                        "--connections", 5)  # fmt: skip
            process = drainer.start(*arguments)
            more = dice.randrange(1, 40)
            peer.wait(
                lambda seen=seen, more=more, process=process: (  # type: ignore[misc]
                    len(peer.messages) >= seen + more or process.poll() is not None
                ),
                timeout=30,
            )
            process.send_signal(signal.SIGKILL)
            process.communicate()
            in_flight = drainer.recipients("--state", "in-flight")
            assert len(in_flight) <= 5
            named |= {row["forward_path"] for row in in_flight}
        named |= _finish(drainer, tmp_path / "spool", peer.port)
        _judge(peer, expected, named)
    assert not list((tmp_path / "spool" / "new").iterdir())


def test_interrupted_by_a_signal_it_leaves_nothing_in_doubt(tmp_path: Path) -> None:
    """SIGINT: sessions finish their message, exit 130, the rerun completes."""
    expected = write_maildir(tmp_path / "spool", 60)
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread(Script(dot=Delay(0.05, "250 2.0.0 ok"))) as peer:
        arguments = drain_arguments(tmp_path / "spool", peer.port, "--no-check",
                                    "--connections", 3)  # fmt: skip
        process = drainer.start(*arguments)
        peer.wait(lambda: len(peer.accepted) >= 5, timeout=30)
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
        states = Counter(drainer.states().values())
        assert set(states) <= {"delivered", "pending"}
        assert states["delivered"] == len(peer.accepted)
        assert drainer.drain(tmp_path / "spool", peer.port, "--no-check").code == 0
        assert len(peer.accepted) == len(expected)
