"""A spool after an outage: most of it welcome, a part refused, few senders proven.

What is owed: everybody is delivered to, or bounced with one report, or quarantined
with a copy; however often the drain is killed meanwhile.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.mta.postfix import wait_until
from tests.support.scenarios.bounces import (
    BOB,
    CLIENT,
    Refusing,
    nobody_unknown,
    parsed,
    refusing,
)
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script
from tests.support.spools.postfix_files import record

EVERY: Final = 21
"""One message in so many is refused: fewer than the brake's 5 %."""
PROVEN: Final = 20
PATIENCE: Final = 300
FORGER: Final = (record("A", "client_address=198.51.100.7"),)
"""A client that no sender's SPF names."""
LIST: Final = b"List-Id: <news.sender.example>\nPrecedence: bulk\n"
REPORT: Final = b"Content-Type: multipart/report; boundary=x\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Mail of which the sender is not told, and why."""

    why: str
    sender: str = BOB
    head: bytes = b""
    envelope: tuple[bytes, ...] = CLIENT


UNTOLD: Final = (
    Kind(why="a forgery", sender="victim{}@sender.example", envelope=FORGER),
    Kind(why="nobody knows its client", sender="eve{}@sender.example", envelope=()),
    Kind(why="the null sender", sender=""),
    Kind(why="a forged list", sender="list{}@sender.example", head=LIST,
         envelope=FORGER),
    Kind(why="a robot that answers", sender="away{}@sender.example",
         head=b"Auto-Submitted: auto-replied\n"),
    Kind(why="a robot by its name", sender="MAILER-DAEMON@sender.example"),
    Kind(why="a report itself", head=REPORT),
    Kind(why="bulk mail", head=b"Precedence: bulk\n"),
    Kind(why="it claims to be ours", sender="boss{}@example.org"),
    Kind(why="a domain that is none", sender="amy{}@absent.example"),
    Kind(why="it wants no answer", head=b"X-Auto-Response-Suppress: All\n"),
)  # fmt: skip
TOLD: Final = (b"", b"", LIST, b"Auto-Submitted: auto-generated\n")
"""Headers of proven mail in turn: people, lists and shops want to know."""


@dataclass(slots=True, kw_only=True)
class Outage:
    """The spool, and what is to become of it."""

    bench: Refusing
    messages: int
    dice: random.Random
    proven: set[str] = field(default_factory=set)
    kills: int = 0

    @property
    def refused(self) -> int:
        """How many messages the primary refuses."""
        return self.messages // EVERY

    def fill(self) -> None:
        """Write the spool."""
        apart = self.refused // PROVEN
        for n in range(self.messages):
            number, is_welcome = divmod(n, EVERY)
            if is_welcome:
                sender = f"sender{n}@sender{n % 7}.example"
                self.bench.add(f"user{n}@example.org", sender=sender)
            elif number % apart == 0 and len(self.proven) < PROVEN:
                self._add_proven(number)
            else:
                self._add_untold(number)

    def _add_proven(self, number: int) -> None:
        head = TOLD[len(self.proven) % len(TOLD)]
        sender = f"Amy.{number}+x=y@sender.example"
        self.proven.add(sender)
        self._add(number, sender, head, CLIENT)

    def _add_untold(self, number: int) -> None:
        kind = UNTOLD[number % len(UNTOLD)]
        self._add(number, kind.sender.format(number), kind.head, kind.envelope)

    def _add(
        self, number: int, sender: str, head: bytes, envelope: tuple[bytes, ...]
    ) -> None:
        text = head + b"Subject: hello\n\nbody\n"
        path = f"nobody{number}@example.org"
        self.bench.add(path, sender=sender, text=text, envelope=envelope)

    # ---- the runs

    @property
    def _drain(self) -> tuple[str, ...]:
        return "drain", f"postfix:{self.bench.spool}"

    def run(self) -> None:
        """Kill it while it delivers, confirms and reports; then let it finish."""
        bench = self.bench
        for _ in range(2):
            self._kill(bench.primary, self.messages // 3, *self._drain)
        assert bench.drain().code == 5
        for more in (self.refused // 3, self.refused // 3):
            self._kill(bench.primary, more, "bounces", "run")
        for _ in range(2):
            self._kill(bench.relay, PROVEN // 4, "bounces", "run")
        deadline = time.monotonic() + PATIENCE
        while self.unfinished or self.unsent:
            assert time.monotonic() < deadline, (self.states(), self.unsent)
            self._release()
            bench.drain()

    def _kill(self, peer: PeerThread, more: int, *command: str) -> None:
        """Run a command until a peer has seen more recipients, and kill it.

        It may be done before that: less is left to do than was thought.
        """
        enough = len(peer.transactions) + self.dice.randint(more // 2, more)
        process = self.bench.start(*command, "--no-check", "--json")
        wait_until(
            lambda: len(peer.transactions) >= enough or process.poll() is not None,
            timeout=PATIENCE,
            what="the time to kill it",
        )
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.kills += 1

    def _release(self) -> None:
        """Say of the refused ones in doubt that they have not arrived."""
        words = ("--reason", "the log of the primary has no trace of it")
        self.bench.run("release", "--state", "held", *words)

    # ---- how it stands

    def states(self) -> Counter[str]:
        """Return how many recipients are in each state."""
        status = self.bench.run("status", "--json").json
        assert status["balanced"] is True
        return Counter({k: v for k, v in status["states"].items() if v})

    @property
    def unfinished(self) -> int:
        """How many recipients are not final."""
        final = ("delivered", "bounced", "quarantined")
        return sum(n for state, n in self.states().items() if state not in final)

    @property
    def unsent(self) -> int:
        """How many reports have not left."""
        rows = self.bench.rows("--state", "bounced")
        return sum(row["report"]["state"] != "sent" for row in rows)

    def judge(self) -> None:
        """Hold it to what is owed."""
        welcome = self.messages - self.refused
        assert self.states() == {
            "delivered": welcome,
            "bounced": PROVEN,
            "quarantined": self.refused - PROVEN,
        }
        self._judge_reports()
        delivered = {p for m in self.bench.primary.accepted for p in m.forward_paths}
        assert len(delivered) == welcome
        copies = Path(f"{self.bench.ledger}.quarantine").glob("*.eml")
        ids = {path.name.partition(".")[0] for path in copies}
        assert len(ids) == self.refused - PROVEN
        rows = self.bench.run("list", "--state", "quarantined", "--json").lines
        assert ids == {row["id"] for row in rows}

    def _judge_reports(self) -> None:
        """One to each proven sender; again only what a kill made doubtful."""
        reports = self.bench.reports
        names = {parsed(report)["Message-ID"] for report in reports}
        assert len(names) == PROVEN
        assert {path for r in reports for path in r.forward_paths} == self.proven
        assert len({report.content for report in reports}) == PROVEN
        assert len(reports) <= PROVEN + self.kills


@contextmanager
def outage(root: Path, *, messages: int, seed: int) -> Iterator[Outage]:
    """Give a spool of so many messages, its primary, a relay and DNS."""
    with (
        PeerThread() as relay,
        PeerThread(Script(rcpt=nobody_unknown)) as primary,
        refusing(root, relay, primary) as bench,
    ):
        bench.configure(
            primary={"connections": 5},
            bounce={"confirm_after": "500ms", "retry": "100ms"},
            breaker={"give_up_after": "2s"},
        )
        made = Outage(bench=bench, messages=messages, dice=random.Random(seed))  # noqa: S311 - to repeat it
        made.fill()
        yield made
