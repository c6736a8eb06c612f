"""What the lists of recipients mean for a drain: who is held, and who exists."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from msgspec.structs import replace

from drainer.ledger.engine import in_use
from drainer.ledger.owner import RECONNECT_FOR
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row, ScanRow
from drainer.ledger.repository import Ledger
from drainer.ledger.unknown_recipients import (
    UNKNOWN_RECIPIENT,
    RecipientReview,
    find_reviewed,
)
from drainer.mail.envelope import AddressError, domain_of
from drainer.mail.mailbox import mailbox_key
from drainer.mail.message import Problem
from drainer.policy.census.existence import REFUSED, Existence, ExistenceAnswer
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.policy.recipient.mapping import AddressMapping
from drainer.policy.recipient.state import State
from drainer.runtime.threads import aside
from drainer.sources.protocol import Source
from drainer.sources.recipients.directory import RecipientDirectory

_log = logging.getLogger(__name__)

STOP_SECONDS = 0.2
"""How long a stop waits while lists are read."""
BATCH = 2000
"""Recipients of the ledger that the lists are asked for together."""


class RecipientCensus:
    """Asks the lists about the recipients of one drain."""

    def __init__(self, directory: RecipientDirectory, redirect: AddressMapping) -> None:
        """Ask for the addresses that recipients are mapped to, once it is open."""
        self._directory = directory
        self._redirect = redirect
        #: What the primary said, by the key of a mailbox.
        self._said: dict[str, ExistenceAnswer] = {}

    async def open(self, is_stopped: Callable[[], bool]) -> None:
        """Read the lists, unless it ``is_stopped`` meanwhile: a server may hang.

        Raises UsageError if one cannot be read.
        """
        reading = asyncio.ensure_future(aside(self._directory.open, None))
        while not (await asyncio.wait({reading}, timeout=STOP_SECONDS))[0]:
            if is_stopped():
                reading.cancel()
                return
        reading.result()
        for words in self._directory.warnings():
            _log.warning(words)

    def knows(self, mailbox: str) -> str:
        """Return the list that has a recipient, without any I/O; '' = none."""
        answer = self._directory.recall(mailbox)
        return answer.by if answer.existence is Existence.KNOWN else ""

    def look_up(
        self, paths: Sequence[str]
    ) -> Iterator[tuple[str, str, ExistenceAnswer]]:
        """Yield recipients of the spool, as they are sent to, and whether they exist.

        It may block.
        """
        for path, answer in self._lookup(paths).items():
            yield path, self._target(path), answer

    def remember(self, answers: Mapping[str, ExistenceAnswer]) -> None:
        """Take what the primary says of recipients of which no list says anything."""
        self._said |= {mailbox_key(mailbox): said for mailbox, said in answers.items()}

    async def hold_unknown(self, listings: Iterable[ScanRow]) -> None:
        """Hold what a scan lists for recipients that do not exist.

        Raises UsageError if a list cannot be read.
        """
        rows = [
            row
            for listing in listings
            for row in listing.recipients
            if row["state"] == State.PENDING.value
        ]
        paths = list({row["forward_path"] for row in rows})
        unknown = await asyncio.to_thread(self.unknown, paths)
        for row in rows:
            if detail := unknown.get(row["forward_path"]):
                row.update(
                    state=State.HELD.value,
                    due=None,
                    rule=UNKNOWN_RECIPIENT,
                    reply=detail,
                )

    async def review(self, ledger: Ledger, sources: Iterable[Source]) -> None:
        """Hold unknown recipients that earlier runs recorded; free those now known.

        What an operator has released stays released. Raises LedgerLost.
        """
        urls = [source.url for source in sources]
        with (
            in_use(ledger.url),
            LedgerReader(ledger.url, patience=RECONNECT_FOR) as report,
        ):
            await self._review(find_reviewed(report, urls), ledger)

    async def _review(self, rows: Iterator[Row], ledger: Ledger) -> None:
        while batch := await asyncio.to_thread(lambda: list(islice(rows, BATCH))):
            paths = list({row["forward_path"] for row in batch})
            answers = await asyncio.to_thread(self._lookup, paths)
            for review in _reviews(batch, answers, Existence.UNKNOWN):
                await ledger.messages.hold_unknown(review)
            for review in _reviews(batch, answers, Existence.KNOWN):
                await ledger.messages.release_known(review)

    def mark_unknown(
        self, found: Iterable[ScannedMessage], size: int
    ) -> Iterator[ScannedMessage]:
        """Yield scanned messages whose unknown recipients have a problem.

        It asks for ``size`` messages together; it may block.
        """
        rest = iter(found)
        while batch := list(islice(rest, size)):
            paths = {
                recipient.forward_path
                for scanned in batch
                for recipient in scanned.spooled.message.envelope.recipients
            }
            unknown = self.unknown(list(paths))
            for scanned in batch:
                yield _marked(scanned, unknown) if unknown else scanned

    def unknown(self, paths: Sequence[str]) -> dict[str, str]:
        """Return which recipients do not exist, each with the reason; it may block."""
        answers = self._lookup(paths)
        return {
            path: _detail(path, answer)
            for path, answer in answers.items()
            if answer.existence is Existence.UNKNOWN
        }

    def _lookup(self, paths: Sequence[str]) -> dict[str, ExistenceAnswer]:
        targets = {path: self._target(path) for path in paths}
        answers = self._directory.lookup(list(dict.fromkeys(targets.values())))
        return {path: self._decided(to, answers[to]) for path, to in targets.items()}

    def _decided(self, mailbox: str, answer: ExistenceAnswer) -> ExistenceAnswer:
        """Return what the primary says if the lists say nothing."""
        if not self._said or answer.existence is not Existence.CANNOT_TELL:
            return answer
        return self._said.get(mailbox_key(mailbox), answer)

    def _target(self, path: str) -> str:
        try:
            return self._redirect.target(path)
        except AddressError:
            return path  # then it is held, as an address that cannot be sent


def _detail(path: str, answer: ExistenceAnswer) -> str:
    """Return why a recipient counts as unknown."""
    if answer.reason == REFUSED:
        return f"the primary says so in a callout: {answer.by}"
    return f"{answer.by} has other addresses of {domain_of(path)}"


def _reviews(
    rows: Sequence[Row], answers: dict[str, ExistenceAnswer], existence: Existence
) -> Iterator[RecipientReview]:
    """Yield what changes for recipients of one kind, those with one reason together."""
    is_unknown = existence is Existence.UNKNOWN
    found: dict[str, list[Row]] = {}
    for row in rows:
        path, state = row["forward_path"], row["state"]
        answer = answers[path]
        waits = state in (State.PENDING.value, State.DEFERRED.value)
        changes = (waits and not row["released"]) if is_unknown else state == State.HELD
        if answer.existence is existence and changes:
            detail = _detail(path, answer) if is_unknown else f"it exists: {answer.by}"
            found.setdefault(detail, []).append(row)
    for detail, same in found.items():
        yield RecipientReview(same, detail)


def _marked(scanned: ScannedMessage, unknown: dict[str, str]) -> ScannedMessage:
    recipients = scanned.spooled.message.envelope.recipients
    paths = [recipient.forward_path for recipient in recipients]
    if len(paths) != len(scanned.problems):  # it names no recipients
        return scanned
    problems = tuple(
        problem
        or (
            Problem(code=UNKNOWN_RECIPIENT, detail=unknown[path])
            if path in unknown
            else None
        )
        for path, problem in zip(paths, scanned.problems, strict=True)
    )
    return replace(scanned, problems=problems)
