"""Endless work beside a block: begun, cancelled at its end, and its bugs told alone."""

from __future__ import annotations

import asyncio

import pytest

from lumeproxy.background import background


async def test_the_work_begins_with_the_block_and_is_cancelled_at_its_end() -> None:
    begun, ended = asyncio.Event(), []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with background(work(), work()):
        await asyncio.wait_for(begun.wait(), 5)
        assert ended == []
    assert ended == [True, True]


async def test_a_bug_in_it_ends_the_block_as_itself() -> None:
    async def bug() -> None:
        raise ValueError("it")

    with pytest.raises(ValueError, match="^it$"):
        async with background(bug()):
            await asyncio.wait_for(asyncio.Event().wait(), 5)


async def test_what_ends_the_block_is_told_alone_too() -> None:
    with pytest.raises(KeyError, match="it"):
        async with background(asyncio.Event().wait()):  # type: ignore[arg-type]
            raise KeyError("it")
