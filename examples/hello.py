"""The smallest program: an activity, a workflow, and an engine in your own process.

    python examples/hello.py
    perdure run examples/hello.py:hello Ada

Both keep the run in a SQLite file. Kill them anywhere: what was recorded is not run again.
"""

from __future__ import annotations

import asyncio

from perdure import Engine, activity, workflow


@activity.define
async def greet(name: str) -> str:
    """Anything that touches the world is an activity; its outcome is recorded once."""
    return f"Hello, {name}!"


@workflow.define
async def hello(name: str) -> str:
    """A workflow is a function that awaits activities; after a crash it goes on where it was."""
    return await greet(name)


async def main() -> None:
    async with Engine("sqlite:///hello.db", definitions=[hello, greet]) as engine:
        print(await engine.client.execute(hello, "World"))


if __name__ == "__main__":
    asyncio.run(main())
