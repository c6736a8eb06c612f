"""Sessions that reach a host of the primary which has lost its users.

drainer.policy.breaker.nodes finds them. This module ends them, has their refusals tried
again, and asks for known-good recipients on a session before it may judge a mailbox.
"""

from collections import deque
from collections.abc import Sequence

from msgspec.structs import replace

from drainer.delivery.control import DrainControl
from drainer.ledger.records import DecisionKind
from drainer.mail.reply import Reply
from drainer.policy.breaker import breaker as breakers
from drainer.policy.breaker.breaker import CanaryOutcome, Cause
from drainer.policy.breaker.detector import RecipientKey, Refusal
from drainer.policy.breaker.nodes import NodeDetector
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.policy.recipient.delivery import Delivery
from drainer.policy.recipient.judge import BY_NODE, ClassifiedResult, switch_node
from drainer.runtime.process import utcnow
from drainer.smtp.canary import CanaryQuestion, CanaryResult, ask_on
from drainer.smtp.session import Session

MAX_AVOIDED = 8
"""Sessions in a row that refuse a known-good recipient: then it is the primary."""
_LOST_USERS = Classification(
    verdict=Verdict.STOP,
    scope=Scope.DOMAIN,
    rule="known-good-refused",
    reason="the primary refuses an address that it must know",
)


class NodeGuard:
    """Keeps mail away from single hosts of the primary that refuse everybody."""

    def __init__(self, registry: BreakerRegistry, control: DrainControl) -> None:
        """Suspect no host yet."""
        self._registry = registry
        self._control = control
        self._detector = NodeDetector()
        self._avoided = 0
        self.is_retried = self._detector.is_retried
        #: Recipients that a host refused wrongly, to be tried again.
        self.retries: deque[Sequence[RecipientKey]] = deque()

    def distrust(self, domain: str) -> None:
        """Ask on every session from now on: hosts disagree about a domain."""
        self._detector.mixed.add(domain)
        self.compare(domain)

    def compare(self, domain: str) -> None:
        """Compare the sessions with a canary that another connection accepted."""
        if found := self._detector.compare(domain):
            self.retries.append(found)

    def pass_on(
        self, session: Session, classified: Sequence[ClassifiedResult]
    ) -> Sequence[ClassifiedResult]:
        """Leave to an equal server what this one alone refuses, as if it were us.

        The breakers do not see it: another server's answer counts.
        """
        stops = [each for each in classified if _is_stop(each)]
        if not stops or not session.hosts.refuse(session.connection.server):
            return classified
        session.shunned = True
        self._note(session, str(stops[0].result.answer))
        return [
            replace(each, classification=switch_node(each.classification))
            if _is_stop(each)
            else each
            for each in classified
        ]

    def observe(
        self, session: Session, seen: Sequence[tuple[RecipientKey, Refusal]]
    ) -> set[RecipientKey]:
        """Compare a session with the others; end it if its host may be at fault.

        Each message that probes a breaker gets a session of its own, because a balancer
        may send that session to another host. Returns the recipients that are tried
        again on another host.
        """
        found = self._detector.observe(session.number, seen)
        refused = [
            each.recipient_domain
            for _, each in seen
            if each.classification.verdict is not Verdict.DELIVER
        ]
        if self._detector.is_suspect(session.number):
            _shun(session)
        elif any(map(self._is_probed, refused)):
            session.shunned = True
        if found:
            self.retries.append(found)
            self._note(session, f"{len(found)} recipients are tried again")
        return set(found)

    def _is_probed(self, domain: str) -> bool:
        breaker = self._registry.blocking_breaker(domain)
        return breaker is not None and breaker.is_probed

    async def vet(self, session: Session, delivery: Delivery) -> bool:
        """Ask what must be known before this message; False if the session must end.

        That is when hosts disagree, and if the message was refused before: another
        refusal may be final, or hold it.
        """
        for domain in self.unasked(session, delivery):
            known = self._registry.known
            question = CanaryQuestion(
                sender=known.sender, good=known.to_ask(domain), domain=domain
            )
            session.asked.add(domain)
            answer = await ask_on(session.connection, session.route, question)
            if answer.outcome is CanaryOutcome.ACCEPTED:
                session.vouched.add(domain)
                self._detector.vouch(session.number, domain)
            if answer.outcome is CanaryOutcome.REFUSED:
                self._avoid(session, domain, answer)
                return False
            self._avoided = 0
        return session.usable

    def unasked(self, session: Session, delivery: Delivery) -> list[str]:
        """Return the domains to ask for on a session before a message."""
        mixed, again = self._detector.mixed, delivery.was_refused
        if not (mixed or again) or not session.speaks_for_itself:
            return []
        return [
            domain
            for domain in dict.fromkeys(each.domain for each in delivery.claimed)
            if domain not in session.asked
            and (again or domain in mixed)
            and self._registry.known.to_ask(domain)
        ]

    def _avoid(self, session: Session, domain: str, answer: CanaryResult) -> None:
        """Try another host; if all refuse, the primary does."""
        self._avoided += 1
        _shun(session)
        self._note(session, answer.reply)
        if self._avoided < MAX_AVOIDED:
            return
        self._avoided, now = 0, utcnow()
        cause = Cause(
            trigger="contradiction", classification=_LOST_USERS, reply=answer.reply
        )
        self._registry.apply(
            domain, lambda breaker: breakers.trip_suspicion(breaker, cause, now)
        )

    def _note(self, session: Session, reply: str) -> None:
        connection = session.connection
        evidence = {
            "reason": "this host of the primary refuses what its other hosts accept",
            "address": connection.address,
            "banner": str(connection.banner),
        }
        self._control.record(DecisionKind.BREAKER, BY_NODE, evidence, reply=reply)


def _is_stop(each: ClassifiedResult) -> bool:
    """Return whether the primary refuses us, and not only for a moment."""
    found = each.classification
    is_reply = isinstance(each.result.answer, Reply)
    return found.verdict is Verdict.STOP and is_reply and not found.short


def _shun(session: Session) -> None:
    """End a session, and let the next ones go to another server, if there is any."""
    session.shunned = True
    session.hosts.pass_over(session.connection.server)
