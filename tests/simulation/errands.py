"""What clients do to executions besides starting them: pauses, rivals, mailboxes, cron."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.simulation.programs import Program, play
from tests.simulation.relations import Part

from perdure import errors
from perdure.client import Client
from perdure.values.states import Status

if TYPE_CHECKING:
    from tests.simulation.workload import Plan
    from tests.simulation.world import World


class Stop(Exception):
    """The simulation found something wrong."""


ENDINGS = frozenset({"cancel", "cancel-deadline", "terminate"})
_TICKS = 3
_ANSWERED_WITHIN = 30.0
_VISIT_LASTS = 400.0


async def start_rival(world: World, plan: Plan, parts: list[Part], policy: str) -> None:
    """Start the id once more, with another program."""
    await asyncio.sleep(world.chance.random() * 1.5)  # sleep: virtual time
    try:
        handle = await world.insist(
            lambda client: client.start(play, Program(parts), id=plan.id, id_conflict_policy=policy)
        )
    except errors.AlreadyExists:
        world.sim.note("cli", "was refused", plan.id, policy)
        if policy != "fail":
            raise
        return
    world.sim.note("cli", "started", plan.id, policy, handle.run_id)
    world.acknowledged.append((plan.id, handle.run_id))


async def pause(world: World, plan: Plan) -> None:
    """Pause an execution for a while. It takes no turn meanwhile."""
    chance, store = world.chance, world.sim.store
    await asyncio.sleep(chance.random() * 1.5)  # sleep: virtual time
    await world.insist(lambda client: client.get(plan.id).pause())
    row = store.find(plan.id)
    if row.status is Status.PAUSED:
        begun = world.sim.tick()
        world.sim.note("cli", "paused", plan.id)
        await asyncio.sleep(chance.choice((0.1, 1.0, 3.0)))  # sleep: virtual time
        row = store.find(plan.id)
        if row.status is not Status.PAUSED:
            _stop(f"{plan.id} was paused and is {row.status}")
        world.pauses.append((row.run, begun, world.sim.tick()))
        was_paused = await world.insist(lambda client: client.get(plan.id).resume())
        world.sim.note("cli", "resumed", plan.id, was_paused)
    world.resumed.add(plan.id)


async def end_after_ticks(world: World, plan: Plan) -> None:
    """Cancel a cron execution that has ended some runs."""
    while True:
        row = world.sim.store.find(plan.id)
        if row is not None and row.attempt == 1 and _runs_of(world, plan.id) >= _TICKS:
            break
        await asyncio.sleep(5.0)  # sleep: virtual time
    while not world.sim.store.find(plan.id).status.is_terminal:
        await world.insist(lambda client: client.get(plan.id).cancel("enough"))
        await asyncio.sleep(1.0)  # sleep: virtual time


def _runs_of(world: World, id: str) -> int:
    sql = f"select count(*) from perdure_run where workflow_id = '{id}'"
    return world.sim.store.database.execute(sql).fetchone()[0]


async def ask_all(world: World, plan: Plan) -> None:
    """Ask an execution through mailboxes: a new one when a process dies or a call fails."""
    visit = _Visit(world, plan)
    while not visit.is_done:
        try:
            await world.ask(visit.run, limit=_VISIT_LASTS)
        except errors.Unavailable as exc:
            world.sim.note("cli", "visit of", plan.id, "was cut off:", str(exc))
            await asyncio.sleep(0.3)  # sleep: virtual time


class _Visit:
    """What is left to ask of an execution; each mailbox goes on where the last one ended."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._plan = plan
        self._left = [f"q{n}" for n in range(plan.questions)]
        self._asked = 0
        self._listens_to_the_end = world.chance.random() < 0.6
        self.is_done = False

    async def run(self, client: Client) -> None:
        """Ask what is left.

        Raises:
            Unavailable: the mailbox could not do it, or its engine has stopped.
        """
        try:
            await self._run(client)
        except errors.ChannelClosed as exc:
            raise errors.Unavailable("the mailbox was closed") from exc

    async def _run(self, client: Client) -> None:
        """What a mailbox asked is answered once, in order, while it is open."""
        async with client.mailbox() as box:
            answers = box.listen("answer")
            sent: list[str] = []
            got: list[str] = []
            is_watching = self._listens_to_the_end
            if is_watching:
                await box.monitor(self._plan.id)
            for name in list(self._left):
                self._asked += 1
                token = f"{name}#{self._asked}"
                try:
                    await box.send(self._plan.id, "ask", {"name": name, "token": token})
                except errors.Closed:
                    self._world.check_closed(self._plan, "a question")
                    break
                sent.append(token)
                await self._take(answers, got, name)
                self._left.remove(name)
            if [token for token in sent if token in got] != got:
                _stop(f"{self._plan.id} answered {got}; it was asked {sent}")
            if is_watching:
                await self._hear_of_the_end(box)
        self.is_done = True

    async def _take(self, answers: Any, got: list[str], name: str) -> None:
        while True:
            try:
                answer = await answers.receive(timeout=_ANSWERED_WITHIN)
            except TimeoutError:
                row = self._world.sim.store.find(self._plan.id)
                if row.status.is_terminal:
                    return  # it had heard this name before, from another mailbox
                raise errors.Unavailable(f"{name} is not answered yet") from None
            if answer["token"] in got:
                _stop(f"{answer['token']} of {self._plan.id} was answered twice")
            got.append(answer["token"])
            if answer["name"] == name:
                return

    async def _hear_of_the_end(self, box: Any) -> None:
        events = box.events()
        world, plan = self._world, self._plan
        while True:
            try:
                notice = await events.receive(timeout=_ANSWERED_WITHIN)
                break
            except TimeoutError:
                row = world.sim.store.find(plan.id)
                if row.status.is_terminal and world.is_calm:
                    _stop(f"a mailbox did not hear of the end of {plan.id}")
        world.sim.note("cli", "heard of the end of", plan.id)
        if notice.sender != plan.id:
            _stop(f"a mailbox heard of {notice.sender}, not of {plan.id}")
        world.check_closed(plan, "a mailbox")
        try:
            notice = await events.receive(timeout=3.0)
        except TimeoutError:
            return
        _stop(f"a mailbox heard twice of the end of {plan.id}: {notice}")


def _stop(text: str) -> None:
    raise Stop(text)
