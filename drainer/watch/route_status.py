"""What the status page and the metrics show of one route."""

from collections.abc import Sequence

from drainer.delivery.latency import LatencyStats
from drainer.delivery.route_delivery import RouteDelivery
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.breaker.remedies import remedy
from drainer.smtp.health_check import FAIL, HealthFinding
from drainer.watch.http.snapshot import (
    BreakerFacts,
    FindingFacts,
    LatencyFacts,
    RouteFacts,
)

_SAYS_WHO = "ehlo"
"""The stage that shows which server answered a health check."""


class RouteStatus:
    """One route, as the last drain and the last health check found it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._checks: list[FindingFacts] = []
        self._answered = ""
        self._breaker = BreakerFacts(
            state="closed", reply="", until=None, reason="", remedy=""
        )
        self._latency = LatencyStats()
        self._delivery: RouteDelivery | None = None
        self._sent, self._rate = 0, 0.0

    def show_check(self, findings: Sequence[HealthFinding]) -> None:
        """Record a health check."""
        self._checks = [
            FindingFacts(
                stage=finding.stage,
                verdict=finding.verdict,
                reply=finding.reply,
                seconds=round(finding.seconds, 6),
                hint=finding.hint,
            )
            for finding in findings
        ]
        answers = (each for each in findings if each.stage == _SAYS_WHO)
        good = next((each for each in answers if each.verdict != FAIL), None)
        if good is not None:
            self._answered = str(good.facts.get("address", ""))

    def sample(self, delivery: RouteDelivery, seconds: float) -> None:
        """Measure what a drain does there; ``seconds`` since the last time."""
        progress = delivery.progress
        if delivery is not self._delivery:
            self._delivery, self._sent = delivery, 0
        sent = len(progress.sent)
        self._rate = round((sent - self._sent) / seconds, 3)
        self._sent = sent
        self._latency = progress.latency
        self._answered = progress.answered or self._answered
        self._breaker = _breaker_facts(delivery.breaker_guard.breaker)

    def rest(self) -> None:
        """Note that no drain runs; what it found stays."""
        self._delivery, self._sent, self._rate = None, 0, 0.0

    def dot_ms(self, within: float) -> float | None:
        """Return the mean time for the final dot in the last seconds."""
        return self._latency.mean_ms("dot", within=within)

    def facts(self) -> RouteFacts:
        """Return all of it."""
        running = self._delivery
        progress = running.progress if running else None
        return RouteFacts(
            route=self.name,
            answered=self._answered,
            sent=self._sent,
            connections=progress.connections if progress else 0,
            rate_now=self._rate,
            limit=running.rate_controller.allowed if running else None,
            waiting=(running.not_ready or running.progress.waiting) if running else "",
            latency=LatencyFacts(
                rcpt_ms=self._latency.mean_ms("rcpt"),
                dot_ms=self._latency.mean_ms("dot"),
                connect_ms=self._latency.mean_ms("connect"),
            ),
            breaker=self._breaker,
            checks=self._checks,
        )


def _breaker_facts(breaker: CircuitBreaker) -> BreakerFacts:
    cause = breaker.cause
    until = breaker.until
    return BreakerFacts(
        state=breaker.state.value,
        reply=cause.reply if cause else "",
        until=until.isoformat(timespec="milliseconds") if until else None,
        reason=cause.classification.reason if cause else "",
        remedy=remedy(cause) if cause and not breaker.is_closed else "",
    )
