"""The status snapshot of a watch, for the status page and for readiness.

Times are RFC 3339 in UTC; a snapshot is ready for JSON.
"""

from typing import Protocol, TypedDict


class RunFacts(TypedDict):
    """The drain that runs."""

    id: str
    started: str
    #: Messages: seen by the scan, with something left to do, sent.
    scanned: int
    total: int
    sent: int
    #: Bytes of the messages that were sent.
    bytes: int
    connections: int
    #: Messages per second, of the last second; and the limit, None: unlimited.
    rate_now: float
    limit: float | None


class LatencyFacts(TypedDict):
    """Recent means in milliseconds; None: no recent sample."""

    rcpt_ms: float | None
    dot_ms: float | None
    connect_ms: float | None


class BreakerFacts(TypedDict):
    """The breaker of a route, as the drain that runs, or the last one, has it."""

    #: closed (mail flows), paused, probing, open.
    state: str
    reply: str
    until: str | None
    reason: str
    #: What the operator can do, as text; '' while mail flows.
    remedy: str


class FindingFacts(TypedDict):
    """One line of the last health check, as ``drainer check`` prints it."""

    stage: str
    #: ok, warn, fail.
    verdict: str
    reply: str
    seconds: float
    hint: str


class RouteFacts(TypedDict):
    """One route: what the drain that runs does there, and what the primary said."""

    #: Its name: HOST:PORT of its first server, or the path of a Unix socket.
    route: str
    #: The server that answered last, with its address; '' if none did.
    answered: str
    #: Of the drain that runs: messages sent, open sessions, messages per second now;
    #: and the limit, None: unlimited.
    sent: int
    connections: int
    rate_now: float
    limit: float | None
    #: What it waits for, as text; '' while it works.
    waiting: str
    latency: LatencyFacts
    breaker: BreakerFacts
    checks: list[FindingFacts]


class ControlFacts(TypedDict):
    """A pause or a limit that is in force."""

    at: str
    until: str | None
    #: Messages per second; None for a pause.
    per_second: float | None
    reason: str
    by: str


class Controls(TypedDict):
    """The operators' overrides that are in force."""

    pause: ControlFacts | None
    throttle: ControlFacts | None


class Change(TypedDict):
    """One change of the watch's state."""

    at: str
    before: str
    state: str
    why: str


Sample = tuple[float, float, float | None, float | None]
"""Seconds since 1970; messages per second; the limit; milliseconds for the final dot.

The limit of all routes is None if one is unlimited. The milliseconds are the mean of
the slowest route; they are None if no message ended in that second.
"""


class StatusSnapshot(TypedDict):
    """A watch at a moment."""

    #: A state of drainer.policy.watch.machine, such as ``probing``.
    state: str
    since: str
    why: str
    #: When it ends by itself, or is checked again; None: not by the clock.
    until: str | None
    #: The first route, which names the watch.
    primary: str
    #: URLs.
    sources: list[str]
    version: str
    run: RunFacts | None
    #: In the order of the configuration.
    routes: list[RouteFacts]
    #: One per second of the last 600 in which a drain ran, the oldest first.
    history: list[Sample]
    controls: Controls
    #: The last 50, the oldest first.
    last_decisions: list[Change]


class WatchView(Protocol):
    """A watch, seen from outside."""

    def snapshot(self) -> StatusSnapshot:
        """Return its state; cheap, reads neither disk nor ledger."""
        ...

    async def wait_for_change(self) -> None:
        """Return after the next change: of state, a check, or a second of a drain.

        Any number of callers may wait; cancelling one does not affect the others.
        """
