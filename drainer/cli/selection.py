"""The messages that ``inspect`` and ``plan`` read: those selected, in order.

An order needs all messages before the first. Until then their data is in a temporary
file, so that memory holds only a number per message.
"""

import itertools
import pickle
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from msgspec.structs import replace

from drainer.cli.output import say, warn
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.delivery.loader import select_messages
from drainer.errors import LedgerError
from drainer.ledger import engine
from drainer.ledger.query.message_states import RecordedStates, find_recorded
from drainer.ledger.reader import LedgerReader
from drainer.mail.content import HeldContent
from drainer.mail.message import Message, SpooledMessage
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.selection import Choice, order_key
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.policy.recipient.state import State
from drainer.sources.protocol import Source

BATCH = 200
"""Messages that are looked up together."""
RecipientStates = Mapping[str, State]
"""The state of each recorded recipient of a message, by its forward-path."""


class SourceList:
    """Reads some sources."""

    def __init__(
        self, choice: Choice, lifetime_began: datetime, *, digest: bool = False
    ) -> None:
        """Prepare; a message that arrived at ``lifetime_began`` expires now."""
        self._choice = choice
        self._began = lifetime_began
        self._digest = digest
        #: Messages that were read and not selected, up to the limit.
        self._passed: Counter[str] = Counter()

    def at(
        self, sources: Sequence[Source], rules: Admission
    ) -> Iterator[ScannedMessage]:
        """Yield the selected messages; print at the end how many were not."""
        found = self._select(sources, rules)
        if self._choice.order is not None:
            found = self._sort(found)
        yield from itertools.islice(found, self._choice.limit)
        if self._choice.limit is not None and next(found, None) is not None:
            say(f"there are more messages than --limit {self._choice.limit}")
        if self._passed["over"]:
            say(f"{self._passed['over']} more messages were not selected")

    def _select(
        self, sources: Sequence[Source], rules: Admission
    ) -> Iterator[ScannedMessage]:
        for source in sources:
            for scanned in select_messages(
                source, rules, self._choice.selection, digest=self._digest
            ):
                if scanned is None:
                    self._passed["over"] += 1
                else:
                    yield scanned

    def _sort(self, found: Iterator[ScannedMessage]) -> Iterator[ScannedMessage]:
        keys, places = array("q"), array("q")
        with tempfile.TemporaryFile() as file:
            for scanned in found:
                keys.append(self._key(scanned))
                places.append(file.tell())
                pickle.dump(_strip_content(scanned), file, protocol=5)
            for n in sorted(range(len(keys)), key=keys.__getitem__):
                file.seek(places[n])
                yield pickle.load(file)  # noqa: S301 - written by ourselves, above

    def _key(self, scanned: ScannedMessage) -> int:
        order, message = self._choice.order, scanned.spooled.message
        assert order is not None  # noqa: S101 - the caller has checked
        size = scanned.facts.size_bytes if scanned.facts else message.size_bytes
        return order_key(order, message.arrived, size, lifetime_began=self._began)


def _strip_content(scanned: ScannedMessage) -> ScannedMessage:
    """Return it without its content."""
    return replace(
        scanned,
        spooled=SpooledMessage(
            message=scanned.spooled.message, content=HeldContent(b"")
        ),
    )


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
