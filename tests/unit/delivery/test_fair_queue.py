"""Domains take turns in the window, and it holds little."""

import asyncio
from datetime import UTC, datetime

from drainer.delivery.fair_queue import HELD_TOGETHER, FairQueue
from drainer.delivery.loader import NOTHING
from drainer.delivery.message_claims import MessageClaims
from drainer.delivery.ready_queue import READY_BYTES, ReadyQueue
from drainer.mail.content import HeldContent
from drainer.mail.envelope import Envelope, Recipient
from drainer.mail.message import Message, SpooledMessage
from drainer.policy.recipient.delivery import ClaimedRecipient, Delivery
from drainer.smtp.transaction import Transaction

NOW = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)


def delivery(name: str, domain: str, content: bytes = b"x") -> Delivery:
    """Return a job for one recipient."""
    message = Message(
        identity=name,
        source="maildir:/spool",
        native_id=name,
        queue="new",
        locator=name,
        arrived=NOW,
        envelope=Envelope(),
    )
    return Delivery(
        message=message,
        seq=1,
        claimed=(
            ClaimedRecipient(n=0, recipient=Recipient(forward_path=f"{name}@{domain}")),
        ),
        spooled=SpooledMessage(message=message, content=HeldContent(content)),
        facts=NOTHING,
    )


async def taken(fair_queue: FairQueue, count: int) -> list[str]:
    """Take so many jobs; return their names."""
    names = []
    for _ in range(count):
        found = await fair_queue.take()
        assert found is not None
        fair_queue.done(found)
        names.append(found.message.id)
    return names


def test_a_domain_with_much_mail_lets_the_others_pass() -> None:
    """Whatever came first."""

    async def test() -> None:
        fair_queue = FairQueue()
        for n in range(100):
            await fair_queue.put(delivery(f"big{n}", "big.example"))
        for name in ("one", "two"):
            await fair_queue.put(delivery(name, "SMALL.example"))
        await fair_queue.put(delivery("other", "other.example"))
        assert await taken(fair_queue, 6) == [
            "big0",
            "one",
            "other",
            "big1",
            "two",
            "big2",
        ]

    asyncio.run(test())


def test_what_has_an_order_keeps_it() -> None:
    """Nobody takes turns then."""

    async def test() -> None:
        fair_queue = FairQueue(fair=False)
        for name, domain in (("a", "x"), ("b", "x"), ("c", "y")):
            await fair_queue.put(delivery(name, domain))
        assert await taken(fair_queue, 3) == ["a", "b", "c"]

    asyncio.run(test())


def test_whoever_puts_waits_while_it_is_full() -> None:
    """What was taken has its place until it is under way."""

    async def test() -> None:
        fair_queue = FairQueue(2)
        await fair_queue.put(delivery("a", "x"))
        await fair_queue.put(delivery("b", "x"))
        assert not fair_queue.is_roomy
        third = asyncio.ensure_future(fair_queue.put(delivery("c", "x")))
        first = await fair_queue.take()
        assert first is not None
        await asyncio.sleep(0)
        assert not third.done()
        fair_queue.done(first)
        await third
        assert await taken(fair_queue, 2) == ["b", "c"]
        assert fair_queue.idle.is_set()

    asyncio.run(test())


def test_contents_beyond_the_limit_are_read_again_later() -> None:
    """A window full of large messages takes no more memory than its limit."""

    async def test() -> None:
        fair_queue, size = FairQueue(), HELD_TOGETHER // 4
        for n in range(6):
            await fair_queue.put(delivery(f"m{n}", "x", bytes(size)))
        kept = []
        for _ in range(6):
            found = await fair_queue.take()
            assert found is not None
            kept.append(found.spooled is not None)
            fair_queue.done(found)
        assert kept == [True] * 4 + [False] * 2
        await fair_queue.put(delivery("next", "x", bytes(size)))
        found = await fair_queue.take()
        assert found is not None
        assert found.spooled is not None

    asyncio.run(test())


def test_the_contents_of_ready_messages_are_limited() -> None:
    """Whoever puts waits until one of them is taken, or returned and taken again."""

    async def test() -> None:
        ready_queue = ReadyQueue(100, MessageClaims())
        large = delivery("m", "x", bytes(READY_BYTES))
        assert large.spooled is not None
        first, second = (
            Transaction(delivery=large, spooled=large.spooled, facts=NOTHING)
            for _ in range(2)
        )
        await ready_queue.put(first)
        putting = asyncio.ensure_future(ready_queue.put(second))
        await asyncio.sleep(0)
        taken = ready_queue.take_now()
        assert taken is first
        ready_queue.put_back(first)
        await asyncio.sleep(0)
        assert not putting.done()
        assert ready_queue.take_now() is first
        await putting
        assert ready_queue.take_now() is second

    asyncio.run(test())


def test_closing_ends_all_waiting() -> None:
    """Nobody hangs when the drain is over."""

    async def test() -> None:
        fair_queue, empty = FairQueue(1), FairQueue()
        await fair_queue.put(delivery("a", "x"))
        putting = asyncio.ensure_future(fair_queue.put(delivery("b", "x")))
        taking = asyncio.ensure_future(empty.take())
        await asyncio.sleep(0)
        for each in (fair_queue, empty):
            each.close()
            assert await each.take() is None
            assert each.idle.is_set()
        await putting
        assert await taking is None

    asyncio.run(test())
