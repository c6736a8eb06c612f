"""How a watch reports what happens: a log line, a status, a decision in the ledger."""

import asyncio
import logging
from collections import deque
from datetime import datetime

from drainer.errors import LedgerError
from drainer.ledger.records import WATCH_ENDED, Decision, DecisionKind, to_micros
from drainer.ledger.watch_log import WatchLog
from drainer.mail.reply import printable
from drainer.policy.watch.machine import WatchStatus
from drainer.runtime.process import utcnow
from drainer.watch.systemd import Notifier

MAX_UNWRITTEN = 1000
MAX_WHY = 300

_log = logging.getLogger(__name__)


def wall(moment: datetime) -> datetime:
    """Return the local time that the clock of this host shows."""
    return moment.astimezone()


class Journal:
    """Reports, and never fails: what cannot be written yet waits."""

    def __init__(self, route: str, notifier: Notifier) -> None:
        """Report about the watch of a route, which starts now."""
        self.began = utcnow()
        self._route = route
        self._notifier = notifier
        self._unwritten: deque[Decision] = deque(maxlen=MAX_UNWRITTEN)
        self._complaint = ""

    def moved(self, before: WatchStatus | None, watch: WatchStatus, run: str) -> None:
        """Report a change of state; ``run`` is the id of the drain that runs, or ''."""
        until = f", until {wall(watch.until):%a %H:%M:%S}" if watch.until else ""
        why = printable(watch.why, MAX_WHY)  # it may contain a peer's text
        _log.info(f"watch {watch.state}: {why}{until}")
        self._notifier.status(f"{watch.state}: {why}{until}")
        evidence: dict[str, object] = {
            "from": before.state.value if before else "",
            "why": watch.why,
            "route": self._route,
        }
        if watch.until is not None:
            evidence["until"] = watch.until.isoformat()
        if run:
            evidence["run"] = run
        self._note(f"watch-{watch.state}", evidence)

    def ended(self) -> None:
        """Report the end."""
        self._note(WATCH_ENDED, {"started": to_micros(self.began)})

    def complain(self, text: str) -> None:
        """Report a fault once, not at every check; '' means that it is gone."""
        if text and text != self._complaint:
            _log.warning(text)
        self._complaint = text

    async def write(self, diary: WatchLog) -> None:
        """Write the queued reports into the ledger."""
        while self._unwritten:
            try:
                await asyncio.to_thread(diary.note, self._unwritten[0])
            except LedgerError as error:
                self.complain(str(error))
                return
            self._unwritten.popleft()

    def _note(self, rule: str, evidence: dict[str, object]) -> None:
        self._unwritten.append(
            Decision(at=utcnow(), kind=DecisionKind.WATCH, rule=rule, evidence=evidence)
        )
