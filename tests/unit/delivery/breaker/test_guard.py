"""Which lane may open a session: all of them, one that probes, or none."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drainer.delivery.breaker.guard import BreakerGuard
from drainer.delivery.control import DrainControl
from drainer.delivery.message_claims import MessageClaims
from drainer.delivery.ready_queue import ReadyQueue
from drainer.mail.reply import Lost
from drainer.policy.breaker import breaker as breakers
from drainer.policy.breaker.breaker import BreakerState
from drainer.policy.breaker.history import ROUTE
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.runtime.process import utcnow
from tests.support.scenarios.virtual_time import run

if TYPE_CHECKING:
    from drainer.ledger.records import Decision

PAUSE = timedelta(minutes=1)


class Lane:
    """One lane: a task of its own that asks, and leaves when it is told to."""

    def __init__(self, breaker_guard: BreakerGuard) -> None:
        """Wait for orders."""
        self._breaker_guard = breaker_guard
        self._orders: asyncio.Queue[Callable[[], object]] = asyncio.Queue()
        self._answers: asyncio.Queue[object] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._live())

    async def _live(self) -> None:
        while True:
            order = await self._orders.get()
            await self._answers.put(order())

    async def _do(self, order: Callable[[], object]) -> object:
        await self._orders.put(order)
        return await self._answers.get()

    async def passes(self, *, later: timedelta = timedelta(0)) -> bool:
        """Ask whether it may pass, at a later time of day."""
        wait = await self._do(lambda: self._breaker_guard.ask(utcnow() + later))
        return wait is None

    async def leave(self) -> None:
        """End its session."""
        await self._do(self._breaker_guard.leave)


class Lanes:
    """A keeper and what it wrote down."""

    def __init__(self) -> None:
        """Start with mail flowing."""
        self.noted: list[Decision] = []
        self.ready_queue = ReadyQueue(1, MessageClaims())
        self.breaker_guard = BreakerGuard(
            (PAUSE,),
            KnownGoodRecipients(),
            DrainControl(self.noted.append),
            self.ready_queue,
        )

    def new(self) -> Lane:
        """Return another lane."""
        return Lane(self.breaker_guard)


def virtually(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test in virtual time."""

    async def body() -> None:
        await test()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    @functools.wraps(test)
    def wrapped() -> None:
        run(body())

    return wrapped


@virtually
async def test_while_mail_flows_every_lane_passes() -> None:
    """The breaker is closed, as the state table calls it."""
    lanes = Lanes()
    assert [await lanes.new().passes() for _ in range(3)] == [True] * 3


@virtually
async def test_after_a_pause_one_lane_probes_and_the_others_wait() -> None:
    """Its success lets everybody pass."""
    lanes = Lanes()
    lanes.breaker_guard.dropped(Lost(reason="closed"), begun=False)
    assert not await lanes.new().passes()
    assert await lanes.new().passes(later=PAUSE)
    assert not await lanes.new().passes(later=PAUSE)
    lanes.breaker_guard.registry.apply(ROUTE, breakers.on_delivery)
    assert await lanes.new().passes()


@virtually
async def test_a_lane_that_passed_before_the_pause_does_not_end_the_probe() -> None:
    """Only the prober's own leaving lets another one probe."""
    lanes = Lanes()
    early, prober = lanes.new(), lanes.new()
    assert await early.passes()
    lanes.breaker_guard.dropped(Lost(reason="closed"), begun=False)
    assert await prober.passes(later=PAUSE)
    await early.leave()
    assert not await lanes.new().passes(later=PAUSE)
    await prober.leave()
    assert await lanes.new().passes(later=PAUSE)


@virtually
async def test_every_move_is_written_down_once() -> None:
    """Sessions that meet the same are one move."""
    lanes = Lanes()
    lanes.breaker_guard.dropped(Lost(reason="timeout"), begun=False)
    lanes.breaker_guard.dropped(Lost(reason="timeout"), begun=False)
    lanes.breaker_guard.registry.apply(ROUTE, breakers.on_delivery)
    rules = [d.rule for d in lanes.noted if d.rule.startswith("breaker-")]
    assert rules == ["breaker-paused", "breaker-closed"]


@virtually
async def test_giving_up_opens_the_breaker_for_good() -> None:
    """Nobody passes any more."""
    lanes = Lanes()
    lanes.breaker_guard.dropped(Lost(reason="timeout"), begun=False)
    lanes.breaker_guard.give_up()
    assert lanes.breaker_guard.refuses
    assert lanes.breaker_guard.breaker.state is BreakerState.OPEN
    assert not await lanes.new().passes()


@virtually
async def test_who_waits_is_woken_when_the_breaker_moves() -> None:
    """Rather than when the time is over."""
    lanes = Lanes()
    waiting = asyncio.ensure_future(lanes.breaker_guard.wait(timedelta(hours=1)))
    await asyncio.sleep(1)
    assert not waiting.done()
    lanes.breaker_guard.dropped(Lost(reason="timeout"), begun=False)
    async with asyncio.timeout(1):
        await waiting


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_waiting_ends_with_its_limit(limit: float) -> None:
    """Also when nothing moves."""

    async def wait() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await Lanes().breaker_guard.wait(timedelta(seconds=limit))
        return loop.time() - start

    assert run(wait()) == pytest.approx(limit, abs=0.01)
