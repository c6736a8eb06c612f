"""The messages that ``inspect`` and ``plan`` read: those selected, in order.

An order needs all messages before the first. Until then their data is in a temporary
file, so that memory holds only a number per message.
"""

import itertools
import pickle
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec.structs import replace

from drainer.cli.output import say
from drainer.delivery.loader import chosen
from drainer.mail.content import HeldContent
from drainer.mail.message import SpooledMessage
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.selection import Choice, order_key
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.sources.protocol import Source


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
        found = self._selected(sources, rules)
        if self._choice.order is not None:
            found = self._sorted(found)
        yield from itertools.islice(found, self._choice.limit)
        if self._choice.limit is not None and next(found, None) is not None:
            say(f"there are more messages than --limit {self._choice.limit}")
        if self._passed["over"]:
            say(f"{self._passed['over']} more messages were not selected")

    def _selected(
        self, sources: Sequence[Source], rules: Admission
    ) -> Iterator[ScannedMessage]:
        for source in sources:
            for scanned in chosen(
                source, rules, self._choice.selection, digest=self._digest
            ):
                if scanned is None:
                    self._passed["over"] += 1
                else:
                    yield scanned

    def _sorted(self, found: Iterator[ScannedMessage]) -> Iterator[ScannedMessage]:
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
