"""What a run of a graph has gathered, and what is shown of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure import errors, workflow
from perdure.graph.context import Changes, InstanceInfo, StepExecution, WorkflowContext
from perdure.graph.marks import passed_over, presentable
from perdure.graph.outline import Outline
from perdure.graph.states import StepStatus
from perdure.kernel import traps
from perdure.values import payload
from perdure.values.terms import CANCEL, CONTINUE
from perdure.workflow.run import to_time

if TYPE_CHECKING:
    from perdure.graph.steps import BaseStep


class Book:
    """What a run of a graph has gathered: shared by its branches.

    ``steps``, ``metadata`` and ``data`` are replaced and never changed, so that contexts can keep
    them as they are; but for ``data`` once it was lent to workflow code, which may change it.
    """

    def __init__(self, outline: Outline, input: Any) -> None:
        self.host = traps.here()
        self.input = input
        self.steps: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        given = cast("dict[str, Any]", input) if isinstance(input, dict) else {}
        self.data: dict[str, Any] = {**given}
        self._is_lent = False
        self.history: list[StepExecution] = []
        self.current: dict[str, int] = {}
        self.done: set[str] = set()
        self.told = 0
        """How many of them listeners were told of last."""
        self.sections: dict[str, asyncio.Lock] = {}
        """Held by the step that is in the critical section of that name."""
        self.total = len(outline.steps)
        info = workflow.info()
        self.instance = InstanceInfo(
            id=info.workflow_id,
            instance_id=info.first_run_id,
            workflow_name=info.workflow_type,
            version=info.version,
            started_at=workflow.now(),
            namespace=info.namespace,
            user_id=workflow.context.get("user_id"),
            tenant_id=workflow.context.get("tenant_id"),
        )
        self._turn = self.host.time, self.instance.started_at

    def now(self) -> datetime:
        """Return the turn's time; a turn ends a visit, begins another, and asks twice."""
        time = self.host.time
        if self._turn[0] != time:
            self._turn = time, to_time(time)
        return self._turn[1]

    @property
    def progress(self) -> int:
        """How much of the graph is behind it, in percent."""
        return min(100, round(100 * len(self.done) / max(self.total, 1)))

    def context(self, step: str, prev: Any, *, is_kept: bool) -> WorkflowContext:
        """Return what a step sees. ``is_kept``: as it is now, whatever others set from here on."""
        return WorkflowContext(
            self.instance,
            input=self.input,
            steps=self.steps,
            prev=prev,
            metadata=self.metadata,
            data=self._kept_data() if is_kept else self._lend_data,
            current_step=step,
            step_history=self.history,
        )

    def _lend_data(self) -> dict[str, Any]:
        if not self._is_lent:
            self.data, self._is_lent = {**self.data}, True
        return self.data

    def _kept_data(self) -> dict[str, Any]:
        return {**self.data} if self._is_lent else self.data

    @property
    def goes_on_late(self) -> bool:
        """Whether a step whose time is over is left, and the next one follows."""
        return self._timeout_action == CONTINUE

    async def late(self, step: str, said: str) -> None:
        """Let the run be cancelled for a step whose time is over, if policies want that.

        If it was that of an activity, the engine has asked for it already.
        """
        if self._timeout_action != CANCEL or self.host.cancel is not None:
            return
        reason = f"{step!r} took too long: {said}"
        await traps.cancel_other(self.host, self.instance.id, reason, 0, terminate=False)
        await self.host.loop.create_future()

    @property
    def _timeout_action(self) -> str:
        started = self.host.started
        return started.terms.timeout_action if started is not None else ""

    def pass_over(self, step: BaseStep, *, counts: bool) -> None:
        """Keep and tell that a step cannot begin any more; ``counts``: it is one of them all."""
        execution = StepExecution(step.name, StepStatus.SKIPPED, self.now())
        self.finish(execution, StepStatus.SKIPPED)
        self.history.append(execution)
        if counts:
            self.done.add(step.name)
        if not self.host.is_replaying:
            self.host.tell(passed_over(step))

    def finish(
        self,
        execution: StepExecution,
        status: StepStatus,
        output: Any = None,
        *,
        error: str | None = None,
    ) -> None:
        """Keep how a visit ended."""
        execution.status, execution.completed_at = status, self.now()
        execution.result = execution.output_data = output
        execution.error = error

    def merge(self, changes: Changes) -> None:
        """Take what a step has set, key by key."""
        if changes.metadata:
            self.metadata = {**self.metadata, **changes.metadata}
        if changes.data or changes.dropped:
            if not self._is_lent:
                self.data = {**self.data}
            self.data.update(changes.data)
            for key in changes.dropped:
                self.data.pop(key, None)


class MetadataUpdate:
    """Takes ``handle.set_metadata``; made for each run, so it is no more than this."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def validate(self, args: bytes) -> None:
        """Refuse what is no mapping of texts.

        Raises:
            Invalid: it is none.
        """
        _read_metadata(args)

    async def run(self, args: bytes) -> bytes:
        """Merge it."""
        for values in _read_metadata(args):
            self._book.merge(Changes(metadata=values))
        return payload.NULL


_read_metadata = payload.decoder(list[dict[str, Any]], what="metadata")


class GraphQuery:
    """Answers ``handle.query("graph")``; made for each run, so it is no more than this."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def answer(self, args: bytes) -> bytes:
        """Return the encoded answer."""
        book = self._book
        found: dict[str, Any] = {
            "current_steps": list(book.current),
            "steps": book.steps,
            "metadata": book.metadata,
            "data": book.data,
            "progress": book.progress,
            "step_history": book.history,
            "user_id": book.instance.user_id,
        }
        try:
            return payload.encode(found, what="answer")
        except errors.Invalid:  # something that a mapper gave or set
            found |= {key: _presentable(found[key]) for key in ("steps", "metadata", "data")}
            found["step_history"] = [
                _presentable(msgspec.structs.asdict(it)) for it in book.history
            ]
            return payload.encode(found, what="answer")


def _presentable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: presentable(value) for key, value in values.items()}
