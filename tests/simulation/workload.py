"""Random workloads: what a seed starts, with which programs, and what is done to it."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from tests.simulation.programs import Part, results

ENDED_WELL = frozenset({"completed"})


class Plan(msgspec.Struct):
    """One execution: its program, what is done to it, and how it may end.

    ``optional``: it may never come to be (the child of somebody who was ended first).
    ``messages``: numbers of messages per topic that must come in from clients.
    """

    id: str
    parts: list[Part]
    statuses: frozenset[str] = ENDED_WELL
    is_optional: bool = False
    messages: dict[str, int] = {}
    updates: int = 0
    ending: str = ""
    """``cancel``, ``cancel-deadline``, ``terminate`` or nothing."""
    error: str = ""
    reason: str = ""
    """Of a parked run."""
    is_top: bool = True
    key: str = ""
    """One at a time of those with the same key: the others queue."""

    @property
    def results(self) -> list[Any]:
        return results(self.parts)


class Workload:
    """What one seed does."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._names = 0
        self.plans: list[Plan] = []
        for number in range(chance.choice((1, 2, 2, 3, 3, 4, 5))):
            self._add(number)

    # -- executions ----------------------------------------------------------------------------

    def _add(self, number: int) -> None:
        chance = self._chance
        plan = Plan(f"x{number}", [])
        self.plans.append(plan)
        kind = chance.random()
        if kind < 0.16:
            self._add_ended(plan)
        elif kind < 0.30:
            self._add_mailbox(plan)
        elif kind < 0.38:
            self._add_updated(plan)
        elif kind < 0.44:
            self._add_failing(plan)
        else:
            plan.parts = self._parts(plan, chance.randint(1, 4), depth=2)
            if chance.random() < 0.2:
                for _ in range(chance.randint(1, 2)):
                    plan.parts.insert(chance.randint(0, len(plan.parts)), ["continue"])

    def _add_ended(self, plan: Plan) -> None:
        """An execution that is cancelled or terminated some time."""
        chance = self._chance
        plan.ending = chance.choice(("cancel", "cancel", "cancel-deadline", "terminate"))
        plan.statuses = frozenset({"completed", "cancelled"})
        if plan.ending == "terminate":
            plan.statuses = frozenset({"completed", "terminated"})
        elif plan.ending == "cancel-deadline":
            plan.statuses = frozenset({"completed", "cancelled", "terminated"})
        plan.parts = self._parts(plan, chance.randint(1, 3), depth=1)
        drawn = chance.random()
        if drawn < 0.4:
            plan.parts.append(["clean_up", self._name("c")])
            plan.statuses -= {"completed"}
        elif drawn < 0.6:
            plan.parts.append(["stubborn", self._name("b"), 2.0])
        for part in plan.parts:
            if part[0] == "receive":
                plan.messages[part[1]] = part[2]

    def _add_mailbox(self, plan: Plan) -> None:
        chance = self._chance
        parts = self._parts(plan, chance.randint(0, 2), depth=1)
        for _ in range(chance.randint(1, 2)):
            topic, count = self._name("t"), chance.randint(1, 5)
            part: Part = ["receive", topic, count]
            if chance.random() < 0.4:
                part = ["receive_or_nap", topic, count, chance.choice((0.1, 0.7))]
            parts.insert(chance.randint(0, len(parts)), part)
            if chance.random() < 0.3:
                parts.insert(chance.randint(0, len(parts)), ["continue"])
            plan.messages[topic] = count
        plan.parts = parts

    def _add_updated(self, plan: Plan) -> None:
        chance = self._chance
        plan.updates = chance.randint(1, 3)
        plan.parts = [*self._parts(plan, chance.randint(0, 2), depth=1), ["updates", plan.updates]]

    def _add_failing(self, plan: Plan) -> None:
        chance = self._chance
        plan.parts = self._parts(plan, chance.randint(0, 2), depth=1)
        drawn = chance.random()
        if drawn < 0.4:
            plan.parts.append(["fail", "on purpose"])
            plan.statuses, plan.error = frozenset({"failed"}), "on purpose"
        elif drawn < 0.7:
            plan.parts.append(["bug"])
            plan.statuses, plan.error = frozenset({"failed"}), "a bug"
        else:
            plan.parts.append(["poisoned", self._name("p")])
            plan.statuses, plan.reason = frozenset({"parked"}), "store_refused"

    # -- parts ---------------------------------------------------------------------------------

    def _name(self, letter: str) -> str:
        self._names += 1
        return f"{letter}{self._names}"

    def _parts(self, plan: Plan, count: int, *, depth: int) -> list[Part]:
        return [self._part(plan, depth) for _ in range(count)]

    def _part(self, plan: Plan, depth: int) -> Part:
        chance = self._chance
        drawn = chance.random()
        if depth and drawn < 0.16:
            kind = chance.choice(("gather", "gather", "group"))
            return [kind, self._parts(plan, chance.randint(2, 4), depth=depth - 1)]
        if depth and drawn < 0.30:
            return self._family(plan, depth)
        if depth and drawn < 0.36:
            return ["spawned", self._name("f"), self._part(plan, 0)]
        return self._single()

    def _single(self) -> Part:
        chance = self._chance
        name = self._name("s")
        pause = round(chance.random() * 0.3, 3)
        return chance.choice(
            (
                ["step", name, 0.0],
                ["step", name, pause],
                ["step", name, pause],
                ["by_name", name],
                ["flaky", name, chance.randint(1, 3)],
                ["doomed", name, chance.randint(1, 3)],
                ["fatal", name],
                ["beating", name, chance.randint(1, 5)],
                ["slow", name, chance.randint(1, 2)],
                ["late", name, chance.choice((0.05, 0.4))],
                ["race", name, pause, round(chance.random() * 0.4, 3)],
                ["nap", chance.choice((0.01, 0.3, 1.0, 2.5))],
                ["nap", pause],
                ["chance", name],
                ["impatient", chance.choice((0.1, 0.6))],
                ["send", chance.choice(("nobody", "x0", "x1")), "extra", chance.randint(1, 3)],
            )
        )

    def _family(self, plan: Plan, depth: int) -> Part:
        """A part with a child; the child is planned too."""
        chance = self._chance
        id = f"{plan.id}-{self._name('k')}"
        may_be_cut = plan.ending != "" or plan.is_optional
        kind = chance.choice(("child", "child", "leave", "leave", "hear", "twin", "end_other"))
        statuses = {"completed", "cancelled", "terminated"} if may_be_cut else {"completed"}
        child = Plan(id, [], is_optional=may_be_cut, is_top=False, ending=plan.ending)
        if kind in ("twin", "end_other"):
            child.statuses = frozenset({"terminated" if kind == "twin" else "cancelled"})
            if may_be_cut:
                child.statuses |= {"terminated", "cancelled"}
            self.plans.append(child)
            return [kind, id]
        child.parts = self._parts(child, chance.randint(1, 2), depth=depth - 1)
        if chance.random() < 0.15:
            child.parts.insert(chance.randint(0, len(child.parts)), ["continue"])
        if kind == "leave":
            policy = chance.choice(("terminate", "abandon", "request_cancel"))
            if policy == "abandon":
                statuses = {"completed"}
            else:
                statuses.add("terminated" if policy == "terminate" else "cancelled")
                child.is_optional = may_be_cut
            child.statuses = frozenset(statuses)
            self._may_be_cut(child)
            self.plans.append(child)
            return ["leave", id, child.parts, policy]
        child.statuses = frozenset(statuses)
        self.plans.append(child)
        return [kind, id, child.parts]

    def _may_be_cut(self, plan: Plan) -> None:
        """The children of a child that may be ended may be ended with it, or never start."""
        if plan.statuses == ENDED_WELL:
            return
        for other in self.plans:
            if other.id.startswith(plan.id + "-"):
                other.is_optional = True
                other.statuses |= {"terminated", "cancelled"}
