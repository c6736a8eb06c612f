"""Sessions that wait for work: woken by it, and one of them by whoever needs room."""

import asyncio

from drainer.delivery.message_claims import MessageClaims
from drainer.delivery.ready_queue import ReadyQueue

LONG, NEVER = 20.0, 0.05


def test_one_that_waits_is_dismissed_and_the_others_wait_on() -> None:
    """The first to wait goes; nobody goes when nobody was waiting."""

    async def body() -> list[bool]:
        ready_queue = ReadyQueue(10, MessageClaims())
        ready_queue.dismiss_one()  # nobody waits
        waiting = [
            asyncio.create_task(ready_queue.take(LONG, fresh=True)) for _ in range(3)
        ]
        await asyncio.wait(waiting, timeout=NEVER)
        ready_queue.dismiss_one()
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [None]
        await asyncio.wait(waiting, timeout=NEVER)
        states = [task.done() for task in waiting]
        ready_queue.close()
        assert await asyncio.gather(*waiting) == [None] * 3
        return states

    assert asyncio.run(body()) == [True, False, False]
