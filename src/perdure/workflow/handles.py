"""Handles on other executions, as workflow code holds them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from perdure import errors
from perdure.kernel import traps, watching
from perdure.values import failures, ids, limits, payload
from perdure.values.duration import Duration, optional_microseconds
from perdure.workflow.messages import send

_RAISED: dict[str, type[errors.Failure]] = {
    "failed": errors.WorkflowFailed,
    "cancelled": errors.WorkflowCancelled,
    "terminated": errors.WorkflowTerminated,
    "timed_out": errors.WorkflowTimedOut,
}


class RemoteHandle:
    """Any execution, by id. Await it for its result."""

    __slots__ = ("id", "namespace")

    def __init__(self, workflow_id: str, namespace: str = "") -> None:
        self.id = workflow_id
        self.namespace = namespace

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def send(self, topic: str, payload: Any = None) -> None:
        """Send it a message.

        Raises:
            NotFound: it is unknown or has ended.
        """
        await send(self, topic, payload)

    async def cancel(self, reason: str = "", deadline: Duration | None = None) -> bool:
        """Ask it to end; after ``deadline`` it is terminated. False if it had ended.

        Raises:
            NotFound: there is no such execution.
            Invalid: the reason is not text of at most 4,096 characters, or a bad deadline.
        """
        instance = traps.here()
        limit = optional_microseconds(deadline, what="deadline")
        due = instance.time + limit if limit is not None else 0
        text = payload.text(reason, what="reason", maximum=limits.REASON)
        return await traps.cancel_other(
            instance, self.id, text, due, terminate=False, namespace=self.namespace
        )

    async def terminate(self, reason: str = "") -> bool:
        """End it at once. False if it had ended.

        Raises:
            NotFound: there is no such execution.
            Invalid: the reason is not text of at most 4,096 characters.
        """
        text = payload.text(reason, what="reason", maximum=limits.REASON)
        return await traps.cancel_other(
            traps.here(), self.id, text, 0, terminate=True, namespace=self.namespace
        )

    async def _result(self) -> Any:
        ended = await watching.end_of(traps.here(), self.id, self.namespace)
        if ended.failure is None:
            return payload.decode(ended.result or payload.NULL)
        if ended.status == "completed":  # its result was erased
            raise failures.to_exception(ended.failure)
        message = f"workflow {self.id!r} {ended.status}: {ended.failure.root.message}"
        raise failures.wrap(_RAISED[ended.status], message, ended.failure)

    def __repr__(self) -> str:
        return f"<workflow {self.id!r}>"


def handle(workflow_id: str) -> RemoteHandle:
    """Return a handle on any execution."""
    return RemoteHandle(ids.check_workflow_id(workflow_id))
