"""A scanner within its limits: concurrency, time, and a pause while it fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from drainer.delivery.content_scan.clamd import ClamdScanner
from drainer.delivery.content_scan.command import CommandScanner
from drainer.delivery.content_scan.protocol import (
    ContentScanner,
    ScannerFailure,
    ScannerSettings,
    ScanRequest,
)
from drainer.delivery.content_scan.rspamd import RspamdScanner
from drainer.delivery.content_scan.spamd import SpamdScanner
from drainer.delivery.content_scan.stream import safe
from drainer.errors import MessageUnreadable
from drainer.policy.admission.content_scan import ScanAnswer, ScannerPause
from drainer.runtime.process import utcnow
from drainer.runtime.units import format_duration

T = TypeVar("T")

_log = logging.getLogger(__name__)
_PROTOCOLS: dict[str, Callable[[ScannerSettings], ContentScanner]] = {
    "rspamd": RspamdScanner,
    "spamd": SpamdScanner,
    "clamd": ClamdScanner,
    "command": CommandScanner,
}


class LimitedScanner:
    """One scanner of ``[scan]``; it fails only by ScannerFailure."""

    def __init__(self, settings: ScannerSettings) -> None:
        """Ask nothing yet."""
        self.settings = settings
        self._scanner: ContentScanner = _PROTOCOLS[settings.protocol](settings)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self.pause = ScannerPause(settings.pauses)
        self._reason = ""

    async def scan(self, request: ScanRequest) -> ScanAnswer | None:
        """Return its answer, after a wait for a slot; ScannerFailure without one.

        While it has a pause, it is not asked and this fails at once. None = it is not
        asked, because the primary filters the message.
        """
        if self._is_needless(request):
            return None
        async with self._slots:
            if self._is_needless(request):  # a session was opened during the wait
                return None
            if not self.pause.may_ask(utcnow()):
                raise ScannerFailure(self._reason)
            try:
                answer = await self._timed(self._scanner.scan(request))
            except ScannerFailure as failure:
                self._note_failure(request, str(failure))
                raise
        if self.pause.record_answer():
            _log.info(f"the scanner {self.settings.name} answers again")
        return answer

    async def ping(self) -> str:
        """Return who answers, in a few words; ScannerFailure without an answer."""
        return await self._timed(self._scanner.ping())

    def _is_needless(self, request: ScanRequest) -> bool:
        return self.settings.primary_filters and request.is_client_named()

    async def _timed(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.settings.timeout.total_seconds()):
                return await answer
        except MessageUnreadable as error:
            reason = f"the content cannot be read: {error.detail}"
            raise ScannerFailure(reason) from None
        except (OSError, EOFError) as error:  # TimeoutError is an OSError
            raise ScannerFailure(self._words(error)) from None
        except ScannerFailure:
            raise
        except Exception as error:  # noqa: BLE001 - a defect is not an answer
            raise ScannerFailure(safe(repr(error))) from None

    def _words(self, error: Exception) -> str:
        if isinstance(error, TimeoutError) and not error.args:
            return f"no answer within {format_duration(self.settings.timeout)}"
        if isinstance(error, EOFError):
            return "it closed the connection without an answer"
        return safe((isinstance(error, OSError) and error.strerror) or str(error))

    def _note_failure(self, request: ScanRequest, reason: str) -> None:
        self._reason = reason
        if self.pause.record_failure(request.message.id, utcnow()):
            mail = "waits for" if self.settings.defers else "is sent without"
            _log.warning(
                f"the scanner {self.settings.name} fails ({reason}): mail {mail} it,"
                " and drainer asks it again after a pause"
            )
