"""A modelled primary in virtual time, and clients that drain to it, each in its way.

The primary has a few filter workers with one queue before them. The longer the queue,
the slower each worker (memory, locks, disks), so that too much at once makes it do less
in all; beyond a length it answers 421. Live mail comes by chance, at a rate that rises
and falls, and waits in the same queue: its latency is what a drain must not spoil.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from drainer.policy.pacing.aimd import AimdController, LatencySample, share_at

RCPT_SECONDS = 0.01
RETRY_AFTER = 60.0
"""Seconds; as a queue does with a message that was put off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """What the modelled server can do."""

    workers: int = 4
    #: Of one message in a worker, alone; exponentially distributed.
    service: float = 0.15
    #: A queue of this length doubles that.
    doubling: float = 50.0
    #: A longer queue answers 421.
    longest: int = 100
    #: Live messages per second: least and most, and the seconds of one up and down.
    live: tuple[float, float] = (3.0, 12.0)
    period: float = 600.0

    def live_rate(self, now: float) -> float:
        """Return how many live messages come per second."""
        least, most = self.live
        swing = (1 - math.cos(2 * math.pi * now / self.period)) / 2
        return least + (most - least) * swing


class Client(Protocol):
    """Decides what a drain sends when; times in seconds."""

    def next(self, now: float, active: int) -> float:
        """Return when another message may be begun; ``now`` = at once."""
        ...

    def sent(self, now: float) -> None:
        """Take note that one is begun."""

    def ended(self, sample: LatencySample) -> None:
        """Take note how one ended."""

    def tick(self, now: float) -> None:
        """Do what is done once a second."""


@dataclass(slots=True)
class Fixed:
    """A rate and a number of connections that somebody guessed; None = no rate."""

    rate: float | None
    connections: int
    _free: float = 0.0

    def next(self, now: float, active: int) -> float:
        """Keep the rate and the connections."""
        return math.inf if active >= self.connections else max(now, self._free)

    def sent(self, now: float) -> None:
        """Pay for it."""
        if self.rate is not None:
            self._free = max(now, self._free) + 1 / self.rate

    def ended(self, sample: LatencySample) -> None:
        """Learn nothing."""

    def tick(self, now: float) -> None:
        """Learn nothing."""


@dataclass(slots=True)
class Feedback:
    """Postfix's scheduler: up and down by 1/concurrency, on sessions that fail.

    As its SCHEDULER_README has it: 5 at first, 20 at most, a delivery is a success
    unless the server refuses the session.
    """

    most: int = 20
    _window: float = 5.0

    def next(self, now: float, active: int) -> float:
        """Keep the window."""
        return math.inf if active >= int(self._window) else now

    def sent(self, now: float) -> None:
        """Pay nothing: there is no rate."""

    def ended(self, sample: LatencySample) -> None:
        """Move the window."""
        change = (-1 if sample.put_off else 1) / max(1.0, self._window)
        self._window = min(self.most, max(1.0, self._window + change))

    def tick(self, now: float) -> None:
        """Do nothing: only deliveries count."""


class Ours:
    """Our controller, on top of a fixed rate and connections."""

    def __init__(self, rate: float, connections: int, ramp: float = 120.0) -> None:
        self._rate = rate
        self._fixed = Fixed(rate, connections)
        self.adaptive = AimdController(connections, timedelta(seconds=ramp), full=False)
        self._set()

    def _set(self) -> None:
        level = self.adaptive.level
        self._fixed.rate = self._rate * share_at(level, self._rate)
        self._fixed.connections = self.adaptive.connections

    def next(self, now: float, active: int) -> float:
        """Keep what the controller allows."""
        return self._fixed.next(now, active)

    def sent(self, now: float) -> None:
        """Pay for it."""
        self._fixed.sent(now)

    def ended(self, sample: LatencySample) -> None:
        """Tell the controller."""
        self.adaptive.observe(sample)

    def tick(self, now: float) -> None:
        """Let the controller decide."""
        self.adaptive.step(now)
        self._set()


@dataclass(slots=True)
class Outcome:
    """What came of one simulated drain; times in seconds."""

    took: float = math.inf
    #: When each message was delivered.
    delivered: list[float] = field(default_factory=list)
    #: When a live message came, and how long it took.
    live: list[tuple[float, float]] = field(default_factory=list)
    #: Live messages that were answered 421, and ours.
    live_put_off: int = 0
    put_off: int = 0

    def quantile(self, share: float) -> float:
        """Return the latency that a share of the live messages did not exceed."""
        values = sorted(seconds for _, seconds in self.live)
        return values[min(len(values) - 1, int(share * len(values)))]


@dataclass(slots=True)
class _Job:
    came: float
    done: Callable[[float], None]


class Simulation:
    """One drain of so many messages; the same seed gives the same live mail."""

    def __init__(
        self, primary: Primary, client: Client | None, *, messages: int, seed: int
    ) -> None:
        """Without a client only live mail comes."""
        self._primary = primary
        self._client = client
        self._left = messages
        self._to_do = messages
        self._active = 0
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._arrivals = random.Random(seed + 1)  # noqa: S311 - likewise
        self._queue: deque[_Job] = deque()
        self._busy = 0
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = itertools.count()
        self._due = math.inf
        self.outcome = Outcome()

    def run(self, limit: float) -> Outcome:
        """Run until everything is delivered, or so many seconds are over."""
        self._at(0.0, self._live)
        self._at(0.0, self._tick)
        while self._events:
            now, _, event = heapq.heappop(self._events)
            if now > limit or (self._client and not self._to_do):
                break
            event(now)
        return self.outcome

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    # --- the primary

    def _admit(self, delivery: _Job) -> bool:
        if len(self._queue) >= self._primary.longest:
            return False
        self._queue.append(delivery)
        self._serve(delivery.came)
        return True

    def _serve(self, now: float) -> None:
        while self._queue and self._busy < self._primary.workers:
            delivery = self._queue.popleft()
            self._busy += 1
            slower = 1 + len(self._queue) / self._primary.doubling
            seconds = self._chance.expovariate(1 / (self._primary.service * slower))

            def end(at: float, delivery: _Job = delivery) -> None:
                self._busy -= 1
                self._serve(at)
                delivery.done(at)

            self._at(now + seconds, end)

    # --- live mail

    def _live(self, now: float) -> None:
        most = self._primary.live[1]
        self._at(now + self._arrivals.expovariate(most), self._live)
        if self._arrivals.random() * most > self._primary.live_rate(now):
            return  # thinned out to the rate of this moment

        def done(at: float) -> None:
            self.outcome.live.append((now, at - now))

        if not self._admit(_Job(now, done)):
            self.outcome.live_put_off += 1

    # --- the drain

    def _tick(self, now: float) -> None:
        if self._client is not None:
            self._client.tick(now)
            self._at(now + 1, self._tick)
            self._send(now)

    def _send(self, now: float) -> None:
        assert self._client is not None
        while self._left:
            when = self._client.next(now, self._active)
            if when > now:
                if now < when < self._due:
                    self._due = when
                    self._at(when, self._wake)
                return
            self._client.sent(now)
            self._left -= 1
            self._active += 1
            crowd = len(self._queue) / self._primary.workers
            rcpt = RCPT_SECONDS * (1 + crowd) * self._chance.uniform(0.8, 1.2)
            self._at(now + rcpt, lambda at, r=rcpt: self._content(at, r))  # type: ignore[misc]

    def _wake(self, now: float) -> None:
        self._due = math.inf
        self._send(now)

    def _content(self, now: float, rcpt: float) -> None:
        def done(at: float) -> None:
            self._to_do -= 1
            self.outcome.delivered.append(at)
            self.outcome.took = at
            self._ended(at, LatencySample(began=now - rcpt, rcpt=rcpt, dot=at - now))

        if not self._admit(_Job(now, done)):
            self.outcome.put_off += 1
            self._at(now + RETRY_AFTER, self._again)
            self._ended(now, LatencySample(began=now - rcpt, rcpt=rcpt, put_off=True))

    def _again(self, now: float) -> None:
        self._left += 1
        self._send(now)

    def _ended(self, now: float, sample: LatencySample) -> None:
        assert self._client is not None
        self._active -= 1
        self._client.ended(sample)
        self._send(now)


def simulate(
    client: Client | None, *, messages: int, limit: float, seed: int = 1
) -> Outcome:
    """Drain so many messages to the usual primary; without a client it only lives."""
    simulation = Simulation(Primary(), client, messages=messages, seed=seed)
    return simulation.run(limit)
