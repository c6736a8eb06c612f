"""May a sender be told? What the bounce gate needs, gathered for one attempt.

The gate itself is drainer.policy.bounce_gate; evidence lies in the ledger before the
confirming attempt is made (drainer.bounces.gathering). Reports that were queued count
at once, so that sessions that confirm together keep to the limits together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drainer.evidence.stored import facts_of, marks_of
from drainer.ledger import Row, from_micros
from drainer.mail.envelope import Recipient, domain_of
from drainer.mail.reply import ProtocolError, Reply, parse_reply
from drainer.mail.report import Action
from drainer.policy.bounce_gate import Answer, Case, Decision, Own, decide
from drainer.policy.bounce_limits import Limits, Sent, dedupe_key
from drainer.policy.facts import Trust
from drainer.policy.job import Found, Job
from drainer.policy.judging import Judged, Permit
from drainer.policy.verdict import Judgement

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One recipient's refusal for good, as the gate is asked about it.

    Or its delay, or its delivery, if that is the ``action``.
    """

    sender: str
    #: The Message-ID of what was refused, or our name for it.
    original: str
    recipient: Recipient
    judgement: Judgement
    #: What the primary said; text when it is remembered and was no reply.
    answer: object
    action: Action = Action.FAILED


@dataclass(slots=True, kw_only=True)
class Bouncer:
    """Asks the gate, and remembers what it let pass."""

    trust: Trust
    own: Own
    limits: Limits = field(default_factory=Limits)
    #: How long DNS may be silent.
    patience: timedelta = DAY
    #: What it let pass itself.
    _passed: int = 0
    #: (when, sender in lower case) of the reports of the last day.
    _sent: list[tuple[datetime, str]] = field(default_factory=list)
    _keys: set[str] = field(default_factory=set)

    def remember(self, reports: Iterable[Row]) -> None:
        """Take the reports of earlier runs: ``at``, ``key`` and ``sender`` of each."""
        for row in reports:
            self._sent.append((from_micros(row["at"]), row["sender"].lower()))
            self._keys.add(row["key"])

    def permit(self, job: Job, each: Judged, now: datetime) -> Permit:
        """Return what the gate says about one recipient's confirmed refusal."""
        original = job.message.message_id or job.message.id
        refusal = Refusal(
            sender=job.message.envelope.reverse_path,
            original=original,
            recipient=each.ending.claimed.recipient,
            judgement=each.judgement,
            answer=each.ending.answer,
        )
        return self.ask(job.found, refusal, now)

    def ask(
        self,
        found: Found | None,
        refusal: "Refusal",
        now: datetime,
        *,
        keep: bool = True,
    ) -> Permit:
        """Return what the gate says; what it lets pass counts, if it is to be kept."""
        if found is None:
            words = "nobody has looked for evidence yet"
            decision = Decision(
                answer=Answer.LATER, rule="G13", reason=words, evidence={}
            )
            return Permit(decision=decision)
        sender, status = refusal.sender, status_of(refusal)
        told = (
            status if refusal.action is Action.FAILED else f"{refusal.action} {status}"
        )
        key = dedupe_key(sender, refusal.original, refusal.recipient.forward_path, told)
        case = Case(
            facts=facts_of(found),
            recipient=refusal.recipient,
            marks=marks_of(found),
            trust=self.trust,
            own=self.own,
            judgement=refusal.judgement,
            action=refusal.action,
            detail=status[2:],
            words=str(refusal.answer),
            confirmed=True,
            reported=key in self._keys,
            sent=self._counts(sender.lower(), now),
            limits=self.limits,
            waited=now - from_micros(found.asked),
            patience=self.patience,
        )
        decision = decide(case)
        if keep and decision.answer is Answer.SEND:
            self._sent.append((now, sender.lower()))
            self._keys.add(key)
            self._passed += 1
        return Permit(decision=decision, key=key, status=status)

    def _counts(self, sender: str, now: datetime) -> Sent:
        self._sent = [(at, who) for at, who in self._sent if at > now - DAY]
        hour = [who for at, who in self._sent if at > now - HOUR]
        domain = domain_of(sender)
        return Sent(
            sender_last_hour=hour.count(sender),
            sender_last_day=sum(1 for _, who in self._sent if who == sender),
            domain_last_hour=sum(1 for who in hour if domain_of(who) == domain),
            last_hour=len(hour),
            this_run=self._passed,
        )


def as_said(text: str) -> Reply | str:
    """Return what the primary said, as the ledger has it; text that is no reply."""
    try:
        return parse_reply(text.encode("utf-8", "replace"))
    except ProtocolError:
        return text


_CLASSES = {Action.FAILED: "5", Action.DELAYED: "4", Action.RELAYED: "2"}


def status_of(refusal: Refusal) -> str:
    """Return the enhanced status code of what is told (RFC 3463)."""
    if refusal.judgement.rule == "lifetime-spent":
        return "4.4.7"
    answer, class_ = refusal.answer, _CLASSES[refusal.action]
    if isinstance(answer, Reply) and answer.enhanced[:1] == class_:
        return answer.enhanced
    return f"{class_}.0.0"
