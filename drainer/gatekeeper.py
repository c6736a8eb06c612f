"""The gate while a drain runs: which lane may open a session, which one waits.

The decisions are drainer.policy.gate's; this holds the current gate, wakes those
who wait for it, and writes every move into the ledger.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from drainer.ledger import Decision, Kind
from drainer.mail.envelope import domain_of
from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy import gate as gates
from drainer.policy.classify import classify
from drainer.policy.gate import Gate, GateState
from drainer.policy.settle import Settlement
from drainer.process import utcnow
from drainer.smtp.connect import Failed

SOON = timedelta(milliseconds=50)


class Gatekeeper:
    """Keeps the gate of one route."""

    def __init__(
        self, pauses: tuple[timedelta, ...], note: Callable[[Decision], None]
    ) -> None:
        """Start closed: mail flows. ``note`` writes a decision down."""
        self.gate = Gate(pauses=pauses)
        self._note = note
        self._moved = asyncio.Event()
        #: The lane that probes.
        self._prober: asyncio.Task[Any] | None = None

    @property
    def flowing(self) -> bool:
        """Whether sessions may begin another message."""
        return self.gate.state in (GateState.CLOSED, GateState.PROBING)

    @property
    def refuses(self) -> bool:
        """Whether the gate is open: the primary refuses us."""
        return self.gate.state is GateState.OPEN

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait(self, limit: timedelta) -> None:
        """Wait until the gate moves, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit.total_seconds()):
                await self._moved.wait()

    def ask(self, now: datetime) -> timedelta | None:
        """Return None when a lane may pass now, else how long to wait.

        While probing only one lane passes; ``leave`` ends its turn.
        """
        self.gate = gates.probe(self.gate, now)
        if self.gate.state is GateState.CLOSED:
            return None
        if self.gate.state is GateState.PROBING and self._prober is None:
            self._prober = asyncio.current_task()
            return None
        return max((self.gate.until or now) - now, SOON)

    def leave(self) -> None:
        """End the turn of a lane that had passed."""
        if self._prober is asyncio.current_task():  # not of one that passed before
            self._prober = None
            self.wake()

    def give_up(self) -> None:
        """Open the gate: waiting has lasted too long."""
        self._take(gates.give_up(self.gate))

    # --- what happened

    def not_connected(self, failed: Failed) -> None:
        """Judge why a session could not be opened."""
        step = failed.steps[-1]
        self._failed(step.stage, step.answer)

    def dropped(self, loss: Lost) -> None:
        """Judge a session that the primary ended before it answered any MAIL."""
        self._failed(Stage.EHLO, loss)

    def _failed(self, stage: Stage, answer: Reply | Lost) -> None:
        judgement = classify(answer, stage)
        self._note(
            Decision(
                at=utcnow(),
                kind=Kind.CONNECTION,
                rule=judgement.rule,
                verdict=judgement.verdict.value,
                reply=str(answer),
                evidence={"reason": judgement.reason, "stage": stage.value},
            )
        )
        reply = f"{stage}: {answer}"
        self._take(gates.refused_early(self.gate, judgement, reply, utcnow()))

    def succeeded(self) -> None:
        """Take note that a message was accepted."""
        self._take(gates.succeeded(self.gate))

    def settled(self, settlements: tuple[Settlement, ...], reverse_path: str) -> None:
        """See whether an attempt that ended met a refusal meant for us."""
        for settlement in settlements:
            judgement = settlement.judgement
            if gates.is_stop(judgement):
                moved = gates.stopped(
                    self.gate,
                    judgement,
                    settlement.reply,
                    sender_domain=domain_of(reverse_path),
                    now=utcnow(),
                )
                self._take(moved)
                return

    def _take(self, moved: Gate) -> None:
        before, self.gate = self.gate, moved
        if moved.state is before.state and moved.until == before.until:
            return
        if moved.state is not GateState.PROBING:
            self._prober = None
        self.wake()
        judgement = moved.judgement
        self._note(
            Decision(
                at=utcnow(),
                kind=Kind.GATE,
                rule=f"gate-{moved.state}",
                verdict="" if moved.state is GateState.CLOSED else "stop",
                reply=moved.reply,
                evidence={
                    "reason": judgement.reason if judgement else "",
                    "failures": moved.failures,
                },
            )
        )
