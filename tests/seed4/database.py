"""A file database and sessions on it, for the tests of seed 4's database layer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from tests.engine.support import until

from perdure.contrib.sqlalchemy import PersistentExecutionEngine
from perdure.graph import WorkflowRegistry

FILE = "app.db"


def url_of(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / FILE}"


def registry_of(*workflows: Any) -> WorkflowRegistry:
    registry = WorkflowRegistry()
    for workflow in workflows:
        registry.register(workflow)
    return registry


@asynccontextmanager
async def sessions_on(folder: Path) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    database = create_async_engine(url_of(folder))
    try:
        yield async_sessionmaker(database, expire_on_commit=False)
    finally:
        await database.dispose()


@asynccontextmanager
async def engine_in(
    folder: Path, *workflows: Any, **options: Any
) -> AsyncIterator[tuple[PersistentExecutionEngine, AsyncSession]]:
    async with sessions_on(folder) as sessions, sessions() as session:
        engine = PersistentExecutionEngine(registry_of(*workflows), session, **options)
        async with engine:
            yield engine, session


async def until_is(instance: Any, status: str) -> None:
    await until(lambda: instance.status == status)
