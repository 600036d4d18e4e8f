"""What would touch the world raises a clear error in workflow code."""

import asyncio
import signal
from typing import Any

import pytest
from tests.unit.drive import Run

from perdure import errors, workflow


def caught(make):
    """Return the error a workflow gets from ``make()``, which may be awaitable."""

    @workflow.define
    async def wf():
        try:
            made = make()
            if asyncio.iscoroutine(made) or asyncio.isfuture(made):
                await made
        except errors.UsageError as exc:
            return str(exc)

    return Run(wf).result


def loop() -> Any:
    return asyncio.get_running_loop()


async def nobody(*_args):
    """Stand in for a callback or protocol; never called."""


FORBIDDEN = {
    "to_thread": lambda: asyncio.to_thread(print),
    "run_in_executor": lambda: loop().run_in_executor(None, print),
    "set_default_executor": lambda: loop().set_default_executor(None),
    "open_connection": lambda: asyncio.open_connection("localhost", 80),
    "create_connection": lambda: loop().create_connection(nobody, "localhost", 80),
    "start_server": lambda: asyncio.start_server(nobody, "localhost", 80),
    "create_datagram_endpoint": lambda: loop().create_datagram_endpoint(nobody),
    "unix": lambda: loop().create_unix_connection(nobody, "/nowhere"),
    "subprocess": lambda: asyncio.create_subprocess_exec("true"),
    "shell": lambda: asyncio.create_subprocess_shell("true"),
    "getaddrinfo": lambda: loop().getaddrinfo("localhost", 80),
    "sock_recv": lambda: loop().sock_recv(None, 1),
    "add_reader": lambda: loop().add_reader(0, print),
    "add_signal_handler": lambda: loop().add_signal_handler(signal.SIGINT, print),
    "remove_signal_handler": lambda: loop().remove_signal_handler(signal.SIGINT),
    "call_soon_threadsafe": lambda: loop().call_soon_threadsafe(print),
    "run_forever": lambda: loop().run_forever(),
    "close": lambda: loop().close(),
    "set_task_factory": lambda: loop().set_task_factory(None),
    "set_exception_handler": lambda: loop().set_exception_handler(None),
    "set_debug": lambda: loop().set_debug(True),
    "shutdown_asyncgens": lambda: loop().shutdown_asyncgens(),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_it_cannot_be_used_in_workflow_code(name):
    assert caught(FORBIDDEN[name]).endswith(
        "cannot be used in workflow code: it would not replay. Do it in an activity and await that"
    )


def test_the_error_names_what_was_asked_for():
    assert caught(FORBIDDEN["to_thread"]).startswith("to_thread and executors cannot")
    assert caught(FORBIDDEN["add_signal_handler"]).startswith("add_signal_handler cannot")


def test_no_method_of_an_event_loop_is_left_out():
    stock = {name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")}
    from perdure.kernel.loop import DeterministicLoop

    assert all(name in vars(DeterministicLoop) for name in stock)


def test_a_forbidden_call_that_is_not_caught_is_an_unexpected_error():
    @workflow.define
    async def wf():
        await asyncio.to_thread(print)

    run = Run(wf)
    assert isinstance(run.unexpected, errors.UsageError)
    assert "to_thread" in run.failure.message


@pytest.mark.parametrize(
    "call",
    [
        workflow.now,
        workflow.uuid4,
        workflow.random,
        workflow.info,
        workflow.history_length,
        workflow.inbox,
        workflow.events,
        lambda: workflow.listen("x"),
        lambda: workflow.random_bytes(3),
        lambda: workflow.version("x", 1, 2),
        lambda: workflow.patched("x"),
        lambda: workflow.call("a"),
        lambda: workflow.query("q")(print),
        lambda: workflow.update("u")(print),
    ],
)
def test_outside_a_workflow_these_say_that_they_belong_inside(call):
    with pytest.raises(errors.UsageError, match="only be called in workflow code"):
        call()


@pytest.mark.parametrize(
    "make",
    [
        lambda: workflow.sleep(1),
        lambda: workflow.send("a", "b"),
        lambda: workflow.attrs(memo={"a": 1}),
        lambda: workflow.progress(1),
        lambda: workflow.emit("e"),
        lambda: workflow.start("child"),
        lambda: workflow.execute("child"),
        lambda: workflow.wait_condition(lambda: True),
        lambda: workflow.continue_as_new(),
        lambda: workflow.handle("x").cancel(),
    ],
)
def test_outside_a_workflow_awaiting_these_says_that_they_belong_inside(make):
    with pytest.raises(errors.UsageError, match="only be called in workflow code"):
        make().send(None)


def test_stock_asyncio_is_untouched_outside_workflows():
    async def real():
        lock, gate, condition = asyncio.Lock(), asyncio.Semaphore(1), asyncio.Condition()

        async def one(number):
            async with lock, gate:
                await asyncio.sleep(0)  # sleep: the real loop's
            return number

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            task = group.create_task(one(0))
        waiting = asyncio.create_task(wait(condition))
        await asyncio.sleep(0)  # sleep: the real loop's
        async with condition:
            condition.notify()
        got = [await waiting, task.result(), await asyncio.wait_for(one(1), 5)]
        got += await asyncio.gather(one(2), asyncio.ensure_future(one(3)))
        got += sorted([await done for done in asyncio.as_completed([one(4), one(5)])])
        assert asyncio.current_task() in asyncio.all_tasks()
        return got

    async def wait(condition):
        async with condition:
            return await condition.wait()

    assert asyncio.run(real()) == [True, 0, 1, 2, 3, 4, 5]
