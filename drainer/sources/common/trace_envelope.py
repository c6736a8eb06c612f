"""Choose the envelope among the trace fields of a message; pure.

Reverse path and recipients come from one pair of fields that one delivery wrote. Local
delivery writes Return-Path with X-Original-To (what the client asked for), Delivered-To
(after aliases) or Envelope-To. A filter writes X-Envelope-From with X-Envelope-To, and
Exchange X-Sender with X-Receiver. If the trusted fields name two envelopes that differ,
drainer takes none of them: the operator names the fields.

All fields of a kind count, and each may list several addresses. ``<>`` and
MAILER-DAEMON without a domain are the null sender. An empty field is no sender.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from drainer.mail.envelope import (
    NULL_SENDER,
    AddressError,
    Envelope,
    RecipientCollector,
    wire_mailbox,
)
from drainer.mail.header import Field, unfold
from drainer.mail.reply import printable
from drainer.sources.common.path_list import ListedPath, paths_of


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


class FieldChoice(NamedTuple):
    """The fields that the operator named, in lower case; '' = drainer chooses."""

    sender: str = ""
    recipient: str = ""
    #: What qmail put before the local part of Delivered-To.
    strip_prefix: str = ""

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
    block: Sequence[Field], choice: FieldChoice, from_path: str | None
) -> FoundEnvelope:
    """Return the envelope that the fields of one block name.

    ``from_path`` is the sender of an mbox From_ line, if it names one. It counts only
    without a field for the sender.
    """
    names = {each.name for each in block}
    found = [_read(block, pair, choice) for pair in choice.pairs(names)]
    whole = [each for each in found if each.is_complete]
    for each in whole[1:]:
        if not each.is_same(whole[0]):
            return whole[0]._replace(rival=each.fields)
    return whole[0] if whole else _mix(block, choice, from_path)


def _mix(
    block: Sequence[Field], choice: FieldChoice, from_path: str | None
) -> FoundEnvelope:
    """Return the envelope of a block without a complete pair: one sender for all."""
    names = (choice.sender,) if choice.sender else [pair.sender for pair in PAIRS]
    kinds = [name for pair in (*PAIRS, REPLAY) for name in pair.recipients]
    if choice.recipient:
        kinds = [choice.recipient]
    result = _with_recipients(FoundEnvelope(None, Envelope()), block, kinds, choice)
    for name in names:
        result = _with_sender(result, block, name)
    if result.sender == NULL_SENDER and choice.recipient and not choice.sender:
        local = _read(block, LOCAL_DELIVERY, FieldChoice())
        if local.is_complete and not local.is_same(result):
            return result._replace(rival=local.fields)
    if result.sender is None and from_path is not None and not choice.sender:
        return _from(result, ListedPath(from_path, {}), "From")
    return result


def _read(
    block: Sequence[Field], pair: FieldPair, choice: FieldChoice
) -> FoundEnvelope:
    """Read the envelope of one pair of fields."""
    found = _with_sender(FoundEnvelope(None, Envelope()), block, pair.sender)
    if found.sender is None:
        return found
    return _with_recipients(found, block, pair.recipients, choice)


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
    choice: FieldChoice,
) -> FoundEnvelope:
    """Add the recipients of the first kind that is present."""
    for kind in kinds:
        fields = [each for each in block if each.name == kind]
        listed = [path for each in fields for path in _recipients(each, choice)]
        if listed:
            collector = RecipientCollector()
            for path in listed:
                collector.add(path.recipient())
            recipients = tuple(collector.recipients.values())
            return found._replace(
                envelope=replace(found.envelope, recipients=recipients),
                fields=f"{found.fields} + {kind}" if found.fields else kind,
            )
    return found


def _recipients(each: Field, choice: FieldChoice) -> Iterator[ListedPath]:
    """Yield the addresses that a field lists, without empty ones."""
    value = unfold(each.value)
    if each.name == "original-recipient":  # RFC 3798 2.3: type;address
        value = value.partition(";")[2]
    for path in paths_of(value):
        text = path.text
        if not text or text.lower() == "unknown":  # getmail's word for it
            continue
        if choice.strip_prefix and each.name == "delivered-to":
            text = text.removeprefix(choice.strip_prefix)
        yield path._replace(text=text)


def _sender(path: ListedPath) -> tuple[str, str]:
    """Return the reverse path that a field names, and what is wrong with it."""
    if not path.text or path.text.upper() == "MAILER-DAEMON":
        return NULL_SENDER, ""
    try:
        return wire_mailbox(path.text), ""
    except AddressError as error:
        return NULL_SENDER, printable(str(error))
