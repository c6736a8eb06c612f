"""What a watch shows of itself to whoever serves it: the hook's status page, readiness.

Nothing is asked of a watch here: orders go through the ledger (ledger.controls.give),
also those that come by HTTP. Times are RFC 3339 in UTC; a snapshot is ready for JSON.
"""

from typing import Protocol, TypedDict


class RunFacts(TypedDict):
    """The drain that runs."""

    id: str
    started: str
    #: Messages: met by the scan, with something left to do, sent.
    scanned: int
    total: int
    sent: int
    #: Octets of the messages that were sent.
    bytes: int
    connections: int
    #: Messages per second, of the last second; and the limit, None = unlimited.
    rate_now: float
    limit: float | None
    #: What it waits for, in words; '' while it works.
    waiting: str


class LatencyFacts(TypedDict):
    """Recent means in milliseconds; None = nothing was seen lately."""

    rcpt_ms: float | None
    dot_ms: float | None
    connect_ms: float | None


class BreakerFacts(TypedDict):
    """The breaker of the route, as the drain that runs, or the last one, has it."""

    #: closed (mail flows), paused, probing, open.
    state: str
    reply: str
    until: str | None
    reason: str


class FindingFacts(TypedDict):
    """One line of the last health check, as ``drainer check`` prints it."""

    stage: str
    #: ok, warn, fail.
    verdict: str
    reply: str
    seconds: float
    hint: str


class ControlFacts(TypedDict):
    """A pause or a limit that is in force."""

    at: str
    until: str | None
    #: Messages per second; None of a pause.
    per_second: float | None
    reason: str
    by: str


class Controls(TypedDict):
    """What people have asked for, and holds."""

    pause: ControlFacts | None
    throttle: ControlFacts | None


class Change(TypedDict):
    """One change of the watch's state."""

    at: str
    before: str
    state: str
    why: str


Sample = tuple[float, float, float | None, float | None]
"""Seconds since 1970; messages per second; the limit, None = unlimited; mean
milliseconds for the final dot, None = no message ended in that second."""


class StatusSnapshot(TypedDict):
    """A watch at a moment."""

    #: A state of drainer.policy.watch.machine, such as ``probing``.
    state: str
    since: str
    why: str
    #: When it ends by itself, or is looked at again; None = not by the clock.
    until: str | None
    #: HOST:PORT, the route by which controls are given.
    primary: str
    #: URLs.
    sources: list[str]
    version: str
    run: RunFacts | None
    latency: LatencyFacts
    breaker: BreakerFacts
    #: One per second of the last 600 in which a drain ran, the oldest first.
    history: list[Sample]
    checks: list[FindingFacts]
    controls: Controls
    #: The last 50, the oldest first.
    last_decisions: list[Change]


class WatchView(Protocol):
    """A watch, seen from outside."""

    def snapshot(self) -> StatusSnapshot:
        """Return how it stands; cheap, reads neither disk nor ledger."""
        ...

    async def changed(self) -> None:
        """Return after the next change: of state, a check, or a second of a drain.

        Any number may wait; cancelling one harms nobody.
        """
