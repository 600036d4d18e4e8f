"""What an engine is given, as it takes it: definitions, queues, services."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, cast

from perdure import errors
from perdure.activity import Activity
from perdure.definition import Workflow
from perdure.values import payload
from perdure.values.duration import SECOND, Duration, microseconds
from perdure.values.queues import QueueLimit, TaskQueue

Queues = Sequence[str | TaskQueue] | Mapping[str, int]
"""Task queues as they are given to an engine."""


def queues(given: object) -> tuple[TaskQueue, ...]:
    """Return the task queues to serve: names, :class:`TaskQueue`, or slots by name.

    Raises:
        Invalid: they are none of these, or one stands twice.
    """
    if isinstance(given, Mapping):
        slots = cast("Mapping[Any, Any]", given)
        found = [TaskQueue(payload.text(name, what="task_queues"), slots[name]) for name in slots]
    elif isinstance(given, str) or not isinstance(given, Iterable):
        raise errors.Invalid(f"task_queues: {given!r} is not a list of text; write [{given!r}]")
    else:
        found = [
            one if isinstance(one, TaskQueue) else TaskQueue(payload.text(one, what="task_queues"))
            for one in cast("Iterable[Any]", given)
        ]
    names = [queue.name for queue in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise errors.Invalid(f"task_queues: {', '.join(map(repr, twice))} is named twice")
    return tuple(found)


def limits(given: object, queues: Sequence[TaskQueue]) -> tuple[QueueLimit, ...]:
    """Return the limits that hold over all workers, of the queues that say something of these."""
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        return ()
    said = {one.name for one in cast("Iterable[Any]", given) if isinstance(one, TaskQueue)}
    return tuple(queue.limit for queue in queues if queue.name in said)


def switch(given: object, what: str) -> bool:
    """Return a setting that is on or off.

    Raises:
        Invalid: it is something else: the text "no" would count as true.
    """
    if not isinstance(given, bool):
        raise errors.Invalid(f"{what}: {given!r} is neither True nor False")
    return given


def interval(given: Duration) -> int:
    """Return how often old runs are looked for, in microseconds.

    Raises:
        Invalid: no duration, or under a second.
    """
    found = microseconds(given, what="retention_interval")
    if found < SECOND:
        raise errors.Invalid(f"retention_interval: {given!r} is under a second")
    return found


def collect(definitions: Any) -> Sequence[Workflow[Any, Any] | Activity[Any, Any]]:
    """Find definitions in what was given: objects, modules that hold them, or a single one.

    Raises:
        DefinitionError: something is no definition, or a module has none.
    """
    if isinstance(definitions, (Workflow, Activity)) or inspect.ismodule(definitions):
        definitions = [definitions]
    elif not isinstance(definitions, Iterable):
        raise errors.DefinitionError(f"definitions: {definitions!r} is no list of definitions")
    found: list[Workflow[Any, Any] | Activity[Any, Any]] = []
    for item in cast("Iterable[Any]", definitions):
        if isinstance(item, (Workflow, Activity)):
            found.append(cast("Workflow[Any, Any] | Activity[Any, Any]", item))
        elif inspect.ismodule(item):
            found += _in_module(item)
        else:
            is_unbuilt = callable(getattr(item, "build", None))
            hint = "; call its build(), which returns the definition" if is_unbuilt else ""
            raise errors.DefinitionError(
                f"definitions: {item!r} is neither a workflow, an activity nor a module{hint}"
            )
    return found


def _in_module(module: ModuleType) -> list[Workflow[Any, Any] | Activity[Any, Any]]:
    found: list[Workflow[Any, Any] | Activity[Any, Any]] = [
        v for v in vars(module).values() if isinstance(v, (Workflow, Activity))
    ]
    if not found:
        raise errors.DefinitionError(f"module {module.__name__!r} defines no workflow or activity")
    return found


def services(given: Any) -> dict[str, Any]:
    """Return services by name.

    Raises:
        Invalid: they are no mapping of names.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):  # pyright: ignore[reportUnknownVariableType] - of anything
        raise errors.Invalid(
            f"services: {given!r} is no mapping of names to services; write "
            'Engine(services={"mail": mailer})'
        )
    return dict(cast("Mapping[str, Any]", given))


async def built(services: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return services with those made that are given as ``"module:function"``."""
    if not any(isinstance(given, str) for given in services.values()):
        return services
    from perdure.engine.processes.services import built_here

    return await built_here(services)
