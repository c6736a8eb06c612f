"""Which recipients an operator means: by state, reply, message, and selection."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct, field

from drainer.ledger import schema
from drainer.ledger.codec import known_of
from drainer.ledger.records import to_micros
from drainer.mail.mailbox import readable
from drainer.policy.admission.content_scan import PREFIX
from drainer.policy.admission.selection import Selection
from drainer.policy.recipient.state import State

_R, _M = schema.recipients.c, schema.messages.c
SORT_COLUMNS: Mapping[str, sa.ColumnElement[Any]] = {
    "arrived": _M.arrived,
    "last_attempt": _R.attempt,
    "due": _R.due,
    "attempts": _R.attempts,
    "sender": _M.reverse_path,
    "recipient": _R.forward_path,
    "state": _R.state,
    "size": _M.size,
}
"""What lists can be sorted by."""


class Filters(Struct, frozen=True, kw_only=True):
    """Which recipients; everything that is given must hold."""

    states: Sequence[str] = ()
    reply: str = ""
    messages: Sequence[str] = ()
    #: Only those that the quarantine lists: also what a scanner holds.
    in_quarantine: bool = False
    #: When the recipient came into its state: not before, and not after.
    since: datetime | None = None
    until: datetime | None = None
    selection: Selection = field(default_factory=Selection)

    @property
    def empty(self) -> bool:
        """Whether there is no filter."""
        return self == Filters(in_quarantine=self.in_quarantine)

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on recipients joined with messages.

        They let a few too many pass: ``takes`` decides.
        """
        found = _clauses(self.selection)
        if self.states:
            found.append(_R.state.in_(list(self.states)))
        if self.reply:
            found.append(
                sa.func.lower(_R.reply).contains(self.reply.lower(), autoescape=True)
            )
        if self.in_quarantine:
            by_scanner = (_R.state == State.HELD.value) & _R.rule.startswith(PREFIX)
            found.append((_R.state == State.QUARANTINED.value) | by_scanner)
        if self.since:
            found.append(_R.since >= to_micros(self.since))
        if self.until:
            found.append(_R.since <= to_micros(self.until))
        if self.messages:
            found.append(_M.id.in_(list(self.messages)))
        return found

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a recipient joined with its message is meant."""
        chosen = self.selection
        return chosen.is_all or (
            chosen.takes_recipient(row["forward_path"])
            and chosen.takes_message(known_of(row))
        )


def _clauses(chosen: Selection) -> list[sa.ColumnElement[bool]]:
    """Return what a database can check of a selection: not names and patterns."""
    found: list[sa.ColumnElement[bool]] = []
    if chosen.sender == "<>":
        found.append(_M.reverse_path == "")
    elif chosen.sender:
        found += _has(_M.reverse_path, chosen.sender.strip("<>"))
    if chosen.recipient:
        found += _has(_R.forward_path, chosen.recipient)
    if chosen.domain:
        found += _has(_R.forward_path, f"@{chosen.domain_key}")
    if chosen.older_than:
        found.append(_M.arrived < to_micros(chosen.older_than))
    if chosen.newer_than:
        found.append(_M.arrived > to_micros(chosen.newer_than))
    if chosen.larger_than is not None:
        found.append(_M.size > chosen.larger_than)
    if chosen.smaller_than is not None:
        found.append(_M.size < chosen.smaller_than)
    if chosen.queues:
        below = (_M.queue.startswith(f"{q}/", autoescape=True) for q in chosen.queues)
        found.append(sa.or_(_M.queue.in_(chosen.queues), *below))
    return found


def _has(mailbox: sa.ColumnElement[str], part: str) -> Sequence[sa.ColumnElement[bool]]:
    """Return conditions that a mailbox with this part meets, in any spelling.

    No database knows the spellings of an internationalized domain.
    """
    wanted, lowered = readable(part), sa.func.lower(mailbox)
    if not wanted.isascii():
        return ()
    return (
        sa.or_(
            lowered.contains(wanted, autoescape=True),
            lowered.contains("xn--", autoescape=True),
            mailbox.regexp_match("[^ -~]"),
        ),
    )


ASKED = (
    _M.id,
    _M.native_id,
    _M.message_id,
    _M.reverse_path,
    _M.arrived,
    _M.size,
    _M.queue,
)
"""What ``Filters.takes`` needs of a message."""
