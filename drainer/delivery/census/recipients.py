"""The recipients of spools, and of the ledger. Reading changes nothing (promise P9)."""

import time
from collections.abc import Iterable, Sequence

from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.policy.admission.selection import Selection, summarize
from drainer.policy.census.tally import RecipientCount
from drainer.policy.recipient.state import FINAL, State
from drainer.sources.protocol import Source


def count_spooled(
    sources: Iterable[Source], selection: Selection, *, seconds: float | None = None
) -> RecipientCount:
    """Count the recipients of spooled mail; it reads envelopes, and no content.

    It ends early after some ``seconds``. Raises SourceError as ``scan`` does.
    """
    count = RecipientCount()
    end = None if seconds is None else time.monotonic() + seconds
    for source in sources:
        for spooled in source.scan():
            message = spooled.message
            if end is not None and time.monotonic() > end:
                return count
            if selection.takes_message(summarize(message, message.size_bytes)):
                for recipient in message.envelope.recipients:
                    if selection.takes_recipient(recipient.forward_path):
                        count.add(recipient.forward_path)
    return count


def count_recorded(
    report: LedgerReader, selection: Selection, sources: Sequence[str] = ()
) -> RecipientCount:
    """Count the recipients in the ledger that are not final."""
    count, filters = RecipientCount(), Filters(selection=selection)
    states = [state for state in State if state not in FINAL]
    for row in report.unfinished(filters, sources, states):
        if filters.takes(row) and row["forward_path"]:
            count.add(row["forward_path"])
    return count
