"""What is refused leaves no trace: no row of any table comes, goes or changes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Client, Status, workflow
from perdure.engine import retention, sweep
from perdure.errors import Invalid, NotFound, PerdureError
from perdure.handle import Handle

LIMIT = 2_000
LARGE = "x" * LIMIT
BAD_IDS = ("", "@mailbox", "a\nb", "x" * 256, "\ud800")


@dataclass
class Line:
    sku: str
    cents: int


@dataclass
class Cart:
    owner: str
    lines: list[Line]


@workflow.define
async def buy(cart: Cart) -> str:
    @workflow.update("note")
    async def note(text: str) -> int:
        return len(text)

    @workflow.query("owner")
    def owner() -> str:
        return cart.owner

    await workflow.listen("paid").receive()
    return cart.owner


BUY: Any = buy  # what it is given does not fit its types: that is under test
GOOD = {"owner": "Ada", "lines": [{"sku": "a", "cents": 1}]}
BAD = {"owner": "Ada", "lines": [{"sku": "a", "cents": 1}, {"sku": "b", "cents": "two"}]}
Call = Callable[[Client, Handle[Any]], Awaitable[object]]


@pytest.fixture(autouse=True)
def _nothing_else_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep an engine from what it does by itself after a while: a test may take long."""
    monkeypatch.setattr(sweep, "FIRST_SECONDS", 3_600.0)
    monkeypatch.setattr(retention, "FIRST_SECONDS", 3_600.0)


def _content(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables; of workers what a heartbeat does not move."""
    connection = sqlite3.connect(folder / "test.db")
    try:
        tables = connection.execute("select name from sqlite_master where type = 'table'")
        found: dict[str, list[tuple[Any, ...]]] = {}
        for (name,) in tables.fetchall():
            what = "id, epoch, state, last_batch" if name == "perdure_worker" else "*"
            found[name] = connection.execute(f'select {what} from "{name}"').fetchall()
        return found
    finally:
        connection.close()


@asynccontextmanager
async def _open(folder: Path, through: str) -> AsyncIterator[tuple[Client, Handle[Any]]]:
    """Yield a client and a handle on a run that waits."""
    async with engine_on(folder, buy, max_payload=LIMIT) as engine:
        handle = await engine.client.start(buy, Cart("Ada", []), id="open")
        await until_status(handle, Status.WAITING)
        if through == "engine":
            yield engine.client, handle
        else:
            async with Client(engine.url, max_payload=LIMIT) as client:
                yield client, client.get("open")


async def _is_refused(
    folder: Path, through: str, call: Call, error: type[PerdureError], says: str
) -> None:
    async with _open(folder, through) as (client, handle):
        before = _content(folder)
        with pytest.raises(error, match=says):
            await call(client, handle)
        assert _content(folder) == before
        assert len(before["perdure_history"]) == len(before["perdure_run"]) == 1


def _start_with(id: str) -> Call:
    return lambda c, _: c.start(BUY, GOOD, id=id)


STARTS: dict[str, tuple[Call, type[PerdureError], str]] = {
    "unknown workflow": (lambda c, _: c.start("bye", GOOD), NotFound, "did you mean 'buy'"),
    "unknown option": (lambda c, _: c.start(BUY, GOOD, colour="red"), Invalid, "colour"),
    "input that does not fit": (
        lambda c, _: c.start(BUY, BAD),
        Invalid,
        r"cart\.lines\[1\]\.cents",
    ),
    "missing field": (lambda c, _: c.start(BUY, {"owner": "Ada"}), Invalid, "lines"),
    "no input": (lambda c, _: c.start(BUY), Invalid, "buy"),
    "input without a form": (lambda c, _: c.start(BUY, object()), Invalid, "input of buy.*JSON"),
    "input too large": (
        lambda c, _: c.start(BUY, {**GOOD, "owner": LARGE}),
        Invalid,
        "input of buy.*max_payload",
    ),
    "message too large": (
        lambda c, _: c.start(BUY, GOOD, messages=[("paid", "x" * 3_000_000)]),
        Invalid,
        "paid.*max_payload",
    ),
    "message without a form": (
        lambda c, _: c.start(BUY, GOOD, messages=[("paid", object())]),
        Invalid,
        "paid.*JSON",
    ),
    "context without a form": (
        lambda c, _: c.start(BUY, GOOD, context={"tenant": object()}),
        Invalid,
        "context.*JSON",
    ),
    "memo without a form": (
        lambda c, _: c.start(BUY, GOOD, memo={"a": object()}),
        Invalid,
        "JSON",
    ),
    "search without a form": (
        lambda c, _: c.start(BUY, GOOD, search={"a": object()}),
        Invalid,
        "search",
    ),
    "cron": (lambda c, _: c.start(BUY, GOOD, cron="61 * * * *"), Invalid, "cron: '61"),
    "cron with a name": (lambda c, _: c.start(BUY, GOOD, cron="@often"), Invalid, "@often"),
    "cron of a day that never comes": (
        lambda c, _: c.start(BUY, GOOD, cron="0 0 30 2 *"),
        Invalid,
        "cron: '0 0 30 2",
    ),
    "conflict policy": (
        lambda c, _: c.start(BUY, GOOD, id="new", id_conflict_policy="perhaps"),
        Invalid,
        "id_conflict_policy",
    ),
    "reuse policy": (
        lambda c, _: c.start(BUY, GOOD, id="new", id_reuse_policy="perhaps"),
        Invalid,
        "id_reuse_policy",
    ),
    **{f"id {id!r:.12}": (_start_with(id), Invalid, "id: ") for id in BAD_IDS},
}

CALLS: dict[str, tuple[Call, type[PerdureError], str]] = {
    "topic": (lambda _, h: h.send("", 1), Invalid, "topic"),
    "topic of ours": (lambda _, h: h.send("@paid", 1), Invalid, "@paid"),
    "payload without a form": (lambda _, h: h.send("paid", object()), Invalid, "paid.*JSON"),
    "payload too large": (lambda _, h: h.send("paid", LARGE), Invalid, "paid.*max_payload"),
    "deadline": (lambda _, h: h.cancel(deadline="soon"), Invalid, "deadline: 'soon'"),
    "negative deadline": (lambda _, h: h.cancel(deadline=-1), Invalid, "deadline: -1"),
    "endless deadline": (lambda _, h: h.cancel(deadline=float("inf")), Invalid, "finite"),
    "result timeout": (lambda _, h: h.result("later"), Invalid, "timeout: 'later'"),
    "query timeout": (lambda _, h: h.query("owner", timeout="later"), Invalid, "timeout: 'later'"),
    "update timeout": (lambda _, h: h.update("note", "a", timeout=""), Invalid, "timeout: ''"),
    "query argument": (lambda _, h: h.query("owner", object()), Invalid, "query:owner.*JSON"),
    "update argument": (lambda _, h: h.update("note", object()), Invalid, "update:note.*JSON"),
    "page": (lambda c, _: c.list(limit=0), Invalid, "limit"),
    "cursor": (lambda c, _: c.list(cursor="nonsense"), Invalid, "cursor"),
    "status": (lambda c, _: c.count(status="fine"), Invalid, "status.*fine"),
    "filter": (lambda c, _: c.list(colour="red"), Invalid, "colour"),
    "time without a zone": (
        lambda c, _: c.list(started_after=datetime(2026, 1, 1)),  # noqa: DTZ001 - under test
        Invalid,
        "time zone",
    ),
    "id of nobody": (lambda c, _: c.get("nobody").send("paid"), NotFound, "nobody"),
    "run of nobody": (lambda c, _: c.get("open", "no-such-run").cancel(), NotFound, "open"),
}


@pytest.mark.parametrize("through", ["engine", "client"])
@pytest.mark.parametrize("what", STARTS)
async def test_a_start_that_is_refused_changes_nothing(tmp_path: Path, what: str, through: str):
    call, error, says = STARTS[what]
    await _is_refused(tmp_path, through, call, error, says)


@pytest.mark.parametrize(
    "through",
    ["engine", "client"],
)
async def test_a_version_nobody_registered_is_refused_and_no_other_is_started_in_its_place(
    tmp_path: Path, through: str
):
    await _is_refused(
        tmp_path, through, lambda c, _: c.start("buy", GOOD, version="7"), NotFound, "version '7'"
    )


@pytest.mark.parametrize("through", ["engine", "client"])
@pytest.mark.parametrize("what", CALLS)
async def test_a_call_that_is_refused_changes_nothing(tmp_path: Path, what: str, through: str):
    call, error, says = CALLS[what]
    await _is_refused(tmp_path, through, call, error, says)


@pytest.mark.parametrize("id", BAD_IDS, ids=lambda text: f"{text!r:.12}")
async def test_an_id_that_cannot_be_one_is_refused_before_anything_is_asked(
    tmp_path: Path, id: str
):
    async with _open(tmp_path, "engine") as (client, _):
        with pytest.raises(Invalid, match="id: "):
            client.get(id)


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_an_update_that_does_not_fit_adds_nothing_to_the_history(
    tmp_path: Path, through: str
):
    async with _open(tmp_path, through) as (_, handle):
        before = _content(tmp_path)
        with pytest.raises(Invalid, match="text"):
            await handle.update("note", 5)
        with pytest.raises(NotFound, match="nothing"):
            await handle.update("nothing")
        with pytest.raises(NotFound, match="nothing"):
            await handle.query("nothing")
        after = _content(tmp_path)
        assert {**after, "perdure_question": []} == {**before, "perdure_question": []}


TOO_LARGE: dict[str, Call] = {
    "update": lambda _, h: h.update("note", LARGE),
    "query": lambda _, h: h.query("owner", LARGE),
    "messages": lambda c, _: c.start(BUY, GOOD, messages=[("paid", LARGE)]),
    "memo": lambda c, _: c.start(BUY, GOOD, memo={"a": LARGE}),
    "context": lambda c, _: c.start(BUY, GOOD, context={"a": LARGE}),
}


@pytest.mark.parametrize("through", ["engine", "client"])
@pytest.mark.parametrize("what", TOO_LARGE)
async def test_every_payload_a_client_hands_in_has_the_same_limit(
    tmp_path: Path, what: str, through: str
):
    await _is_refused(tmp_path, through, TOO_LARGE[what], Invalid, "max_payload")
