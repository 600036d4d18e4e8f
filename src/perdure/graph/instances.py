"""Several instances of one step: how many there are, when there are enough, what becomes of others.

An instance is a branch that is played for one item. Items are known when the step begins, and
``more`` may add some while instances run. The step is left when all have ended, when ``enough``
outputs are there, or when a message on ``finish`` says so. Then the rest is cancelled, or runs on
behind the step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from perdure import errors, workflow
from perdure.graph.codecs import FUNCTION, GRAPH, JSON_OR_FUNCTION, TEXT
from perdure.graph.forms import Form
from perdure.graph.spans import no_count
from perdure.graph.states import StepType
from perdure.graph.steps import BaseStep, Left
from perdure.values.retry import RetryPolicy

if TYPE_CHECKING:
    from perdure.graph.context import WorkflowContext
    from perdure.graph.interpret import Visit
    from perdure.graph.outline import Outline

Task = asyncio.Task[Any]


class MapStep(BaseStep):
    """One branch per item; the output is a list in the items' order.

    Args:
        name: of the step.
        branch: what is played for each item.
        items: what makes the list of the context; else ``prev`` is it.
        max_concurrent: how many may run at the same time; 0 is all.
        on_error: ``"fail-fast"``: the first error cancels the others. ``"wait-all"``: one error
            that tells of all, when the step is left.
        enough: a number of outputs, or a function of the list of outputs so far, in the order in
            which they came. Then the step is left; what has not ended has ``None`` in its place.
        rest: what becomes of the others then: ``"cancel"``, or ``"run"``: they run on behind the
            step, and the run ends after them. An error in one of them fails the run.
        more: a topic: the payload of each message on it is one more item. Or a function of an
            output that returns a list of items. Both add instances while some still run.
        finish: a topic: a message on it cancels what still runs, and the step is left.
    """

    step_type: ClassVar[StepType] = StepType.GATEWAY
    told_as: ClassVar[str] = "map"
    form = Form(
        "map",
        branch=GRAPH,
        items=FUNCTION,
        enough=JSON_OR_FUNCTION,
        more=JSON_OR_FUNCTION,
        on_error=TEXT,
        rest=TEXT,
        finish=TEXT,
    )

    def __init__(
        self,
        name: str,
        branch: Outline,
        *,
        items: Callable[[WorkflowContext], Sequence[Any]] | None = None,
        max_concurrent: int = 0,
        on_error: str = "fail-fast",
        enough: int | Callable[[list[Any]], Any] | None = None,
        rest: str = "cancel",
        more: str | Callable[[Any], Sequence[Any]] | None = None,
        finish: str = "",
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.branch, self.items, self.enough, self.rest = branch, items, enough, rest
        self.max_concurrent, self.on_error = max_concurrent, on_error
        self.more, self.finish = more, finish

    def copied(self) -> Self:
        made = super().copied()
        made.branch = self.branch.copied()
        return made

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        self.branch.settle(path, default)

    async def visit(self, visit: Visit) -> Left:
        items = _list_of(visit.value if self.items is None else self.items(visit.ctx), "a map")
        crowd = _Crowd(self, visit)
        for item in items:
            crowd.begin(item)
        try:
            await crowd.gather()
            found = crowd.outputs()
            if self.rest == "run" and crowd.running:
                visit.leave(crowd.see_through(crowd.running))
                crowd.running = {}
            return Left(found)
        finally:
            await crowd.disperse()

    def inner(self) -> list[Outline]:
        return [self.branch]

    def functions(self) -> list[object]:
        return [fn for fn in (self.items, self.enough, self.more) if callable(fn)]

    def shape(self) -> list[Any]:
        said = [self.enough, self.rest, self.more, self.finish]
        return [*super().shape(), *("fn" if callable(it) else it for it in said)]

    def problems(self) -> list[str]:
        found: list[str] = []
        for name, given, known in (
            ("on_error", self.on_error, ("fail-fast", "wait-all")),
            ("rest", self.rest, ("cancel", "run")),
        ):
            if given not in known:
                found.append(f"{name}={given!r}: use '{known[0]}' or '{known[1]}'")
        found += no_count("max_concurrent", self.max_concurrent, least=0)
        if not (self.items is None or callable(self.items)):
            found.append(f"items={self.items!r}: give a function of the context")
        if isinstance(self.enough, int) and self.enough < (0 if self.rest == "run" else 1):
            found.append(f"enough={self.enough}: with rest='cancel' nothing would run")
        return found


class _Crowd:
    """The instances of one visit."""

    def __init__(self, step: MapStep, visit: Visit) -> None:
        self._step, self._visit = step, visit
        self._all: list[Task] = []
        self.running: dict[Task, None] = {}
        self._came: list[Any] = []
        self._gate = asyncio.Semaphore(step.max_concurrent) if step.max_concurrent else None
        self._ears: dict[Task, str] = {}

    def begin(self, item: Any) -> None:
        task = asyncio.ensure_future(self._play(item))
        self._all.append(task)
        self.running[task] = None

    async def gather(self) -> None:
        """Wait until the step may be left.

        Raises:
            Exception: of the first instance that failed, with ``fail-fast``.
        """
        for topic in (self._step.more, self._step.finish):
            if isinstance(topic, str) and topic:
                self._listen(topic)
        while self.running and not self._is_enough():
            done, _ = await asyncio.wait(
                [*self._ears, *self.running], return_when=asyncio.FIRST_COMPLETED
            )
            is_finished = False
            for ear in [it for it in self._ears if it in done]:
                topic = self._ears.pop(ear)
                if topic == self._step.finish:
                    is_finished = True
                else:
                    self.begin(ear.result())
                    self._listen(topic)
            for task in [it for it in self.running if it in done]:
                self._take(task)
            if is_finished:
                break

    def outputs(self) -> list[Any]:
        """Return the outputs by the order of the items; ``None`` for what has not ended.

        Raises:
            ApplicationError: instances have failed.
        """
        self._raise_all([task for task in self._all if task not in self.running])
        return [None if task in self.running else task.result() for task in self._all]

    async def see_through(self, rest: dict[Task, None]) -> None:
        """Wait for the instances that run on behind the step."""
        try:
            while rest:
                done, _ = await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
                for task in [it for it in rest if it in done]:
                    del rest[task]
                    self._raise_all([task])
        finally:
            await _cancelled(rest)

    async def disperse(self) -> None:
        """Cancel what still runs, and hear no more."""
        await _cancelled([*self._ears, *self.running])

    async def _play(self, item: Any) -> Any:
        if self._gate is None:
            return await self._visit.play(self._step.branch, prev=item)
        async with self._gate:
            return await self._visit.play(self._step.branch, prev=item)

    def _listen(self, topic: str) -> None:
        self._ears[asyncio.ensure_future(workflow.listen(topic).receive())] = topic

    def _take(self, task: Task) -> None:
        del self.running[task]
        if (exc := task.exception()) is not None:
            if self._step.on_error == "fail-fast":
                raise exc
            return
        self._came.append(task.result())
        if callable(self._step.more):
            for item in _list_of(self._step.more(task.result()), "more="):
                self.begin(item)

    def _is_enough(self) -> bool:
        enough = self._step.enough
        if enough is None:
            return False
        return len(self._came) >= enough if isinstance(enough, int) else bool(enough(self._came))

    def _raise_all(self, ended: Sequence[Task]) -> None:
        failed = [(self._all.index(task), task.exception()) for task in ended if task.exception()]
        if failed:
            raise errors.ApplicationError(
                "Items failed: " + ", ".join(f"{number}: {exc}" for number, exc in failed),
                kind=getattr(failed[0][1], "kind", "Internal"),
                cause=failed[0][1],
            )


async def _cancelled(tasks: Sequence[Task] | dict[Task, None]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _list_of(given: Any, what: str) -> Sequence[Any]:
    if not isinstance(given, (list, tuple)):
        raise errors.ApplicationError(
            f"{what} needs a list of items, got {type(given).__name__}",
            kind="Invalid",
            retryable=False,
        )
    return cast("Sequence[Any]", given)
