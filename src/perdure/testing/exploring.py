"""``explore_crashes``: a workflow of your own, with a crash at each of its commits in turn.

Each exploration runs the workflow on ordinary engines in a :class:`Simulation`: virtual time, a
database in memory, two workers. First nothing goes wrong, which shows how many commits there are;
then the worker that makes the N-th commit dies before it, and in another run right after it, for
N = 1, 2, 3 … until no commit is left to fail. The other worker takes over.

Of every run it is held that

* the database is sound: :func:`perdure.testing.checks.problems` finds nothing, and the code replays
  its history byte by byte;
* no attempt of an activity begins whose outcome was recorded, and no attempt begins twice;
* no part of the engine ended unexpectedly, and every run came to an end;
* it ended as the run in which nothing went wrong did, or as your ``invariant`` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.store.port import Filter
from perdure.testing import checks
from perdure.testing.clock import Idle, TooLong
from perdure.testing.faults import Fault, FaultyDesk, NthCommit
from perdure.testing.simulator import SimulatedWorker, Simulation
from perdure.values import events as ev
from perdure.values.states import Status

if TYPE_CHECKING:
    from perdure.definition import Workflow
    from perdure.engine.work import Work
    from perdure.handle import Handle

Script = Callable[["Handle[Any]"], Awaitable[object]]
CRASHES = (Fault.DIE_BEFORE, Fault.DIE_AFTER)
_ID = "explored"


@dataclass(frozen=True)
class Explored:
    """One run of the workflow, as an invariant sees it. ``str()`` says which.

    Attributes:
        commit: which commit failed; 0 in the run in which nothing went wrong.
        fault: how it failed.
        status: of the execution at its end.
        result: what it returned, ``None`` unless it completed.
        error: what waiting for it raised, if it did not complete.
        store: the database, for :func:`perdure.testing.checks.histories` and the like.
    """

    commit: int
    fault: Fault
    status: Status
    result: Any
    error: errors.PerdureError | None
    store: Any = field(repr=False)

    @property
    def end(self) -> str:
        """How it ended, in one line."""
        said = repr(self.result) if self.error is None else str(self.error)
        return f"{self.status}: {said}"

    def __str__(self) -> str:
        return f"commit {self.commit}, {self.fault.value}" if self.commit else "nothing fails"


@dataclass(frozen=True)
class Exploration:
    """What was tried. ``commits``: how many commits a run has; ``runs``: how many there were."""

    commits: int
    runs: int
    first: Explored
    """The run in which nothing went wrong."""


def explore_crashes(
    workflow: Workflow[Any, Any],
    input: Any = None,
    *,
    invariant: Callable[[Explored], object] | None = None,
    definitions: Sequence[Any] = (),
    messages: Sequence[tuple[str, Any]] = (),
    script: Script | None = None,
    prepare: Callable[[], object] | None = None,
    faults: Sequence[Fault] = CRASHES,
    limit: int = 200,
    seed: int | str = 0,
    limit_seconds: float = 3_600.0,
    engine: Mapping[str, Any] | None = None,
) -> Exploration:
    """Run a workflow once as it is, and again with a crash at each of its commits.

    A plain call, for a plain test: it runs an event loop of its own. Waiting is virtual time, also
    that of activities by ``asyncio.sleep``; an hour of it costs a few seconds. An attempt that is
    cut off by a crash runs again, as in life; whoever counts effects outside must allow for that.

    Args:
        workflow: a function's definition or a graph.
        input: of the workflow.
        invariant: is called with each :class:`Explored`; it raises, or returns ``False``, if the
            run is not as it should be. Without one, each must end as the first did.
        definitions: other workflows and activities that the workflow names.
        messages: (topic, payload), sent with the start.
        script: an async function of the handle, called after the start: what people and other
            programs do meanwhile. Its ``asyncio.sleep`` is virtual time too.
        prepare: is called before each run; forget there what the run before has left.
        faults: what happens to the N-th commit. ``Fault.ERROR`` (it fails) and ``Fault.LOST_ACK``
            (it is written, and its writer not told) may be tried as well.
        limit: of a workflow with more commits, so many are drawn by ``seed``, which the error says.
        seed: of all chance.
        limit_seconds: of virtual time, for one run.
        engine: options of the engines, such as ``{"services": {…}}``.

    Raises:
        AssertionError: something did not hold; which run it was, what, and what happened in it.
        UsageError: it was called where an event loop runs.
    """
    _check_no_loop_runs()
    found = (workflow, *definitions)
    first: Explored | None = None

    def explore(number: int, fault: Fault) -> _Scene:
        if prepare is not None:
            prepare()
        scene = _Scene(found, NthCommit(number, fault), seed, limit_seconds, dict(engine or {}))
        with scene.sim:
            explored = scene.run(number, fault, input, messages, script)
            scene.judge(explored, first, invariant)
            scene.explored = explored
        return scene

    scene = explore(0, Fault.NONE)
    first = scene.explored
    assert first is not None
    commits, drawn, runs = scene.plan.commits, scene.drawn(limit), 1
    for fault in faults:
        for number in drawn:
            explore(number, fault)
            runs += 1
        # A crash may have made more commits than there were: go on until none is left.
        number = commits + 1
        while commits <= limit and explore(number, fault).plan.has_failed:
            runs, number = runs + 1, number + 1
    return Exploration(commits, runs, first)


class _Scene:
    """One run on two workers, with one commit that fails."""

    def __init__(
        self,
        definitions: Sequence[Any],
        plan: NthCommit,
        seed: int | str,
        limit_seconds: float,
        options: dict[str, Any],
    ) -> None:
        self.plan = plan
        self.sim = Simulation(seed, plan=plan, limit_seconds=limit_seconds)
        self.explored: Explored | None = None
        self._definitions, self._options = definitions, options
        self._recorded: set[tuple[int, int]] = set()
        self._begun: set[tuple[int, int, int]] = set()
        self.sim.sea.on_written = self._written

    def drawn(self, limit: int) -> Sequence[int]:
        """Return the numbers of its commits, or ``limit`` of them if they are more."""
        numbers = range(1, self.plan.commits + 1)
        if len(numbers) <= limit:
            return numbers
        return sorted(self.sim.chance("sample").sample(numbers, limit))

    def run(
        self,
        number: int,
        fault: Fault,
        input: Any,
        messages: Sequence[tuple[str, Any]],
        script: Script | None,
    ) -> Explored:
        """Let it happen."""
        result, error = None, None
        try:
            result = self.sim.run(self._main(input, messages, script))
        except errors.PerdureError as exc:
            error = exc
        except (Idle, TooLong) as exc:
            row = self.sim.store.find(_ID)
            stands = f"{row.status} {row.reason or ''}" if row else "not there"
            self.sim.alarms.append(f"it does not end: the run is {stands.strip()}; {exc}")
        row = self.sim.store.find(_ID)
        status = row.status if row is not None else Status.PENDING
        return Explored(number, fault, status, result, error, self.sim.store)

    def judge(
        self,
        explored: Explored,
        first: Explored | None,
        invariant: Callable[[Explored], object] | None,
    ) -> None:
        """Hold what must hold.

        Raises:
            AssertionError: it does not.
        """
        found = [*self.sim.alarms]
        if not found:
            workflows = [it for it in self._definitions if hasattr(it, "begin")]
            found += checks.problems(self.sim.store, workflows)
        if invariant is None:
            if first is not None and explored.end != first.end:
                found.append(f"it ended as {explored.end}, and without a crash as {first.end}")
        elif not found:
            try:
                if invariant(explored) is False:
                    found.append(f"the invariant does not hold; it ended as {explored.end}")
            except AssertionError as exc:
                exc.add_note(f"{explored}:\n{self.sim.report()}")
                raise
        if found:
            listed = "\n".join(f"  - {problem}" for problem in found)
            raise AssertionError(f"{explored}:\n{listed}\n{self.sim.report()}")

    async def _main(
        self, input: Any, messages: Sequence[tuple[str, Any]], script: Script | None
    ) -> Any:
        workers = [self._worker("w1"), self._worker("w2")]
        await workers[0].start()
        process, client = self.sim.foreign_client("caller")

        async def use() -> Any:
            workflow = self._definitions[0]
            handle = await client.start(workflow, input, id=_ID, messages=list(messages))
            if script is not None:
                await script(handle)
            return await handle.result()

        waiting = process.spawn(use())
        await workers[1].start()
        try:
            return await waiting
        finally:
            await self.sim.until(self._is_over)
            for worker in workers:
                if worker.is_up:
                    await worker.stop()

    def _worker(self, name: str) -> SimulatedWorker:
        worker = self.sim.worker(name, self._definitions, **self._options)
        worker.may_die = worker.desk.may_die = True
        worker.on_attempt = self._attempt_begins
        return worker

    def _is_over(self) -> bool:
        rows = self.sim.store.list(Filter(), limit=1_000).rows
        return all(row.status.is_terminal for row in rows)

    def _written(self, desk: FaultyDesk, verb: str, argument: Any, answer: Any) -> None:
        if verb != "commit":
            return
        said: list[str] = []
        for turn in argument.turns:
            if turn.run in answer.lost or turn.run in answer.reopened:
                continue
            for event in ev.decode_turn(turn.payload):
                said.append(event.brief())
                if isinstance(event, (ev.ActivityCompleted, ev.ActivityFailed)):
                    self._recorded.add((turn.run, event.activity))
        self.sim.note(desk.process.name, "commits", "; ".join(said))

    def _attempt_begins(self, work: Work) -> None:
        call = work.run.key, work.number
        if call in self._recorded:
            self.sim.alarms.append(f"a recorded step runs again: {work}")
        if (*call, work.attempt) in self._begun:
            self.sim.alarms.append(f"an attempt runs twice: {work}")
        self._begun.add((*call, work.attempt))


def _check_no_loop_runs() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise errors.UsageError(
        "explore_crashes runs a loop of its own: call it from a plain function, or await "
        "asyncio.to_thread(explore_crashes, …)"
    )
