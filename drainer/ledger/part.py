"""What the parts of the ledger share: one writer, and its identity."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from drainer.ledger.records import to_micros
from drainer.ledger.writer.batch import WriterCall, WriterIdentity
from drainer.ledger.writer.client import WriterClient

T = TypeVar("T")


def now() -> int:
    """Return the time, in microseconds since 1970."""
    return to_micros(datetime.now(UTC))


class LedgerPart:
    """One subject of a ledger. A coroutine returns when what it wrote is durable."""

    def __init__(self, writer: WriterClient, identity: WriterIdentity) -> None:
        """Write through ``writer``."""
        self._writer = writer
        self._identity = identity

    async def _call(self, function: Callable[..., T], **arguments: object) -> T:
        """Call a function in the writer, with its connection."""
        call = functools.partial(function, **arguments)
        result: T = await self._writer.submit(WriterCall(call))
        return result

    def _submit(self, call: Callable[..., object]) -> None:
        """Call a function in the writer; do not wait for it."""
        self._writer.submit(WriterCall(call))
