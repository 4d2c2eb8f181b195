"""Places at an upstream: taken, waited for in turn, given up."""

from __future__ import annotations

import asyncio

from lumeproxy.proxy.slots import Slots
from tests.support.calls import until

LONG = {"wait_ms": 10_000, "queue_calls": 10}


async def test_without_a_limit_there_is_always_a_place() -> None:
    slots = Slots(0)

    assert [await slots.enter(**LONG) for _ in range(1_000)] == [True] * 1_000
    assert slots.running == 1_000


async def test_places_are_given_in_the_order_of_asking() -> None:
    slots, order = Slots(2), []
    assert await slots.enter(**LONG)
    assert await slots.enter(**LONG)

    async def call(number: int) -> None:
        assert await slots.enter(**LONG)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(call(number))
        await until(lambda: slots.waiting == 5)
        for _ in range(5):
            assert not slots.free()
            slots.leave()
            assert slots.running == 2, "the place goes to the next in turn"
    assert order == [0, 1, 2, 3, 4]


async def test_nobody_overtakes_the_queue() -> None:
    slots = Slots(1)
    await slots.enter(**LONG)
    first = asyncio.ensure_future(slots.enter(**LONG))
    await until(lambda: slots.waiting == 1)
    slots.limit = 5

    assert not slots.free()
    slots.leave()
    assert await first
    assert slots.free()


async def test_who_waits_too_long_or_finds_the_queue_full_gets_none() -> None:
    slots = Slots(1)
    await slots.enter(**LONG)

    assert not await slots.enter(wait_ms=1, queue_calls=1)
    assert not await slots.enter(wait_ms=0, queue_calls=1)
    waiting = asyncio.ensure_future(slots.enter(**LONG))
    await until(lambda: slots.waiting == 1)
    assert not await slots.enter(wait_ms=10_000, queue_calls=1)
    assert (slots.running, slots.waiting) == (1, 1)
    slots.leave()
    assert await waiting


async def test_a_cancelled_call_leaves_the_queue_and_loses_no_place() -> None:
    slots = Slots(1)
    await slots.enter(**LONG)
    waiting = [asyncio.ensure_future(slots.enter(**LONG)) for _ in range(3)]
    await until(lambda: slots.waiting == 3)
    waiting[0].cancel()
    slots.leave()  # to the first, which has been cancelled in this very moment
    await asyncio.gather(*waiting[:1], return_exceptions=True)

    assert waiting[0].cancelled()
    assert await waiting[1]
    assert (slots.running, slots.waiting) == (1, 1)
    slots.leave()
    assert await waiting[2]
    slots.leave()
    assert (slots.running, slots.waiting) == (0, 0)
