"""Cases of the corpus that are step machines."""

from __future__ import annotations

from tests.replay.programs import case
from tests.unit.drive import Run

from perdure.graph import branch, flow


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
