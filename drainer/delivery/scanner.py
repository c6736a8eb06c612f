"""The scan in a process of its own, so that parsing never slows a session.

The worker process gets what to scan and writes batches of listings to its socket. It
parses hostile files, so that a batch is plain data (drainer.runtime.ipc). A full socket
makes it wait, so memory stays bounded; when its reader dies it ends.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

from drainer.delivery.loader import select_messages
from drainer.errors import DrainerError, SourceError, SourceLost, UsageError
from drainer.ledger.codec import listing_of
from drainer.ledger.records import ScanBatch, ScanRow
from drainer.mail.content import HeldContent
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.selection import Selection
from drainer.runtime.frames import FrameError, read
from drainer.runtime.ipc import frame_value, value_reader
from drainer.runtime.workers import WorkerProcess, start
from drainer.sources.protocol import Source

BATCH_MESSAGES = 200
BATCH_BYTES = 1024 * 1024
"""A batch ends at whichever comes first."""
FIRST_BATCH = 20
"""The first batch is small, so that the first message is sent soon."""

MAX_BATCH_BYTES = 256 * 1024 * 1024

_PIPE_LIMIT = 1024 * 1024
_ERRORS = {each.__name__: each for each in (SourceError, SourceLost, UsageError)}


class ScanFailure(NamedTuple):
    """Why a scan failed."""

    kind: str
    message: str
    hint: str

    def error(self) -> DrainerError:
        """Return the exception."""
        return _ERRORS.get(self.kind, DrainerError)(self.message, hint=self.hint)


class ScanPart(NamedTuple):
    """A part of a scan as it travels; neither of them at the end."""

    met: ScanBatch | None = None
    failure: ScanFailure | None = None


@contextlib.asynccontextmanager
async def scanner() -> AsyncIterator[WorkerProcess]:
    """Start a worker process that scans; leaving ends it."""
    worker = start()
    try:
        yield worker
    finally:
        worker.end()


async def scan(
    worker: WorkerProcess, source: Source, rules: Admission, selection: Selection
) -> AsyncIterator[ScanBatch]:
    """Yield what a worker process, used up by it, lists of a source, in batches.

    Raises SourceError when the spool as a whole cannot be read.
    """
    link = worker.begin("scan", (source, rules, selection))
    stream, writer = await asyncio.open_connection(sock=link, limit=_PIPE_LIMIT)
    parts = value_reader(ScanPart, MAX_BATCH_BYTES)
    try:
        while True:
            try:
                batch = await read(stream, parts)
            except (EOFError, FrameError, ConnectionError):
                message = "the process that reads the spool ended unexpectedly"
                hint = "see above, or the kernel's log, for why; then run the same"
                raise SourceLost(message, hint=f"{hint} command again") from None
            if batch.failure is not None:
                raise batch.failure.error()
            if batch.met is None:
                return
            yield batch.met
    finally:
        writer.close()


def _listings(
    source: Source, rules: Admission, selection: Selection
) -> Iterator[ScanRow | None]:
    """Yield what is selected as rows, and None for each of the others."""
    for scanned in select_messages(source, rules, selection, digest=True):
        if scanned is None:
            yield None
            continue
        content = scanned.spooled.content
        data = content.data if isinstance(content, HeldContent) else None
        yield listing_of(scanned, data)


def serve(
    link: socket.socket, order: tuple[Source, Admission, Selection], _: Sequence[int]
) -> int:
    """Scan what the order names, and write it to the link (workers.JOBS)."""
    batch = ScanBatch([], 0)
    size, limit = 0, FIRST_BATCH
    try:
        for listing in _listings(*order):
            if listing is None:
                batch = batch._replace(passed=batch.passed + 1)
                continue
            batch.listings.append(listing)
            size += len(listing.content or b"")
            if len(batch.listings) >= limit or size >= BATCH_BYTES:
                link.sendall(frame_value(ScanPart(batch)))
                batch, size, limit = ScanBatch([], 0), 0, BATCH_MESSAGES
        if any(batch):
            link.sendall(frame_value(ScanPart(batch)))
        link.sendall(frame_value(ScanPart()))
    except DrainerError as error:
        failure = ScanFailure(type(error).__name__, str(error), error.hint)
        link.sendall(frame_value(ScanPart(failure=failure)))
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the drain is over
    return 0
