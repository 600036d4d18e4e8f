"""Services in several processes: built by a factory in each, or pickled.

``Engine(services={"mail": "orders.mail:connect", "rates": rates})``: a text ``"module:name"`` names
a function without parameters that makes the service; each process calls it once, the engine's own
when it starts. Anything else is one object in the engine's process, and a copy in each subprocess.
"""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Mapping
from typing import Any

from perdure import errors, places
from perdure.engine.processes.frames import Service

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_factory(given: object) -> bool:
    """Tell whether a service is given as ``"module:name"``."""
    return isinstance(given, str) and _FACTORY.fullmatch(given) is not None


async def built_here(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the services of the engine's own process.

    Raises:
        UsageError: a factory is not there, or failed.
    """
    made = dict(given)
    for name, value in given.items():
        if is_factory(value):
            made[name] = await _made(name, value)
    return made


async def built_elsewhere(given: Mapping[str, Service]) -> dict[str, Any]:
    """Return the services of a subprocess.

    Raises:
        UsageError: one could not be built here.
    """
    made: dict[str, Any] = {}
    for name, service in given.items():
        if service.factory:
            made[name] = await _made(name, service.factory)
            continue
        try:
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
        if is_factory(value):
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


async def _made(name: str, factory: str) -> Any:
    module, _, attribute = factory.partition(":")
    what = f"service {name!r} ({factory!r})"
    try:
        make = places.load(places.Place(module, attribute), what)
        made = make()
        return await made if inspect.isawaitable(made) else made
    except errors.DefinitionError as exc:
        raise errors.UsageError(exc.message, cause=exc) from exc
    except Exception as exc:
        raise errors.UsageError(
            f"{what} could not be built: {type(exc).__name__}: {exc}", cause=exc
        ) from exc
