"""What refused messages have in common that delivered ones have not. Pure.

A primary may refuse all mail of one kind: of one sender domain, because this host
relays it (SPF, DMARC); with attachments; in SMTPUTF8; above a size. Those messages are
held together, not bounced one by one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from drainer.policy.breaker.detector import RecipientKey, Refusal, is_about_kind

LEAST = 3
"""Messages of a group that must be refused, and of others that must be delivered."""
NEARLY_ALL = 0.9
"""The share of the messages refused alike that must belong to the group."""
MOST_REFUSED = 500
"""Refused messages that are remembered, of each reply."""
MOST_REPLIES = 50
MOST_GROUPS = 20_000
"""Groups of delivered mail that are remembered: strangers name many domains."""
LARGE = 64 * 1024
"""Bytes of a message from which on its size may be the reason."""


class MailTraits(Struct, frozen=True, kw_only=True):
    """What may be a reason to refuse a message as one of a kind."""

    sender_domain: str
    #: It is more than text.
    attachment: bool = False
    smtputf8: bool = False
    size_bytes: int = 0


class MailGroup(Struct, frozen=True, kw_only=True):
    """The messages that share one trait."""

    #: 'sender', 'attachment', 'smtputf8' or 'size'.
    kind: str
    #: The sender domain; '' for the other kinds.
    value: str = ""

    @property
    def rule(self) -> str:
        """Return the rule that holds its messages."""
        return f"group-{self.kind}"

    @property
    def words(self) -> str:
        """Return what its messages are, for people."""
        if self.kind == "sender":
            return f"mail from {self.value or 'the null sender'}"
        return _WORDS[self.kind]


_WORDS = {
    "attachment": "mail with attachments",
    "smtputf8": "mail that needs SMTPUTF8",
    "size": "large mail",
}


@dataclass(slots=True)
class _Alike:
    """Messages that the primary refused with the same words."""

    #: Their traits, and how many messages had been delivered before.
    messages: dict[int, tuple[MailTraits, int]] = field(default_factory=dict)
    keys: dict[RecipientKey, None] = field(default_factory=dict)
    #: Groups that were found, and how many messages had been delivered then.
    found: dict[MailGroup, int] = field(default_factory=dict)


class GroupDetector:
    """Compares refused messages with delivered ones."""

    def __init__(self) -> None:
        #: Groups of delivered mail, and the number of the last one; the latest last.
        self._delivered: dict[MailGroup, int] = {}
        self._deliveries = 0
        self._largest = 0
        self._refused: dict[str, _Alike] = {}

    def record_delivery(self, traits: MailTraits) -> None:
        """Record a message that the primary accepted."""
        self._deliveries += 1
        for group in _groups(traits):
            self._delivered.pop(group, None)
            self._delivered[group] = self._deliveries
        if len(self._delivered) > MOST_GROUPS:
            del self._delivered[next(iter(self._delivered))]
        self._largest = max(self._largest, traits.size_bytes)

    def record_refusal(
        self, traits: MailTraits, seen: Iterable[tuple[RecipientKey, Refusal]]
    ) -> tuple[MailGroup, list[RecipientKey]] | None:
        """Record refusals; return the group that they show, and whom they concern.

        Recipients that were returned before are not returned again.
        """
        for key, refusal in seen:
            if not is_about_kind(refusal.classification, refusal.answer):
                continue
            alike = self._refused.setdefault(refusal.fingerprint, _Alike())
            alike.messages[key[0]] = (traits, self._deliveries)
            alike.keys[key] = None
            self._trim(alike)
            group = self._common_group(traits, alike)
            if group is not None:  # each recipient is reported once
                alike.found.setdefault(group, self._deliveries)
                since = self._delivered.get(group, 0)
                recent = {n for n, (_, at) in alike.messages.items() if at >= since}
                keys = [key for key in alike.keys if key[0] in recent]
                alike.keys = {key: None for key in alike.keys if key[0] not in recent}
                return group, keys
        return None

    def _trim(self, alike: _Alike) -> None:
        if len(alike.messages) > MOST_REFUSED:
            oldest = next(iter(alike.messages))
            del alike.messages[oldest]
            alike.keys = {key: None for key in alike.keys if key[0] != oldest}
        if len(self._refused) > MOST_REPLIES:
            del self._refused[next(iter(self._refused))]

    def _common_group(self, traits: MailTraits, alike: _Alike) -> MailGroup | None:
        """Return what separates the refused messages from the delivered ones.

        A primary may start to refuse a group later. So what counts is what it refused
        and delivered since it last delivered mail of that group. If it delivers some
        after that, the refusals were individual.
        """
        for group in _groups(traits):
            since = self._delivered.get(group, 0)
            if since > alike.found.get(group, self._deliveries):
                continue
            recent = [each for each, at in alike.messages.values() if at >= since]
            same = sum(1 for each in recent if group in _groups(each))
            nearly_all = same >= max(LEAST, NEARLY_ALL * len(recent))
            if nearly_all and self._deliveries - since >= LEAST:
                return group
        if len(alike.messages) < LEAST or self._deliveries < LEAST:
            return None
        smallest = min(each.size_bytes for each, _ in alike.messages.values())
        is_large = smallest > max(LARGE, 2 * self._largest)
        return MailGroup(kind="size") if is_large else None


def _groups(traits: MailTraits) -> Iterator[MailGroup]:
    """Yield the groups that a message belongs to, the most telling first."""
    if traits.sender_domain:
        yield MailGroup(kind="sender", value=traits.sender_domain)
    if traits.smtputf8:
        yield MailGroup(kind="smtputf8")
    if traits.attachment:
        yield MailGroup(kind="attachment")
