"""Seed 4's persistent engine: one worker per database, sessions, restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from advanced_alchemy.exceptions import NotFoundError
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from tests.engine.support import until
from tests.seed4.database import engine_in, registry_of, sessions_on, until_is, url_of
from tests.seed4.steps import Flaky, Note, Payment, chain

from perdure.contrib.sqlalchemy import (
    PersistentExecutionEngine,
    WorkflowDefinitionRepository,
    WorkflowInstanceRepository,
)
from perdure.errors import Conflict, NotFound, UsageError
from perdure.graph import (
    BaseMachineStep,
    Edge,
    InvalidTransitionError,
    WorkflowAlreadyCompletedError,
    WorkflowDefinition,
    WorkflowInstanceNotFoundError,
    WorkflowNotFoundError,
    WorkflowRegistry,
    WorkflowStatus,
)

ROOT = Path(__file__).parents[2]


async def test_the_example_of_the_page(tmp_path: Path):
    class Read(BaseMachineStep):
        name = "read"

        async def execute(self, context: Any) -> None:
            context.set("seen", context.get("key"))

    class MyWorkflow:
        @classmethod
        def get_definition(cls) -> WorkflowDefinition:
            return WorkflowDefinition("my_workflow", "1.0.0", "", {"read": Read()}, [], "read")

    engine = create_async_engine(url_of(tmp_path))
    session_factory = async_sessionmaker(engine, expire_on_commit=False)
    registry = WorkflowRegistry()
    registry.register_definition(MyWorkflow.get_definition())
    registry.register_workflow_class(MyWorkflow)
    async with session_factory() as session:
        workflows = PersistentExecutionEngine(registry=registry, session=session)
        instance = await workflows.start_workflow(MyWorkflow, initial_data={"key": "value"})
        await until_is(instance, "completed")
        assert instance.context.data == {"key": "value", "seen": "value"}
        await workflows.aclose()
    await engine.dispose()


@pytest.mark.parametrize("given", [None, "sqlite:///app.db"])
def test_what_is_no_session_is_refused_with_what_to_pass(given: Any):
    with pytest.raises(
        UsageError, match=r"is no SQLAlchemy session; pass an AsyncSession"
    ) as caught:
        PersistentExecutionEngine(WorkflowRegistry(), given)
    assert repr(given) in caught.value.message


async def test_engines_of_one_database_share_a_worker_until_the_last_is_closed(tmp_path: Path):
    async with sessions_on(tmp_path) as sessions, sessions() as one, sessions() as two:
        registry = registry_of(Payment)
        first = PersistentExecutionEngine(registry, one)
        second = PersistentExecutionEngine(registry_of(Payment), two)
        instance = await first.start_workflow(Payment)
        assert await second.get_instance(instance.id) is instance
        assert len(await second.client.workers()) == 1
        await first.aclose()
        await until_is(instance, "waiting")
        await second.client.get(instance.id).send("paid", {})
        await until_is(instance, "completed")
        client = second.client
        await second.aclose()
        with pytest.raises(UsageError):
            _ = second.client
        third = PersistentExecutionEngine(registry, one)
        async with third:
            assert third.client is not client
            assert len(await third.client.workers()) == 1
            assert (await third.get_instance(instance.id)).status is WorkflowStatus.COMPLETED


async def test_an_engine_that_shares_may_bring_definitions_of_its_own(tmp_path: Path):
    late = chain(Note("only"), name="late")
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        engine = PersistentExecutionEngine(registry_of(Payment), session)
        other = PersistentExecutionEngine(registry_of(late), session)
        async with engine, other:
            instance = await other.start_workflow("late")
            await until_is(instance, "completed")
            found = await WorkflowDefinitionRepository(session=session).get_by_name("late")
            assert found is not None


async def test_who_started_it_for_whom_and_which_are_running(tmp_path: Path):
    async with engine_in(tmp_path, Payment) as (engine, _):
        assert engine.get_running_instances() == []
        instance = await engine.start_workflow(
            Payment, {"n": 1}, tenant_id="acme", created_by="ada"
        )
        assert engine.get_running_instances() == [instance.id]
        assert (instance.tenant_id, instance.created_by) == ("acme", "ada")
        found = await engine.get_instance(instance.id)
        assert (found.tenant_id, found.created_by) == ("acme", "ada")
        await engine.cancel_workflow(instance.id, "enough")
        assert engine.get_running_instances() == []
        with pytest.raises(WorkflowAlreadyCompletedError):
            await engine.cancel_workflow(instance.id, "again")
        with pytest.raises(InvalidTransitionError, match="nothing is recorded of step 'ship'"):
            await engine.retry(instance.id, "ship")


async def test_an_unknown_instance_is_a_key_error_a_value_error_and_not_found(tmp_path: Path):
    async with engine_in(tmp_path, Payment) as (engine, _):
        for call in (
            lambda: engine.get_instance(uuid4()),
            lambda: engine.cancel_workflow(uuid4(), "x"),
            lambda: engine.retry(uuid4()),
            lambda: engine.complete_human_task(uuid4(), "approve", "ada", {}),
            lambda: engine.schedule_step(uuid4(), "ship", timedelta(hours=1)),
        ):
            with pytest.raises(WorkflowInstanceNotFoundError) as caught:
                await call()
            assert isinstance(caught.value, NotFoundError)
            assert isinstance(caught.value, KeyError)
            assert isinstance(caught.value, ValueError)
            assert isinstance(caught.value, NotFound)


async def test_a_session_that_has_written_is_refused_until_it_commits(tmp_path: Path):
    async with engine_in(tmp_path, Payment) as (engine, session):
        await session.execute(text("CREATE TABLE orders (id INTEGER)"))
        await session.commit()
        await session.execute(text("SELECT count(*) FROM orders"))
        instance = await engine.start_workflow(Payment)
        await session.execute(text("INSERT INTO orders VALUES (1)"))
        for call in (
            lambda: engine.start_workflow(Payment),
            lambda: engine.cancel_workflow(instance.id, "x"),
            lambda: engine.retry(instance.id),
        ):
            with pytest.raises(Conflict, match="has an open transaction that has written"):
                await call()
        await engine.get_instance(instance.id)
        await session.commit()
        await engine.start_workflow(Payment)


async def test_a_plain_session_will_do(tmp_path: Path):
    database = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    with Session(database) as session:
        async with PersistentExecutionEngine(registry_of(Payment), session) as engine:
            instance = await engine.start_workflow("payment")
            await until_is(instance, "waiting")
            session.execute(text("CREATE TABLE orders (id INTEGER)"))
            session.execute(text("INSERT INTO orders VALUES (1)"))
            with pytest.raises(Conflict, match="open transaction"):
                await engine.start_workflow("payment")
            session.rollback()
            await engine.cancel_workflow(instance.id, "enough")
    database.dispose()


async def test_a_session_on_what_cannot_be_shared_is_refused_with_what_can(tmp_path: Path):
    registry = WorkflowRegistry()
    for url, says in (
        ("sqlite+aiosqlite:///:memory:", "a database in memory, which no other connection"),
        ("sqlite+aiosqlite://", "a database in memory"),
        ("sqlite+aiosqlite:///file:a.db?uri=true", "'file:a.db"),
    ):
        database = create_async_engine(url)
        with pytest.raises(UsageError, match=says):
            PersistentExecutionEngine(registry, async_sessionmaker(database)())
        await database.dispose()
    with pytest.raises(UsageError, match="bound to no database"):
        PersistentExecutionEngine(registry, async_sessionmaker()())


async def test_a_deactivated_version_begins_no_new_instances_also_after_a_restart(tmp_path: Path):
    versions = [chain(Note("only"), version=version) for version in ("9.0.0", "10.0.0")]
    async with engine_in(tmp_path, *versions) as (engine, session):
        assert (await engine.start_workflow("chain")).workflow_version == "10.0.0"
        repository = WorkflowDefinitionRepository(session=session)
        assert await repository.deactivate_version("chain", "10.0.0") is True
        assert await repository.deactivate_version("chain", "11.0.0") is False
    async with engine_in(tmp_path, *versions) as (engine, session):
        assert (await engine.start_workflow("chain")).workflow_version == "9.0.0"
        with pytest.raises(WorkflowNotFoundError, match="version '10.0.0' is deactivated"):
            await engine.start_workflow("chain", version="10.0.0")
        repository = WorkflowDefinitionRepository(session=session)
        assert await repository.activate_version("chain", "10.0.0") is True
        assert (await engine.start_workflow("chain")).workflow_version == "10.0.0"


async def test_options_are_those_of_the_engine_that_opened_the_database(tmp_path: Path):
    class Uses(BaseMachineStep):
        name = "uses"

        async def execute(self, context: Any) -> Any:
            return context.services["greeting"]

    registry = registry_of(chain(Uses()))
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        services = {"greeting": "hello"}
        async with PersistentExecutionEngine(registry, session, services=services) as engine:
            instance = await engine.start_workflow("chain")
            await until_is(instance, "completed")
            assert instance.result == "hello"
            async with PersistentExecutionEngine(registry, session) as another:
                assert another.client is engine.client
            other = PersistentExecutionEngine(registry, session, services={"greeting": "no"})
            with pytest.raises(UsageError, match="runs already, with other options"):
                await other.open()


async def test_a_step_that_was_scheduled_by_an_engine_that_is_closed_goes_on_by_another(
    tmp_path: Path,
):
    Flaky.is_broken = True
    definition = chain(Note("first"), Flaky("print"))
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        first = PersistentExecutionEngine(registry_of(definition), session)
        instance = await first.start_workflow("chain")
        await until_is(instance, "failed")
        async with PersistentExecutionEngine(registry_of(definition), session):
            await first.schedule_step(instance.id, "print", timedelta(milliseconds=1))
            await first.aclose()
            Flaky.is_broken = False
            await until(lambda: instance.status != "failed")


async def test_conditions_that_are_functions_and_changes_in_place_are_no_trouble(tmp_path: Path):
    class Append(BaseMachineStep):
        async def execute(self, context: Any) -> None:
            context.data["items"].append(self.name)

    edges = [
        Edge("a", "b", lambda context: "a" in context.get("items")),
        Edge("a", "c", lambda context: "z" in context.get("items")),
    ]
    definition = WorkflowDefinition("graph", steps=[Append(n) for n in "abc"], edges=edges)
    async with engine_in(tmp_path, definition) as (engine, session):
        instance = await engine.start_workflow("graph", {"items": []})
        await until_is(instance, "completed")
        model = await WorkflowInstanceRepository(session=session).get(instance.id)
        assert model.context_data == {"items": ["a", "b"]}
        found = await WorkflowDefinitionRepository(session=session).get_by_name("graph")
        assert found is not None
        assert found.definition_json["edges"][0]["condition"] == "conditional"


@pytest.mark.parametrize("missing", ["sqlalchemy", "advanced_alchemy"])
def test_without_its_extra_the_package_says_what_to_install(missing: str):
    code = f"import sys; sys.modules[{missing!r}] = None; import perdure.contrib.sqlalchemy"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"needs {missing}: install perdure[sqlalchemy]" in done.stderr


PROGRAM = """
import asyncio, sys
from datetime import timedelta
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from perdure.contrib.sqlalchemy import PersistentExecutionEngine
from perdure.graph import *

class Write(BaseMachineStep):
    async def execute(self, context):
        with open(sys.argv[2], "a") as effects:
            effects.write(self.name + "\\n")

class Slow(Workflow):
    name = "slow"
    steps = (Write("before"), TimerStep("nap", timedelta(milliseconds=300)), Write("after"))
    edges = (Edge("before", "nap"), Edge("nap", "after"))

class Called(Workflow):
    name = "called"
    steps = (Write("order"), WebhookStep("paid"), Write("ship"))
    edges = (Edge("order", "paid"), Edge("paid", "ship"))

async def main():
    database = create_async_engine(sys.argv[1])
    registry = WorkflowRegistry()
    registry.register(Slow)
    registry.register(Called)
    async with async_sessionmaker(database)() as session:
        engine = PersistentExecutionEngine(registry, session)
        if sys.argv[3] == "start":
            slow = await engine.start_workflow(Slow)
            called = await engine.start_workflow(Called, {"number": 7})
            while "paid" != (await engine.get_instance(called.id)).current_step:
                await asyncio.sleep(0.01)  # sleep: polls
            # A machine that stands still for longer than the nap may find that it is over.
            found = await engine.get_instance(slow.id)
            while found.current_step != "nap" and found.status != "completed":
                found = await engine.get_instance(slow.id)
                await asyncio.sleep(0.01)  # sleep: polls
            print(slow.id, called.id, flush=True)
            if len(sys.argv) > 4:
                return
            await asyncio.Event().wait()
        slow, called = [await engine.get_instance(id) for id in sys.argv[4:]]
        await called.handle.send("paid", 42)
        for instance in slow, called:
            await instance.handle.result()
            await instance.refresh()
            print(instance.status, instance.context.data, flush=True)
        await engine.aclose()

asyncio.run(main())
"""


def run(folder: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url_of(folder), str(folder / "effects"), *args],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_timers_and_instances_go_on_in_another_process_after_a_kill(tmp_path: Path):
    with run(tmp_path, "start") as first:
        assert first.stdout is not None
        ids = first.stdout.readline().split()
        first.send_signal(signal.SIGKILL)
    with run(tmp_path, "go on", *ids) as second:
        out, err = second.communicate()
    assert second.returncode == 0, err
    assert out.splitlines() == ["completed {}", "completed {'number': 7, 'webhook_data': 42}"]
    effects = (tmp_path / "effects").read_text().split()
    assert sorted(effects) == ["after", "before", "order", "ship"], "no step ran twice"


def test_a_program_that_never_closes_its_engine_ends_without_complaint(tmp_path: Path):
    with run(tmp_path, "start", "and return") as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert len(out.split()) == 2


async def test_an_event_bus_that_many_requests_share_hears_of_everything_once(tmp_path: Path):
    heard: list[str] = []

    class Bus:
        async def emit(self, event: str, **data: Any) -> None:
            heard.append(event)

    bus = Bus()
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        registry = registry_of(Payment)
        engines = [PersistentExecutionEngine(registry, session, bus) for _ in range(3)]
        instances = [await engine.start_workflow(Payment) for engine in engines]
        for instance in instances:
            await until_is(instance, "waiting")
            await instance.handle.send("paid", {})
            await until_is(instance, "completed")
        await asyncio.gather(*[engine.aclose() for engine in engines])
    for name in ("started", "waiting", "completed"):
        assert heard.count(f"workflow.{name}") == 3
    await until(lambda: len(heard) == 9)
