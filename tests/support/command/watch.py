"""`drainer watch` as a process of its own, and what it says while it runs."""

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.command import fork_server
from tests.support.command.runner import Bench, environment
from tests.support.mta.postfix import wait_until

#: Everything happens at once, as far as a test can bear it.
QUICK: Final[dict[str, dict[str, object]]] = {
    "health": {
        "successes": 2,
        "over": "100ms",
        "interval": "100ms",
        "longest": "400ms",
        "reject": "",
    },
    "watch": {"rescan": "300ms", "grace": "10s"},
}
PATIENCE: Final = 60
_STATE = re.compile(r"watch (down|probing|canary|ramp|cruise|waiting|done|armed): (.*)")


@dataclass(slots=True)
class Watcher:
    """A watch that runs, or has ended."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        """Everything that it has said."""
        return self.log.read_text("utf-8")

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Its states so far, each with why."""
        return _STATE.findall(self.text)

    @property
    def states(self) -> list[str]:
        """Its states so far."""
        return [state for state, _ in self.changes]

    @property
    def idle(self) -> float:
        """Seconds since it said anything."""
        return time.time() - self.log.stat().st_mtime

    def mark(self) -> int:
        """Return how many changes of state there were."""
        return len(self.changes)

    def wait_for(self, state: str, *, after: int = 0, why: str = "") -> int:
        """Wait for a state, after so many changes; return how many there are with it.

        Raises TimeoutError with what it said.
        """
        found: list[int] = []

        def is_there() -> bool:
            assert self.process.poll() is None, self.text
            found[:] = [
                n
                for n, (name, reason) in enumerate(self.changes, 1)
                if n > after and name == state and why in reason
            ]
            return bool(found)

        self._wait(is_there, f"state {state}")
        return found[0]

    def wait_said(self, words: str) -> None:
        """Wait for some words."""
        self._wait(lambda: words in self.text, repr(words))

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        try:
            wait_until(holds, timeout=PATIENCE, what=what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.text}") from None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; return its exit status."""
        self.send(number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def watching(bench: Bench, *sources: str, **variables: str) -> Iterator[Watcher]:
    """Run a watch while the block runs; it must have ended well, or be ended so."""
    number = len(list(bench.root.glob("watch-*.log")))
    log = bench.root / f"watch-{number}.log"
    arguments = bench.arguments("watch", *(sources or (source(bench),)))
    with log.open("wb") as output:
        process = fork_server.start(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(**variables),
        )
        watcher = Watcher(process, log)
        try:
            yield watcher
            if process.poll() is None:
                assert watcher.end() == 0, watcher.text
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def source(bench: Bench) -> str:
    """Return the source of a bench: what is final leaves it."""
    return f"postfix:{bench.spool}?ack=remove"


def prepare(bench: Bench, **sections: Mapping[str, object]) -> None:
    """Configure a bench for a quick watch; sections are laid over that."""
    bench.configure(**QUICK)
    bench.configure(**sections)
