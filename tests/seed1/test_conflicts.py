"""Ids that are taken: what each combination of options does, also when all ask at once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import ApplicationError, Client, Handle, Status, workflow
from perdure.errors import AlreadyExists, Invalid, PerdureError
from perdure.workflow import Workflow

ROOT = Path(__file__).parents[2]
AT_ONCE = 50


@workflow.define
async def waiting(_: None) -> str:
    await workflow.listen("go").receive()
    return "done"


@workflow.define
async def ends(how: str) -> str:
    if how == "badly":
        raise ApplicationError("it broke")
    return how


EXISTING, REFUSED, REPLACED = "the same run", "AlreadyExists", "a new run"


@pytest.mark.parametrize(
    ("policy", "error_when_started", "outcome"),
    [
        (None, None, EXISTING),
        (None, False, EXISTING),
        (None, True, REFUSED),
        ("fail", None, REFUSED),
        ("fail", False, REFUSED),
        ("fail", True, REFUSED),
        ("use_existing", None, EXISTING),
        ("use_existing", False, EXISTING),
        ("use_existing", True, EXISTING),
        ("terminate_existing", None, REPLACED),
        ("terminate_existing", False, REPLACED),
        ("terminate_existing", True, REPLACED),
    ],
)
@pytest.mark.parametrize("through", ["engine", "client", "workflow"])
async def test_conflict_matrix(
    tmp_path: Path, policy: str | None, error_when_started: bool | None, outcome: str, through: str
):
    """An explicit policy wins over the flag; the flag alone means ``fail``."""
    options = {
        "id": "x",
        "id_conflict_policy": policy,
        "error_when_already_started": error_when_started,
    }

    @workflow.define
    async def starter(given: dict[str, Any]) -> str:
        child = await workflow.start(waiting, **given, parent_close_policy="abandon")
        try:
            await child
        except PerdureError as exc:
            return exc.kind
        return child.run_id

    async with engine_on(tmp_path, waiting, starter) as engine, Client(engine.url) as other:
        first = await engine.client.start(waiting, id="x")
        if through == "workflow":
            begun = await engine.client.start(starter, options)
            answer = begun.result("20s")
            if outcome != REFUSED:
                await engine.client.get("x").send("go")
            got = await answer
            page = await engine.client.list(workflow=waiting)
            assert len(page.items) == (2 if outcome == REPLACED else 1)
            assert (got == REFUSED) is (outcome == REFUSED)
            return
        client = engine.client if through == "engine" else other
        try:
            again = await client.start(waiting, **options)
        except AlreadyExists:
            assert outcome == REFUSED
        else:
            assert outcome == (EXISTING if again.run_id == first.run_id else REPLACED)


@pytest.mark.parametrize(
    "policy", ["USE_EXISTING", "Use-Existing", "use-existing", "Use_Existing", "uSE_eXISTING"]
)
async def test_policies_are_read_without_regard_to_case_and_dashes(tmp_path: Path, policy: str):
    async with engine_on(tmp_path, waiting) as engine:
        first = await engine.client.start(waiting, id="x")
        again = await engine.client.start(waiting, id="x", id_conflict_policy=policy)
        assert again.run_id == first.run_id


@pytest.mark.parametrize("option", ["id_conflict_policy", "id_reuse_policy", "parent_close_policy"])
async def test_a_policy_that_does_not_exist_is_refused_with_those_that_do(
    tmp_path: Path, option: str
):
    @workflow.define
    async def starter(name: str) -> str:
        with pytest.raises(Invalid, match="use one of"):
            await workflow.start(waiting, **{name: "sometimes"})
        return "refused"

    async with engine_on(tmp_path, waiting, starter) as engine:
        if option != "parent_close_policy":
            with pytest.raises(Invalid, match=f"{option}: 'sometimes'; use one of"):
                await engine.client.start(waiting, **{option: "sometimes"})
        assert await engine.client.execute(starter, option) == "refused"


@pytest.mark.parametrize(
    ("reuse", "after_a_good_end", "after_a_bad_end"),
    [
        (None, True, True),
        ("allow_duplicate", True, True),
        ("allow_duplicate_failed_only", False, True),
        ("ALLOW-DUPLICATE-FAILED-ONLY", False, True),
        ("reject_duplicate", False, False),
    ],
)
@pytest.mark.parametrize("conflict", ["use_existing", "fail", "terminate_existing"])
async def test_reuse_policy_is_about_executions_that_have_ended(
    tmp_path: Path, reuse: str | None, after_a_good_end: bool, after_a_bad_end: bool, conflict: str
):
    """Whether an id may be used again; the conflict policy has no say when nothing runs."""
    async with engine_on(tmp_path, ends) as engine:
        for how, allowed in (("well", after_a_good_end), ("badly", after_a_bad_end)):
            before = await engine.client.start(ends, how, id=how)
            with suppress(PerdureError):
                await before
            options = {"id": how, "id_reuse_policy": reuse, "id_conflict_policy": conflict}
            if allowed:
                again = await engine.client.start(ends, "well", **options)
                assert again.run_id != before.run_id
                assert await again == "well"
            else:
                with pytest.raises(AlreadyExists):
                    await engine.client.start(ends, "well", **options)


async def test_reuse_policy_counts_a_cancelled_or_terminated_execution_as_not_completed(
    tmp_path: Path,
):
    async with engine_on(tmp_path, waiting) as engine:
        for end in ("cancel", "terminate"):
            first = await engine.client.start(waiting, id=end)
            await getattr(first, end)()
            with pytest.raises(PerdureError):
                await first
            again = await engine.client.start(
                waiting, id=end, id_reuse_policy="allow_duplicate_failed_only"
            )
            assert again.run_id != first.run_id


# -- all at once -------------------------------------------------------------------------------


async def start_at_once(
    clients: list[Client], definition: Workflow[Any, Any], value: Any, **options: Any
) -> tuple[list[Handle[Any]], int]:
    """Start one id 50 times at once, through the clients in turn: handles, and how many refused."""
    answers = await asyncio.gather(
        *(
            clients[number % len(clients)].start(
                definition, value, id="x", messages=[("note", number)], **options
            )
            for number in range(AT_ONCE)
        ),
        return_exceptions=True,
    )
    handles = [one for one in answers if isinstance(one, Handle)]
    refused = [one for one in answers if isinstance(one, AlreadyExists)]
    assert len(handles) + len(refused) == AT_ONCE, answers
    return handles, len(refused)


async def clients_of(engine: Any, count: int, stack: AsyncExitStack) -> list[Client]:
    """Return the engine's own client, or that many with a connection of their own."""
    if count == 1:
        return [engine.client]
    return [await stack.enter_async_context(Client(engine.url)) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 5], ids=["the engine's client", "five other clients"])
@pytest.mark.parametrize("policy", ["use_existing", "fail", "terminate_existing"])
async def test_fifty_concurrent_starts_of_one_id(tmp_path: Path, policy: str, count: int):
    """Each start gets the answer that its policy promises, and one execution is open in the end."""
    async with engine_on(tmp_path, waiting) as engine, AsyncExitStack() as stack:
        clients = await clients_of(engine, count, stack)
        handles, refused = await start_at_once(clients, waiting, None, id_conflict_policy=policy)
        runs = {handle.run_id for handle in handles}
        page = await engine.client.list(workflow_id="x", limit=100)
        found = Counter(item.status for item in page.items)
        opened = [item for item in page.items if not item.status.is_terminal]
        assert len(opened) == 1
        survivor = opened[0]
        notes = await notes_of(engine.client.get("x", survivor.run_id))
        if policy == "terminate_existing":
            assert (len(runs), refused) == (AT_ONCE, 0)
            assert found[Status.TERMINATED] == AT_ONCE - 1
            assert len(notes) == 1
        else:
            assert runs == {survivor.run_id}
            assert len(page.items) == 1
            if policy == "fail":
                assert refused == AT_ONCE - 1
                assert len(notes) == 1
            else:
                assert refused == 0
                assert sorted(notes) == list(range(AT_ONCE)), "each start's message, once"


async def notes_of(handle: Handle[Any]) -> list[int]:
    """Return the payloads of the startup messages that an open execution was given."""
    await handle.send("go")
    assert await handle.result("20s") == "done"
    history = await handle.history()
    started = [one["payload"] for one in history[0].data.get("messages", [])]
    later = [
        event.data["message"]["payload"]
        for event in history
        if event.kind == "message_received" and event.data["message"]["topic"] == "note"
    ]
    return started + later


@pytest.mark.parametrize("count", [1, 5], ids=["the engine's client", "five other clients"])
@pytest.mark.parametrize(
    ("reuse", "how", "is_free"),
    [
        ("allow_duplicate", "well", True),
        ("allow_duplicate_failed_only", "well", False),
        ("allow_duplicate_failed_only", "badly", True),
        ("reject_duplicate", "badly", False),
    ],
)
async def test_fifty_concurrent_starts_of_an_id_that_was_used_before(
    tmp_path: Path, reuse: str, how: str, is_free: bool, count: int
):
    """One start gets the id, if its last execution leaves it free; nobody gets it otherwise."""

    @workflow.define(name="waiting")
    async def before(end: str) -> str:
        if end == "badly":
            raise ApplicationError("it broke")
        return end

    async with engine_on(tmp_path, before) as engine:
        first = await engine.client.start(before, how, id="x")
        with suppress(PerdureError):
            await first
    async with engine_on(tmp_path, waiting) as engine, AsyncExitStack() as stack:
        clients = await clients_of(engine, count, stack)
        handles, refused = await start_at_once(
            clients, waiting, None, id_reuse_policy=reuse, id_conflict_policy="fail"
        )
        assert (len(handles), refused) == ((1, AT_ONCE - 1) if is_free else (0, AT_ONCE))
        assert await engine.client.count(workflow_id="x") == 1 + is_free


async def test_a_message_to_an_id_that_is_always_taken_is_always_delivered(tmp_path: Path):
    """``terminate_existing`` leaves no moment in which nobody has the id."""
    async with engine_on(tmp_path, waiting) as engine, Client(engine.url) as other:
        await engine.client.start(waiting, id="x")

        async def replace() -> None:
            for _ in range(20):
                options = {"id": "x", "id_conflict_policy": "terminate_existing"}
                await engine.client.start(waiting, **options)

        async def send(client: Client) -> None:
            for number in range(40):
                await client.get("x").send("note", number)

        await asyncio.gather(replace(), send(engine.client), send(other))


STARTER = """
import asyncio, json, sys
from perdure import Client
from perdure.errors import AlreadyExists

async def main(url, policy, number):
    async with Client(url) as client:
        async def start(n):
            try:
                handle = await client.start(
                    "waiting", id="x", id_conflict_policy=policy, messages=[("note", n)]
                )
            except AlreadyExists:
                return None
            return handle.run_id
        print("ready", flush=True)
        sys.stdin.readline()
        found = await asyncio.gather(*(start(number * 100 + n) for n in range(10)))
        print(json.dumps(found), flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def starter(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, *(str(arg) for arg in args)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("policy", ["use_existing", "fail", "terminate_existing"])
async def test_concurrent_starts_of_one_id_in_several_processes(tmp_path: Path, policy: str):
    """Four processes start it ten times each, at one signal; the worker is a fifth process."""
    async with engine_on(tmp_path, waiting) as engine:
        processes = [starter(engine.url, policy, number) for number in range(4)]
        try:
            for process in processes:
                assert process.stdout is not None
                assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
            done = await asyncio.gather(
                *(asyncio.to_thread(process.communicate, "go\n", 30) for process in processes)
            )
        finally:
            for process in processes:
                process.kill()
                process.wait()
        runs = [run for out, _ in done for run in json.loads(out)]
        page = await engine.client.list(workflow_id="x", limit=100)
        opened = [item.run_id for item in page.items if not item.status.is_terminal]
        assert len(opened) == 1
        notes = await notes_of(engine.client.get("x", opened[0]))
        match policy:
            case "use_existing":
                assert runs == opened * 40
                assert len(page.items) == 1
                assert len(notes) == len(set(notes)) == 40
            case "fail":
                assert sorted(runs, key=str) == sorted([*opened, *[None] * 39], key=str)
                assert len(notes) == 1
            case _:
                assert len(set(runs)) == len(page.items) == 40
                assert opened[0] in runs and len(notes) == 1
