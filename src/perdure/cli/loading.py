"""From ``MODULE`` and ``MODULE:workflow`` to definitions.

MODULE is a dotted name, a path to a Python file, or a path to a definition file (.yaml, .yml,
.json), which is then a module with that one definition. As with ``python FILE``, the file's folder
(with a dotted name: the current one) goes first on the import path.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from perdure import errors
from perdure.definition import Workflow, version_key

DOCUMENTS = (".yaml", ".yml", ".json")
_PACKAGE = str(Path(__file__).parents[1])
_ASYNCIO = str(Path(asyncio.__file__).parent)


def load_module(target: str) -> ModuleType:
    """Import a module by dotted name or path.

    Raises:
        UsageError: there is no such module, or it cannot be imported; the message names the line.
    """
    path = Path(target)
    if path.suffix in DOCUMENTS:
        return _load_document(target, path)
    is_file = target.endswith(".py") or os.sep in target
    if path.is_dir() and (is_file or not target.strip(".")):
        raise errors.UsageError(f"{target} is a folder; name a module in it, or a .py file")
    if is_file and not path.is_file():
        hint = f"; did you mean {target}.py?" if Path(f"{target}.py").is_file() else ""
        raise errors.UsageError(f"there is no file {target}{hint}")
    name = target
    if not is_file and not all(part.isidentifier() for part in name.split(".")):
        raise errors.UsageError(f"{target!r} is neither a dotted module name nor a .py file")
    folder = Path.cwd()
    if is_file:
        path = path.resolve()
        name, folder = _dotted(path)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        with _no_event_loop():
            return _import_file(name, path) if is_file else importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if not is_file and exc.name and f"{name}.".startswith(f"{exc.name}."):
            file = Path(f"{name}.py")
            hint = f"; did you mean {file}?" if file.is_file() else f" (looked in {folder})"
            raise errors.UsageError(f"there is no module {name!r}{hint}") from exc
        raise _broken(target, exc) from exc
    except (Exception, SystemExit) as exc:
        raise _broken(target, exc) from exc


def _load_document(target: str, path: Path) -> ModuleType:
    """Read a definition file; what it names is imported from its folder, or as usual."""
    from perdure.graph.definition import WorkflowDefinition

    folder = str(path.resolve().parent)
    for place in (str(Path.cwd()), folder):
        if place not in sys.path:
            sys.path.insert(0, place)
    is_json = path.suffix == ".json"
    read = WorkflowDefinition.from_json if is_json else WorkflowDefinition.from_yaml
    try:
        with _no_event_loop():
            definition = read(path)
    except errors.DefinitionError as exc:
        raise errors.UsageError(exc.message) from exc
    module = ModuleType(path.stem)
    module.__file__ = target
    definition.__module__ = module.__name__
    setattr(module, definition.name, definition)
    return module


@contextmanager
def _no_event_loop() -> Generator[None]:
    """Let nobody run an event loop meanwhile: a module that did would never be imported."""
    outer = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage]
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    except RuntimeError as exc:
        if "event loop" not in str(exc):
            raise
        # The coroutine that nobody runs would complain on its way out.
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
        raise errors.UsageError(
            "the module runs an event loop while it is imported; put that under "
            '`if __name__ == "__main__":`'
        ) from exc
    finally:
        asyncio._set_running_loop(outer)  # pyright: ignore[reportPrivateUsage]
        loop.close()


def load_workflow(target: str) -> tuple[ModuleType, Workflow[Any, Any]]:
    """Import the module of ``MODULE:workflow`` and find the workflow in it.

    Raises:
        UsageError: no module, no such workflow, or none named where there are several.
    """
    module_name, _, wanted = target.partition(":")
    module = load_module(module_name)
    workflows, classes = workflows_of(module), _classes_of(module)
    known = ", ".join(sorted([*workflows, *classes])) or "none"
    if wanted in classes:
        return module, classes[wanted].get_definition()
    if wanted:
        if wanted in workflows:
            return module, workflows[wanted]
        versions = [found for found in workflows.values() if found.name == wanted]
        if versions:
            return module, max(versions, key=lambda found: version_key(found.version))
        close = get_close_matches(wanted, [*workflows, *classes], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise errors.UsageError(
            f"{module_name} defines no workflow {wanted!r}{hint} (it has: {known})"
        )
    # A graph is a value: it does not know where it was made.
    homes = (module.__name__, "perdure.graph.definition")
    own = [found for found in workflows.values() if found.__module__ in homes]
    if len(own) == 1:
        return module, own[0]
    if not own and len(classes) == 1:
        return module, next(iter(classes.values())).get_definition()
    raise errors.UsageError(f"which workflow? write {module_name}:NAME (it has: {known})")


def workflows_of(module: ModuleType) -> dict[str, Workflow[Any, Any]]:
    """Return the workflows that a module holds, by the names it has for them."""
    return {name: found for name, found in vars(module).items() if isinstance(found, Workflow)}


def _classes_of(module: ModuleType) -> dict[str, Any]:
    """Return the classes that describe a workflow by ``get_definition`` and were written there."""
    return {
        name: found
        for name, found in vars(module).items()
        if isinstance(found, type)
        and found.__module__ == module.__name__
        and callable(getattr(found, "get_definition", None))
    }


def _dotted(path: Path) -> tuple[str, Path]:
    """Return the module name of a file and the folder it is imported from."""
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(part for part in parts if part != "__init__"), folder


def _import_file(name: str, path: Path) -> ModuleType:
    if "." in name:
        return importlib.import_module(name)
    if name in sys.modules:
        # The file is called like a module that is loaded already: it must not take its place.
        name = f"{name}_of_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _broken(target: str, exc: BaseException) -> errors.UsageError:
    """Say where in the user's code an import went wrong."""
    if isinstance(exc, SyntaxError) and exc.filename:
        where = f"{near(exc.filename)}, line {exc.lineno}"
        return errors.UsageError(f"{where}: SyntaxError: {exc.msg}")
    raised = exc.__cause__ if isinstance(exc.__cause__, RuntimeError) else exc
    frames = [
        frame
        for frame in traceback.extract_tb(raised.__traceback__)
        if not frame.filename.startswith(("<", _PACKAGE, _ASYNCIO))
    ]
    where = f"{near(frames[-1].filename)}, line {frames[-1].lineno}" if frames else target
    text = exc.message if isinstance(exc, errors.PerdureError) else f"{type(exc).__name__}: {exc}"
    return errors.UsageError(f"{where}: {text}")


def near(filename: str) -> str:
    """Return a file name as seen from here, if it is below."""
    relative = os.path.relpath(filename)
    return filename if relative.startswith("..") else relative
