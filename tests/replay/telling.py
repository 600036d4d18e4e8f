"""Cases of the corpus that tell events: a function, a step machine, a run that is late."""

from __future__ import annotations

from tests.replay.programs import case, decided_in, fulfil
from tests.unit.drive import Run

from perdure import human, workflow
from perdure.graph import branch, flow
from perdure.values import events as ev
from perdure.workflow import call


def _more(n: int) -> int:
    """Never run here."""
    return n + 1


machine = (
    flow("machine")
    .task("more", _more)
    .choice("enough", [(lambda c: c.steps["more"] > 3, "done")], default="again")
    .loop("again", condition=lambda c: True, target="more", interval="1s", max_iterations=3)
    .parallel("done", [branch("a").task("one", _more), branch("b").pass_("two", result=2)])
    .build()
)


@case(machine)
def machine_with_marks(run: Run) -> None:
    told = {"output": 3, "changes": {"events": [["counted", {"n": 3}]], "data": {"seen": True}}}
    run.complete("machine.more", told)
    run.fire()
    run.complete("machine.more", {"output": 4})
    run.complete("machine.done.a.one", {"output": 5})


passing = (
    flow("passing")
    .choice("way", [(lambda c: bool(c.input), "left")], default="right")
    .pass_("left", end=True)
    .wait("right", "1s")
    .human("ask", title="Fine?", due="1h")
    .build()
)


@case(passing)
def machine_that_passes_over_and_is_late(run: Run) -> None:
    run.fire()
    run.fire()
    run.turn(decided_in(run, "completed", value=b"{}", by="ada"))


@workflow.define
async def patient() -> list[str]:
    stays = await human.request("Fine?", due="1h", expires="never")
    return [stays.outcome, (await human.request("Sure?", due="1h", expires="2h")).outcome]


@case(patient)
def overdue_and_done(run: Run) -> None:
    run.fire()
    run.turn(decided_in(run, "completed", value=b"1", by="ada"))
    run.fire()
    run.fire()


@workflow.define
async def telling(steps: int) -> int:
    for number in range(steps):
        await workflow.emit("step", {"number": number})
        await call("work", number)
        await workflow.progress(number + 1, steps, "on the way")
    child = await workflow.start("other")
    await workflow.emit("over", [child.id])
    return steps


@case(telling)
def events_and_progress(run: Run) -> None:
    run.complete("work")
    run.blind(run.completed("work"))
    run.turn(ev.RunTaken(worker="w2"))


@case(fulfil)
def overdue_and_going_on(run: Run) -> None:
    run.turn(run.completed("charge", 5))
    run.turn(ev.RunOverdue(limit=60_000_000))
    run.fire()
    run.complete("pack")
