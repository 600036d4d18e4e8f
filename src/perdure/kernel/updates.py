"""The life of an update inside its run: from accepted to answered, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.values import events as ev
from perdure.values import failures

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance


async def run_update(instance: Instance, event: ev.UpdateAccepted, handler: Any) -> None:
    """Run the handler of an accepted update and record its answer.

    A failure is the answer. What ends the run (continue-as-new) or the turn ends it from here too.
    """
    result: bytes | None = None
    failure: failures.FailureInfo | None = None
    try:
        if handler is None:
            raise errors.NotFound(f"update {event.name!r} is not defined by this run")
        result = await handler.run(event.args)
    except asyncio.CancelledError as exc:
        failure = failures.FailureInfo(str(exc) or "cancelled", kind="Canceled")
    except errors.Evicted:
        raise
    except (errors.ControlFlow, MemoryError, RecursionError) as exc:
        instance.fail(exc)
        return
    except Exception as exc:  # noqa: BLE001 - whoever sent the update gets it
        failure = failures.from_exception(exc)
    except BaseExceptionGroup as exc:
        instance.fail(exc)
        return
    instance.updates.pop(event.update, None)
    completed = ev.UpdateCompleted(update=event.update, result=result, failure=failure)
    instance.command(completed)
    instance.answered[event.update] = completed


def handler_named(kind: str, name: str, handlers: dict[str, Any]) -> Any:
    """Return a run's query or update handler.

    Raises:
        NotFound: it has none of that name.
    """
    if name not in handlers:
        known = ", ".join(sorted(handlers)) or "none"
        raise errors.NotFound(f"{kind} {name!r} is not defined by this run (it has: {known})")
    return handlers[name]
