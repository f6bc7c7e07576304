"""Gates and limits: who is let in, in which order, and that no place is lost."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable

import pytest

import proc_sandbox as ps
from proc_sandbox import aio
from proc_sandbox.aio.admission import Gate, gate, limits_around
from proc_sandbox.aio.apart import Apart, apart, patiently
from proc_sandbox.aio.runs import take


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """A test that is a coroutine."""

    def run() -> None:
        async def main() -> None:
            await test()

        asyncio.run(main(), debug=True)

    run.__doc__, run.__name__ = test.__doc__, getattr(test, "__name__", "test")
    return run


async def rounds(count: int = 5) -> None:
    """Let the loop do what it has to do."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_limit_is_what_its_n_and_name_are_and_nothing_else() -> None:
    assert aio.limit(3) == aio.limit(3)
    assert len({aio.limit(3), aio.limit(3), aio.limit(3, "a"), aio.limit(4)}) == 3
    assert aio.limit(3) != (3, "")
    with pytest.raises(AttributeError):
        aio.limit(3).n = 4  # type: ignore[misc]


@in_loop
async def test_no_more_than_its_size_and_in_the_order_of_their_coming() -> None:
    door = Gate(asyncio.get_running_loop(), lambda: 2)
    came: list[int] = []

    async def one(number: int, end: asyncio.Event) -> None:
        await door.enter()
        came.append(number)
        await end.wait()
        door.leave()

    ends = [asyncio.Event() for _ in range(5)]
    tasks = [asyncio.create_task(one(number, end)) for number, end in enumerate(ends)]
    await rounds()
    assert came == [0, 1]
    ends[1].set()
    await rounds()
    assert came == [0, 1, 2]
    late = asyncio.create_task(one(9, ends[4]))
    for end in ends:
        end.set()
    await asyncio.gather(*tasks, late)
    assert came == [0, 1, 2, 3, 4, 9]
    assert door.inside == 0


@in_loop
async def test_who_waits_and_is_cancelled_leaves_the_queue() -> None:
    door = Gate(asyncio.get_running_loop(), lambda: 1)
    await door.enter()
    first, second = (asyncio.create_task(door.enter()) for _ in range(2))
    await rounds()
    first.cancel()
    await rounds()
    door.leave()
    await second
    assert door.inside == 1
    assert not door.queue


@pytest.mark.parametrize("cancelled_first", [True, False])
def test_a_place_that_is_given_to_somebody_who_is_cancelled_goes_on(*, cancelled_first: bool) -> None:
    async def main() -> None:
        door = Gate(asyncio.get_running_loop(), lambda: 1)
        await door.enter()
        first, second = (asyncio.create_task(door.enter()) for _ in range(2))
        await rounds()
        for act in (first.cancel, door.leave) if cancelled_first else (door.leave, first.cancel):
            act()  # in one round of the loop
        await second
        assert first.cancelled()
        assert door.inside == 1
        door.leave()
        await door.enter()

    asyncio.run(main())


@in_loop
async def test_a_size_that_grows_lets_more_in() -> None:
    sizes = [1]
    door = Gate(asyncio.get_running_loop(), lambda: sizes[-1])
    await door.enter()
    waiting = [asyncio.create_task(door.enter()) for _ in range(3)]
    await rounds()
    sizes.append(3)
    door.leave()
    await rounds()
    assert [task.done() for task in waiting] == [True, True, True]


@in_loop
async def test_each_who_leaves_lets_in_one() -> None:
    """And the loop does what else it has to do before the next one has its turn."""
    door = Gate(asyncio.get_running_loop(), lambda: 1)
    came: list[str] = []

    async def one() -> None:
        await door.enter()
        came.append("one")
        door.leave_soon()

    async def other() -> None:
        for _ in range(6):
            came.append("other")
            await asyncio.sleep(0)

    await asyncio.gather(other(), *(one() for _ in range(3)))
    assert "one one" not in " ".join(came)
    assert came.count("one") == 3


@in_loop
async def test_limits_of_one_n_and_name_are_one() -> None:
    async def inside(limit: aio.Limit) -> list[Gate]:
        places: list[Gate] = []
        async with limit:
            await take(places)
        return places

    first, second, other = [await inside(limit) for limit in (aio.limit(3), aio.limit(3), aio.limit(3, "other"))]
    assert first[0] is second[0]
    assert other[0] is not first[0]
    assert first[-1] is other[-1]  # the loop's own
    assert first[0].inside == 2


@in_loop
async def test_limits_are_inherited_by_tasks_and_end_with_their_block() -> None:
    async def around() -> list[aio.Limit]:
        return limits_around()

    async with aio.limit(3), aio.limit(2, "inner"):
        assert limits_around() == [aio.limit(2, "inner"), aio.limit(3)]
        assert await asyncio.create_task(around()) == limits_around()
        async with aio.limit(3):
            assert len(limits_around()) == 2
        assert len(limits_around()) == 2
    assert not limits_around()
    assert await asyncio.create_task(around()) == []


def test_one_object_serves_any_number_of_tasks_and_loops() -> None:
    limit = aio.limit(1)

    async def main() -> int:
        under_way, most = 0, 0

        async def one() -> None:
            nonlocal under_way, most
            places: list[Gate] = []
            async with limit:
                await take(places)
                under_way += 1
                most = max(most, under_way)
                await rounds()
                under_way -= 1
                for place in places:
                    place.leave()

        await asyncio.gather(*(one() for _ in range(10)))
        return most

    assert [asyncio.run(main()) for _ in range(2)] == [1, 1]


@in_loop
async def test_places_are_taken_in_one_order_for_all() -> None:
    """Who would take them in the order of its blocks could wait for somebody who waits for it."""

    async def one(*limits: aio.Limit) -> None:
        async with limits[0], limits[1]:
            for _ in range(20):
                places: list[Gate] = []
                await take(places)
                await rounds(1)
                for place in places:
                    place.leave()

    a, b = aio.limit(1, "a"), aio.limit(1, "b")
    await asyncio.gather(one(a, b), one(b, a))


@in_loop
async def test_gates_are_there_as_long_as_somebody_uses_them() -> None:
    first = gate("test", lambda: 1)
    assert gate("test", lambda: 2) is first
    del first
    assert gate("test", lambda: 2).size() == 2


@pytest.mark.parametrize("n", [0, -1, 1.5, "8", None, True])
def test_a_limit_is_a_whole_number_from_1(n: object) -> None:
    with pytest.raises(ps.ConfigError, match="limit: .*whole number"):
        aio.limit(n)  # type: ignore[arg-type]


def test_its_name_is_a_str() -> None:
    with pytest.raises(ps.ConfigError, match="name"):
        aio.limit(1, name=2)  # type: ignore[arg-type]


# --- calls in threads ---


@in_loop
async def test_what_a_call_returns_or_raises_arrives() -> None:
    assert await apart(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await apart(lambda: 1 // 0)


@in_loop
async def test_a_call_has_the_tasks_context() -> None:
    variable = contextvars.ContextVar("variable", default="")
    variable.set("mine")
    assert await apart(variable.get) == "mine"


@in_loop
async def test_who_is_cancelled_waits_for_the_call_and_has_its_value_undone() -> None:
    loop, begun, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    undone: list[int] = []

    def call() -> int:
        loop.call_soon_threadsafe(begun.set)
        go.wait()
        return 7

    task = asyncio.create_task(apart(call, undone.append))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await rounds()
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == [7]


@pytest.mark.parametrize("returned", [True, False])
def test_what_nobody_waits_for_any_more_is_undone_once(*, returned: bool) -> None:
    """A task that is thrown away: whoever of both comes last undoes."""
    go, undone = threading.Event(), threading.Event()
    values: list[int] = []

    def undo(value: int) -> None:
        values.append(value)
        undone.set()

    async def main() -> None:
        job = Apart(lambda: go.wait() and 7, undo)
        if returned:
            go.set()
            job.thread.join()
        job.abandon()
        go.set()
        job.thread.join()

    asyncio.run(main())
    assert undone.wait(60)
    assert values == [7]


@in_loop
async def test_patience_outlasts_any_number_of_cancellations() -> None:
    event = asyncio.Event()
    task = asyncio.create_task(patiently(event))
    for _ in range(3):
        await rounds()
        task.cancel()
    await rounds()
    assert not task.done()
    event.set()
    with pytest.raises(asyncio.CancelledError):
        await task
