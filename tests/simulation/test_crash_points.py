"""Every commit of some workflows fails in turn: before it, after it, and only for its caller.

For N = 1, 2, 3 … the N-th commit fails, until a run goes through with none left to fail. With
``die`` the worker ends there and another takes over; else the same one has to find out.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.simulation.programs import DEFINITIONS, Part, Program, fits, log_effect, play, results

from perdure.testing import checks
from perdure.testing.faults import Fault, NthCommit
from perdure.testing.simulator import SimulatedWorker, Simulation

PROGRAMS: dict[str, list[Part]] = {
    "steps in a row": [["step", "a", 0.1], ["flaky", "b", 2], ["step", "c", 0.0]],
    "steps side by side": [
        ["gather", [["step", "a", 0.1], ["doomed", "b", 2], ["nap", 0.2], ["late", "c", 0.1]]],
        ["slow", "d", 2],
    ],
    "children": [
        ["child", "kid", [["step", "a", 0.1], ["continue"], ["step", "b", 0.0]]],
        ["leave", "left", [["nap", 0.2]], "abandon"],
        ["hear", "heard", [["step", "c", 0.1]]],
    ],
    "messages": [
        ["receive", "t", 3],
        ["continue"],
        ["send", "nobody", "extra", 1],
        ["receive", "u", 1],
    ],
    "timers and conditions": [["nap", 0.2], ["impatient", 0.3], ["spawned", "f", ["nap", 0.1]]],
}
MESSAGES = {"messages": {"t": 3, "u": 1}}
FAULTS = [Fault.ERROR, Fault.LOST_ACK, Fault.DIE_BEFORE, Fault.DIE_AFTER]
MANY = 60


class Scene:
    """One program on two workers, with one commit that fails."""

    def __init__(self, name: str, number: int, fault: Fault) -> None:
        self.parts = PROGRAMS[name]
        self.messages = MESSAGES.get(name, {})
        self.plan = NthCommit(number, fault)
        self.sim = Simulation(f"{name} {number} {fault.value}", plan=self.plan, limit_seconds=90)
        self.effects: dict[tuple[str, int, int], int] = {}

    def run(self) -> list[str]:
        with self.sim:
            result = self.sim.run(self._main())
            found = checks.problems(self.sim.store, [play])
            if not fits(result, results(self.parts)):
                found.append(f"the result is {result}")
            found += [f"{call} ran {n} times" for call, n in self.effects.items() if n > 1]
            found += self.sim.alarms
            return [*found, self.sim.report()] if found else []

    async def _main(self) -> Any:
        workers = [self._worker("w1"), self._worker("w2")]
        await workers[0].start()
        process, client = self.sim.foreign_client("cli")

        async def use() -> Any:
            handle = await client.start(play, Program(self.parts), id="it")
            for topic, count in self.messages.items():
                for number in range(count):
                    await handle.send(topic, {"name": f"{topic}-{number}"})
            return await handle.result(timeout=60)

        waiting = process.spawn(use())
        await workers[1].start()
        result = await waiting
        await self.sim.until(lambda: not self._is_open("left"))
        for worker in workers:
            if worker.is_up:
                await worker.stop()
        return result

    def _worker(self, name: str) -> SimulatedWorker:
        worker = self.sim.worker(name, DEFINITIONS)
        worker.process.put(log_effect, self._log)
        worker.may_die = worker.desk.may_die = True
        return worker

    def _is_open(self, id: str) -> bool:
        row = self.sim.store.find(id)
        return row is not None and not row.status.is_terminal

    def _log(self, info: Any, worker: str, is_end: bool) -> None:
        if not is_end:
            call = info.run_id, info.activity_id, info.attempt
            self.effects[call] = self.effects.get(call, 0) + 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
@pytest.mark.parametrize("name", PROGRAMS)
def test_any_commit_may_fail(name: str, fault: Fault) -> None:
    for number in range(1, MANY):
        scene = Scene(name, number, fault)
        found = scene.run()
        assert not found, f"commit {number}, {fault.value}:\n" + "\n".join(found)
        if not scene.plan.has_failed:
            assert number > 4, "there was next to nothing to fail"
            return
    raise AssertionError("there is no end to the commits")
