"""One simulated world: workers and clients at work on a random workload, while things go wrong.

First a time of trouble, then calm: no more faults, one worker at least. In the calm everything must
come to its end by itself; then the workers leave, and ``judge`` looks at what is in the database
and at what was seen outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import msgspec
from tests.simulation import errands, rows
from tests.simulation.errands import Stop
from tests.simulation.fleet import Fleet
from tests.simulation.kinds import early_tidying, some_faults, tidying_after
from tests.simulation.programs import DEFINITIONS, Effect, Program, log_effect, play
from tests.simulation.workload import Plan, Workload

from perdure import errors
from perdure.activity import Info
from perdure.client import Client
from perdure.engine.engine import Engine
from perdure.testing.clock import Idle, Process, State, TooLong
from perdure.testing.faults import FaultyDesk
from perdure.testing.simulator import SimulatedWorker, Simulation, ended
from perdure.values.states import Status

FLEET = "fleet-"
"""So begin the names of seeds whose database is on a server."""
_HANGS_AFTER = 60.0
_CALM_LASTS = 300.0


class Said(msgspec.Struct):
    """A message that a client sent, and whether it was acknowledged."""

    sender: str
    number: int
    target: str
    token: str
    is_acknowledged: bool = False


class Row(msgspec.Struct, frozen=True):
    """A history row that a commit wrote."""

    tick: int
    run: int
    first: int
    worker: str
    is_applied: bool = False


class World:
    """See the module's text."""

    def __init__(self, seed: str) -> None:
        chance = Random(f"{seed}/world")
        self.chance = chance
        self.faults = some_faults(chance, Random(f"{seed}/faults"))
        self.sim = Simulation(seed, plan=self.faults, on_server=seed.startswith(FLEET))
        self.workload = Workload(Random(f"{seed}/workload"))
        self._limit_some(Random(f"{seed}/limits"))
        rows.make_ledger(self.sim.store)
        self.sim.sea.on_written = self._written
        knows_the_dead = chance.random() < 0.7
        network = self.sim.network
        if network is None:
            self.sim.sea.knows_the_dead = knows_the_dead
        self.fleet = network and Fleet(self, network, Random(f"{seed}/fleet"))
        self.trouble_seconds = chance.choice((0.0, 2.0, 4.0, 6.0))
        self.is_calm = False
        self.effects: list[Effect] = []
        self.rows: list[Row] = []
        self.said: list[Said] = []
        self.seen_results: list[tuple[str, Any]] = []
        self.started: set[str] = set()
        self.maybe_started: set[str] = set()
        self.acknowledged: list[tuple[str, str]] = []
        """Workflow ids and run ids of which somebody was told that they were started."""
        self.pauses: list[tuple[str, int, int]] = []
        """Which runs took no turn between two ticks."""
        self._taken_over: set[int] = set()
        self.resumed: set[str] = set()
        self._standing: dict[str, list[tuple[int, bool]]] = {}
        self._names = 0
        self._always_replays = chance.random() < 0.15
        self._options: dict[str, Any] = {"lease": "2s", "cache": chance.choice((1, 4, 4_000))}
        if chance.random() < 0.15:
            self._options["activity_slots"] = chance.choice((1, 2))
        self._tidies_after = early_tidying(Random(f"{seed}/retention"))
        if self._tidies_after is not None:
            self._options["retention_interval"] = "1s"
        self._wanted = chance.choice((1, 1, 2, 2, 2, 3, 3, 4))
        self._foreign: tuple[Process, Client] | None = None
        self._staff: list[asyncio.Task[None]] = []
        self._stops: list[asyncio.Task[None]] = []

    # -- the course of things ------------------------------------------------------------------

    def run(self) -> None:
        """Let it all happen.

        Raises:
            Stop: something did not end, or a part of the engine did.
        """
        try:
            with tidying_after(self._tidies_after):
                self.sim.run(self._main())
        except (Idle, TooLong) as exc:
            raise Stop(f"{type(exc).__name__}: {exc}") from exc
        except BaseExceptionGroup as exc:
            raise Stop(f"a client: {_first(exc)!r}") from exc

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        self._foreign = self.sim.foreign_client("cli", clock_offset=self._clock_offset())
        for _ in range(self._wanted):
            self.employ()
        jobs = [loop.create_task(self._see_through(plan)) for plan in self.workload.plans]
        chaos = [loop.create_task(self._make_trouble())]
        if self.fleet is not None:
            chaos.append(loop.create_task(self.fleet.make_trouble()))
        await asyncio.gather(*chaos)
        await self._calm_down()
        await self._wait_until_ended(jobs)
        for job in jobs:
            job.result()
        if self.fleet is not None:
            await self.fleet.until_nobody_is_missed()
        for staff in self._staff:
            staff.cancel()
        await asyncio.gather(*[worker.stop() for worker in self.up()])

    async def _make_trouble(self) -> None:
        chance, end = self.chance, self.trouble_seconds
        faults = self.faults
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            await asyncio.sleep(chance.random() * 1.5)  # sleep: virtual time
            up = self.up()
            if not up:
                continue
            worker = chance.choice(up)
            drawn = chance.random()
            if drawn < faults.kills:
                worker.kill()
            elif drawn < faults.kills + faults.freezes:
                self.sim.note(worker.name, "freezes")
                worker.freeze()
                loop.call_later(chance.choice((0.3, 2.5, 3.0, 6.0)), self._thaw, worker)
            elif drawn < faults.kills + faults.freezes + faults.stops:
                self.sim.note(worker.name, "stops")
                self._stops.append(loop.create_task(worker.stop()))

    async def _calm_down(self) -> None:
        self.is_calm = True
        self.sim.note("world", "calm")
        self.faults.calm()
        if self.sim.network is not None:
            self.sim.network.calm()
        for worker in self.sim.workers:
            self._thaw(worker)
        await self.sim.until(lambda: bool(self.up()))

    async def _wait_until_ended(self, jobs: list[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        limit = loop.time() + _CALM_LASTS
        while True:
            self.sim.alarms += rows.orphans(self.sim.store)
            if self.sim.alarms:
                raise Stop(f"alarm: {self.sim.alarms[0]}")
            running = [job for job in jobs if not job.done()]
            if running:
                await asyncio.wait(running, timeout=0.5)
            else:
                await asyncio.sleep(0.5)  # sleep: virtual time
            for job in jobs:
                if job.done():
                    job.result()
            for staff in (*self._staff, *self._stops):
                if staff.done():
                    staff.result()
            open_ = self._unfinished()
            await self._unpark()
            if not open_ and all(job.done() for job in jobs):
                return
            if loop.time() > limit:
                names = [
                    plan.id
                    for plan, job in zip(self.workload.plans, jobs, strict=True)
                    if not job.done()
                ]
                raise Stop(f"nothing moves any more; open: {open_}; clients wait for: {names}")

    async def _unpark(self) -> None:
        """An activity that lost its worker three times in a row waits for a person.

        A pause whose acknowledgement was lost may stop a run after it was resumed.
        """
        for plan in self.workload.plans:
            row = self.sim.store.find(plan.id)
            if row is not None and row.reason == "worker_lost":
                self.sim.note("cli", "unparks", plan.id)
                await self.insist(lambda client, it=plan.id: client.get(it).unpark())
            elif row is not None and row.status is Status.PAUSED and plan.id in self.resumed:
                self.sim.note("cli", "resumes", plan.id, "once more")
                await self.insist(lambda client, it=plan.id: client.get(it).resume())

    def _unfinished(self) -> list[str]:
        open_: list[str] = []
        for plan in self.workload.plans:
            row = self.sim.store.find(plan.id)
            if row is None:
                if plan.is_top:
                    open_.append(f"{plan.id} does not exist")
            elif not row.status.is_terminal and (
                str(row.status) not in plan.statuses or row.reason != plan.reason
            ):
                open_.append(f"{plan.id} is {row.status}, owner {row.owner}, {row.reason}")
        return open_

    # -- workers -------------------------------------------------------------------------------

    def up(self) -> list[SimulatedWorker]:
        """Return the workers that run."""
        return [w for w in self.sim.workers if w.is_up and w.process.state is State.RUNNING]

    def employ(self) -> None:
        """Have one worker more from now on."""
        self._staff.append(asyncio.get_running_loop().create_task(self._employ()))

    def _clock_offset(self) -> int:
        return self.fleet.clock_offset() if self.fleet is not None else 0

    async def _employ(self) -> None:
        self._names += 1
        worker = self.sim.worker(
            f"w{self._names}",
            DEFINITIONS,
            prepare=self._prepare,
            clock_offset=self._clock_offset(),
            **self._options,
        )
        worker.process.put(log_effect, self._log_effect)
        worker.may_die = worker.desk.may_die = True
        await worker.start()
        if worker.is_up and self._always_replays:
            worker.core.always_replay = True
        await asyncio.wait([worker.process.ended])
        await asyncio.sleep(self.chance.choice((0.05, 0.5, 2.0)))  # sleep: virtual time
        await self._employ()

    def _thaw(self, worker: SimulatedWorker) -> None:
        if worker.process.state is State.STOPPED:
            self.sim.note(worker.name, "thaws")
            worker.thaw()

    # -- clients -------------------------------------------------------------------------------

    def foreign(self) -> tuple[Process, Client]:
        """Return the client that has the database alone."""
        assert self._foreign is not None
        return self._foreign

    def some_client(self) -> tuple[Process, Client]:
        """Return a client: of a worker, or one that has the database alone."""
        up = self.up()
        if up and self.chance.random() < 0.6:
            worker = self.chance.choice(up)
            return worker.process, worker.client
        return self.foreign()

    async def ask(
        self,
        call: Callable[[Client], Awaitable[Any]],
        through: tuple[Process, Client] | None = None,
        *,
        limit: float = _HANGS_AFTER,
    ) -> Any:
        """Make one call through some client; ``Unavailable`` if the client's process died in it."""
        process, client = through or self.some_client()

        async def make() -> Any:
            return await call(client)

        task = process.spawn(make())
        if not await ended(process, task, limit):
            if process.is_alive:
                raise Stop(f"a call of a client of {process.name} hangs")
            raise errors.Unavailable("the client's process died")
        try:
            return task.result()
        except errors.UsageError as exc:
            raise errors.Unavailable("the client's engine has stopped") from exc

    async def insist(self, call: Callable[[Client], Awaitable[Any]]) -> Any:
        """Make a call until it is answered."""
        while True:
            try:
                return await self.ask(call)
            except errors.Unavailable:
                await asyncio.sleep(0.3)  # sleep: virtual time

    def _limit_some(self, chance: Random) -> None:
        """Let some executions be open only one at a time; those that stay parked would block."""
        self.has_limits = chance.random() < 0.4
        for plan in self.workload.plans:
            may_wait = plan.is_top and not plan.updates and "parked" not in plan.statuses
            may_wait &= not (plan.options or plan.rivals or plan.questions or plan.is_many)
            if self.has_limits and may_wait and _is_alone(plan.parts) and chance.random() < 0.7:
                plan.key = "one"
        self._keyed = {plan.id for plan in self.workload.plans if plan.key}

    def _prepare(self, engine: Engine) -> None:
        if self.has_limits:
            engine.register(play, max_concurrent_per_key=1, on_limit="queue")

    def _check_limits(self) -> None:
        """Never are two executions with one key admitted at once, whatever happens."""
        begun = {id for id in rows.admitted(self.sim.store) if id in self._keyed}
        if len(begun) > 1:
            self.sim.alarms.append(f"more than one of a key is admitted: {sorted(begun)}")

    async def _see_through(self, plan: Plan) -> None:
        """Start an execution, do to it what is planned, and take its result."""
        if not plan.is_top:
            return
        chance = self.chance
        await asyncio.sleep(chance.random() * 0.5)  # sleep: virtual time
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start(plan))
            for parts, policy in plan.rivals:
                group.create_task(errands.start_rival(self, plan, parts, policy))
        async with asyncio.TaskGroup() as group:
            for topic, count in plan.messages.items():
                for sender in range(chance.choice((1, 1, 2))):
                    group.create_task(self._send_all(plan, topic, count, sender))
            if plan.updates:
                group.create_task(self._update_all(plan))
            if plan.ending in errands.ENDINGS:
                group.create_task(self._end(plan))
            if plan.ending == "cron":
                group.create_task(errands.end_after_ticks(self, plan))
            if plan.is_paused:
                group.create_task(errands.pause(self, plan))
            if plan.questions:
                group.create_task(errands.ask_all(self, plan))
            if chance.random() < 0.5 and not (plan.options or plan.is_many):
                group.create_task(self._query(plan))
            if "parked" in plan.statuses:
                group.create_task(self._wait_until_parked(plan))
            elif plan.ending != "cron":
                group.create_task(self._take_result(plan))

    async def _start(self, plan: Plan) -> None:
        program = Program(plan.parts)
        options = dict(plan.options)
        if not plan.is_many:
            options["id_reuse_policy"] = "reject_duplicate"
        by_name = self.chance.random() < 0.2 and not plan.error
        handle: Any = None
        while True:
            try:
                handle = await self.ask(
                    lambda client, w="play" if by_name else play: client.start(
                        w, program, id=plan.id, concurrency_key=plan.key, **options
                    )
                )
                if handle.id != plan.id:
                    raise Stop(f"the start of {plan.id} returned a handle on {handle.id}")
            except errors.Unavailable:
                self.maybe_started.add(plan.id)
                await asyncio.sleep(0.2)  # sleep: virtual time
            except errors.NotFound:
                by_name = False  # no worker has registered it yet
            except errors.AlreadyExists:
                if plan.id not in self.maybe_started:
                    raise
                break  # an earlier try was not acknowledged; meanwhile it has ended
            else:
                break
        self.sim.note("cli", "started", plan.id)
        self.started.add(plan.id)
        if handle is not None:
            self.acknowledged.append((plan.id, handle.run_id))
        row = self.sim.store.find(plan.id)
        if row is None or not self.sim.store.history(row.run):
            raise Stop(f"the start of {plan.id} was acknowledged, and it does not exist")

    async def _take_result(self, plan: Plan) -> None:
        while True:
            try:
                result = await self._result(plan)
            except errors.Unavailable:
                await asyncio.sleep(0.3)  # sleep: virtual time
            else:
                self.seen_results.append((plan.id, result))
                return

    async def _result(self, plan: Plan) -> Any:
        async def result(client: Client) -> Any:
            try:
                return await client.get(plan.id).result(timeout=20)
            except TimeoutError:
                raise errors.Unavailable("not yet") from None
            except errors.WorkflowFailed as exc:
                return exc
            except errors.WorkflowCancelled as exc:
                return exc
            except errors.WorkflowTerminated as exc:
                return exc
            except errors.WorkflowTimedOut as exc:
                return exc

        return await self.ask(result)

    async def _send_all(self, plan: Plan, topic: str, count: int, sender: int) -> None:
        """Send messages one after the other, each until it is acknowledged."""
        call = 0
        name = f"{plan.id}/{topic}/{sender}"
        through = self.some_client()
        for number in range(count):
            await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.1, 0.6)))  # sleep: virtual time
            while True:
                call += 1
                if not through[0].is_alive:
                    through = self.some_client()
                # Order is kept for what goes through one client.
                said = Said(f"{name} by {through[0].name}", call, plan.id, f"{name}#{call}")
                self.said.append(said)
                message = {"name": f"{topic}-{number}", "token": said.token}
                try:
                    await self.ask(
                        lambda client, m=message: client.get(plan.id).send(topic, m), through
                    )
                except errors.Unavailable:
                    await asyncio.sleep(0.2)  # sleep: virtual time
                except errors.Closed:
                    self.check_closed(plan, "a message")
                    return
                else:
                    said.is_acknowledged = True
                    self.sim.note("cli", "sent", said.token)
                    break

    def check_closed(self, plan: Plan, what: str) -> None:
        row = self.sim.store.find(plan.id)
        if not row.status.is_terminal:
            raise Stop(f"{what} to {plan.id} was told that it has ended; it is {row.status}")

    async def _update_all(self, plan: Plan) -> None:
        for number in range(plan.updates):
            await asyncio.sleep(self.chance.choice((0.0, 0.3)))  # sleep: virtual time
            slowly = self.chance.random() < 0.3
            while True:
                try:
                    answer = await self.ask(
                        lambda client, n=number, s=slowly: client.get(plan.id).update(
                            "add", f"u{n}", s, id=f"{plan.id}-u{n}", timeout="3s"
                        )
                    )
                except errors.Closed:
                    self.check_closed(plan, "an update")
                    return
                except (errors.Unavailable, errors.NotFound, errors.Conflict) as exc:
                    self.sim.note("cli", f"update {number} of {plan.id}:", str(exc))
                    await asyncio.sleep(0.3)  # sleep: virtual time
                else:
                    if answer != number + 1:
                        raise Stop(f"update {number} of {plan.id} was answered with {answer}")
                    break

    async def _query(self, plan: Plan) -> None:
        before = 0
        for _ in range(self.chance.randint(1, 4)):
            await asyncio.sleep(self.chance.random())  # sleep: virtual time
            try:
                answer = await self.ask(
                    lambda client: client.get(plan.id).query("so_far", timeout="2s")
                )
            except (errors.Unavailable, errors.NotFound, errors.Conflict):
                continue
            if answer < before:
                raise Stop(f"a query of {plan.id} goes back from {before} to {answer}")
            before = answer

    async def _end(self, plan: Plan) -> None:
        await asyncio.sleep(self.chance.random() * 4)  # sleep: virtual time

        async def end(client: Client) -> bool:
            handle = client.get(plan.id)
            if plan.ending == "terminate":
                return await handle.terminate("on purpose")
            if plan.ending == "cancel":
                return await handle.cancel("on purpose")
            return await handle.cancel("on purpose", deadline="1500ms")

        was_open = await self.insist(end)
        self.sim.note("cli", plan.ending, plan.id, was_open)
        if not was_open:
            self.check_closed(plan, "a cancel")

    async def _wait_until_parked(self, plan: Plan) -> None:
        await self.sim.until(lambda: self.sim.store.find(plan.id).reason == plan.reason)

    # -- what is seen --------------------------------------------------------------------------

    def _log_effect(self, info: Info, worker: str, is_end: bool) -> None:
        sim = self.sim
        self.effects.append(
            Effect(
                sim.tick(),
                sim.loop.time(),
                is_end,
                worker,
                info.run_id,
                info.activity_id,
                info.attempt,
                info.idempotency_key,
                info.activity,
            )
        )
        sim.note(
            worker,
            "ends" if is_end else "begins",
            info.activity,
            info.workflow_id,
            f"#{info.activity_id}",
            info.attempt,
        )

    def is_zombie(self, worker: str, tick: int) -> bool:
        """Tell whether a worker had been taken over by then, and not joined again."""
        before = [joined for at, joined in self._standing.get(worker, []) if at < tick]
        return bool(before) and not before[-1]

    def _written(self, desk: FaultyDesk, verb: str, argument: Any, answer: Any) -> None:
        tick, name = self.sim.tick(), desk.process.name
        if self._keyed:
            self._check_limits()
        if verb == "start" or (verb == "commit" and (answer.started or answer.children)):
            self.sim.alarms += rows.twice_open(self.sim.store)
        if verb == "commit" and argument.worker in self._taken_over:
            self.sim.alarms.append(f"{name} committed after it was taken over (I6)")
        if verb == "commit":
            dropped = answer.lost | answer.reopened
            for started in answer.started:
                if started.created:
                    self.rows.append(Row(tick, started.run, 1, name))
            for turn in argument.turns:
                if turn.run not in dropped:
                    self.rows.append(Row(tick, turn.run, turn.first, name, turn.applied))
            self.sim.note(
                name,
                "commits",
                [(t.run, t.first, t.count) for t in argument.turns],
                len(argument.starts),
                "dropped" if dropped else "",
                *dropped,
            )
        elif verb == "take_over" and answer:
            self._taken_over.add(argument)
            owner = self.sim.sea.owners[argument]
            self._standing.setdefault(owner.process.name, []).append((tick, False))
            self.sim.note(name, "takes over", owner.process.name)
        elif verb == "join":
            self._standing.setdefault(name, []).append((tick, True))
            self.sim.note(name, verb)
        elif verb != "extend":
            self.sim.note(name, verb)


def _first(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


_ALONE = frozenset(
    {"continue", "doomed", "fatal", "gather", "group", "hear", "impatient", "late", "leave", "nap"}
    | {"slow", "step"}
)


def _is_alone(parts: Sequence[Any]) -> bool:
    """Tell whether a program waits for nobody but its own children: the others may queue."""
    return all(
        part[0] in _ALONE
        and all(_is_alone(inner) for inner in part[1:] if isinstance(inner, (list, tuple)))
        for part in parts
    )
