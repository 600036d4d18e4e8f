"""Steps of graphs in subprocesses: their context goes along, and what they set comes back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.engine import isolated
from tests.engine.support import engine_on, events_of, until
from tests.engine.test_isolation import heard, pids

from perdure.errors import DefinitionError, UsageError, WorkflowFailed
from perdure.graph import WorkflowDefinition

BOOKS = {"books": "tests.engine.isolated:open_books"}


async def test_a_step_gets_its_context_and_leaves_what_it_sets(tmp_path: Path):
    async with engine_on(tmp_path, isolated.shop, services=BOOKS) as engine:
        emitted = heard(engine, "workflow.event")
        handle = await engine.client.start(isolated.shop, {"id": "A", "amount": 4}, id="s")
        seen = await handle.result("30s")
        [pid] = pids(engine)
        state = await handle.query("graph")
        lines = await handle.logs()
    assert pid != os.getpid()
    assert seen == {
        "prev": {"total": 8, "seen": "Order"},
        "steps": ["price"],
        "metadata": {"priced_by": pid},
        "data": {"currency": "EUR"},
        "input": "A",
        "history": ["price", "check"],
        "service": 1,
        "pid": pid,
    }
    assert (state["metadata"], state["data"]) == ({"priced_by": pid}, {"currency": "EUR"})
    assert [facts["event"] for _, facts in emitted if facts["event"] == "priced"] == ["priced"]
    assert [(it.level, it.message, it.data, it.step, it.attempt) for it in lines] == [
        ("info", "pricing", {"id": "A"}, "price", 1),
        ("warning", "slowly", None, "price", 1),
    ]


async def test_branches_and_items_run_in_processes_if_the_engine_says_so(tmp_path: Path):
    machines = (isolated.wide, isolated.stays, isolated.classes)
    async with engine_on(tmp_path, *machines, isolated=True) as engine:
        found = [await engine.client.execute(machine) for machine in machines]
        apart = {*pids(engine)}
    assert len(found[0]) == 4
    assert {*found[0], found[2]} <= apart
    assert found[1] == os.getpid(), ".isolated(False) stays, whatever the engine says"


async def test_without_a_word_of_engine_or_definition_steps_stay_here(tmp_path: Path):
    machines = (isolated.wide, isolated.classes)
    async with engine_on(tmp_path, *machines) as engine:
        assert {*await engine.client.execute(isolated.wide)} == {os.getpid()}
        assert await engine.client.execute(isolated.classes) != os.getpid()


async def test_a_step_whose_process_dies_is_tried_again_by_its_policy(tmp_path: Path):
    async with engine_on(tmp_path, isolated.dying, isolated.giving_up) as engine:
        handle = await engine.client.start(isolated.dying, "")
        assert await handle.result("30s") == 2
        assert [it.message for it in await handle.logs()] == ["attempt 1", "attempt 2"]
        with pytest.raises(WorkflowFailed, match=r'Step "once" failed: lost with its process'):
            await engine.client.execute(isolated.giving_up, "")


async def test_the_history_does_not_say_where_a_step_ran(tmp_path: Path):
    """A run that began in subprocesses goes on without them, and the other way round."""
    async with engine_on(tmp_path, isolated.wide, isolated=True) as engine:
        handle = await engine.client.start(isolated.wide, id="w")
        apart = await handle.result("30s")
        names = [event.data["name"] for event in await events_of(handle, "activity_scheduled")]
    async with engine_on(tmp_path, isolated.wide) as engine:
        again = await engine.client.get("w").fork(after_event=1, id="w2")
        assert {*await again.result("30s")} == {os.getpid()}
        assert [e.data["name"] for e in await events_of(again, "activity_scheduled")] == names
    assert os.getpid() not in apart


async def test_a_definition_that_no_module_has_under_a_name_is_refused(tmp_path: Path):
    engine = engine_on(tmp_path, isolated.made_elsewhere())
    with pytest.raises(DefinitionError, match=r"'nameless' is isolated.*tests.engine.isolated"):
        await engine.start()
    async with engine_on(tmp_path, isolated.stays) as running:
        with pytest.raises(DefinitionError, match="Assign it to a name"):
            running.register(isolated.made_elsewhere())


async def test_a_definition_that_was_read_needs_no_name(tmp_path: Path):
    steps = {"pid": {"kind": "task", "handler": "tests.engine.isolated:pid_of"}}
    document = {"perdure": 1, "name": "read", "isolated": True, "steps": steps}
    read = WorkflowDefinition.from_dict(document)
    async with engine_on(tmp_path, read) as engine:
        assert await engine.client.execute("read") != os.getpid()


async def test_a_context_without_a_json_form_fails_the_step_and_says_which(tmp_path: Path):
    async with engine_on(tmp_path, isolated.objects) as engine:
        with pytest.raises(WorkflowFailed, match=r"the context of step 'pid', on its way"):
            await engine.client.execute(isolated.objects)


# -- services ------------------------------------------------------------------------------------


async def test_a_factory_makes_a_service_once_in_each_process(tmp_path: Path):
    given = {"books": "tests.engine.isolated:open_books_slowly", "rate": 3}
    async with engine_on(tmp_path, isolated.calls, services=given) as engine:
        handle = await engine.client.start(isolated.calls, [["sell"], ["sell"]])
        [made_by, pid, *sold], second = await handle.result("30s")
        assert engine._core is not None
        here = engine._core.services["books"]
    assert made_by == pid != os.getpid()
    assert (sold, second[2:]) == ([1, 2, 3], [3, 4, 3])
    assert here.pid == os.getpid()


async def test_a_service_that_cannot_go_to_a_subprocess_is_refused_at_the_start(tmp_path: Path):
    given: dict[str, Any] = {"rate": 3, "lock": lambda: None}
    engine = engine_on(tmp_path, isolated.where, services=given)
    with pytest.raises(UsageError, match=r"service 'lock' \(function\) cannot go to the sub"):
        await engine.start()
    async with engine_on(tmp_path, isolated.stays, services=given) as engine:
        assert await engine.client.execute(isolated.stays) == os.getpid(), "nobody needs it there"
        with pytest.raises(UsageError, match=r"Give the text of a factory"):
            engine.register(isolated.where)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("tests.engine.isolated:broken_service", "OSError: no such host"),
        ("tests.engine.isolated:broken_servise", "has no .*; did you mean 'broken_service'"),
        ("tests.engine.isolatet:make", "no module .*; did you mean 'tests.engine.isolated'"),
    ],
)
async def test_a_service_that_cannot_be_built_stops_the_start(
    tmp_path: Path, factory: str, told: str
):
    engine = engine_on(tmp_path, isolated.stays, services={"books": factory})
    with pytest.raises(UsageError, match=f"service 'books'.*{told}"):
        await engine.start()


async def test_text_that_names_no_factory_is_a_service_as_it_is(tmp_path: Path):
    given = {"books": "http://books:8080", "rate": "at 3:45"}
    async with engine_on(tmp_path, isolated.stays, services=given) as engine:
        assert engine._core is not None
        assert engine._core.services == given
        await until(lambda: pids(engine) == [])
