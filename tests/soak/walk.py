"""One walk: a drain is disturbed some times, then left to finish, then judged.

What a real SMTP server received is compared with what the ledger says (P1, P2): every
message was received or is still named; none was received twice that was not named
`unknown`; every content was received whole.
"""

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.soak.disturbances import DISTURBANCES, Disturbance, Target
from tests.soak.faults import Faults
from tests.soak.spools import Spool, Spools, last_line, recipient
from tests.support.command.installed import (
    Drainer,
    Result,
    drain_arguments,
)
from tests.support.command.runner import call
from tests.support.disk import Disk
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Delay,
    Drop,
    Message,
    Script,
    Step,
    View,
    per_recipient,
)

SESSIONS: Final = 3
FEWEST: Final = 8
"""Messages of a walk, at least; one of them is refused and has no content."""
TIMEOUT: Final = 90
"""Seconds in which any run must end."""
RUNS: Final = 8
"""So many runs without a disturbance must be enough."""
REPLIES: Final = {
    "mail": "250 2.1.0 ok", "rcpt": "250 2.1.5 ok", "data": "354 go",
    "dot": "250 2.0.0 ok",
}  # fmt: skip
BLAMES_OPERATOR: Final = frozenset({2, 3, 6})
"""Exit statuses that no disturbance may cause."""
READ_ONLY: Final = "read-only file system"
"""But for this one: at a start it looks like missing rights."""
FINAL: Final = frozenset({"delivered", "bounced", "quarantined", "discarded"})


@dataclass(slots=True)
class Outcome:
    """What became of the messages of a walk."""

    #: How many disturbances met a drain.
    tried: int = 0
    #: Neither received nor named.
    lost: int = 0
    #: Received again without having been named.
    doubled: int = 0
    #: Named as possibly received.
    unknown: int = 0
    #: In words: whatever else must not be.
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Add the counts of another."""
        self.tried += other.tried
        self.lost += other.lost
        self.doubled += other.doubled
        self.unknown += other.unknown
        self.faults += other.faults

    @property
    def is_right(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.doubled or self.faults)


class Moment:
    """Strikes at a step of the conversation, or at a durable step."""

    def __init__(self, peer: PeerThread, dice: random.Random, steps: int) -> None:
        """Choose it; a drain makes about so many durable ``steps``."""
        self._peer = peer
        kinds = (*REPLIES, "durable", "durable", "durable", "durable")
        self.kind = dice.choice(kinds)
        self.durable = dice.randint(1, steps) if self.kind == "durable" else 0
        self._left = dice.randint(1, FEWEST - 1)
        self._drops = dice.random() < 0.5
        self._reached = False

    def arm(self, delay: float) -> None:
        """Let the server stop at this step of the conversation.

        It refuses one recipient, whose message drainer copies for the confirmation.
        """
        refused = per_recipient({recipient(0): "550 5.1.1 unknown"})
        answers: dict[str, Any] = {
            "rcpt": refused, "dot": Delay(delay, REPLIES["dot"]),
        }  # fmt: skip
        self._peer.script = Script(**answers)
        if self.kind in REPLIES:
            answers[self.kind] = self._answer
            self._peer.script = Script(**answers)

    def _answer(self, _: View) -> Step:
        self._left -= 1
        if self._left:
            return REPLIES[self.kind]
        self._reached = True
        self._peer.note()
        # The strike comes meanwhile; then it is answered, or not.
        return Delay(0.3, Drop() if self._drops else REPLIES[self.kind])

    def wait(self, faults: Faults, process: "subprocess.Popen[str]") -> bool:
        """Wait for it; False when the drain ended before."""
        if self.durable:
            return faults.wait_stopped(process, TIMEOUT)
        while not self._reached and process.poll() is None:
            try:
                self._peer.wait(lambda: self._reached, timeout=0.05)
            except TimeoutError:
                continue
        return self._reached


@dataclass(slots=True)
class Walk:
    """The parts of a walk."""

    drainer: Drainer
    spool: Spool
    disk: Disk
    faults: Faults
    peer: PeerThread
    dice: random.Random
    count: int
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def arguments(self) -> Sequence[object]:
        """The command that is run again and again."""
        more = ("--no-check", "--connections", SESSIONS)
        return drain_arguments(self.spool.source, self.peer.port, *more)

    @property
    def least_steps(self) -> int:
        """How many durable steps a drain makes here, at least."""
        return 2 if self.spool.ledger else 20  # a server makes its own

    # ---- the disturbed part

    def disturb(self, disturbance: Disturbance, steps: int, lasts: float) -> int:
        """Disturb one drain for some seconds; return how many durable steps it made."""
        moment = Moment(self.peer, self.dice, steps)
        moment.arm(0.005)
        self.faults.stop_at(moment.durable)
        process = self.drainer.start(*self.arguments)
        target = Target(
            process, self.spool, self.drainer.ledger, self.disk, self.faults, self.dice
        )
        with ExitStack() as during:
            if moment.wait(self.faults, process):
                self.outcome.tried += 1
                self.spool.strike()
                during.enter_context(disturbance(target))
                self.faults.go_on()
            try:
                process.communicate(timeout=lasts)
            except subprocess.TimeoutExpired:
                during.close()
            result = self._end(process)
            is_excused = disturbance is DISTURBANCES[READ_ONLY]
            if result.code in BLAMES_OPERATOR and not is_excused:
                why = f"ends with {result.code}, as a wrong command: {result.stderr}"
                self.outcome.faults.append(why)
        return self.faults.steps

    def _end(self, process: "subprocess.Popen[str]") -> Result:
        """Wait for the end of a run, and check how it ended."""
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            self.outcome.faults.append(f"did not end within {TIMEOUT} s: {stderr}")
        for word in ("Traceback", "Warning:"):
            if word in stderr:
                self.outcome.faults.append(f"{word} in {stderr}")
        return Result(process.returncode, stdout, stderr)

    # ---- the rest

    def finish(self) -> None:
        """Drain without disturbance; judge; release what is in doubt; judge again."""
        for name in self.faults.environment:  # nothing fails any more
            self.drainer.environment.pop(name, None)
        self.peer.script = Script()
        self._settle()
        states = self._judge(frozenset())
        named = {path for path, state in states.items() if state == "unknown"}
        self.outcome.unknown = len(named)
        if len(named) > self.outcome.tried * SESSIONS:
            self.outcome.faults.append(f"more than one message a session: {named}")
        for state in set(states.values()) - FINAL:
            verb = "release" if state == "held" else "requeue"
            self._call(verb, "--state", state, "--reason", "the soak is over")
        if set(states.values()) - FINAL:
            self._settle()
            states = self._judge(named)
        self._judge_end(states)

    def _settle(self) -> None:
        """Run the same command until it ends with 0 or 5."""
        result = Result(1, "", "it never ran")
        for _ in range(RUNS):
            result = self._end(self.drainer.start(*self.arguments))
            if result.code in (0, 5):
                return
        self.outcome.faults.append(f"ends with {result.code}: {result.stderr}")

    def _judge(self, named: frozenset[str] | set[str]) -> dict[str, str]:
        """Compare what was received with what the ledger says.

        What came whole, and whose dot was not answered, counts as a copy that the
        server may have kept; only what it said that it took, counts as received.
        """
        states = {row["forward_path"]: row["state"] for row in self._call("list")}
        [status] = self._call("status")
        if not status["balanced"] or status["spooled"] != len(states):
            self.outcome.faults.append(f"the counts do not add up: {status}")
        received = {path for _, path in self._received()}
        copies = Counter(
            path
            for message in self.peer.messages
            if message.reply[:1] not in ("4", "5")
            for path in message.forward_paths
        )
        for number in range(self.count):
            path = recipient(number)
            if path not in received and states.get(path, "delivered") in FINAL:
                self.outcome.lost += 1
                self.outcome.faults.append(f"lost: {path} is {states.get(path)}")
            if copies[path] > 1 and path not in named:
                self.outcome.doubled += 1
                self.outcome.faults.append(f"doubled: {path} is {states.get(path)}")
        return states

    def _received(self) -> Iterator[tuple[Message, str]]:
        """Yield what was received, and for whom; an empty dot is for nobody."""
        return ((m, path) for m in self.peer.accepted for path in m.forward_paths)

    def _judge_end(self, states: dict[str, str]) -> None:
        """Everything was received, whole, and the spool has let go of it."""
        waiting = {p: s for p, s in states.items() if s != "delivered"}
        if waiting or len(states) != self.count:
            self.outcome.faults.append(f"not delivered in the end: {waiting}")
        if not waiting and (left := self.spool.left()):
            self.outcome.faults.append(f"{left} messages are still in the spool")
        for message, path in self._received():
            number = int(path.removeprefix("user").partition("@")[0])
            if not (end := message.content or b"").endswith(last_line(number)):
                self.outcome.faults.append(f"altered: {path} ends {end[-40:]!r}")
        self.outcome.faults += self.peer.violations

    def _call(self, *arguments: object) -> list[Any]:
        """Run a command that is no drain in this process."""
        ledger = self.spool.ledger or self.drainer.ledger
        more = ("--json",) if arguments[0] in ("list", "status") else ("--yes",)
        result = call(*arguments, *more, "--ledger", ledger)
        if result.code:
            self.outcome.faults.append(f"{arguments}: {result.stderr}")
        return result.lines if more == ("--json",) else []


@contextmanager
def walk(
    spools: Spools, name: str, folder: Path, library: Path, dice: random.Random
) -> Iterator[Walk]:
    """Give a walk over a spool of this name; its folder is removed afterwards."""
    count = dice.randint(FEWEST, 16)
    place = folder / "disk"
    place.mkdir(parents=True)
    with (
        Disk(place) as disk,
        spools.lay_out(name, place) as spool,
        PeerThread() as peer,
    ):
        spool.fill(count)
        drainer = Drainer(place / "ledger.db", url=spool.ledger)
        faults = Faults(library, folder / "control", place, spool.place)
        drainer.environment |= faults.environment
        drainer.environment |= {"DRAINER_RETRY__UNKNOWN": "1d"}
        yield Walk(drainer, spool, disk, faults, peer, dice, count)
    shutil.rmtree(folder)
