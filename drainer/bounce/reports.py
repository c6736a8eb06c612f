"""Send reports: one per message, by a route of their own, never twice on purpose.

Each is built again from the ledger and the copy of the original. A report that fails is
recorded with the reply that refused it, and is never reported itself.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from drainer.bounce.evidence.client import EvidenceWorker
from drainer.bounce.evidence.dkim_sign import sign
from drainer.bounce.quarantine.store import Quarantine
from drainer.bounce.relay import LIMITS, NoRelay, ReportRelay
from drainer.errors import MessageUnreadable
from drainer.ledger.records import from_micros
from drainer.ledger.reports.evidence import FAILED, QUEUED, SENT
from drainer.ledger.reports.outbox import QueuedReport, ReportDelays, ReportResult
from drainer.ledger.repository import Ledger
from drainer.mail.dsn.build import MAX_CONTENT_BYTES, build
from drainer.mail.dsn.model import CannotReport, Dsn, RecipientStatus
from drainer.mail.envelope import AddressError, Envelope, ascii_form, verp_sender
from drainer.mail.message import Message
from drainer.mail.reply import Lost, Reply, Stage, as_said
from drainer.policy.bounce.decision import CONTENT_RULES
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Verdict
from drainer.policy.pacing.rate import Rate, Rates
from drainer.smtp.connection import ConnectFailure, Connection, connect
from drainer.smtp.post import OutgoingMail, PostResult, post
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.route import SOCKET_PREFIX, Route
from drainer.sources.protocol import Source

AT_MOST = timedelta(seconds=30)
"""Time after which a drain starts no further report; the rest stays queued."""
_READ_BYTES = max(64 * 1024, MAX_CONTENT_BYTES + 1)
"""Bytes of an original: more than a report carries."""


class DkimKey(Struct, frozen=True, kw_only=True):
    """The key that signs reports: a DKIM selector and a private key."""

    selector: str
    key: bytes

    def __repr__(self) -> str:
        """Return it without the key."""
        return f"DkimKey(selector={self.selector!r})"


class DsnSettings(Struct, frozen=True, kw_only=True):
    """How reports are sent."""

    #: The relay for all reports; None: the mail servers of each sender.
    via: Route | None
    #: The port of senders' mail servers.
    mx_port: int
    #: Our own name.
    hostname: str
    waits: ReportDelays
    #: For one attempt.
    timeout: timedelta
    rate: Rate | None = None
    signing: DkimKey | None = None


@dataclass(slots=True)
class ReportCounts:
    """The results of a run's reports, counted in attempts."""

    sent: int = 0
    failed: int = 0
    deferred: int = 0


class DsnSender:
    """Sends the reports that are due."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Mapping[str, Source],
        quarantine: Quarantine | None,
        posting: DsnSettings,
        checks: EvidenceWorker,
    ) -> None:
        """Prepare; ``run`` sends. ``checks`` asks DNS for the servers of a sender."""
        self._ledger = ledger
        self._sources = sources
        self._quarantine = quarantine
        self._posting = posting
        self._ways = ReportRelay(posting.via, posting.mx_port, posting.hostname, checks)
        self._closed = False
        self.count = ReportCounts()

    def close(self) -> None:
        """Start no further report."""
        self._closed = True

    async def run(self, at_most: timedelta = AT_MOST) -> None:
        """Send what is due, one after the other; start none after ``at_most``.

        A relay that accepts nothing now is not asked again before the next run.
        """
        waits = self._posting.waits
        await self._ways.prepare(await self._ledger.reports.due_senders(waits))
        throttle = RateLimiter(Rates(messages=self._posting.rate))
        await throttle.resize(1)
        end = time.monotonic() + at_most.total_seconds()
        while not self._closed and time.monotonic() < end:
            queued = await self._ledger.reports.take(waits, self._posting.hostname)
            if queued is None:
                return
            await throttle.take_message()
            if not await self._send(queued):
                return

    async def _send(self, queued: QueuedReport) -> bool:
        """Make one attempt; return False if another report would fail too."""
        tried = await self._attempt(queued)
        ended = tried.ended
        if ended.state == QUEUED and queued.is_last:
            words = f"no server accepted it in time: {ended.reason}"
            ended = ended._replace(state=FAILED, reason=words)
        await self._ledger.reports.end(queued, ended)
        self.count.sent += ended.state == SENT
        self.count.failed += ended.state == FAILED
        self.count.deferred += ended.state == QUEUED
        if ended.state != QUEUED and self._quarantine is not None:
            needless = await self._ledger.reports.needless([queued.message.id])
            self._quarantine.forget(needless)
        return tried.goes_on or self._posting.via is None

    async def _attempt(self, queued: QueuedReport) -> "_SendAttempt":
        """Try one server after the other until one has decided."""
        try:
            routes = await self._ways.to(queued.message.envelope.reverse_path)
        except NoRelay as none:
            state = QUEUED if none.later else FAILED
            return _SendAttempt(ReportResult(state, "", "mx", str(none)))
        seconds = self._posting.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):  # a stranger may control the server
                return await self._try_each(queued, routes)
        except TimeoutError:
            words = f"it took more than {seconds:.0f} s"
            return _SendAttempt(
                ReportResult(QUEUED, "", str(routes[0]), words), goes_on=False
            )

    async def _try_each(
        self, queued: QueuedReport, routes: list[Route]
    ) -> "_SendAttempt":
        first, *others = routes
        tried = await self._try(queued, first)
        for route in others:
            if not tried.elsewhere:
                break
            tried = await self._try(queued, route)
        return tried

    async def _try(self, queued: QueuedReport, route: Route) -> "_SendAttempt":
        connection = await connect(route)
        if isinstance(connection, ConnectFailure):
            said = str(connection.steps[-1].answer) if connection.steps else ""
            words = f"no session with {route}"
            return _SendAttempt(
                ReportResult(QUEUED, said, str(route), words), goes_on=False
            )
        try:
            letter = await asyncio.to_thread(
                self._letter, queued, connection.extensions
            )
            return _judge(await post(connection, LIMITS, letter), connection)
        except (CannotReport, AddressError) as error:
            ended = ReportResult(FAILED, "", connection.address, str(error))
            return _SendAttempt(ended, elsewhere=False)
        finally:
            connection.wire.close()

    # --- the report

    def _letter(self, queued: QueuedReport, peer: Mapping[str, str]) -> OutgoingMail:
        """Build it; it may block. Raises CannotReport and AddressError like build."""
        envelope = _expand(queued)
        if "smtputf8" not in peer:
            sender = ascii_form(envelope.reverse_path)
            envelope = replace(envelope, reverse_path=sender)
        paths = (recipient.forward_path for _, recipient in queued.recipients)
        is_ascii = envelope.reverse_path.isascii() and all(p.isascii() for p in paths)
        utf8 = "smtputf8" in peer and (envelope.smtputf8 or not is_ascii)
        original = self._original(queued.message)
        head, blank, _ = original.partition(b"\r\n\r\n")
        report = Dsn(
            action=queued.action,
            envelope=envelope,
            statuses=tuple(
                RecipientStatus(
                    recipient=recipient,
                    status=row["status"],
                    reply=_words(row["reply"]),
                    rule=row["rule"],
                    last_attempt=from_micros(row["refused"]),
                )
                for row, recipient in queued.recipients
            ),
            hostname=self._posting.hostname,
            primary=_host_of(queued.route),
            message_id=queued.report_id,
            date=from_micros(queued.at),
            arrived=queued.message.arrived,
            helo=queued.message.client.helo,
            log_id=queued.message.id,
            head=head + b"\r\n" if blank else original,
            content=original if _may_return(queued, original) else b"",
            smtputf8=utf8,
            eight_bit="8bitmime" in peer,
        )
        return OutgoingMail(
            recipient=envelope.reverse_path,
            content=self._sign(build(report)),
            smtputf8=utf8,
        )

    def _sign(self, report: bytes) -> bytes:
        signing = self._posting.signing
        if signing is None:
            return report
        return sign(
            report,
            domain=self._posting.hostname,
            selector=signing.selector,
            key=signing.key,
        )

    def _original(self, message: Message) -> bytes:
        """Return the start of the original: its copy, or the message in its source."""
        copy = self._quarantine.open(message) if self._quarantine else None
        found = bytearray()
        try:
            source = self._sources.get(message.source)
            spooled = copy or (source.open(message) if source else None)
            for chunk in spooled.content.chunks() if spooled else ():
                found += chunk
                if len(found) >= _READ_BYTES:
                    break
        except MessageUnreadable:
            return b""  # the report is sent without it
        return bytes(found[:_READ_BYTES])


def _expand(queued: QueuedReport) -> Envelope:
    """Return the envelope with the sender that VERP gave this recipient."""
    envelope = queued.message.envelope
    if not envelope.verp:
        return envelope
    (recipient,) = envelope.recipients
    sender = verp_sender(envelope.reverse_path, recipient.forward_path, envelope.verp)
    return replace(envelope, reverse_path=sender)


def _host_of(route: str) -> str:
    """Return the host in the name of a route; '' for a Unix socket, which has none."""
    return "" if route.startswith(SOCKET_PREFIX) else route.rpartition(":")[0]


def _words(text: str) -> str:
    """Return the primary's reply; '' if the text is ours, for a missing reply."""
    return text if isinstance(as_said(text), Reply) else ""


def _may_return(queued: QueuedReport, original: bytes) -> bool:
    """Return whether the sender may get its content back, if it asked for that.

    The proof must be one that no other signed mail can give. Otherwise drainer would
    return spam.
    """
    return len(original) <= MAX_CONTENT_BYTES and not any(
        not row["may_return"]
        or CONTENT_RULES.fullmatch(row["rule"])
        or row["status"][2:].startswith(("6.", "7.30"))
        for row, _ in queued.recipients
    )


class _SendAttempt(NamedTuple):
    ended: ReportResult
    #: Whether this server may be tried for other reports.
    goes_on: bool = True
    #: Whether another server may be tried for this one.
    elsewhere: bool = True


def _judge(posted: PostResult, connection: Connection) -> _SendAttempt:
    via, words = connection.address, str(posted.answer)
    answer = posted.answer
    if isinstance(answer, Lost) and posted.stage is Stage.DOT:
        reason = "it may have arrived; drainer sends it again under the same Message-ID"
        ended = ReportResult(QUEUED, words, via, reason)
        return _SendAttempt(ended, goes_on=False, elsewhere=False)
    classification = classify(answer, posted.stage, accepted=0)
    match classification.verdict:
        case Verdict.DELIVER:
            return _SendAttempt(
                ReportResult(SENT, words, via, "the relay accepted it"), elsewhere=False
            )
        case Verdict.BOUNCE | Verdict.HOLD if isinstance(answer, Reply):
            reason = f"{classification.reason}; drainer never reports a failed report"
            return _SendAttempt(
                ReportResult(FAILED, words, via, reason), elsewhere=False
            )
        case verdict:
            is_ours = verdict is Verdict.STOP or isinstance(answer, Lost)
            ended = ReportResult(QUEUED, words, via, classification.reason)
            return _SendAttempt(ended, goes_on=not is_ours)
