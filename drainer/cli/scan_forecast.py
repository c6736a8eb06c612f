"""What the scanners of ``[scan]`` would say of the messages that a plan counts."""

import asyncio
from collections import Counter
from typing import Any

from drainer.cli.output import clean, stdout
from drainer.cli.table import Table
from drainer.config import Config
from drainer.delivery.build import make_scanners
from drainer.delivery.content_scan.protocol import ScanRequest
from drainer.delivery.content_scan.screen import ContentScreen, decisive
from drainer.errors import UsageError
from drainer.mail.message import UNSCANNED, ScanProblem
from drainer.policy.admission.selection import Choice
from drainer.policy.recipient.delivery import ScannedMessage

BATCH = 100
"""Messages that wait for the scanners' limits of concurrency together."""
MOST_ROWS = 30


class ScanForecast:
    """Asks all scanners about messages, and counts what they would hold.

    It writes no answer into the ledger, and uses none from there.
    """

    def __init__(self, config: Config, choice: Choice) -> None:
        """Ask nothing yet; UsageError without a scanner."""
        scanners = make_scanners(config)
        if not scanners:
            message = "--scan needs a scanner, and none is configured"
            raise UsageError(message, hint="add a [scan.NAME] table: docs/scan.md")
        if choice.order is not None:
            message = "--scan does not go with --order: a sorted list has no contents"
            raise UsageError(message, hint="leave out --order")
        self._screen = ContentScreen(scanners, None)
        self._runner = asyncio.Runner()
        self._batch: list[ScanRequest] = []
        self.asked = 0
        #: Messages by rule.
        self.held: Counter[str] = Counter()
        #: Messages by rule and symbol; what has no symbols counts by its verdict.
        self.symbols: Counter[tuple[str, str]] = Counter()
        #: Why scanners gave no answer.
        self.failures: Counter[str] = Counter()

    def add(self, scanned: ScannedMessage, recipients: tuple[str, ...]) -> None:
        """Count a message that a drain would try for these recipients."""
        if scanned.facts is None or not recipients:
            return
        self._batch.append(
            ScanRequest(
                message=scanned.spooled.message,
                recipients=recipients,
                content=scanned.spooled.content,
                size=scanned.facts.size_bytes,
            )
        )
        if len(self._batch) >= BATCH:
            self._ask()

    def end(self) -> None:
        """Ask about the last ones."""
        self._ask()
        self._runner.close()

    def _ask(self) -> None:
        self.asked += len(self._batch)
        for problem in self._runner.run(self._problems()):
            if problem.code == UNSCANNED:
                self.failures[problem.detail] += 1
                continue
            self.held[problem.code] += 1
            facts: dict[str, Any] = dict(problem.evidence)
            found = facts.get("symbols") or [facts.get("found", "the score")]
            self.symbols.update((problem.code, each) for each in found)
        self._batch.clear()

    async def _problems(self) -> list[ScanProblem]:
        findings = await asyncio.gather(*map(self._screen.examine, self._batch))
        return [found for each in findings if (found := decisive(each)) is not None]

    def facts(self) -> dict[str, Any]:
        """Return it as JSON for scripts."""
        symbols: dict[str, dict[str, int]] = {}
        for (rule, symbol), count in self.symbols.most_common():
            symbols.setdefault(rule, {})[symbol] = count
        return {
            "scanned": self.asked,
            "held": dict(self.held),
            "symbols": symbols,
            "unscanned": dict(self.failures),
        }

    def show(self) -> None:
        """Print it for people."""
        console, held = stdout(), self.held.total()
        console.print(f"scanners would hold {held} of {self.asked} messages")
        for reason, count in self.failures.most_common(MOST_ROWS):
            console.print(f"[yellow]{count} would wait: {clean(reason)}[/]")
        if not self.symbols:
            return
        rows = Table("rule", "symbol", "messages")
        for (rule, symbol), count in self.symbols.most_common(MOST_ROWS):
            rows.add(rule, clean(symbol), str(count))
        rows.end()
