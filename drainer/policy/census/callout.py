"""What the primary says about recipients at RCPT, and where a list disagrees. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from drainer.mail.envelope import domain_of
from drainer.mail.reply import Reply, Stage
from drainer.policy.census.existence import (
    ACCEPTED,
    NO_ANSWER,
    REFUSED,
    Existence,
    ExistenceAnswer,
)
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.rules import Rule
from drainer.policy.classify.verdict import Classification, Verdict

LEAST_ASKED = 5
"""So many listed recipients of a domain show whether the primary has its users."""
LEAST_SAMPLE = 100
"""From so many on, a part of the recipients shows what is true of all."""
_ABSENT = (
    "enhanced-5.1.", "enhanced-5.2.1", "text-no-such-user", "text-unknown-user",
    "text-mailbox-closed", "basic-550", "basic-551", "basic-553",
)  # fmt: skip


def says_absent(classification: Classification) -> bool:
    """Return whether a refusal says, or may say, that the recipient does not exist."""
    is_bounce = classification.verdict is Verdict.BOUNCE
    return is_bounce and classification.rule.startswith(_ABSENT)


class CalloutReply(NamedTuple):
    """A reply at RCPT, and what it means for the callout."""

    answer: ExistenceAnswer
    #: The primary refuses us, so that asking on has no use.
    refuses_us: bool = False
    #: The transaction has too many recipients: another one may have it.
    is_one_too_many: bool = False


def judge_callout(
    reply: Reply, rules: Sequence[Rule] = (), *, accepted: int = 0
) -> CalloutReply:
    """Return what a reply says about the recipient; ``rules`` are the operator's.

    ``accepted``: recipients that the transaction had before.
    """
    found = classify(reply, Stage.RCPT, accepted=accepted, rules=rules)
    if found.verdict is Verdict.DELIVER:
        return CalloutReply(ExistenceAnswer(Existence.KNOWN, ACCEPTED, str(reply)))
    is_policy = found.rule.startswith("basic-") and reply.detail.startswith("7.")
    if says_absent(found) and not is_policy:
        return CalloutReply(ExistenceAnswer(Existence.UNKNOWN, REFUSED, str(reply)))
    return CalloutReply(
        ExistenceAnswer(Existence.CANNOT_TELL, NO_ANSWER, str(reply)),
        refuses_us=found.verdict is Verdict.STOP,
        is_one_too_many=found.rule == "rcpt-too-many",
    )


def _some(mailboxes: tuple[str, ...]) -> str:
    """Return the first three of them as text."""
    return ", ".join(mailboxes[:3]) + (", ..." if len(mailboxes) > 3 else "")  # noqa: PLR2004


class Contradiction(NamedTuple):
    """Recipients of a domain that a list has, and the primary says do not exist."""

    domain: str
    #: Listed recipients of the domain that the primary gave a clear answer about.
    asked: int
    refused: tuple[str, ...]
    #: The first of the refusals.
    reply: str
    #: Whether the mail has more listed recipients of the domain.
    is_sample: bool = False

    @property
    def has_lost_users(self) -> bool:
        """Whether the primary, and not the list, is at fault: half of them are gone.

        Fewer may be stale entries of the list. In a sample, half of all show as half of
        it, give or take three standard deviations.
        """
        is_large_sample = self.is_sample and self.asked >= LEAST_SAMPLE
        chance = 1.5 * self.asked**0.5 if is_large_sample else 0.0
        return self.asked >= LEAST_ASKED and (
            len(self.refused) >= self.asked / 2 - chance
        )

    def __str__(self) -> str:
        return (
            f"it refuses {len(self.refused)} of {self.asked} listed recipients of"
            f" {self.domain}: {_some(self.refused)}: {self.reply}"
        )


class UnlistedRecipients(NamedTuple):
    """Recipients that no list has, and the primary accepts."""

    domain: str
    recipients: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"it accepts {len(self.recipients)} recipients of {self.domain} that no"
            f" list has: {_some(self.recipients)}"
        )


def find_unlisted(
    unlisted: Iterable[str], said: Mapping[str, ExistenceAnswer]
) -> list[UnlistedRecipients]:
    """Return, by domain, the recipients that lists say are unknown, and exist."""
    found: dict[str, list[str]] = {}
    for mailbox in unlisted:
        answer = said.get(mailbox)
        if answer is not None and answer.existence is Existence.KNOWN:
            found.setdefault(domain_of(mailbox), []).append(mailbox)
    return [UnlistedRecipients(domain, tuple(each)) for domain, each in found.items()]


def find_contradictions(
    listed: Iterable[str],
    said: Mapping[str, ExistenceAnswer],
    samples: Collection[str] = (),
) -> list[Contradiction]:
    """Return the domains of which the primary refuses listed recipients, worst first.

    Recipients without a clear answer do not count. ``samples``: domains of which not
    every listed recipient was asked for.
    """
    clear: dict[str, list[str]] = {}
    for mailbox in listed:
        answer = said.get(mailbox)
        if answer is not None and answer.existence is not Existence.CANNOT_TELL:
            clear.setdefault(domain_of(mailbox), []).append(mailbox)
    found = []
    for domain, asked in clear.items():
        refused = [m for m in asked if said[m].existence is Existence.UNKNOWN]
        if refused:
            reply = said[refused[0]].by
            found.append(
                Contradiction(
                    domain, len(asked), tuple(refused), reply, domain in samples
                )
            )
    return sorted(found, key=lambda each: (-len(each.refused), each.domain))
