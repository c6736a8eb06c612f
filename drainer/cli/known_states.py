"""What the ledger knows of the messages that a spool lists."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from drainer.cli.output import warn
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.errors import LedgerError
from drainer.ledger import engine
from drainer.ledger.query.message_states import RecordedStates, find_recorded
from drainer.ledger.reader import LedgerReader
from drainer.mail.message import Message
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.policy.recipient.state import State

BATCH = 200
"""Messages that are looked up together."""
RecipientStates = Mapping[str, State]
"""The state of each recorded recipient of a message, by its forward-path."""


@contextmanager
def open_ledger(config: Config) -> Iterator[LedgerReader | None]:
    """Open the ledger if there is one; one that cannot be read is named."""
    url = ledger_url(config)
    try:
        report = LedgerReader(url)
    except LedgerError as error:
        if not engine.is_file(url) or engine.file_id(url) is not None:
            warn(f"drainer cannot tell what is delivered already: {error}")
        yield None
        return
    with report:
        yield report


def with_states(
    found: Iterable[ScannedMessage], report: LedgerReader | None
) -> Iterator[tuple[ScannedMessage, RecipientStates]]:
    """Yield each message with the states of its recipients; none if it is new."""
    rest = iter(found)
    while batch := list(itertools.islice(rest, BATCH)):
        known: dict[str, list[RecordedStates]] = {}
        identities = [scanned.spooled.message.identity for scanned in batch]
        for each in find_recorded(report, identities) if report else ():
            known.setdefault(each.message.identity, []).append(each)
        for scanned in batch:
            message = scanned.spooled.message
            yield scanned, _states(message, known.get(message.identity, []))


def _states(message: Message, known: list[RecordedStates]) -> RecipientStates:
    """Return the states of the message that it is: of several, by its queue id."""
    same = [k for k in known if k.message.native_id == message.native_id] or known
    if len(same) != 1:
        return {}
    return {row["forward_path"]: State(row["state"]) for row in same[0].recipients}
