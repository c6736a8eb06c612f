"""What workers ask before they send a message, and what they report about it.

One declared observer: it passes each event on to the parts of the drain that need it,
in this order. Nothing here waits.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drainer.bounce.quarantine.cleanup import QuarantineCleaner
from drainer.delivery.acknowledger import Acknowledger
from drainer.delivery.breaker.guard import AttemptedMail, BreakerGuard
from drainer.delivery.connection_limit import ConnectionLimit
from drainer.delivery.loader import Loader
from drainer.delivery.pacing.controller import RateController
from drainer.delivery.settings import Progress, RouteProgress
from drainer.mail.envelope import domain_of
from drainer.mail.reply import Stage
from drainer.policy.breaker.groups import MailGroup, MailTraits
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.judge import ClassifiedResult
from drainer.policy.recipient.settle import Settlement, waits_refused
from drainer.policy.recipient.state import State
from drainer.runtime.process import utcnow
from drainer.smtp.session import Session
from drainer.smtp.transaction import Transaction

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class DeliveryEvents:
    """The observer of all attempts of one drain."""

    progress: Progress
    route_progress: RouteProgress
    breaker_guard: BreakerGuard
    rate_controller: RateController
    connection_limit: ConnectionLimit
    loader: Loader
    #: None in a rehearsal, which acknowledges nothing.
    acknowledger: Acknowledger | None
    quarantine_cleaner: QuarantineCleaner | None

    # --- asked before a message is sent

    def may_start(self, *, behind_dot: bool = False) -> bool:
        """Whether this task may start a message, ``behind_dot`` of the one before."""
        return not self.connection_limit.is_surplus and self.breaker_guard.may_send(
            behind_dot=behind_dot
        )

    def blocked_domains(self, transaction: Transaction) -> Mapping[str, str]:
        """Return the recipient domains that must wait, each with the refusal.

        '' instead of a refusal: it is not yet clear whether the domain is refused.
        """
        if not self.breaker_guard.registry.domains:
            return {}
        return self.breaker_guard.blocked_domains(_domains(transaction))

    def must_vet(self, session: Session, transaction: Transaction) -> bool:
        """Whether a canary must be sent on this session before the message."""
        return bool(
            self.breaker_guard.node_guard.unasked(session, transaction.delivery)
        )

    async def vet(self, session: Session, transaction: Transaction) -> bool:
        """Send that canary; return False if the session must end."""
        return await self.breaker_guard.node_guard.vet(session, transaction.delivery)

    # --- reported afterwards

    def not_started(self, transaction: Transaction) -> None:
        """Note that a message that may have been a probe was put back."""
        self.breaker_guard.not_started(_domains(transaction))

    def pass_on(
        self, results: Sequence[ClassifiedResult], session: Session | None
    ) -> Sequence[ClassifiedResult]:
        """Return the results, without what an equal server of the route is asked."""
        if session is None:
            return results
        return self.breaker_guard.node_guard.pass_on(session, results)

    def replied(
        self,
        transaction: Transaction,
        results: Sequence[ClassifiedResult],
        session: Session | None,
    ) -> tuple[MailGroup | None, set[int]]:
        """Note an attempt that has its replies and is not settled yet.

        Without a session it was not sent at all. Returns the group of mail that the
        primary refuses, if the message belongs to one, and the numbers of recipients
        that another host of the primary is asked for.
        """
        now = utcnow()
        mail = AttemptedMail(
            seq=transaction.delivery.seq,
            reverse_path=transaction.delivery.message.envelope.reverse_path,
            traits=_traits(transaction),
            began=transaction.began,
        )
        seen = self.breaker_guard.observe(results, mail, now)
        nodes = self.breaker_guard.node_guard
        elsewhere = nodes.observe(session, seen) if session is not None else ()
        dot, rcpt = transaction.seconds_for_dot, transaction.seconds_for_rcpt
        if dot is not None:
            self.breaker_guard.registry.record_dot_time(dot, now)
            self.route_progress.latency.record("dot", dot)
        if rcpt is not None:
            self.route_progress.latency.record("rcpt", rcpt)
        self.rate_controller.observe(transaction, results, dot=dot, rcpt=rcpt)
        group = self.breaker_guard.group_guard.observe(mail.traits, seen)
        return group, {n for seq, n in elsewhere if seq == mail.seq}

    def settled(
        self, transaction: Transaction, settlements: Sequence[Settlement]
    ) -> None:
        """Note an attempt that is settled; its record is on its way to the disk."""
        delivered = crowded = False
        if _log.isEnabledFor(logging.DEBUG):
            _log_results(transaction, settlements)
        pending = self.breaker_guard.registry.pending
        for settlement in settlements:
            claimed = settlement.claimed
            pending.count(
                (transaction.delivery.seq, claimed.n),
                first=claimed.state is State.PENDING,
                before=claimed.refusal,
                after=waits_refused(settlement),
            )
            verdict = settlement.classification.verdict
            self.progress.states[claimed.state] -= 1
            self.progress.states[settlement.state] += 1
            if verdict is Verdict.DELIVER:
                delivered = True
            elif settlement.classification.rule == "rcpt-too-many":
                crowded = True
        if delivered:
            self.progress.sent.add(transaction.delivery.seq)
            self.progress.sent_bytes += transaction.facts.size_bytes
            self.route_progress.sent.add(transaction.delivery.seq)
            self.route_progress.last_success = utcnow()
        if crowded:
            taken = sum(1 for s in settlements if s.stage is not Stage.RCPT)
            self.loader.max_recipients = max(1, taken)

    def recorded(
        self, transaction: Transaction, settlements: tuple[Settlement, ...]
    ) -> None:
        """Note that the record is on disk: now the source may be acknowledged."""
        if self.quarantine_cleaner is not None:
            self.quarantine_cleaner.on_settled(transaction, settlements)
        if self.acknowledger is not None:
            self.acknowledger.on_settled(transaction, settlements)


def _traits(transaction: Transaction) -> MailTraits:
    envelope, facts = transaction.delivery.message.envelope, transaction.facts
    return MailTraits(
        sender_domain=domain_of(envelope.reverse_path),
        attachment=facts.has_attachment,
        smtputf8=envelope.smtputf8,
        size_bytes=facts.size_bytes,
    )


def _domains(transaction: Transaction) -> list[str]:
    return [each.domain for each in transaction.delivery.claimed]


def _log_results(transaction: Transaction, settlements: Sequence[Settlement]) -> None:
    """Log the result for each recipient; who prints it knows its ``own`` addresses."""
    message = transaction.delivery.message
    for each in settlements:
        path = each.claimed.recipient.forward_path
        rule = each.classification.rule
        _log.debug(
            f"{message.native_id} to {path}: {each.state} by {rule}: {each.reply}",
            extra={"own": (path, message.envelope.reverse_path)},
        )
