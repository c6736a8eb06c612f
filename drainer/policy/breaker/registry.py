"""All breakers of one primary: its route, and each recipient domain on it.

Pure except for its own memory. It suspects the narrowest scope that fits the evidence,
and the route only if two recipient domains, or a refusal of the route as such, point to
it. So a domain that works again never waits for another one.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.breaker import breaker as breakers
from drainer.policy.breaker.brake import PendingRefusals
from drainer.policy.breaker.breaker import (
    BreakerState,
    CanaryOutcome,
    Cause,
    CircuitBreaker,
)
from drainer.policy.breaker.detector import (
    AFTER_RCPT,
    UNKNOWN_USER,
    USUAL_WINDOWS,
    DetectorThresholds,
    Refusal,
    is_repeatable,
    is_vote,
)
from drainer.policy.breaker.history import ROUTE, BreakerHistories
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.classify.verdict import Classification, Scope, Verdict

_Change = Callable[[CircuitBreaker, datetime], CircuitBreaker]

MAX_VOUCHED = 3
"""How many canaries in a row count for a scope without a delivery."""
_SLOW = Classification(
    verdict=Verdict.STOP,
    scope=Scope.ROUTE,
    rule="slow",
    reason="the primary answers slowly or not at all, so drainer pauses",
    short=True,
)


class BreakerRegistry:
    """The breakers of a primary, what moves them, and which mail they keep waiting."""

    def __init__(
        self,
        pauses: tuple[timedelta, ...],
        known: KnownGoodRecipients,
        moved: Callable[[CircuitBreaker, CircuitBreaker], None],
        windows: DetectorThresholds = USUAL_WINDOWS,
    ) -> None:
        """Start with mail flowing; ``moved`` is called with old and new breaker."""
        self._pauses = pauses
        self.known = known
        self._moved = moved
        self.route = CircuitBreaker(pauses=pauses)
        #: Refusals that wait: while they are too many, none becomes final.
        self.pending = PendingRefusals()
        #: Breakers of domains that are not in their initial state.
        self.domains: dict[str, CircuitBreaker] = {}
        self._histories = BreakerHistories(windows)
        self.may_ask_elsewhere = self._histories.may_ask_elsewhere
        self.is_dry = self._histories.is_dry
        self.has_delivered = self._histories.has_delivered
        #: Since when messages probe a scope: an attempt that started before is not a
        #: probe.
        self.since: dict[str, datetime] = {}
        #: What this attempt has counted: a scope, and whether it was a refusal of us.
        self._counted: set[tuple[str, bool]] = set()

    # --- what may be sent

    def breaker(self, scope: str) -> CircuitBreaker:
        """Return the breaker of a scope."""
        if scope == ROUTE:
            return self.route
        return self.domains.get(scope) or CircuitBreaker(
            pauses=self._pauses, scope=scope
        )

    def blocking_breaker(self, domain: str) -> CircuitBreaker | None:
        """Return the breaker that keeps mail for a domain waiting, or None."""
        if not self.route.is_closed:
            return self.route
        breaker = self.domains.get(domain)
        return None if breaker is None or breaker.is_closed else breaker

    def all(self) -> tuple[CircuitBreaker, ...]:
        """Return the breakers that are not in their initial state."""
        return (self.route, *self.domains.values())

    def has_proof(
        self,
        domain: str,
        sender_domain: str,
        since: datetime,
        *,
        attachment: bool = False,
    ) -> bool:
        """Return whether comparable mail was accepted on a scope since then.

        No breaker may block the scope.
        """
        if not domain or self.blocking_breaker(domain) is not None:
            return False
        memory = self._histories.of(domain)
        return memory.proves(sender_domain, since, attachment=attachment)

    def contradicted_stop(
        self, classification: Classification, domain: str, stage: Stage, since: datetime
    ) -> bool:
        """Return whether other messages have passed since one met a refusal of us.

        Others are those delivered on that scope; up to RCPT, an accepted canary counts
        too. Where no canary can ask, mail delivered shortly before is enough. Other
        domains say nothing if this one refuses several messages and accepts none.
        """
        is_narrow = stage is not Stage.MAIL and self._histories.of(domain).is_suspicious
        is_domains = is_narrow or classification.scope is Scope.DOMAIN
        scope = domain if is_domains else ROUTE
        is_open = any(
            breaker is not None and breaker.state is BreakerState.OPEN
            for breaker in (self.route, self.domains.get(domain))
        )
        memory = self._histories.of(scope)
        late = stage in AFTER_RCPT and memory.is_individual(stage)
        return not is_open and (late or memory.contradicts(stage, since))

    # --- what happened

    def restore(self, breaker: CircuitBreaker) -> None:
        """Take over a breaker: from an earlier run, or as it was moved."""
        if breaker.scope == ROUTE:
            self.route = breaker
        elif breaker == CircuitBreaker(pauses=self._pauses, scope=breaker.scope):
            self.domains.pop(breaker.scope, None)
        else:
            self.domains[breaker.scope] = breaker

    def recall(self, domain: str, sender_domain: str, at: datetime) -> None:
        """Record what an earlier run delivered; the latest last."""
        for _, memory in self._histories.both(domain):
            memory.deliver(sender_domain, at)

    def apply(
        self, scope: str, change: Callable[[CircuitBreaker], CircuitBreaker]
    ) -> None:
        """Move one breaker."""
        before = self.breaker(scope)
        after = change(before)
        if after is not before and after != before:
            self.restore(after)
            self._moved(before, after)

    def observe(
        self, attempt: Sequence[Refusal], reverse_path: str, now: datetime
    ) -> None:
        """Record how one message's attempt ended, recipient by recipient.

        Breakers count messages: the recipients of one message are a single refusal.
        """
        self._counted.clear()
        for seen in attempt:
            if seen.classification.verdict is Verdict.DELIVER:
                self._record_delivery(seen, reverse_path, now)
            else:
                self._record_failure(seen, now)

    def _record_delivery(self, seen: Refusal, reverse_path: str, now: datetime) -> None:
        domain = seen.recipient_domain
        self.known.learn(seen.recipient, domain, reverse_path)
        for scope, memory in self._histories.both(domain):
            memory.detector.record_acceptance(seen.recipient, domain)
            memory.deliver(seen.sender_domain, now, attachment=seen.attachment)
            memory.on_accepted()
            if scope == ROUTE or scope in self.domains:
                self.apply(scope, breakers.on_delivery)

    def _record_failure(self, seen: Refusal, now: datetime) -> None:
        verdict = seen.classification.verdict
        if verdict is Verdict.STOP:
            self._weigh_refusal_of_us(seen, now)
        elif isinstance(seen.answer, Lost):
            self._lost(seen, seen.answer, now)
        elif not isinstance(seen.answer, Reply):
            return
        elif verdict in (Verdict.BOUNCE, Verdict.HOLD) or is_vote(seen.classification):
            self._weigh_refusal(seen, now)
        else:
            self._weigh_delay(seen, now)

    def record_dot_time(self, seconds: float, now: datetime) -> None:
        """Record how long the primary needed for a final dot; it may need a pause."""
        if self._histories.route.detector.slow(seconds):
            self._pause(f"the final dot was answered after {seconds:.0f} s", now)

    def _lost(self, seen: Refusal, lost: Lost, now: datetime) -> None:
        """Pause when one message after another loses its connection.

        Final dots without a reply are worse: each of them is in doubt.
        """
        words = f"{seen.stage}: {lost}, for one message after another"
        if seen.stage is Stage.DOT and lost.reason == "timeout":
            if self._histories.route.detector.late():
                self._pause(words, now)
            return
        scopes = self._histories.both(seen.recipient_domain)
        found = [scope for scope, memory in scopes if memory.detector.lost(seen)]
        if found:
            self._pause(words, now, self._histories.widest(found))

    def _pause(self, words: str, now: datetime, scope: str = ROUTE) -> None:
        cause = Cause(trigger="slow", classification=_SLOW, reply=words)
        self.apply(scope, lambda breaker: breakers.pause(breaker, cause, now))

    def canary(
        self,
        scope: str,
        outcome: CanaryOutcome,
        reply: str,
        now: datetime,
        *,
        taken: bool = False,
    ) -> None:
        """Record the canary's answer about a scope.

        ``taken``: a known-good recipient was accepted, though perhaps any other would
        be. So the primary does not refuse us; it says nothing about users.
        """
        cause = self.breaker(scope).cause
        if taken and cause is not None and cause.trigger == "stop":
            outcome = CanaryOutcome.ACCEPTED
        if outcome is CanaryOutcome.REFUSED:
            self._histories.of(scope).forget()
        if outcome is CanaryOutcome.ACCEPTED:
            self.on_accepted(scope, now)
            if cause is not None:
                self._histories.of(scope).detector.mute(cause.fingerprint, now)
            if cause is not None and cause.trigger == "stop":
                most = MAX_VOUCHED if self.known.sender else 1
                if not self._histories.of(scope).vouch(most):
                    outcome = CanaryOutcome.UNCLEAR  # real messages probe
        self.apply(
            scope, lambda breaker: breakers.on_canary(breaker, outcome, reply, now)
        )

    def record_contradiction(
        self, domain: str, asked: str, reply: str, now: datetime
    ) -> None:
        """Record that a known-good recipient was refused, and others accepted."""
        cause = self.breaker(asked).cause
        if cause is not None:
            cause = replace(cause, trigger="contradiction", reply=reply)
            self._suspect(domain, cause, now)

    def on_accepted(self, scope: str, now: datetime) -> None:
        """Record that a known-good recipient of a scope was accepted."""
        self._histories.of(scope).accepted = now

    def leave(self, scope: str, now: datetime) -> None:
        """Leave no suspicion unanswered when a run ends.

        A few refused messages, after others were delivered, do not stop delivery.
        Refused XFORWARD is, if the primary never accepted anything.
        """
        breaker, memory = self.breaker(scope), self._histories.of(scope)
        change: _Change = breakers.on_run_end
        is_paused = scope != ROUTE and breaker.state is BreakerState.PAUSED
        if memory.is_refused or is_paused:
            change = breakers.give_up
        if breaker.is_suspected and memory.outweighs(breaker.cause):
            change = breakers.dismiss
        elif (
            breaker.cause and breaker.cause.is_of_xforward and not memory.knows_welcome
        ):
            change = breakers.on_unproven_end
        self.apply(scope, lambda breaker: change(breaker, now))

    # --- refusals

    def _suspect(self, scope: str, cause: Cause, now: datetime) -> None:
        self.apply(scope, lambda breaker: breakers.trip_suspicion(breaker, cause, now))

    def _weigh_refusal_of_us(self, seen: Refusal, now: datetime) -> None:
        """Weigh a refusal of us on the scopes that it may concern.

        One of the route as such may also be this recipient domain's alone.
        """
        cause, domain = seen.cause("stop"), seen.recipient_domain
        if seen.classification.scope is not Scope.DOMAIN or not domain:
            self._weigh_stop(ROUTE, seen, cause, now)
        if domain and seen.stage is not Stage.MAIL:
            self._weigh_stop(domain, seen, cause, now)

    def _weigh_stop(
        self, scope: str, seen: Refusal, cause: Cause, now: datetime
    ) -> None:
        if not self._is_first(scope, seen):
            return
        memory = self._histories.of(scope)
        if cause.is_brief and not memory.took:  # nothing shows that it is individual
            cause = replace(cause, again=False)
        memory.on_stop(cause)
        if self._is_probe(scope, seen):
            self.apply(scope, lambda breaker: breakers.on_refusal(breaker, now, cause))
        if self._is_individual(scope, seen, cause):
            return
        self._suspect(scope, cause, now)
        if scope == ROUTE:
            return
        muted = self._histories.route.detector.is_muted(cause.fingerprint, now)
        if self._is_wider(scope) and not muted:  # two domains: it is the route
            self._suspect(ROUTE, cause, now)

    def _is_individual(self, scope: str, seen: Refusal, cause: Cause) -> bool:
        """Return whether a refusal of us is about one message, as far as is known."""
        memory = self._histories.of(scope)
        if scope != ROUTE and seen.classification.scope is not Scope.DOMAIN:
            alone = self.route.is_closed and memory.is_suspicious
            return not alone or not self._histories.delivers_beside(scope)
        asks = cause.again and not cause.is_brief and seen.stage not in AFTER_RCPT
        return memory.is_individual(seen.stage) and not asks

    def _is_wider(self, domain: str) -> bool:
        """Return whether another recipient domain also shows a refusal of us."""
        return any(
            not breaker.is_closed
            and breaker.cause is not None
            and breaker.cause.trigger == "stop"
            for scope, breaker in self.domains.items()
            if scope != domain
        )

    def _weigh_refusal(self, seen: Refusal, now: datetime) -> None:
        """Weigh a refusal, unless it only repeats what others have answered."""
        domain = seen.recipient_domain
        is_new = not self._histories.of(domain).has_answered(seen)
        found = {
            scope: cause
            for scope, memory in self._histories.both(domain)
            if is_new
            and (cause := memory.detector.record_refusal(seen, now)) is not None
        }
        trigger = self.known.contradicts(seen.recipient)
        if trigger and seen.classification.rule in UNKNOWN_USER:
            self.known.forget(seen.recipient)
            found = {domain: seen.cause(trigger)}
        if found:  # the route, if both are suspicious
            scope, cause = min(found.items())
            self._suspect(scope, cause, now)
        for scope, _ in self._histories.both(domain):
            self.apply(scope, breakers.on_reply)
            cause = self.breaker(scope).cause
            about = not seen.content or (cause is not None and cause.content)
            is_probe = is_new and about and self._is_probe(scope, seen)
            if is_probe and self._is_first(scope, seen):
                self.apply(scope, lambda breaker: breakers.on_refusal(breaker, now))

    def _is_first(self, scope: str, seen: Refusal) -> bool:
        """Return whether this attempt has not yet counted the same on that scope."""
        key = (scope, seen.classification.verdict is Verdict.STOP)
        if key in self._counted:
            return False
        self._counted.add(key)
        return True

    def _weigh_delay(self, seen: Refusal, now: datetime) -> None:
        """Suspect a scope on which everybody is put off: the route, or one domain."""
        scopes = self._histories.both(seen.recipient_domain)
        if not is_repeatable(seen.classification, seen.answer):
            for scope, _ in scopes:
                self.apply(scope, breakers.on_reply)
            return
        storm, found = seen.cause("storm"), []
        for scope, memory in scopes:
            if seen.retried and memory.took:
                continue  # it was put off before, and others were not
            if self._is_probe(scope, seen):
                self.apply(scope, lambda old: breakers.on_refusal(old, now, storm))
            if memory.detector.record_delay(seen, took=memory.took):
                found.append(scope)
        if found:
            scope = self._histories.widest(found)
            self._suspect(scope, storm, now)

    def _is_probe(self, scope: str, seen: Refusal) -> bool:
        """Return whether an attempt started after messages started to probe."""
        since = self.since.get(scope)
        return since is None or seen.began is None or seen.began >= since
