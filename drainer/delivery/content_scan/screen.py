"""What all scanners together say of a message: pass, hold, or wait.

The ledger keeps their answers, so that neither a retry nor a second route asks again,
and so that what an operator has released is not held for the same reason.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime

from msgspec import Struct

from drainer.delivery.content_scan.limits import LimitedScanner
from drainer.delivery.content_scan.protocol import (
    ScannerFailure,
    ScannerSettings,
    ScanRequest,
)
from drainer.errors import LedgerLost
from drainer.ledger.parts import ScanLedger
from drainer.mail.message import UNSCANNED, ScanProblem
from drainer.policy.admission.content_scan import (
    ScanAnswer,
    hit_by,
    is_known,
    put_off,
)
from drainer.runtime.process import utcnow

Known = Mapping[str, tuple[datetime, ScanAnswer]]


class ScanFinding(Struct, frozen=True, kw_only=True):
    """What one scanner means for one message."""

    #: Why the message is not sent, or None.
    problem: ScanProblem | None
    #: For the record of an attempt.
    note: str


class ContentScreen:
    """The scanners of ``[scan]``, shared by all routes of a drain."""

    def __init__(
        self, scanners: Iterable[ScannerSettings], answers: ScanLedger | None
    ) -> None:
        """Ask nothing yet; without ``answers`` nothing is remembered."""
        self._scanners = [LimitedScanner(each) for each in scanners]
        self._answers = answers

    async def examine(self, request: ScanRequest) -> list[ScanFinding]:
        """Return what each scanner says; they are asked at the same time."""
        known: Known = {}
        if self._answers is not None and request.sha256:
            known = await self._answers.answers(request.sha256)
        return list(
            await asyncio.gather(
                *(
                    self._judge(each, request, known.get(each.settings.name))
                    for each in self._scanners
                )
            )
        )

    async def _judge(
        self,
        scanner: LimitedScanner,
        request: ScanRequest,
        known: tuple[datetime, ScanAnswer] | None,
    ) -> ScanFinding:
        settings, name = scanner.settings, scanner.settings.name
        if request.size > settings.max_bytes:
            return ScanFinding(problem=None, note=f"{name}: too large")
        if known is not None and request.released:
            return ScanFinding(problem=None, note=f"{name}: released")
        answer = _remembered(settings, known)
        if answer is None:
            try:
                answer = await scanner.scan(request)
            except ScannerFailure as failure:
                return self._without(scanner, str(failure))
            if answer is None:
                return ScanFinding(problem=None, note=f"{name}: the primary filters it")
            self._keep(request.sha256, name, answer)
        problem = hit_by(name, answer) if settings.rule.is_hit(answer) else None
        return ScanFinding(problem=problem, note=f"{name}: {answer}")

    def _without(self, scanner: LimitedScanner, reason: str) -> ScanFinding:
        """Return what follows when a scanner gives no answer."""
        settings = scanner.settings
        if not settings.defers:
            note = f"{settings.name}: sent without it: {reason}"
            return ScanFinding(problem=None, note=note)
        wait = scanner.pause.wait(utcnow())
        problem = put_off(settings.name, reason, wait)
        return ScanFinding(problem=problem, note=problem.detail)

    def _keep(self, sha256: str, scanner: str, answer: ScanAnswer) -> None:
        if self._answers is not None and sha256:
            with suppress(LedgerLost):  # the next user of the ledger reports it
                self._answers.keep(sha256, scanner, answer)


def _remembered(
    settings: ScannerSettings, known: tuple[datetime, ScanAnswer] | None
) -> ScanAnswer | None:
    """Return an earlier answer that still counts."""
    if known is None:
        return None
    at, answer = known
    hit = settings.rule.is_hit(answer)
    return answer if is_known(at, utcnow(), age=settings.cache, hit=hit) else None


def decisive(findings: Iterable[ScanFinding]) -> ScanProblem | None:
    """Return the problem that decides: a hit before a scanner that does not answer."""
    problems = [each.problem for each in findings if each.problem is not None]
    return min(problems, key=lambda each: each.code == UNSCANNED, default=None)
