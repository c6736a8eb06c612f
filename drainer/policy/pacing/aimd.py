"""The rate controller: less for an overloaded primary, more for a healthy one. Pure.

It starts with one connection and a low rate. It doubles them, then increases them step
by step (additive increase). Three things reduce them (multiplicative decrease):

- the latency of RCPT and of the end of data against the best of the last minutes,
  as in TCP Vegas and in gradient limiters;
- the share of attempts that were put off;
- connections that fail.

A load that the primary itself reports counts in the same way.

The controller never acts on one message. As in Postfix's scheduler, a change needs a
cohort. Only what started after the last change counts, so one bad moment counts once.
Between healthy and overloaded there is a range in which nothing changes.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median

from msgspec import Struct

from drainer.mail.reply import EXTENSION, SESSION_END, Lost, Stage
from drainer.policy.breaker.detector import is_storm
from drainer.policy.classify.classifier import Answer
from drainer.policy.classify.verdict import Classification, Scope, Verdict

FLOOR = 1 / 16
"""Share of everything that is allowed: the start, and the minimum."""
FLOOR_RATE = 1.0
"""Messages per second: the rate never goes below this, unless configured."""
TICKS = 20
"""Steps of a ramp: up to 8 doublings, then 8 steps of a sixteenth."""
LEAST_TICK = 1.0
"""Seconds."""
COHORT = 5
"""Fewest samples that count; more if there are more connections."""
MEMORY = 32
"""The latest samples that are used."""

WELL, ILL = 1.3, 2.0
"""Times the usual latency: it may widen up to the first, narrows beyond the other."""
SLACK = 0.05
"""Seconds of extra latency that do not matter."""
USUAL_FOR, USUAL_STEP = 600.0, 30.0
"""Seconds: how long the best latency counts, and the resolution that is kept."""
PUT_OFF = 1 / 8
"""The share of attempts put off that reduces the rate."""
_OF_A_MAILBOX = frozenset(("1.", "2.", "7."))
RELIEF = 0.8
"""Share of the highest load: above it nothing is increased."""


def is_overload(classification: Classification, answer: Answer, stage: Stage) -> bool:
    """Return whether a result shows that the primary has too much to do.

    A mailbox that is greylisted, full or unknown says nothing about the primary. Nor
    does one that is put off by itself, at RCPT or by a policy: a stranger chose it. Nor
    does a session that a primary ends after some messages.
    """
    if classification.verdict is Verdict.DELIVER:
        return False
    if isinstance(answer, Lost):
        return answer.reason not in (EXTENSION, SESSION_END)
    if is_storm(classification, answer):
        return answer.detail[:2] not in _OF_A_MAILBOX
    stopped = classification.verdict is Verdict.STOP and classification.short
    return stopped and classification.scope is Scope.ROUTE and stage is not Stage.RCPT


class LatencySample(Struct, frozen=True, kw_only=True):
    """The measurement of one attempt, or of one failed connection. Times in seconds."""

    #: When it started, on any monotonic clock.
    began: float
    #: How long a recipient and the end of data took; None if that is not known.
    rcpt: float | None = None
    dot: float | None = None
    put_off: bool = False
    #: No session could be opened.
    unreachable: bool = False


class LoadReading(Struct, frozen=True, kw_only=True):
    """What the primary reports about itself."""

    at: float
    value: float
    #: From this load on, the primary wants less mail.
    high: float

    def __str__(self) -> str:
        return f"its load is {self.value:.2f}, the limit {self.high:g}"


class Adjustment(Struct, frozen=True, kw_only=True):
    """A change: shares of what is allowed, and why."""

    before: float
    after: float
    why: str

    @property
    def rule(self) -> str:
        """Return the rule that a decision is recorded by."""
        return "throttle-widen" if self.after > self.before else "throttle-narrow"


@dataclass(slots=True)
class _Latency:
    """One latency: the usual one, and that of the latest cohort."""

    name: str
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    #: When a part of the window started, and the best median in it.
    best: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, seconds: float | None) -> None:
        if seconds is not None:
            self.latest.append(seconds)

    def stress(self, now: float) -> float:
        """Return how many times the usual latency the latest cohort needed."""
        if len(self.latest) < COHORT:
            return 1.0
        middle = median(self.latest)
        while self.best and self.best[0][0] < now - USUAL_FOR:
            self.best.popleft()
        if not self.best or self.best[-1][0] < now - USUAL_STEP:
            self.best.append((now, middle))
        elif middle < self.best[-1][1]:
            self.best[-1] = (self.best[-1][0], middle)
        return middle / (self.usual + SLACK)

    @property
    def usual(self) -> float:
        return min(seconds for _, seconds in self.best)

    def __str__(self) -> str:
        return (
            f"{self.name} takes {1000 * median(self.latest):.0f} ms, usually"
            f" {1000 * self.usual:.0f} ms"
        )


class AimdController:
    """Decides which share of the configured rate and connections is used."""

    def __init__(self, connections: int, ramp: timedelta, *, full: bool) -> None:
        """Start low, so that a healthy primary gets everything within ``ramp``.

        ``full`` skips the ramp. From then on the level only moves down and up.
        """
        self._connections = connections
        self._floor = min(FLOOR, 1 / connections)
        self._tick = max(LEAST_TICK, ramp.total_seconds() / TICKS)
        #: From 0 to 1: what is in force.
        self.level = 1.0 if full else self._floor
        #: It doubles up to this level; then it increases by steps.
        self._doubles_to = 0.5
        self._moved = -math.inf
        self._rcpt, self._dot = _Latency("a recipient"), _Latency("the end of data")
        self._put_off: deque[bool] = deque(maxlen=MEMORY)
        self._unreachable = 0
        self._count = 0

    # --- what is in force

    @property
    def connections(self) -> int:
        """Return how many connections may be open."""
        return self.at(self.level)

    def at(self, level: float) -> int:
        """Return how many connections a level means."""
        return max(1, math.ceil(level * self._connections - 1e-9))

    def jump(self, level: float, now: float) -> None:
        """Continue from another level, as an operator or hook decided."""
        self.level = min(1.0, max(self._floor, level))
        self._forget(now)

    # --- what happened

    def observe(self, sample: LatencySample) -> None:
        """Add a sample; one that started before the last change does not count."""
        if sample.began < self._moved:
            return
        if sample.unreachable:
            self._unreachable += 1
            return
        self._count += 1
        self._put_off.append(sample.put_off)
        if not sample.put_off:  # a refusal is quick or late: it does not measure load
            self._rcpt.add(sample.rcpt)
            self._dot.add(sample.dot)

    def step(self, now: float, load: LoadReading | None = None) -> Adjustment | None:
        """Decide, about once a second; return the change if there is one."""
        stress, worst = max(
            ((each.stress(now), each) for each in (self._rcpt, self._dot)),
            key=lambda pair: pair[0],
        )
        factor, why = self._ill(stress, worst, load)
        if why:
            self._doubles_to = max(self._floor, self.level * factor)
            return self._change(self._doubles_to, why, now)
        is_near = load is not None and load.value > RELIEF * load.high
        if self.level >= 1 or stress > WELL or is_near or not self._may_widen(now):
            return None
        level = min(1.0, self.level + FLOOR)
        if self.level < self._doubles_to:
            level = min(2 * self.level, self._doubles_to)
        return self._change(level, "going up, the primary is healthy", now)

    def _ill(
        self, stress: float, worst: _Latency, load: LoadReading | None
    ) -> tuple[float, str]:
        """Return the factor to reduce by, and why; '' if there is no reason to."""
        if self._unreachable:
            return 0.5, "a connection to the primary failed"
        put_off, count = sum(self._put_off), len(self._put_off)
        if put_off > 1 and put_off >= PUT_OFF * max(count, COHORT):
            return 0.5, f"the primary put {put_off} of {count} messages off"
        if load is not None and load.value >= load.high and load.at > self._moved:
            return 0.5, f"the primary is busy: {load}"
        if stress > ILL:
            return max(0.5, ILL / stress), f"the primary slows down: {worst}"
        return 1.0, ""

    def _may_widen(self, now: float) -> bool:
        """Return whether the last change is old enough, and a cohort healthy since."""
        if now - self._moved < self._tick:
            return False
        if sum(self._put_off) > PUT_OFF / 2 * len(self._put_off):
            return False
        return self._count >= max(COHORT, self.connections)

    def _change(self, level: float, why: str, now: float) -> Adjustment | None:
        before, self.level = self.level, level
        self._forget(now)
        if level == before:
            return None
        return Adjustment(before=before, after=level, why=why)

    def _forget(self, now: float) -> None:
        """Let only samples count that start from now on."""
        self._moved = now
        self._count = self._unreachable = 0
        for each in (self._put_off, self._rcpt.latest, self._dot.latest):
            each.clear()


def share_at(level: float, per_second: float) -> float:
    """Return the share of a rate that a level means, but never a hopeless one."""
    return max(level, min(1.0, FLOOR_RATE / per_second))
