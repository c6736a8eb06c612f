"""Detect refusals of us, from refusals in a row and their share in a scope.

Pure. It never opens a breaker: the canary or a message confirms or refutes its
suspicion.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec import Struct

from drainer.mail.reply import Reply, Stage
from drainer.policy.breaker.breaker import Cause
from drainer.policy.classify.classifier import Answer
from drainer.policy.classify.normalize import mask_reply
from drainer.policy.classify.verdict import Classification, Scope, Verdict

RecipientKey = tuple[int, int]
"""The number of a message in the ledger, and of a recipient in it."""

SLOW_RUN = 10
"""So many slow replies to the final dot in a row: the primary is overloaded."""
LATE_RUN = 3
"""So many final dots in a row without a reply in time: the primary is stuck."""
STORM = 10
"""Temporary refusals of the same kind in a row that are suspicious."""
MUTED_FOR, MUTED_COUNT = timedelta(minutes=15), 50
"""A tested suspicion is not tested again for this time or number of messages."""

_GENERIC = frozenset(("7.0", "7.1", "0.0", ""))
_CONTENT = (
    "text-content", "text-content-policy", "text-content-blocklist",
    "text-policy-as-mechanism", "basic-541", "enhanced-5.6.", "enhanced-5.7.20",
    "enhanced-5.7.21", "enhanced-5.7.22", "enhanced-5.7.29", "enhanced-5.7.9",
)  # fmt: skip
_FINDINGS = frozenset(("text-content", "text-content-blocklist", "basic-541"))
_SENDER_AUTHENTICATION = (
    "text-sender-authentication", "enhanced-5.7.23", "enhanced-5.7.24",
    "enhanced-5.7.26",
)  # fmt: skip
_BLIND = (*_SENDER_AUTHENTICATION, "forward-")
"""Rules that the canary cannot test: it represents no sender and no client."""
UNKNOWN_USER = (
    "enhanced-5.1.1", "text-no-such-user", "text-unknown-user",
    "text-unknown-user-behind-gateway",
)  # fmt: skip
AFTER_RCPT = frozenset((Stage.DATA, Stage.BODY, Stage.DOT))
"""Stages that a canary does not reach."""
_VOTES = frozenset(("text-our-address", "text-our-rate"))
_STORMY = frozenset((451, 452))


def is_content(rule: str) -> bool:
    """Return whether a rule is about the content: common in bulk, so not a vote."""
    return rule.startswith(_CONTENT)


def is_finding(rule: str) -> bool:
    """Return whether a rule names spam, a virus or a listed link in the content."""
    return rule in _FINDINGS


def is_about_kind(found: Classification, answer: Answer) -> bool:
    """Return whether a refusal may be about a kind of mail.

    It names no mailbox, no limit of size, and no finding about this content.
    """
    if found.verdict is not Verdict.BOUNCE or not isinstance(answer, Reply):
        return False
    by_words = found.rule.startswith("text-") and found.scope is Scope.RECIPIENT
    if "too-large" in found.rule or answer.detail == "3.4":
        return False
    names_mailbox = answer.detail.startswith(("1.1", "1.6", "1.10", "2.")) or by_words
    return not names_mailbox and not is_finding(found.rule)


def is_vote(classification: Classification) -> bool:
    """Return whether a recipient waits and the reply names our address or our rate."""
    return (
        classification.verdict is Verdict.RETRY_LONG and classification.rule in _VOTES
    )


def is_storm(classification: Classification, answer: Answer) -> bool:
    """Return whether a temporary refusal is about the primary, not greylisting."""
    return (
        classification.verdict is Verdict.RETRY
        and isinstance(answer, Reply)
        and (answer.code in _STORMY or answer.detail[:2] in ("3.", "4."))
        and classification.rule != "text-greylisted"
        and classification.counts
    )


def is_repeatable(classification: Classification, answer: Answer) -> bool:
    """Return whether it is suspicious if everybody meets it, though it is temporary."""
    is_long = classification.verdict is Verdict.RETRY_LONG and isinstance(answer, Reply)
    return is_long or is_storm(classification, answer)


class DetectorThresholds(Struct, frozen=True, kw_only=True):
    """How many refusals make a scope suspicious."""

    #: Refusals of the same kind in a row; one less if the reply says little.
    run: int = 3
    #: The same number for refusals about contents.
    contents: int = 10
    #: Look at this many latest recipients: more than half of them refused is
    #: suspicious.
    votes: int = 20
    #: Until half of that number is reached, this many are enough if all were refused.
    first_votes: int = 5
    #: Seconds after which a reply to the final dot is slow.
    slow: float = 30.0


USUAL_WINDOWS = DetectorThresholds()


class Refusal(Struct, frozen=True, kw_only=True):
    """One recipient's result, as a detector sees it."""

    sender_domain: str
    recipient: str
    recipient_domain: str
    stage: Stage
    classification: Classification
    answer: Answer
    #: The message is more than text.
    attachment: bool = False
    #: The same message has met a refusal of us before.
    again: bool = False
    #: It was tried before and put off.
    retried: bool = False
    #: When the primary refused the same message first, for the same reason.
    refused: datetime | None = None
    #: Another host was asked for it, because others accept such mail.
    elsewhere: bool = False
    #: When the attempt started; None if that is not known.
    began: datetime | None = None
    #: No mail for the recipient domain was delivered, as far as is known.
    is_dry: bool = False

    @property
    def fingerprint(self) -> str:
        """Return what all refusals for the same reason have in common."""
        if not isinstance(self.answer, Reply):
            return f"{self.stage} {self.answer}"
        reply = self.answer
        return f"{self.stage} {reply.code} {reply.enhanced} {mask_reply(reply.text)}"

    @property
    def content(self) -> bool:
        """Return whether it is about the content.

        A refusal of us never is, nor one of how we transmit: that is held. Nor is the
        reply to DATA, whatever it says: no content was sent. Words about policy that
        name no finding are about the content only where other mail is delivered.
        """
        rule = self.classification.rule
        if self.classification.verdict is not Verdict.BOUNCE or not is_content(rule):
            return False
        return self.stage is not Stage.DATA and (is_finding(rule) or not self.is_dry)

    @property
    def is_blind(self) -> bool:
        """Return whether no canary exercises what was refused.

        It has no content, and another sender. A refusal of us at MAIL meets it, too,
        and of a finding only that counts: whether the primary lets us in.
        """
        if is_finding(self.classification.rule):
            return False
        is_stop = self.classification.verdict is Verdict.STOP
        about_sender = self.stage is Stage.MAIL or (
            self.classification.scope is Scope.MESSAGE
        )
        return (
            self.stage in AFTER_RCPT
            or (about_sender and not is_stop)
            or self.classification.rule.startswith(_BLIND)
        )

    def cause(self, trigger: str) -> Cause:
        """Return it as the cause of a breaker's move."""
        return Cause(
            trigger=trigger,
            classification=self.classification,
            reply=str(self.answer),
            sender_domain=self.sender_domain,
            fingerprint=self.fingerprint,
            blind=self.is_blind,
            content=self.content,
            again=self.again,
        )


@dataclass(slots=True)
class _Run:
    """Refusals of the same kind without an acceptance between them."""

    fingerprint: str = ""
    senders: set[str] = field(default_factory=set)
    recipients: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)

    def add(self, seen: Refusal, fingerprint: str) -> int:
        """Add one more; return how many distinct ones there are."""
        if fingerprint != self.fingerprint:
            self.fingerprint = fingerprint
            self.clear()
        self.senders.add(seen.sender_domain)
        self.recipients.add(seen.recipient.lower())
        self.domains.add(seen.recipient_domain)
        return min(len(self.senders), len(self.recipients))

    def clear(self) -> None:
        self.senders.clear()
        self.recipients.clear()
        self.domains.clear()


class RefusalDetector:
    """What was seen of one scope lately."""

    def __init__(
        self, windows: DetectorThresholds = USUAL_WINDOWS, *, domains: int = 1
    ) -> None:
        """Suspect only what concerns at least this many recipient domains."""
        self._windows = windows
        self._domains = domains
        self._run = _Run()
        self._storm, self._losses = _Run(), _Run()
        #: Recipient -> its domain, and the sender's if it was refused; the latest last.
        self._votes: dict[str, tuple[str, str | None]] = {}
        self._muted: dict[str, tuple[datetime, int]] = {}
        self._slow = self._late = 0

    def record_acceptance(self, recipient: str, domain: str) -> None:
        """Record a recipient that the primary accepted."""
        for each in (self._run, self._storm, self._losses):
            if each.senders:
                each.clear()
        self._vote(recipient, domain, None)

    def record_refusal(self, seen: Refusal, now: datetime) -> Cause | None:
        """Record a permanent refusal; return what it makes suspicious."""
        fingerprint = seen.fingerprint
        count = self._run.add(seen, fingerprint)
        wide = len(self._run.domains) >= self._domains
        if count >= self._enough(seen) and wide and not self.is_muted(fingerprint, now):
            return seen.cause("run")
        if seen.content:
            return None
        self._vote(seen.recipient, seen.recipient_domain, seen.sender_domain)
        few = seen.is_blind and len(self._refused_senders()) < 2  # noqa: PLR2004
        if not few and self._is_outvoted() and not self.is_muted("", now):
            return seen.cause("ratio")
        return None

    def record_delay(self, seen: Refusal, *, took: bool) -> bool:
        """Record a temporary refusal; return True if their number is suspicious.

        Few are enough where this run has delivered nothing (not ``took``).
        """
        count = self._storm.add(seen, seen.fingerprint)
        is_first = not took and count >= self._windows.run
        if not is_first and len(self._storm.recipients) < STORM:
            return False
        self._storm.clear()
        return True

    def slow(self, seconds: float) -> bool:
        """Record how long a final dot took; True if the primary is overloaded."""
        self._late = 0
        self._slow = self._slow + 1 if seconds >= self._windows.slow else 0
        if self._slow < SLOW_RUN:
            return False
        self._slow = 0
        return True

    def lost(self, seen: Refusal) -> bool:
        """Record a lost connection; True if it happens to one message after another."""
        self._losses.add(seen, seen.fingerprint)
        if len(self._losses.recipients) < STORM:
            return False
        self._losses.clear()
        return True

    def late(self) -> bool:
        """Record a final dot without a reply in time; True if the primary is stuck."""
        self._late += 1
        if self._late < LATE_RUN:
            return False
        self._late = 0
        return True

    def mute(self, fingerprint: str, now: datetime) -> None:
        """Do not suspect the same again for a while: it has been answered."""
        for key in (fingerprint, ""):
            self._muted[key] = (now + MUTED_FOR, MUTED_COUNT)
        self._run.clear()
        self._votes.clear()

    def is_muted(self, fingerprint: str, now: datetime) -> bool:
        """Return whether it was answered lately; each question counts."""
        until, left = self._muted.get(fingerprint, (now, 0))
        if left <= 0 or now >= until:
            self._muted.pop(fingerprint, None)
            return False
        self._muted[fingerprint] = (until, left - 1)
        return True

    def _vote(self, recipient: str, domain: str, sender: str | None) -> None:
        """Count a recipient once, by its latest result."""
        voter = recipient.lower()
        self._votes.pop(voter, None)
        if len(self._votes) == self._windows.votes:
            del self._votes[next(iter(self._votes))]
        self._votes[voter] = (domain, sender)

    def _refused_senders(self) -> set[str]:
        """Return the sender domains of refused mail: one stranger proves nothing."""
        return {sender for _, sender in self._votes.values() if sender is not None}

    def _is_outvoted(self) -> bool:
        """Return whether too many recipients were refused."""
        against = [
            domain for domain, sender in self._votes.values() if sender is not None
        ]
        if len(set(against)) < self._domains:
            return False
        if 2 * len(self._votes) < self._windows.votes:
            enough = len(self._votes) >= self._windows.first_votes
            return enough and len(against) == len(self._votes)
        return 2 * len(against) > len(self._votes)

    def _enough(self, seen: Refusal) -> int:
        """Return how many refusals of its kind in a row are suspicious."""
        if seen.content:
            return self._windows.contents
        if seen.stage in AFTER_RCPT:
            return self._windows.run
        bare = isinstance(seen.answer, Reply) and seen.answer.detail in _GENERIC
        return self._windows.run - bare
