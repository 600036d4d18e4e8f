# pyright: strict
"""What users write, and what the types know about it. Checked, never run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

from perdure import ApplicationError, Client, Engine, Handle, Retry, activity, human, workflow
from perdure.activity import Activity
from perdure.definition import Workflow
from perdure.workflow import After, Channel, ChildHandle, Info, Message, Saga


@dataclass
class Order:
    id: int


@dataclass
class Receipt:
    text: str


# -- activities ----------------------------------------------------------------------------------


@activity.define
async def charge(order: Order, amount: int = 1) -> Receipt:
    activity.heartbeat({"done": 1})
    assert_type(activity.info().attempt, int)
    assert_type(activity.info().idempotency_key, str)
    return Receipt(str(order.id * amount))


@activity.define(retry=Retry(max_attempts=5, interval="1s"), timeout="30s")
async def ship(order: Order) -> str:
    return str(order.id)


@activity.define
def count(words: list[str]) -> int:
    return len(words)


@activity.define(name="db.save", transactional=True, timeout=timedelta(seconds=3))
def save(order: Order) -> None:
    activity.connection().execute("INSERT …", (order.id,))


async def calls() -> None:
    assert_type(await charge(Order(1)), Receipt)
    assert_type(await charge(Order(1), amount=2), Receipt)
    assert_type(await ship(Order(1)), str)
    assert_type(await count(["a"]), int)
    assert_type(await save(Order(1)), None)
    assert_type(await charge.options(timeout="5s", task_queue="fast")(Order(1)), Receipt)
    assert_type(await workflow.call("charge", Order(1)), Any)
    assert_type(await asyncio.gather(charge(Order(1)), ship(Order(2))), tuple[Receipt, str])


def kinds_of_activities(one: Activity[[Order], str]) -> None:
    assert_type(one.name, str)
    assert_type(one.is_async, bool)


# -- workflows -----------------------------------------------------------------------------------


@workflow.define
async def fulfil(order: Order) -> Receipt:
    receipt = await charge(order)
    await workflow.sleep("1h")
    return receipt


@workflow.define(name="orders.count", version="2.0.0", task_queue="fast")
async def count_orders() -> int:
    return 1


@workflow.define
async def with_default(limit: int = 5) -> list[str]:
    return ["x"] * limit


@workflow.define(name="with.options")
async def default_with_options(limit: int = 5) -> int:
    return limit


def kinds_of_workflows() -> None:
    assert_type(fulfil, Workflow[Order, Receipt])
    assert_type(count_orders, Workflow[None, int])
    assert_type(with_default, Workflow[int | None, list[str]])
    assert_type(default_with_options, Workflow[int | None, int])
    assert_type(fulfil.name, str)


@workflow.define
async def everything(order: Order) -> dict[str, Any]:
    assert_type(workflow.now(), datetime)
    assert_type(workflow.uuid4(), UUID)
    assert_type(workflow.random(), float)
    assert_type(workflow.random_bytes(3), bytes)
    assert_type(workflow.info(), Info)
    assert_type(workflow.info().parent_workflow_id, str | None)
    assert_type(workflow.history_length(), int)
    assert_type(workflow.context["tenant"], Any)
    assert_type(workflow.version("change", 1, 2), int)
    assert_type(workflow.patched("change"), bool)

    orders = workflow.listen("order", Order)
    assert_type(orders, Channel[Order])
    assert_type(await orders.receive(timeout="5s"), Order)
    whole = workflow.listen("order", Order, message=True)
    assert_type(whole, Channel[Message])
    message = await whole.receive()
    assert_type(message.sender, str)
    await message.reply("thanks", {"for": message.payload})
    assert_type(workflow.listen("anything"), Channel[Any])
    assert_type(workflow.inbox(), Channel[Message])
    assert_type(workflow.events(), Channel[workflow.Notice])
    async for one in orders:
        assert_type(one, Order)

    numbers: Channel[int] = Channel(3)
    await numbers.send(1)
    moment = workflow.after("5s")
    assert_type(moment, After)
    chosen, value = await workflow.select(numbers, orders, moment)
    assert_type(value, int | Order | None)
    if chosen is numbers:
        print(value)
    assert_type((await workflow.select(numbers, orders))[1], int | Order)
    assert_type((await workflow.select(numbers, moment))[1], int | None)
    assert_type((await workflow.select(numbers, orders, whole))[1], int | Order | Message)
    assert_type(await workflow.select(numbers, orders, whole, moment), tuple[Any, Any])

    child = await workflow.start(fulfil, order, id="child", parent_close_policy="abandon")
    assert_type(child, ChildHandle[Receipt])
    assert_type(await child, Receipt)
    assert_type(await workflow.execute(fulfil, order), Receipt)
    assert_type(await workflow.execute(count_orders), int)
    assert_type(await workflow.execute(with_default), list[str])
    assert_type(await (await workflow.start(with_default, 3)), list[str])
    assert_type(await workflow.execute("by-name", {"any": 1}), Any)
    await workflow.handle("other").cancel("late", deadline="5s")
    await workflow.send(child, "topic", 1)

    task = workflow.spawn(charge(order))
    assert_type(task, asyncio.Task[Receipt])
    async with workflow.saga() as saga:
        assert_type(saga, Saga)
        saga.add(charge, order, amount=2)
    await workflow.wait_condition(lambda: bool(order.id), timeout=timedelta(seconds=1))
    await workflow.attrs(search={"city": "Bonn"}, memo={"note": [1]})
    await workflow.progress(1, 2, "half")
    await workflow.emit("half", {"n": 1})
    workflow.logger.info("half %d", 1)

    @workflow.query("status")
    def status(verbose: bool = False) -> str:
        return "verbose" if verbose else "short"

    def positive(amount: int) -> None:
        if amount <= 0:
            raise ApplicationError("must be positive")

    @workflow.update("add", validator=positive)
    async def add(amount: int) -> int:
        return amount

    assert_type(status(), str)
    assert_type(await add(3), int)
    if order.id > 3:
        await workflow.continue_as_new(order)
    if order.id > 5:
        raise ApplicationError("no", kind="Refused", retryable=False, details={"a": 1})
    return {}


# -- outside -------------------------------------------------------------------------------------


async def outside(client: Client, order: Order) -> None:
    handle = await client.start(fulfil, order, id="order-7")
    assert_type(handle, Handle[Receipt])
    assert_type(await handle.result(timeout="5s"), Receipt)
    assert_type(await handle, Receipt)
    assert_type(await client.execute(fulfil, order), Receipt)
    assert_type(await client.execute(count_orders), int)
    assert_type(await (await client.start(with_default, 3)).result(), list[str])
    assert_type(await (await client.start(with_default)), list[str])
    assert_type(await client.execute(with_default, id="d"), list[str])
    assert_type(await client.start("by-name", {"any": 1}), Handle[Any])
    assert_type(handle.id, str)


async def host() -> None:
    async with Engine("sqlite:///orders.db", definitions=[fulfil, charge]) as engine:
        handle = await engine.client.start(fulfil, Order(1))
        assert_type(await handle.result(), Receipt)


# -- people --------------------------------------------------------------------------------------


@dataclass
class Approval:
    ok: bool


@workflow.define
async def approve(title: str) -> bool:
    decided = await human.request(title, form=Approval, role="finance", due="2d")
    assert_type(decided, human.Decision[Approval])
    assert_type(decided.value.ok, bool)
    loose = await human.request(title, form={"type": "object"}, data={"order": 7})
    assert_type(loose, human.Decision[Any])
    return decided.is_completed


async def decide(client: Client) -> None:
    page = await client.human_tasks.list(role="finance", limit=5)
    for task in page.items:
        claimed = await client.human_tasks.claim(task.id, "1h", by="ada")
        assert_type(claimed.claimed_by, str | None)
        await client.human_tasks.complete(task.id, Approval(ok=True), comment="fine")
