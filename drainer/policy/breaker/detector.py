"""Are they refusing us? What refusals in a row, and their share, tell of a scope.

Pure: it is told every ending and the time, and keeps the little that it needs. It
never opens a breaker; it finds a suspicion, and the canary or a message answers it.
"""

from dataclasses import field
from datetime import datetime, timedelta

from drainer.mail.reply import Reply, Stage
from drainer.policy.breaker.breaker import Cause
from drainer.policy.classify.classifier import Answer
from drainer.policy.classify.normalize import masked
from drainer.policy.classify.verdict import Classification, Verdict
from drainer.runtime.values import dataclass

SLOW_SECONDS, SLOW_RUN = 30.0, 10
"""Replies to the final dot that take so long, so many in a row: it suffers."""
STORM = 10
"""Temporary refusals of the same kind in a row that are suspicious."""
MUTED_FOR, MUTED_COUNT = timedelta(minutes=15), 50
"""What was tested is not tested again for so long, or so many messages."""

_GENERIC = frozenset(("7.0", "7.1", "0.0", ""))
_CONTENT = (
    "text-content", "text-content-policy", "text-content-blocklist",
    "text-policy-as-mechanism", "basic-541", "enhanced-5.6.", "enhanced-5.7.20",
    "enhanced-5.7.21", "enhanced-5.7.22", "enhanced-5.7.29", "enhanced-5.7.9",
)  # fmt: skip
_SENDER_AUTHENTICATION = (
    "text-sender-authentication", "enhanced-5.7.23", "enhanced-5.7.24",
    "enhanced-5.7.26",
)  # fmt: skip
_BLIND = (*_SENDER_AUTHENTICATION, "forward-")
"""What the canary cannot ask about: it speaks for nobody."""
_UNKNOWN_USER = (
    "enhanced-5.1.1", "text-no-such-user", "text-unknown-user",
    "text-unknown-user-behind-gateway",
)  # fmt: skip
AFTER_RCPT = frozenset((Stage.DATA, Stage.BODY, Stage.DOT))
"""Stages that a canary does not reach."""
_VOTES = frozenset(("text-our-address", "text-our-rate"))
_STORMY = frozenset((451, 452))


def is_content(rule: str) -> bool:
    """Whether a rule is about the content: expected in bulk, and no vote."""
    return rule.startswith(_CONTENT)


def is_unknown_user(rule: str) -> bool:
    """Whether a rule says that the recipient does not exist."""
    return rule in _UNKNOWN_USER


def is_vote(classification: Classification) -> bool:
    """Whether a recipient waits, and the reply names our address or our rate."""
    return (
        classification.verdict is Verdict.RETRY_LONG and classification.rule in _VOTES
    )


def is_storm(classification: Classification, answer: Answer) -> bool:
    """Whether a temporary refusal is about the primary, and no greylisting."""
    return (
        classification.verdict is Verdict.RETRY
        and isinstance(answer, Reply)
        and (answer.code in _STORMY or answer.detail[:2] in ("3.", "4."))
        and classification.rule != "text-greylisted"
        and classification.counts
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorThresholds:
    """How much it takes to be suspicious."""

    #: Refusals of the same kind in a row; one less where the reply says little.
    run: int = 3
    #: The same when they are about contents.
    contents: int = 10
    #: Recipients whose votes count: more than half of them refused.
    votes: int = 20
    #: So many, before there are half as many votes as count: all of them refused.
    first_votes: int = 5


USUAL_WINDOWS = DetectorThresholds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One recipient's ending, as a detector sees it."""

    sender_domain: str
    recipient: str
    recipient_domain: str
    stage: Stage
    classification: Classification
    answer: Answer
    #: The same message has met a refusal of us before.
    again: bool = False
    #: It was tried before, and put off.
    retried: bool = False
    #: When the attempt began; None = it is not known.
    began: datetime | None = None

    @property
    def fingerprint(self) -> str:
        """What all who are refused for the same reason have in common."""
        if not isinstance(self.answer, Reply):
            return f"{self.stage} {self.answer}"
        reply = self.answer
        return f"{self.stage} {reply.code} {reply.enhanced} {masked(reply.text)}"

    @property
    def content(self) -> bool:
        """Whether it is about the content; a refusal of us never is."""
        is_stop = self.classification.verdict is Verdict.STOP
        return not is_stop and is_content(self.classification.rule)

    def _is_late(self, trigger: str) -> bool:
        """Whether it looks like a refusal of us at a stage that no canary reaches."""
        return trigger in ("stop", "storm") and self.stage in AFTER_RCPT

    def cause(self, trigger: str) -> Cause:
        """Return it as the cause of a breaker's move."""
        return Cause(
            trigger=trigger,
            classification=self.classification,
            reply=str(self.answer),
            sender_domain=self.sender_domain,
            fingerprint=self.fingerprint,
            blind=self.classification.rule.startswith(_BLIND) or self._is_late(trigger),
            content=self.content,
            again=self.again,
        )


@dataclass(slots=True)
class _Run:
    """Refusals of the same kind with no acceptance between them."""

    fingerprint: str = ""
    senders: set[str] = field(default_factory=set)
    recipients: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)

    def add(self, seen: Refusal, fingerprint: str) -> int:
        """Take one more; return how many distinct ones there are."""
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
        """Suspect only what concerns at least so many recipient domains."""
        self._windows = windows
        self._domains = domains
        self._run = _Run()
        self._storm = _Run()
        #: Recipient -> its domain, and whether it was refused; the latest last.
        self._votes: dict[str, tuple[str, bool]] = {}
        self._muted: dict[str, tuple[datetime, int]] = {}
        self._slow = 0

    def accepted(self, recipient: str, domain: str) -> None:
        """Take note of a recipient that the primary took."""
        if self._run.senders:
            self._run.clear()
        if self._storm.senders:
            self._storm.clear()
        self._vote(recipient, domain, refused=False)

    def refused(self, seen: Refusal, now: datetime) -> Cause | None:
        """Take note of a refusal for good; return what it makes suspicious."""
        fingerprint = seen.fingerprint
        count = self._run.add(seen, fingerprint)
        wide = len(self._run.domains) >= self._domains
        if count >= self._enough(seen) and wide and not self.is_muted(fingerprint, now):
            return seen.cause("run")
        if seen.content:
            return None
        self._vote(seen.recipient, seen.recipient_domain, refused=True)
        if self._is_outvoted() and not self.is_muted("", now):
            return seen.cause("ratio")
        return None

    def delayed(self, seen: Refusal) -> bool:
        """Take note of a temporary refusal; True when so many are suspicious."""
        self._storm.add(seen, seen.fingerprint)
        if len(self._storm.recipients) < STORM:
            return False
        self._storm.clear()
        return True

    def slow(self, seconds: float) -> bool:
        """Take note how long a final dot took; True when the primary suffers."""
        self._slow = self._slow + 1 if seconds >= SLOW_SECONDS else 0
        if self._slow < SLOW_RUN:
            return False
        self._slow = 0
        return True

    def mute(self, fingerprint: str, now: datetime) -> None:
        """Suspect the same no more for a while: it has been answered."""
        for key in (fingerprint, ""):
            self._muted[key] = (now + MUTED_FOR, MUTED_COUNT)
        self._run.clear()
        self._votes.clear()

    def is_muted(self, fingerprint: str, now: datetime) -> bool:
        """Whether it was answered lately; each question counts."""
        until, left = self._muted.get(fingerprint, (now, 0))
        if left <= 0 or now >= until:
            self._muted.pop(fingerprint, None)
            return False
        self._muted[fingerprint] = (until, left - 1)
        return True

    def _vote(self, recipient: str, domain: str, *, refused: bool) -> None:
        """Count a recipient once, by its latest ending."""
        voter = recipient.lower()
        self._votes.pop(voter, None)
        if len(self._votes) == self._windows.votes:
            del self._votes[next(iter(self._votes))]
        self._votes[voter] = (domain, refused)

    def _is_outvoted(self) -> bool:
        """Whether too many recipients were refused."""
        against = [domain for domain, refused in self._votes.values() if refused]
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
