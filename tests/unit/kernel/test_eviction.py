"""Eviction closes every coroutine, records nothing, and nothing runs afterwards (I10)."""

import asyncio
import gc
import logging

import pytest
from tests.unit.drive import Run

from perdure import errors, workflow
from perdure.kernel import eviction
from perdure.values import events as ev
from perdure.workflow import call

LOG: list[str] = []


@pytest.fixture(autouse=True)
def _clean():
    LOG.clear()
    eviction.graveyard.clear()
    yield
    eviction.graveyard.clear()


def evicted(program) -> Run:
    """Start a run, evict it, and let the garbage collector have what is left."""
    run = Run(program)
    run.is_checked = False
    length = run.instance.length
    run.commands.clear()
    run.instance.evict()
    assert run.commands == []
    assert run.instance.length == length
    assert run.instance.loop.ready == type(run.instance.loop.ready)()
    seen = [*LOG]
    gc.collect()
    assert seen == LOG, "something ran after the eviction"
    return run


def test_finally_blocks_run_and_nothing_is_recorded():
    @workflow.define
    async def wf():
        try:
            await call("a")
        finally:
            LOG.append("before")
            try:
                await call("undo")
                LOG.append("after undo")
            finally:
                LOG.append("end")

    evicted(wf)
    assert LOG == ["before", "end"]


def test_user_code_cannot_catch_it_as_an_exception():
    @workflow.define
    async def wf():
        try:
            await workflow.sleep(5)
        except (Exception, asyncio.CancelledError):
            LOG.append("caught")

    evicted(wf)
    assert LOG == []


def test_it_is_thrown_where_each_task_waits():
    @workflow.define
    async def wf():
        async def member(name):
            try:
                await call(name)
            except errors.Evicted:
                LOG.append(name)
                raise

        workflow.spawn(member("spawned"))
        asyncio.create_task(member("forgotten"))
        async with asyncio.TaskGroup() as group:
            group.create_task(member("grouped"))
            await asyncio.gather(member("gathered"), asyncio.wait_for(member("timed"), 5))

    evicted(wf)
    assert sorted(LOG) == ["forgotten", "gathered", "grouped", "spawned", "timed"]


def test_a_task_that_has_not_begun_is_closed_too():
    @workflow.define
    async def wf():
        async def never():
            LOG.append("ran")

        try:
            await workflow.sleep(5)
        finally:
            LOG.append("finally")
            asyncio.create_task(never())
            await asyncio.gather(never(), never())

    evicted(wf)
    assert LOG == ["finally"]


def test_cleanup_through_channels_sends_and_children_is_dropped():
    @workflow.define
    async def wf():
        box = workflow.Channel()
        try:
            await box.receive()
        finally:
            LOG.append("finally")
            await workflow.attrs(memo={"a": 1})
            await workflow.progress(1)
            await workflow.emit("gone")
            workflow.logger.info("gone")
            child = await workflow.start("child")
            LOG.append("started")
            try:
                await workflow.send("order-1", "bye")
            finally:
                await child

    run = evicted(wf)
    assert LOG == ["finally", "started"]
    assert run.instance.effects == []


def test_an_abandoned_async_generator_is_closed_by_the_eviction_only():
    @workflow.define
    async def wf():
        async def numbers():
            try:
                for number in range(10):
                    yield number
            finally:
                LOG.append("closing")
                try:
                    await call("undo")
                finally:
                    LOG.append("closed")

        async for number in numbers():
            if number == 3:
                break
        gc.collect()
        await call("a")

    run = Run(wf)
    assert run.asked == ["activity_scheduled 'a'"]
    run.turn(ev.RunTaken())
    assert LOG == []
    run.instance.evict()
    assert LOG == ["closing", "closed"]
    gc.collect()
    assert LOG == ["closing", "closed"]
    run.is_checked = False


def test_an_async_generator_in_the_middle_of_an_await_is_closed_through_its_user():
    @workflow.define
    async def wf():
        async def outcomes():
            try:
                while True:
                    yield await call("a")
            finally:
                LOG.append("closed")

        async for one in outcomes():
            LOG.append(one)

    evicted(wf)
    assert LOG == ["closed"]


def test_ended_async_generators_are_not_kept():
    @workflow.define
    async def wf():
        async def one():
            yield 1

        for _ in range(200):
            async for _number in one():
                pass
        await call("a")

    run = Run(wf)
    assert len(run.instance.loop.generators) < 50


def test_a_coroutine_that_refuses_to_die_is_buried_and_told(caplog):
    @workflow.define
    async def wf():
        while True:
            try:
                await workflow.sleep(5)
            except errors.Evicted:
                LOG.append("no")

    with caplog.at_level(logging.WARNING, "perdure.kernel"):
        evicted(wf)
    assert len(LOG) == 100
    assert len(eviction.graveyard) == 1
    assert "a coroutine of workflow 'wf' caught its eviction 100 times" in caplog.text


def test_a_generator_that_refuses_to_die_is_buried_too():
    @workflow.define
    async def wf():
        async def numbers():
            while True:
                try:
                    yield 1
                except errors.Evicted:
                    LOG.append("no")

        async for _ in numbers():
            break
        await call("a")

    evicted(wf)
    assert len(eviction.graveyard) == 1


def test_an_error_raised_while_closing_is_dropped():
    @workflow.define
    async def wf():
        try:
            await call("a")
        finally:
            raise ValueError("in cleanup")

    evicted(wf)


def test_timeouts_and_task_groups_in_cleanup_do_no_harm():
    @workflow.define
    async def wf():
        async def undo():
            await call("undo")

        try:
            await call("a")
        finally:
            LOG.append("finally")
            async with asyncio.timeout(5):
                async with asyncio.TaskGroup() as group:
                    group.create_task(undo())

    evicted(wf)
    assert LOG == ["finally"]


def test_an_evicted_run_is_rebuilt_and_goes_on():
    @workflow.define
    async def wf():
        got = []
        for name in "ab":
            try:
                got.append(await call(name))
            finally:
                LOG.append(name)
        return got

    run = Run(wf)
    run.complete("a", 1)
    run.instance.evict()
    run.instance = run.replayed()
    run.complete("b", 2)
    assert run.result == [1, 2]


def test_a_run_that_has_ended_can_be_evicted_with_its_tasks():
    @workflow.define
    async def wf():
        async def beside():
            try:
                await workflow.sleep("1d")
            finally:
                LOG.append("closed")

        workflow.spawn(beside())
        await workflow.sleep(0)
        return 1

    run = Run(wf)
    assert run.result == 1
    run.is_checked = False
    run.instance.evict()
    assert LOG == ["closed"]


def test_evicting_twice_is_evicting_once():
    @workflow.define
    async def wf():
        try:
            await call("a")
        finally:
            LOG.append("finally")

    run = evicted(wf)
    run.instance.evict()
    assert LOG == ["finally"]


def test_a_run_forgotten_without_eviction_is_not_finalised_while_it_is_held():
    @workflow.define
    async def wf():
        async def beside():
            try:
                await workflow.sleep("1d")
            finally:
                LOG.append("ran")

        asyncio.create_task(beside())
        await call("a")

    run = Run(wf)
    gc.collect()
    assert LOG == []
    assert len(run.instance.loop.live_tasks()) == 2
    run.instance.evict()
    run.is_checked = False
