"""A module of workflows that is edited between two starts of a worker, as in a deploy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HEAD = """
from perdure import activity, workflow

@activity.define
async def one() -> int:
    return 1

@activity.define
async def two() -> int:
    return 2

"""
NAPPING = """
async def first() -> int:
    return await one()

@workflow.define
async def napping() -> int:
    found = await first()
    await workflow.sleep("30d")
    return found + await two()
"""


def deploy(folder: Path, body: str, name: str = "flows") -> ModuleType:
    """Write the module and import it anew, past every cache."""
    path = folder / f"{name}.py"
    path.write_text(HEAD + body)
    spec = importlib.util.spec_from_file_location(f"deployed_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    # Compiled here: a cached file would be taken for that of an edit within the same second.
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    return module
