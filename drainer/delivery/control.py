"""How a drain ends: in order, whichever part finds out that it must."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from drainer.errors import DrainerError, LedgerLost
from drainer.ledger.records import Decision, DecisionKind
from drainer.runtime.host_limits import limit_behind
from drainer.runtime.process import utcnow

MAX_DEFECTS = 3


class Closable(Protocol):
    """A part of a drain that starts nothing more once it is closed."""

    def close(self) -> None:
        """Start nothing more; called any number of times."""


class DrainControl:
    """Ends one drain in order, and writes its decisions down."""

    def __init__(self, note: Callable[[Decision], object]) -> None:
        """Keep ``note``, which gives the ledger a decision; it may raise LedgerLost."""
        self._note = note
        #: Evidence of every decision.
        self._known: dict[str, object] = {}
        self._parts: list[Closable] = []
        #: How many failures of our own have happened.
        self.defects = 0
        self._closed = False
        #: What ended the drain, unless it ended by itself.
        self.error: Exception | None = None

    @property
    def ends(self) -> bool:
        """Whether the whole drain starts nothing more."""
        return self._closed

    def add(self, *parts: Closable) -> None:
        """Close these parts too when the drain ends."""
        self._parts += parts

    def for_route(self, name: str) -> "RouteControl":
        """Return the control of one route, which ends with the drain."""
        control = RouteControl(self, self._note, name)
        self.add(control)
        return control

    def close(self) -> None:
        """End the drain in order: sessions finish their message, nothing new starts."""
        self._closed = True
        for part in self._parts:
            part.close()

    def fail(self, error: Exception) -> None:
        """End the drain because of an error; keep the first one."""
        if self.error is None:
            self.error = error
        self.close()

    def count_defect(self, error: Exception) -> None:
        """Count a failure of our own; the third ends the drain."""
        self.defects += 1
        if self.defects >= MAX_DEFECTS:
            self.fail(error)

    def record(
        self,
        kind: DecisionKind,
        rule: str,
        evidence: Mapping[str, object],
        *,
        verdict: str = "",
        reply: str = "",
    ) -> None:
        """Record a decision that is made now."""
        decision = Decision(
            at=utcnow(),
            kind=kind,
            rule=rule,
            verdict=verdict,
            reply=reply,
            evidence={**self._known, **evidence},
        )
        try:
            self._note(decision)
        except LedgerLost as error:
            self.fail(error)

    async def guard(self, task: Coroutine[Any, Any, None]) -> None:
        """Run a side task; its failure ends the drain in order, not at once.

        So does a limit of this host that it meets.
        """
        try:
            await task
        except DrainerError as error:
            self.fail(error)
        except OSError as error:
            limit = limit_behind(error)
            if limit is None:
                raise
            self.fail(limit)


class RouteControl(DrainControl):
    """Ends one route of a drain in order; an error ends the whole drain."""

    def __init__(
        self, drain: DrainControl, note: Callable[[Decision], object], name: str
    ) -> None:
        """End ``drain`` when something fails; decisions have the ``name``."""
        super().__init__(note)
        self._drain = drain
        self._known = {"route": name}

    @property
    def ends(self) -> bool:
        """Whether the whole drain starts nothing more, not only this route."""
        return self._drain.ends

    def fail(self, error: Exception) -> None:
        """End the drain because of an error."""
        self._drain.fail(error)

    def count_defect(self, error: Exception) -> None:
        """Count a failure of our own; the third ends the drain."""
        self._drain.count_defect(error)
