"""Where a definition stands, so that another process finds it: module, file and name.

A subprocess of an engine imports the module under the same name. A script that was started as
``__main__`` is loaded by its file (or by the name given to ``python -m``) under the name
``__mp_main__``, as :mod:`multiprocessing` does: what stands under ``if __name__ == "__main__":``
does not run there.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import runpy
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec

from perdure import errors

MAIN = "__main__"
_MAIN_ELSEWHERE = "__mp_main__"


class Place(msgspec.Struct, frozen=True):
    """``name`` (dotted, of an attribute) in ``module``; ``file`` and ``runs_as`` for ``__main__``.

    ``runs_as``: the name that was given to ``python -m``. ``document``: what the function that
    stands there makes the thing of, if no module has it.
    """

    module: str
    name: str
    file: str = ""
    runs_as: str = ""
    document: str = ""


def place_of(module: str, name: str) -> Place:
    """Return the place of a name in a module of this process.

    Raises:
        DefinitionError: the module is one that no other process can load.
    """
    if module != MAIN:
        return Place(module, name, _file_of(module))
    main = main_place()
    if not (main.runs_as or main.file) or main.file.startswith("<"):
        raise errors.DefinitionError(
            f"{name!r} was defined in an interactive session or in `python -c`, where a "
            "subprocess cannot find it; put it into a module"
        )
    return msgspec.structs.replace(main, name=name)


def main_place() -> Place:
    """Return the place of this process's main module, whether or not others can load it."""
    spec = getattr(sys.modules.get(MAIN), "__spec__", None)
    return Place(MAIN, "", _file_of(MAIN), getattr(spec, "name", None) or "")


def _file_of(module: str) -> str:
    return getattr(sys.modules.get(module), "__file__", None) or ""


def named_in(module: str, thing: object) -> str:
    """Return the name that a module has for an object, or ``""``."""
    loaded = sys.modules.get(module)
    if not isinstance(loaded, ModuleType):
        return ""
    return next((name for name, value in list(vars(loaded).items()) if value is thing), "")


def found_anywhere(thing: object) -> tuple[str, str]:
    """Return (module, name) of an object at the top level of any loaded module, or two ``""``."""
    for module in list(sys.modules):
        if name := named_in(module, thing):
            return module, name
    return "", ""


def look_up(module: str, name: str) -> Any:
    """Return what a loaded module has under a dotted name, or ``None``."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def load(place: Place, what: str) -> Any:
    """Import the module of a place, in another process than the one that named it, and look there.

    Raises:
        DefinitionError: the module cannot be imported, or has no such name.
    """
    found: Any = load_module(place, what)
    for part in place.name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise errors.DefinitionError(
            f"{what}: module {place.module!r} has no {place.name!r} in a subprocess; was it made "
            "under a condition, or by another thread, after the module was imported?"
        )
    return _made_of(found, place.document) if place.document else found


@functools.lru_cache
def _made_of(read: Callable[[str], Any], document: str) -> Any:
    return read(document)


def load_module(place: Place, what: str) -> ModuleType:
    """Import the module of a place in a subprocess.

    Raises:
        DefinitionError: it cannot be imported.
    """
    if place.module == MAIN:
        return _main(place)
    try:
        return importlib.import_module(place.module)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{place.module}.".startswith(f"{exc.name}."):
            raise _broken(place, what, exc) from exc
        if not place.file:
            raise _broken(place, what, exc) from exc
    except Exception as exc:
        raise _broken(place, what, exc) from exc
    # A file that was loaded by its path, under a name that is not on the import path.
    spec = importlib.util.spec_from_file_location(place.module, place.file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[place.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as exc:
        del sys.modules[place.module]
        raise _broken(place, what, exc) from exc
    return module


def _main(place: Place) -> ModuleType:
    """Load the engine's main module again, without what only the main program does."""
    if _MAIN_ELSEWHERE in sys.modules:
        return sys.modules[_MAIN_ELSEWHERE]
    made = ModuleType(_MAIN_ELSEWHERE)
    try:
        if place.runs_as:
            names = runpy.run_module(place.runs_as, run_name=_MAIN_ELSEWHERE, alter_sys=True)
        else:
            names = runpy.run_path(place.file, run_name=_MAIN_ELSEWHERE)
    except Exception as exc:
        raise _broken(place, "the main program", exc) from exc
    vars(made).update(names)
    # Pickled objects, and places that the main module names, are looked up under either name.
    sys.modules[MAIN] = sys.modules[_MAIN_ELSEWHERE] = made
    return made


def _broken(place: Place, what: str, exc: BaseException) -> errors.DefinitionError:
    text = exc.message if isinstance(exc, errors.PerdureError) else f"{type(exc).__name__}: {exc}"
    if isinstance(exc, RuntimeError) and "event loop" in str(exc):
        text = (
            "it runs an event loop while it is imported; put that under "
            '`if __name__ == "__main__":`'
        )
    name = place.file or place.module if place.module == MAIN else place.module
    return errors.DefinitionError(f"{what}: a subprocess cannot import {name!r}: {text}")
