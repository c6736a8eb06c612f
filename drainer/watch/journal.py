"""How a watch reports what happens: a log line, a status, a decision in the ledger."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from datetime import datetime

from drainer.errors import LedgerError
from drainer.ledger.records import WATCH_ENDED, Decision, DecisionKind, to_micros
from drainer.ledger.watch_log import WatchLog
from drainer.mail.reply import printable
from drainer.policy.classify.normalize import mask_reply
from drainer.policy.pacing.overrides import Override
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
        #: The state that it is in, as the record of the next change has it.
        self._period: dict[str, object] = {"from": ""}
        #: The drains that have run in that state.
        self._runs: list[str] = []
        self._unwritten: deque[Decision] = deque(maxlen=MAX_UNWRITTEN)
        self._complaint = ""
        #: Of the last check, without what differs each time; None before the first.
        self._outcome: str | None = None

    def record_change(self, watch: WatchStatus, run: str) -> None:
        """Report a change of state; ``run`` is the id of the last drain, or ''."""
        until = ""
        if watch.until is not None:
            until = f", until {wall(watch.until).isoformat(' ', 'seconds')}"
        why = printable(watch.why, MAX_WHY)  # it may contain a peer's text
        _log.info(f"watch {watch.state}: {why}{until}")
        self._notifier.status(f"{watch.state}: {why}{until}")
        if run:
            self._runs.append(run)
        evidence: dict[str, object] = {"why": watch.why, "route": self._route}
        if watch.until is not None:
            evidence["until"] = watch.until.isoformat()
        if run:
            evidence["run"] = run
        self._note(f"watch-{watch.state}", self._period | evidence)
        self._runs = []
        self._period = {
            "from": watch.state.value,
            "since": to_micros(utcnow()),
            "reason": watch.why,
            "runs": self._runs,
        }

    def record_end(self) -> None:
        """Report the end."""
        self._note(WATCH_ENDED, self._period | {"route": self._route})

    def record_overrides(self, overrides: Iterable[Override]) -> None:
        """Report hooks, pauses and rates that were given, a line for each."""
        for each in overrides:
            _log.info(printable(str(each), MAX_WHY))

    def report_check(self, problem: str) -> None:
        """Report the outcome of a check if it has changed; '' means healthy."""
        outcome = mask_reply(problem)
        if outcome == self._outcome:
            return
        self._outcome = outcome
        if problem:
            _log.warning(f"the primary is not ready: {printable(problem, MAX_WHY)}")
        else:
            _log.info("the primary passes the check")

    def complain(self, text: str) -> None:
        """Report a fault once, not at every check; '' means that it is gone."""
        if text and text != self._complaint:
            _log.warning(text)
        self._complaint = text

    async def write(self, watch_log: WatchLog) -> None:
        """Write the queued reports into the ledger."""
        while self._unwritten:
            try:
                await asyncio.to_thread(watch_log.note, self._unwritten[0])
            except LedgerError as error:
                self.complain(str(error))
                return
            self._unwritten.popleft()

    def _note(self, rule: str, evidence: dict[str, object]) -> None:
        self._unwritten.append(
            Decision(at=utcnow(), kind=DecisionKind.WATCH, rule=rule, evidence=evidence)
        )
