"""The scan in a process of its own, so that parsing never slows a session.

The process reads what to scan from its standard input and writes batches of
listings to its standard output, each as a length and a pickle; an exception is
the last batch when the scan fails. A full pipe makes it wait, so memory stays
bounded; when its reader dies it ends with a broken pipe.
"""

import asyncio
import contextlib
import pickle
import sys
from collections.abc import AsyncIterator, Iterator
from typing import IO

from drainer.errors import DrainerError, SourceError
from drainer.intake import chosen
from drainer.ledger import Listing, Met
from drainer.ledger.rows import listing_of
from drainer.mail.content import Held
from drainer.policy.admit import Admission
from drainer.policy.select import Selection
from drainer.process import (
    HEAD,
    child_environment,
    framed,
    leave_signals_to_parent,
    rarely_collect,
)
from drainer.sources import Source

BATCH_MESSAGES = 200
BATCH_BYTES = 4 * 1024 * 1024
"""A batch ends at whichever comes first."""
FIRST_BATCH = 20
"""The first batch is small: the first message leaves soon."""

_PIPE_LIMIT = 1024 * 1024


Scanner = asyncio.subprocess.Process
"""A process that waits to be told what to scan."""


@contextlib.asynccontextmanager
async def scanner() -> AsyncIterator[Scanner]:
    """Start a scanner; it loads its modules while its parent does other things.

    Leaving ends the process.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # never import from the current folder, which may be anybody's
        "-m",
        "drainer.scanning",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(),
        limit=_PIPE_LIMIT,
        start_new_session=True,  # Ctrl-C is for the drain
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def scan(
    process: Scanner, source: Source, rules: Admission, selection: Selection
) -> AsyncIterator[Met]:
    """Yield what a scanner, which is used up by it, lists of a source, in batches.

    Raises SourceError when the spool as a whole cannot be read.
    """
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(pickle.dumps((source, rules, selection)))
    process.stdin.close()
    stream = process.stdout
    while True:
        try:
            head = await stream.readexactly(HEAD.size)
            body = await stream.readexactly(HEAD.unpack(head)[0])
        except asyncio.IncompleteReadError:
            message = "the scan of the spool ended unexpectedly"
            raise SourceError(message, hint="run it again; see above") from None
        batch = pickle.loads(body)  # noqa: S301 - written by ourselves, below
        if isinstance(batch, DrainerError):
            raise batch
        if not batch:
            return
        yield batch


def _listings(
    source: Source, rules: Admission, selection: Selection
) -> Iterator[Listing | None]:
    """Yield what is selected as rows, and None for each of the rest."""
    for scanned in chosen(source, rules, selection):
        if scanned is None:
            yield None
            continue
        content = scanned.spooled.content
        data = content.data if isinstance(content, Held) else None
        yield listing_of(scanned, data)


def _write(stream: IO[bytes], batch: object) -> None:
    stream.write(framed(batch))
    stream.flush()


def main() -> None:
    """Scan what standard input names, and write it to standard output."""
    rarely_collect()
    leave_signals_to_parent()
    try:
        told = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our parent
    except EOFError:
        return  # it had nothing to scan
    out = sys.stdout.buffer
    batch = Met([], 0)
    size, limit = 0, FIRST_BATCH
    try:
        for listing in _listings(*told):
            if listing is None:
                batch = batch._replace(passed=batch.passed + 1)
                continue
            batch.listings.append(listing)
            size += len(listing.content or b"")
            if len(batch.listings) >= limit or size >= BATCH_BYTES:
                _write(out, batch)
                batch, size, limit = Met([], 0), 0, BATCH_MESSAGES
        if any(batch):
            _write(out, batch)
        _write(out, ())
    except DrainerError as error:
        _write(out, error)
    except BrokenPipeError:
        sys.stderr.close()  # the drain is over


if __name__ == "__main__":
    main()
