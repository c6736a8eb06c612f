"""What is kept about a scope beside its breaker: deliveries, canaries, stops. Pure.

A stranger can send messages that a primary refuses as if it refused us. So such
refusals are weighed against what other messages met on the same scope.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drainer.mail.reply import Stage
from drainer.policy.breaker.breaker import Cause
from drainer.policy.breaker.detector import (
    AFTER_RCPT,
    DetectorThresholds,
    Refusal,
    RefusalDetector,
)

ROUTE = ""
"""The name of the scope that contains all others."""
MAX_DOMAINS = 10_000
"""Recipient domains that something is kept about."""
STOPS_TOLERATED = 5
"""Messages in a row that met a refusal of us, before the scope is suspected again.

Others were accepted shortly before, so a stranger may have sent these messages.
"""

ENOUGH_SENDERS = 2
"""So many sender domains show a refusal of us; one alone never does."""

TRIED_ELSEWHERE = 3
"""Attempts at a message on further hosts, before a refusal of us is its own."""
ELSEWHERE_FOR = timedelta(minutes=5)
"""For so long after the first refusal; a rerun does not start again."""
MAX_ELSEWHERE = 10_000
"""Messages that this is remembered of."""


@dataclass(slots=True)
class BreakerHistory:
    """What is kept about one scope, beside its breaker."""

    detector: RefusalDetector
    #: The two sender domains that were delivered last, and when.
    delivered: dict[str, datetime] = field(default_factory=dict)
    #: The same of messages with attachments.
    attachments: dict[str, datetime] = field(default_factory=dict)
    #: When the canary's known-good recipient was accepted last.
    accepted: datetime | None = None
    #: Whether this run has delivered anything since the primary refused the canary.
    took: bool = False
    #: Messages that met a refusal of us since then, or since the canary was accepted.
    stops: int = 0
    #: Up to two sender domains of messages that met one since the last delivery.
    stopped: set[str] = field(default_factory=set)
    #: How often the canary was accepted after such refusals, with no delivery between.
    vouched: int = 0

    def deliver(
        self, sender_domain: str, now: datetime, *, attachment: bool = False
    ) -> None:
        """Record a delivery, of this run or an earlier one."""
        _keep_two(self.delivered, sender_domain, now)
        if attachment:
            _keep_two(self.attachments, sender_domain, now)

    def proves(self, sender_domain: str, since: datetime, *, attachment: bool) -> bool:
        """Return whether what was accepted since then makes a refusal final.

        That is a message of another sender domain, with an attachment if the refused
        one has one.
        """
        delivered = self.attachments if attachment else self.delivered
        return any(
            at > since for other, at in delivered.items() if other != sender_domain
        )

    def has_answered(self, seen: Refusal) -> bool:
        """Return whether a refusal only repeats what was weighed when it was new.

        Retries and confirming attempts come last, one after another. So they prove
        nothing against a primary that accepted other mail.
        """
        return seen.elsewhere or (seen.refused is not None and self.knows_welcome)

    def on_accepted(self) -> None:
        """Record that this run delivers: earlier refusals of us were individual."""
        self.took, self.stops, self.vouched = True, 0, 0
        if self.stopped:
            self.stopped.clear()

    def on_stop(self, cause: Cause) -> None:
        """Record a message that met a refusal of us."""
        self.stops += not cause.again
        if len(self.stopped) < ENOUGH_SENDERS:
            self.stopped.add(cause.sender_domain)

    def vouch(self, most: int) -> bool:
        """Record that the canary was accepted after refusals of us.

        Return whether that is believed. A primary may exempt any canary, above all one
        from `<>`. So it is believed ``most`` times in a row if nothing is delivered.
        """
        if not self.took and self.vouched >= most:
            return False
        self.stops, self.vouched = 0, self.vouched + 1
        return True

    @property
    def knows_welcome(self) -> bool:
        """Return whether anything was accepted, in this run or an earlier one."""
        return bool(self.delivered) or self.accepted is not None

    @property
    def is_suspicious(self) -> bool:
        """Return whether more messages met a refusal of us than a stranger may send.

        Two are enough where this run has delivered nothing.
        """
        return self.stops > (STOPS_TOLERATED if self.took else 1)

    @property
    def is_refused(self) -> bool:
        """Return whether several messages met a refusal of us, and none passed."""
        return not self.took and self.stops >= STOPS_TOLERATED

    def outweighs(self, cause: Cause | None) -> bool:
        """Return whether a suspicion that no reply confirmed has no weight.

        Others were delivered in this run. Or they were in an earlier one, and one
        sender alone meets a refusal of us: a stranger's mail may be all that is left.
        """
        if cause is None or cause.trigger != "stop":
            return self.took and cause is not None and not cause.is_brief
        one_alone = self.knows_welcome and len(self.stopped) < ENOUGH_SENDERS
        return one_alone or self.is_individual(Stage.DOT)

    def is_individual(self, stage: Stage) -> bool:
        """Return whether a refusal of us is about one message: few among others.

        The canary counts only for the stages that it reaches.
        """
        spoken_for = self.vouched > 0 and stage not in AFTER_RCPT
        return (self.took or spoken_for) and self.stops <= STOPS_TOLERATED

    def contradicts(self, stage: Stage, since: datetime) -> bool:
        """Return whether other messages have passed a stage since then."""
        times = [*self.delivered.values()]
        if self.accepted is not None and stage not in AFTER_RCPT:
            times.append(self.accepted)
        return any(at > since for at in times)

    def forget(self) -> None:
        """Forget all acceptances: the primary now refuses what it accepted before."""
        self.delivered.clear()
        self.attachments.clear()
        self.accepted = None
        self.took, self.stops, self.vouched = False, 0, 0
        self.stopped.clear()


class BreakerHistories:
    """What is kept about a route and each of its recipient domains."""

    def __init__(self, windows: DetectorThresholds) -> None:
        """Start without any; a route is suspected for two domains at least."""
        self._windows = windows
        self._domains: dict[str, BreakerHistory] = {}
        self.route = BreakerHistory(RefusalDetector(windows, domains=2))
        #: First refusal of a message -> when it was sent to another host.
        self._elsewhere: dict[datetime, set[datetime]] = {}

    def of(self, scope: str) -> BreakerHistory:
        """Return what is kept about a scope; of too many domains, the latest."""
        if scope == ROUTE:
            return self.route
        found = self._domains.get(scope)
        if found is None:
            if len(self._domains) >= MAX_DOMAINS:
                del self._domains[next(iter(self._domains))]
            found = BreakerHistory(RefusalDetector(self._windows))
            self._domains[scope] = found
        return found

    def both(self, domain: str) -> Sequence[tuple[str, BreakerHistory]]:
        """Return the scopes of a recipient, the narrowest first."""
        if not domain:
            return ((ROUTE, self.route),)
        return ((domain, self.of(domain)), (ROUTE, self.route))

    def may_ask_elsewhere(self, since: datetime, now: datetime) -> bool:
        """Return whether a message that was refused first then goes to another host.

        The recipients of one attempt count once. Nothing is asked long after that.
        """
        if now - since > ELSEWHERE_FOR:
            return False
        times = self._elsewhere.pop(since, set()) | {now}
        self._elsewhere[since] = times
        if len(self._elsewhere) > MAX_ELSEWHERE:
            del self._elsewhere[next(iter(self._elsewhere))]
        return len(times) <= TRIED_ELSEWHERE

    def delivers_beside(self, domain: str) -> bool:
        """Return whether this run has delivered mail for another domain."""
        return any(
            memory.took for other, memory in self._domains.items() if other != domain
        )

    def has_delivered(self, scope: str) -> bool:
        """Return whether this run has delivered on a scope."""
        return self.of(scope).took

    def is_dry(self, domain: str) -> bool:
        """Return whether no mail for a domain was delivered, as far as is known."""
        return not self.of(domain).delivered

    def widest(self, scopes: Sequence[str]) -> str:
        """Return the suspicious scope of a recipient that is at fault.

        That is the route, unless only this domain is refused and others are not.
        """
        domain = scopes[0]
        return domain if self.delivers_beside(domain) else scopes[-1]


def _keep_two(times: dict[str, datetime], sender_domain: str, now: datetime) -> None:
    """Keep the two latest: one of them always differs from any other domain."""
    times.pop(sender_domain, None)
    if len(times) > 1:
        del times[next(iter(times))]
    times[sender_domain] = now
