"""The settings of a drain, and what it has done so far."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from drainer.bounce.quarantine.delivery_copies import KeepSettings
from drainer.bounce.settings import BounceSettings
from drainer.delivery.content_scan.protocol import ScannerSettings
from drainer.delivery.latency import LatencyStats
from drainer.delivery.mx_refresh import MxSettings
from drainer.delivery.pacing.load import LoadSource
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.selection import Choice
from drainer.policy.breaker.brake import USUAL_BRAKE, Brake
from drainer.policy.breaker.detector import USUAL_WINDOWS, DetectorThresholds
from drainer.policy.classify.rules import Rule
from drainer.policy.pacing.rate import Rate, Rates
from drainer.policy.recipient.retry import RetrySchedule
from drainer.policy.recipient.state import State
from drainer.smtp.connection import Connection
from drainer.smtp.health_check import HealthProbe
from drainer.smtp.route import Route
from drainer.sources.recipients.list_spec import DirectorySpec


class PacingSettings(Struct, frozen=True, kw_only=True):
    """How drainer finds out what the primary can handle."""

    adaptive: bool = True
    #: From the start to everything that is allowed, if the primary is healthy.
    ramp: timedelta = timedelta(minutes=2)
    #: Whether the ramp is skipped.
    full: bool = False
    load: LoadSource | None = None


class RouteSettings(Struct, frozen=True, kw_only=True):
    """How a drain sends to one route: each route has its own limits and breakers."""

    route: Route
    #: The questions of the health check.
    probe: HealthProbe
    connections: int
    rates: Rates
    pace: PacingSettings
    pauses: tuple[timedelta, ...]
    give_up_after: timedelta
    brake: Brake = USUAL_BRAKE
    thresholds: DetectorThresholds = USUAL_WINDOWS
    #: The operator's own rules about replies.
    rules: tuple[Rule, ...] = ()

    @property
    def name(self) -> str:
        """The name of the route, as the ledger has it."""
        return str(self.route)


class DrainSettings(Struct, frozen=True, kw_only=True):
    """What a drain must do, and how."""

    #: In the order of the configuration; at least one.
    routes: tuple[RouteSettings, ...]
    admission: Admission
    schedule: RetrySchedule
    #: Whether the sources are scanned for new mail; else only known mail is sent.
    scans: bool = True
    #: Which mail of the sources is to be drained, and in which order.
    choice: Choice = msgspec.field(default_factory=Choice)
    #: The rate of messages of all routes together; None = unlimited.
    total: Rate | None = None
    #: The routes whose servers DNS names; None = no route.
    mx: MxSettings | None = None
    #: The confirmation delay; None = longer on the first day after an outage.
    confirm_after: timedelta | None = None
    #: Which senders are verified, and our name to them; None: no sender is notified.
    bouncing: BounceSettings | None = None
    #: Where copies are kept of what may become final without being delivered.
    quarantine: Path | None = None
    #: The lists of recipients that exist; None: all may exist.
    directory: DirectorySpec | None = None
    #: Whether the primary is asked for those of which no list says anything.
    callout: bool = False
    #: They look at every message before it is sent.
    scanners: tuple[ScannerSettings, ...] = ()
    #: Copies of delivered mail; None: none are kept.
    kept: KeepSettings | None = None
    #: How long sessions may continue after the first signal.
    grace: timedelta = timedelta(seconds=30)
    acknowledge: bool = True
    #: How often the sources are read again for new mail; None = never.
    rescan: timedelta | None = None

    @property
    def steady_rates(self) -> dict[str, float]:
        """The messages per second of each route that starts without a ramp."""
        return {
            each.name: each.rates.messages.per_second
            for each in self.routes
            if each.rates.messages
            and (each.pace.full or not each.pace.adaptive or not each.pace.ramp)
        }

    @property
    def names(self) -> list[str]:
        """The names of the routes."""
        return [each.name for each in self.routes]


class MessageSet:
    """Messages by their numbers in the ledger, a bit for each."""

    def __init__(self) -> None:
        """Start empty."""
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def add(self, seq: int) -> None:
        """Add a message; one that is there already counts once."""
        place, bit = seq >> 3, 1 << (seq & 7)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1024 - len(self._bits)))
        if not self._bits[place] & bit:
            self._bits[place] |= bit
            self._count += 1


@dataclass(slots=True)
class RouteProgress:
    """What a drain does on one route, for the progress line."""

    name: str
    started: datetime
    last_success: datetime | None = None
    #: Messages of which something was delivered.
    sent: MessageSet = field(default_factory=MessageSet)
    connections: int = 0
    #: The server that answered last, with its address.
    answered: str = ""
    #: Part of the rate, 0 to 1: other drains of the same primary have the rest.
    share: float = 1.0
    #: The rate that is the limit now, in words.
    limit: str = ""
    #: That rate in messages per second, the share of other drains taken off; None =
    #: unlimited.
    per_second: float | None = None
    #: How much of it is allowed now, 0 to 1, and how long all of it takes from the
    #: start.
    level: float = 1.0
    ramp: timedelta = timedelta(0)
    #: How much of it is allowed now, and why not more; '' = all of it.
    held: str = ""
    #: Why the controller did what it did last.
    why: str = "it starts slowly"
    #: Why the primary's own load is not known.
    load_unknown: str = ""
    #: Who has paused the drain, and why; '' = it is not paused.
    paused: str = ""
    #: When the latest pause was seen last.
    resumed: datetime | None = None
    #: What the drain waits for, in words; '' while it works.
    waiting: str = ""
    #: How fast the primary answers.
    latency: LatencyStats = field(default_factory=LatencyStats)

    def deadline(self, give_up_after: timedelta) -> datetime:
        """Return until when the drain continues without a success."""
        latest = self.last_success or self.started
        return max(latest, self.resumed or latest) + give_up_after


@dataclass(slots=True)
class Progress:
    """What a drain has done so far, for the progress line and the summary."""

    started: datetime
    routes: list[RouteProgress] = field(default_factory=list)
    scanned: int = 0
    #: Messages that the scan met and did not select.
    passed: int = 0
    #: Whether the limit ended the scan, maybe before the end of a source.
    is_cut: bool = False
    #: Messages with recipients left to deliver, as far as they are known.
    total: int = 0
    scanning: bool = True
    claimed: int = 0
    #: Messages of which something was delivered.
    sent: MessageSet = field(default_factory=MessageSet)
    sent_bytes: int = 0
    #: Recipients of earlier runs that wait, and those of this run, by state.
    states: Counter[State] = field(default_factory=Counter)
    interrupted: bool = False

    @property
    def connections(self) -> int:
        """How many connections are open, on all routes."""
        return sum(each.connections for each in self.routes)

    @property
    def sent_messages(self) -> int:
        """How many messages were sent; each counts once."""
        return len(self.sent)


def connection_facts(connection: Connection) -> dict[str, object]:
    """Return what the record of an established session says about it."""
    handshakes = [s.facts for s in connection.steps if "tls" in s.facts]
    known = handshakes[-1] if handshakes and connection.tls else {}
    steps = [
        [step.stage.value, int(step.seconds * 1e6), str(step.answer)[:200]]
        for step in connection.steps
    ]
    return {
        "session": connection.id,
        "host": connection.host,
        "protocol": connection.protocol,
        "address": connection.address,
        "tls": {"version": known.get("tls"), "cipher": known.get("cipher")}
        if connection.tls
        else {},
        "verified": connection.verified,
        "steps": steps,
    }
