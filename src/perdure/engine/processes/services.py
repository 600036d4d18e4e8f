"""Services in several processes: built by a factory in each, or pickled.

``Engine(services={"mail": "orders.mail:connect", "rates": rates})``: a text ``"module:name"`` names
a function without parameters that makes the service; each process calls it once, the engine's own
when it starts. Anything else is one object in the engine's process, and a copy in each subprocess.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from perdure import errors, places, references
from perdure.engine.processes.frames import Service


async def built_here(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the services of the engine's own process.

    Raises:
        UsageError: a factory is not there, or failed.
    """
    made = dict(given)
    for name, value in given.items():
        if references.named(value):
            made[name] = await _made(name, value, references.imported)
    return made


async def built_elsewhere(given: Mapping[str, Service], main: places.Place) -> dict[str, Any]:
    """Return the services of a subprocess of an engine whose main module is ``main``.

    Raises:
        UsageError: one could not be built here.
    """
    made: dict[str, Any] = {}

    def load(module: str) -> ModuleType:
        place = main if module == places.MAIN else places.Place(module, "")
        return places.load_module(place, "its factory")

    for name, service in given.items():
        if service.factory:
            made[name] = await _made(name, service.factory, load)
            continue
        try:
            if places.MAIN.encode() in service.pickled:
                load(places.MAIN)  # for a class that is defined there
            made[name] = pickle.loads(service.pickled)  # noqa: S301 - the engine pickled it
        except Exception as exc:
            raise errors.UsageError(
                f"service {name!r} could not be unpickled in a subprocess: "
                f"{type(exc).__name__}: {exc}"
            ) from exc
    return made


def packed(given: Mapping[str, Any]) -> dict[str, Service]:
    """Return what subprocesses build their services from.

    Raises:
        UsageError: a service is neither a factory nor can it be pickled.
    """
    made: dict[str, Service] = {}
    for name, value in given.items():
        if references.named(value):
            made[name] = Service(factory=value)
            continue
        try:
            made[name] = Service(pickled=pickle.dumps(value))
        except Exception as exc:
            raise errors.UsageError(
                f"service {name!r} ({type(value).__name__}) cannot go to the subprocesses of "
                f"isolated handlers: {type(exc).__name__}: {exc}. Give the text of a factory, "
                f'"module:function", which is called once in each process'
            ) from exc
    return made


async def _made(name: str, factory: str, load: Callable[[str], ModuleType]) -> Any:
    module, _, path = factory.partition(":")
    try:
        made = references.within(load(module), path)()
        return await made if inspect.isawaitable(made) else made
    except Exception as exc:
        is_ours = isinstance(exc, errors.DefinitionError)
        said = exc.message if is_ours else f"{type(exc).__name__}: {exc}"
        raise errors.UsageError(
            f"service {name!r} ({factory!r}) could not be built: {said}", cause=exc
        ) from exc
