"""How fast a drain sends now: its share, overrides, and what the primary can handle.

Once a second it reads the ledger once: the other drains of the route, which share its
rate, and the overrides in force. Then the controller decides. A rate that an operator
sets is the new limit, as an explicit --rate is; it may be above the configured one.
During a pause no connection may be open.

Promise P3 is about the primary, not about one process: all living runs on a route in
one ledger share its rate equally. A run lowers its own rate before it reports that to
the ledger. It raises its rate only by what the others have released there.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from drainer.delivery.breaker.guard import BreakerGuard
from drainer.delivery.control import DrainControl
from drainer.delivery.pacing.load import LoadMonitor
from drainer.delivery.settings import RouteProgress, RouteSettings
from drainer.ledger.records import DecisionKind
from drainer.ledger.repository import Ledger
from drainer.mail.message import Problem
from drainer.policy.pacing.aimd import (
    Adjustment,
    AimdController,
    LatencySample,
    is_overload,
    share_at,
)
from drainer.policy.pacing.overrides import ActiveOverrides
from drainer.policy.pacing.rate import Rate, message_rate
from drainer.policy.recipient.judge import ClassifiedResult
from drainer.runtime.process import utcnow
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.transaction import Transaction

LOOK_EVERY = 1.0
"""Seconds that a new drain waits for the others to make room."""
HURRY = 0.1
"""Seconds, while this run has less than its share."""
NOTE_EVERY = 10.0
"""Seconds between records while the trend is the same: one covers several steps."""
LARGE = 256 * 1024
"""Bytes of a content whose end of data says more about it than about the primary."""
MANY = 1_000_000


@dataclass(slots=True, kw_only=True)
class RateController:
    """Keeps one run's rate limiter and connections where they should be."""

    settings: RouteSettings
    ledger: Ledger
    rate_limiter: RateLimiter
    progress: RouteProgress
    breaker_guard: BreakerGuard
    control: DrainControl
    loads: LoadMonitor = field(init=False)
    #: How many connections this drain may have: none before the first check.
    connections: int = 0
    #: Part of the rate that this drain has, 0 to 1.
    _share: float = 0.0
    _adaptive: AimdController = field(init=False)
    _in_force: ActiveOverrides = field(default_factory=ActiveOverrides)
    _begun: bool = False
    #: The rate that is the limit now.
    _rate: Rate | None = field(init=False)
    #: What no record contains yet, and what the last record contained.
    _untold: Adjustment | None = None
    _told: str = ""
    _told_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Control nothing yet."""
        pace, most = self.settings.pace, self.settings.connections
        full = pace.full or not pace.adaptive
        self._adaptive = AimdController(most, pace.ramp, full=full)
        self.loads = LoadMonitor(pace.load, self._tell_load)
        self._rate = self.settings.rates.messages
        self.progress.limit = self._limit_words()

    @property
    def full(self) -> bool:
        """Whether all of the limit is used: nothing holds the drain back."""
        return self._adaptive.level >= 1

    @property
    def allowed(self) -> float | None:
        """Messages per second that this drain may send now; None = unlimited."""
        if self._rate is None:
            return None
        return _allowed(self._adaptive.level, self._rate) * self._share

    async def run(self) -> None:
        """Check at intervals, until it is cancelled."""
        try:
            while True:
                fair = await self.look()
                reached = self._share >= fair > 0
                await asyncio.sleep(LOOK_EVERY if reached else HURRY)
        finally:
            if self._untold is not None:
                self._tell_move(self._untold, time.monotonic())

    async def look(self) -> float:
        """Check once, and act; return the fair share of the rate."""
        most = self._rate.sharers if self._rate else MANY
        route = self.settings.name
        fair, in_force = await self.ledger.runs.outlook(route, most)
        await self._heed(in_force)
        if not self._begun:
            self._begun = True
            self._narrow()
        await self._move_to(fair)
        if self.settings.pace.adaptive and not in_force.pause:
            self._decide(time.monotonic())
        self._show()
        return fair

    async def _move_to(self, fair: float) -> None:
        """Move to the fair share, as far as the others have released it."""
        if fair == self._share:
            return
        if fair < self._share:
            await self.rate_limiter.resize(fair)
        share = await self.ledger.runs.take_share(self.settings.name, fair)
        if share > self._share:
            await self.rate_limiter.resize(share)
        self._share = share

    # --- what happened

    def observe(
        self,
        transaction: Transaction,
        classified: Sequence[ClassifiedResult],
        *,
        dot: float | None,
        rcpt: float | None,
    ) -> None:
        """Note how an attempt ended, and how many seconds its answers took."""
        asked = [e for e in classified if not isinstance(e.result.answer, Problem)]
        if not asked:
            return
        sample = LatencySample(
            began=transaction.turn,
            rcpt=rcpt,
            dot=dot if transaction.facts.size_bytes <= LARGE else None,
            put_off=any(
                is_overload(e.classification, e.result.answer, e.result.stage)
                for e in asked
            ),
        )
        self._adaptive.observe(sample)

    def unreachable(self, began: float) -> None:
        """Note a session that could not be opened."""
        self._adaptive.observe(LatencySample(began=began, unreachable=True))

    # --- what the operator asks

    async def _heed(self, in_force: ActiveOverrides) -> None:
        before, self._in_force = self._in_force, in_force
        if in_force.throttle != before.throttle:
            await self._limit(in_force)
        if in_force.pause != before.pause:
            rule = "throttle-pause" if in_force.pause else "throttle-resume"
            self._note(rule, {"reason": str(in_force.pause or "it is over")})
            self._narrow()
            self.breaker_guard.halted = in_force.pause is not None
        if in_force.pause:  # a pause is not time without a success
            self.progress.resumed = utcnow()

    async def _limit(self, in_force: ActiveOverrides) -> None:
        """Continue with the rate in force now; an operator's rate skips the ramp."""
        asked, before = in_force.per_second, self._rate
        configured = self.settings.rates.messages
        self._rate = configured if asked is None else message_rate(asked, None)
        level = 1.0
        if asked is None and self.settings.pace.adaptive:  # from where it is now
            level = self._adaptive.level
            if before and configured:
                level *= before.per_second / configured.per_second
        self._adaptive.jump(level, time.monotonic())
        await self.rate_limiter.limit(self._rate)
        self._narrow()
        words = str(in_force.throttle or "what was set is over")
        self.progress.why, self._untold, self._told = words, None, ""
        facts = self._facts(self._adaptive.level)
        self._note("throttle-set", {"reason": words, **facts})

    # --- what the controller decides

    def _decide(self, now: float) -> None:
        move = self._adaptive.step(now, self.loads.latest)
        if move is not None:
            self._narrow()
            self.progress.why = move.why
            self._add(move, now)
        untold = self._untold
        if untold is None:
            return
        if untold.rule != self._told or now - self._told_at >= NOTE_EVERY:
            self._tell_move(untold, now)

    def _add(self, move: Adjustment, now: float) -> None:
        """Keep a change for the record, with earlier ones in the same direction."""
        if self._untold is not None and self._untold.rule == move.rule:
            move = replace(move, before=self._untold.before)
        elif self._untold is not None:
            self._tell_move(self._untold, now)
        self._untold = move

    def _narrow(self) -> None:
        level = self._adaptive.level
        share = share_at(level, self._rate.per_second) if self._rate else level
        self.rate_limiter.scale(share)
        self.connections = 0 if self._in_force.pause else self._adaptive.connections
        self.breaker_guard.wake()

    def _tell_move(self, move: Adjustment, now: float) -> None:
        self._untold, self._told, self._told_at = None, move.rule, now
        before, after = self._facts(move.before), self._facts(move.after)
        if before != after:
            facts = {"reason": move.why, **after}
            self._note(move.rule, facts | {f"{k}_before": v for k, v in before.items()})

    def _facts(self, level: float) -> dict[str, object]:
        """Return the numbers of a level."""
        facts: dict[str, object] = {"connections": self._adaptive.at(level)}
        if self._rate is not None:
            facts["per_second"] = round(_allowed(level, self._rate), 3)
        return facts

    # --- records

    def _note(self, rule: str, facts: dict[str, object]) -> None:
        self.control.record(DecisionKind.THROTTLE, rule, facts)

    def _tell_load(self, why: str) -> None:
        rule = "throttle-load-unknown" if why else "throttle-load-known"
        self._note(rule, {"reason": why})
        self.progress.load_unknown = why

    def _show(self) -> None:
        """Put it into words for the progress line."""
        progress, level = self.progress, self._adaptive.level
        progress.share = self._share
        progress.paused = str(self._in_force.pause or "")
        most = progress.limit = self._limit_words()
        progress.level = level
        if self._rate is not None:
            progress.per_second = self._rate.per_second * progress.share
        if level >= 1:
            progress.held = ""
        elif self._rate is None:
            allowed, most_open = self.connections, self.settings.connections
            progress.held = f"{allowed} of {most_open} connections: {progress.why}"
        else:
            progress.held = (
                f"{_allowed(level, self._rate):.3g}/s of {most}: {progress.why}"
            )

    def _limit_words(self) -> str:
        return "unlimited" if self._rate is None else f"{self._rate.per_second:g}/s"


def _allowed(level: float, rate: Rate) -> float:
    return rate.per_second * share_at(level, rate.per_second)
