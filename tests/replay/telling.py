"""Cases of the corpus that tell events: a function, and a step machine."""

from __future__ import annotations

from tests.replay.programs import case
from tests.unit.drive import Run

from perdure import workflow
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
