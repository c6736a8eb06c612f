"""Find the recorded message that a listed one is. Identities are short and can collide.

A source computes an identity from the start of a message, so two messages may share it.
SHA-256 of the content, size and reverse-path distinguish them, then their locators.
drainer never merges messages: what it cannot distinguish, it holds as ``ambiguous``.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Fingerprint(NamedTuple):
    """What covers all of a message; recipients are compared one by one."""

    #: Hex SHA-256 of the content as transmitted; '' if it could not be read.
    sha256: str
    size: int
    reverse_path: str


class ListedMessage(NamedTuple):
    """A message as a scan lists it."""

    source: str
    locator: str
    fingerprint: Fingerprint


class RecordedMessage(NamedTuple):
    """A message in the ledger that has the same identity."""

    seq: int
    number: int
    listed: ListedMessage
    #: Every recipient is final.
    is_finished: bool
    #: No attempt was made yet: the message that is listed in its place may replace it.
    is_untouched: bool
    #: When the source dropped it, in microseconds; None while the source has it.
    acknowledged: int | None
    #: It is held because drainer cannot distinguish it from others.
    is_ambiguous: bool = False


class Same(NamedTuple):
    """The listed message is this recorded one."""

    seq: int


class New(NamedTuple):
    """The listed message is a new one."""


class LookFirst(NamedTuple):
    """First check whether these messages are still where they were recorded."""

    seqs: tuple[int, ...]


class Ambiguous(NamedTuple):
    """drainer cannot decide which one it is; these recorded ones are in doubt too."""

    seqs: tuple[int, ...]


Resolution = Same | New | LookFirst | Ambiguous


class ScanContext(NamedTuple):
    """What is known about the scan that lists a message."""

    #: When it started, in microseconds.
    started: int
    #: Whether the source drops finished messages.
    acknowledges: bool
    #: The recorded messages that are no longer where they were; None: not checked yet.
    absent: Collection[int] | None = None


def resolve(
    listed: ListedMessage, recorded: Sequence[RecordedMessage], scan: ScanContext
) -> Resolution:
    """Return what a listed message is, given all recorded ones of its identity."""
    here = [each for each in recorded if each.listed.source == listed.source]
    alike = [r for r in here if r.listed.fingerprint == listed.fingerprint]
    exact = next((r for r in alike if r.listed.locator == listed.locator), None)
    if exact is None:
        for each in here:
            changed = each.listed.locator == listed.locator and each.is_untouched
            if changed and not _has_twin(each, recorded):
                return Same(each.seq)
    if exact is not None and len(alike) == 1:
        return Same(exact.seq)
    if not alike:
        return _resolve_copy(listed, recorded)
    if any(each.is_ambiguous for each in alike):  # places may coincide again by chance
        return Ambiguous(tuple(each.seq for each in alike))
    if scan.absent is None:
        return LookFirst(tuple(each.seq for each in alike if each is not exact))
    absent = [each for each in alike if each.seq in scan.absent]
    if exact is not None:
        return _resolve_exact(exact, alike, absent, scan)
    return _resolve_displaced(listed, recorded, alike, absent, scan)


def _has_twin(one: RecordedMessage, recorded: Sequence[RecordedMessage]) -> bool:
    return any(
        each.listed.fingerprint == one.listed.fingerprint and each is not one
        for each in recorded
    )


def _resolve_exact(
    exact: RecordedMessage,
    alike: Sequence[RecordedMessage],
    absent: Sequence[RecordedMessage],
    scan: ScanContext,
) -> Resolution:
    """Trust a locator unless another message with the same content has left its own.

    Locators may shift: in an mbox, the second message takes the offset of the first
    one.
    """
    for each in absent:
        dropped = each.acknowledged is not None
        if not dropped and not (each.is_finished and scan.acknowledges):
            return Ambiguous(tuple(one.seq for one in alike))
    return Same(exact.seq)


def _resolve_displaced(
    listed: ListedMessage,
    recorded: Sequence[RecordedMessage],
    alike: Sequence[RecordedMessage],
    absent: Sequence[RecordedMessage],
    scan: ScanContext,
) -> Resolution:
    """Find out whether a recorded message has moved here."""
    moved = [each for each in absent if each.acknowledged is None]
    if moved and len(alike) == 1:
        return Same(moved[0].seq)
    if moved:
        return Ambiguous(tuple(each.seq for each in alike))
    if any((each.acknowledged or 0) < scan.started for each in absent):
        return Ambiguous(())  # a message that was dropped may have come back elsewhere
    return _resolve_copy(listed, recorded)


def _resolve_copy(
    listed: ListedMessage, recorded: Sequence[RecordedMessage]
) -> Resolution:
    """Recognise a copy of another source's message; otherwise treat it as new."""
    copies = [
        each
        for each in recorded
        if each.listed.source != listed.source
        and each.listed.fingerprint == listed.fingerprint
    ]
    if not copies:
        return New()
    for each in copies:
        if each.listed.locator == listed.locator:
            return Same(each.seq)
    return Same(copies[0].seq) if len(copies) == 1 else Ambiguous(())
