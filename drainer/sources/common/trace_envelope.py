"""Choose the envelope among the trace fields of a message; pure.

Reverse path and recipients come from one pair of fields that one delivery wrote. Local
delivery writes Return-Path with X-Original-To (what the client asked for), Delivered-To
(after aliases) or Envelope-To. A filter writes X-Envelope-From with X-Envelope-To, and
Exchange X-Sender with X-Receiver. If the trusted fields name two envelopes that differ,
drainer takes none of them: the operator names the fields.

All fields of a kind count, and each may list several addresses. ``<>`` and
MAILER-DAEMON without a domain are the null sender. An empty field names no sender.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from drainer.mail.envelope import (
    NULL_SENDER,
    Envelope,
    unique_recipients,
)
from drainer.mail.header import Field, unfold
from drainer.sources.common.path_list import ListedPath, paths_of
from drainer.sources.common.stored_text import mailbox_of


class FieldPair(NamedTuple):
    """The fields of one delivery, by name in lower case."""

    sender: str
    #: The first kind that is present counts.
    recipients: tuple[str, ...]


LOCAL_DELIVERY = FieldPair(
    "return-path",
    ("x-original-to", "delivered-to", "envelope-to", "original-recipient"),
)
REPLAY = FieldPair("x-sender", ("x-receiver",))
PAIRS = (
    LOCAL_DELIVERY,
    FieldPair("x-envelope-from", ("x-envelope-to",)),
    FieldPair("x-return-path", ("x-mdrcpt-to",)),
    FieldPair("x-mailfrom", ("x-rcpt-to",)),
)
"""What delivery agents and filters write, in the order of preference."""
REPLAY_FIELDS = frozenset((REPLAY.sender, *REPLAY.recipients))
_DELIVERY_FIELDS = frozenset(
    name for pair in PAIRS for name in (pair.sender, *pair.recipients)
) | {"delivery-date"}


class FoundEnvelope(NamedTuple):
    """An envelope, and what is wrong with it."""

    #: None = no field names the sender.
    sender: str | None
    envelope: Envelope
    #: Why no command can carry the sender, as text for people; '' = one can.
    fault: str = ""
    #: The fields that it is from.
    fields: str = ""
    #: Another envelope that differs.
    rival: str = ""

    @property
    def is_complete(self) -> bool:
        """Return whether it has a sender and recipients."""
        return self.sender is not None and bool(self.envelope.recipients)

    def is_same(self, other: "FoundEnvelope") -> bool:
        """Return whether two envelopes have one sender and the same recipients."""
        paths = [
            {each.forward_path for each in found.envelope.recipients}
            for found in (self, other)
        ]
        faults = self.fault, other.fault
        return self.sender == other.sender and paths[0] == paths[1] and not any(faults)


class TraceRules(Struct, frozen=True, kw_only=True):
    """What the operator says about the backup's trace fields."""

    #: The name that the backup writes after ``by``; '' = the topmost Received counts.
    backup_host: str = ""
    #: The only field for recipients; '' = the known ones.
    recipient_header: str = ""
    #: The only field for the sender; '' = the one that belongs to the recipients'.
    sender_header: str = ""
    #: What qmail put before the local part of Delivered-To (virtualdomains).
    strip_prefix: str = ""

    @property
    def recipient(self) -> str:
        """The field for recipients in lower case."""
        return self.recipient_header.lower()

    @property
    def sender(self) -> str:
        """The field for the sender in lower case."""
        return self.sender_header.lower()

    def writes(self, name: str) -> bool:
        """Return whether delivery adds a field of this name (in lower case)."""
        if name in _DELIVERY_FIELDS or name.startswith("x-envelope-"):
            return True
        named = {self.recipient, self.sender}
        return name in named or (name in REPLAY_FIELDS and bool(named & REPLAY_FIELDS))

    def pairs(self, names: set[str]) -> list[FieldPair]:
        """Return the pairs to look for in a block that has fields of these names."""
        known = (*PAIRS, REPLAY) if {"x-receiver"} & names else PAIRS
        if self.sender and self.recipient:
            return [FieldPair(self.sender, (self.recipient,))]
        if self.recipient:
            partners = [each.sender for each in known if self.recipient in each[1]]
            return [FieldPair(each, (self.recipient,)) for each in partners]
        if self.sender:
            own = [each for each in known if each.sender == self.sender]
            return own or [FieldPair(self.sender, each[1]) for each in known]
        return list(known)


def find_envelope(
    block: Sequence[Field], rules: TraceRules, from_path: str | None
) -> FoundEnvelope:
    """Return the envelope that the fields of one block name.

    ``from_path`` is the sender of an mbox From_ line, if it names one. It counts only
    without a field for the sender.
    """
    names = {each.name for each in block}
    found = [_read(block, pair, rules) for pair in rules.pairs(names)]
    whole = [each for each in found if each.is_complete]
    for each in whole[1:]:
        if not each.is_same(whole[0]):
            return whole[0]._replace(rival=each.fields)
    return whole[0] if whole else _mix(block, rules, from_path)


def _mix(
    block: Sequence[Field], rules: TraceRules, from_path: str | None
) -> FoundEnvelope:
    """Return the envelope of a block without a complete pair: one sender for all."""
    names = (rules.sender,) if rules.sender else [pair.sender for pair in PAIRS]
    kinds = [name for pair in (*PAIRS, REPLAY) for name in pair.recipients]
    if rules.recipient:
        kinds = [rules.recipient]
    result = _with_recipients(FoundEnvelope(None, Envelope()), block, kinds, rules)
    for name in names:
        result = _with_sender(result, block, name)
    if result.sender == NULL_SENDER and rules.recipient and not rules.sender:
        local = _read(block, LOCAL_DELIVERY, TraceRules())
        if local.is_complete and not local.is_same(result):
            return result._replace(rival=local.fields)
    if result.sender is None and from_path is not None and not rules.sender:
        return _from(result, ListedPath(from_path, {}), "From")
    return result


def _read(block: Sequence[Field], pair: FieldPair, rules: TraceRules) -> FoundEnvelope:
    found = _with_sender(FoundEnvelope(None, Envelope()), block, pair.sender)
    if found.sender is None:
        return found
    return _with_recipients(found, block, pair.recipients, rules)


def _with_sender(
    found: FoundEnvelope, block: Sequence[Field], name: str
) -> FoundEnvelope:
    """Add the sender that the fields of a name give; another one is a rival."""
    for each in block:
        value = unfold(each.value) if each.name == name else ""
        if not value:
            continue
        path = next(paths_of(value))
        if found.sender is None:
            found = _from(found, path, name)
        elif _sender(path)[0] != found.sender:
            found = found._replace(rival=f"another {name}")
    return found


def _from(found: FoundEnvelope, path: ListedPath, name: str) -> FoundEnvelope:
    sender, fault = _sender(path)
    envelope = path.envelope(sender)
    recipients = found.envelope.recipients
    return found._replace(
        sender=sender,
        envelope=replace(envelope, recipients=recipients),
        fault=fault,
        fields=f"{name} + {found.fields}" if found.fields else name,
    )


def _with_recipients(
    found: FoundEnvelope,
    block: Sequence[Field],
    kinds: Sequence[str],
    rules: TraceRules,
) -> FoundEnvelope:
    """Add the recipients of the first kind that is present."""
    for kind in kinds:
        fields = [each for each in block if each.name == kind]
        listed = [path for each in fields for path in _recipients(each, rules)]
        if listed:
            recipients = unique_recipients(path.recipient() for path in listed)
            return found._replace(
                envelope=replace(found.envelope, recipients=recipients),
                fields=f"{found.fields} + {kind}" if found.fields else kind,
            )
    return found


def _recipients(each: Field, rules: TraceRules) -> Iterator[ListedPath]:
    """Yield the addresses that a field lists, without empty ones."""
    value = unfold(each.value)
    if each.name == "original-recipient":  # RFC 3798 2.3: type;address
        value = value.partition(";")[2]
    for path in paths_of(value):
        text = path.text
        if not text or text.lower() == "unknown":  # getmail's word for it
            continue
        if rules.strip_prefix and each.name == "delivered-to":
            text = text.removeprefix(rules.strip_prefix)
        yield path._replace(text=text)


def _sender(path: ListedPath) -> tuple[str, str]:
    """Return the reverse path that a field names, and what is wrong with it."""
    if not path.text or path.text.upper() == "MAILER-DAEMON":
        return NULL_SENDER, ""
    return mailbox_of(path.text)
