"""The machine of ``bench/scenarios/machines.py`` on litestar-workflows' persistent engine.

Runs in the environment that ``setup.sh`` makes and imports nothing of Perdure:

    bench/.peers/litestar-workflows/bin/python bench/peers/litestar_workflows_bench.py --scale 0.1

The engine is used as its documentation shows: one engine on one session, with SQLAlchemy's and
aiosqlite's defaults. A session serves one thing at a time, so runs follow one another; each run's
own task is awaited, and nothing is polled. Four at a time, each with an engine and a session of its
own, came to about the same rate: SQLite has one writer.
`--scale` makes the number of runs smaller; the scale is part of the output.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from advanced_alchemy.base import UUIDAuditBase
from litestar_workflows import BaseMachineStep, Edge, WorkflowDefinition, WorkflowRegistry
from litestar_workflows.db import PersistentExecutionEngine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

DATA = Path(__file__).parents[1] / ".data"
RUNS, STEPS = 1_000, 10


class Step(BaseMachineStep):
    """Do nothing, durably."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)

    async def execute(self, context: Any) -> int:
        """Return a number."""
        return 1


class Machine:
    """Ten steps in a row."""

    __workflow_name__: ClassVar[str] = "machine"
    __workflow_version__: ClassVar[str] = "1.0.0"
    name = "machine"
    version = "1.0.0"
    description = "ten steps"

    @classmethod
    def get_definition(cls) -> WorkflowDefinition:
        """Return the graph."""
        names = [f"step{number}" for number in range(STEPS)]
        return WorkflowDefinition(
            name="machine",
            version="1.0.0",
            description="ten steps",
            steps={name: Step(name) for name in names},
            edges=[Edge(source=a, target=b) for a, b in itertools.pairwise(names)],
            initial_step=names[0],
            terminal_steps={names[-1]},
        )


async def run_one(engine: PersistentExecutionEngine) -> None:
    """Run the machine once, to its end."""
    started = await engine.start_workflow(Machine, {})
    await engine._running[started.id]
    instance = await engine._instance_repo.get(started.id)
    assert str(instance.status.value) == "completed", instance.error


async def machine_of_ten(folder: str, scale: float) -> float:
    """1,000 machines of 10 steps; steps/s."""
    database = create_async_engine(f"sqlite+aiosqlite:///{folder}/peer.db")
    async with database.begin() as connection:
        await connection.run_sync(UUIDAuditBase.metadata.create_all)
    registry = WorkflowRegistry()
    registry.register(Machine)
    count = max(1, round(RUNS * scale))
    async with async_sessionmaker(database, expire_on_commit=False)() as session:
        engine = PersistentExecutionEngine(registry=registry, session=session)
        await run_one(engine)  # warm
        begin = time.perf_counter()
        for _ in range(count):
            await run_one(engine)
        seconds = time.perf_counter() - begin
    await database.dispose()
    return count * STEPS / seconds


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=["machine_of_ten"])
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="peer-", dir=DATA) as folder:
        rate = asyncio.run(machine_of_ten(folder, arguments.scale))
    name = f"litestar-workflows {version('litestar-workflows')}"
    print(json.dumps({"peer": name, "scale": arguments.scale, "figures": {"machine_of_ten": rate}}))


if __name__ == "__main__":
    main()
