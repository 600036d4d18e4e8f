"""Random workloads: what a seed starts, with which programs, and what is done to it."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from tests.simulation.programs import Part, results
from tests.simulation.relations import FALL

from perdure.values.retry import Retry

ENDED_WELL = frozenset({"completed"})
_SINGLE = ("again", "asked", "converse", "converse", "defied", "delayed_child", "late_child")
_FAMILIES = (
    *("child", "child", "leave", "leave", "leave", "hear", "twin", "end_other", "replace", "share"),
    *_SINGLE,
)
"""Parts with a child; those of ``_SINGLE`` say what it does."""


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
    """``cancel``, ``cancel-deadline``, ``terminate``, ``cron``, ``timeout`` or nothing."""
    error: str = ""
    reason: str = ""
    """Of a parked run."""
    is_top: bool = True
    key: str = ""
    """One at a time of those with the same key: the others queue."""
    options: dict[str, Any] = {}
    """Of the start."""
    is_paused: bool = False
    questions: int = 0
    """How many questions mailboxes ask."""
    rivals: list[tuple[list[Part], str]] = []
    """Other starts of the id at the same time, with their conflict policies."""
    is_many: bool = False
    """There may be several executions of the id, one after the other."""

    @property
    def results(self) -> list[Any]:
        return results(self.parts)


class Workload:
    """What one seed does."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._names = 0
        self._may_park = False
        self._shared_plan: Plan | None = None
        self.plans: list[Plan] = []
        for number in range(chance.choice((1, 2, 2, 3, 3, 4, 5))):
            self._add(number)

    # -- executions ----------------------------------------------------------------------------

    def _add(self, number: int) -> None:
        chance = self._chance
        plan = Plan(f"x{number}", [])
        self.plans.append(plan)
        kind = chance.random()
        if kind < 0.14:
            self._add_ended(plan)
        elif kind < 0.25:
            self._add_mailbox(plan)
        elif kind < 0.31:
            self._add_updated(plan)
        elif kind < 0.38:
            self._add_failing(plan)
        elif kind < 0.46:
            self._add_timed(plan)
        elif kind < 0.54:
            self._add_rivals(plan)
        elif kind < 0.61:
            self._add_server(plan)
        elif kind < 0.73:
            self._add_watcher(plan)
        else:
            plan.parts = self._parts(plan, chance.randint(1, 4), depth=2)
            if chance.random() < 0.2:
                for _ in range(chance.randint(1, 2)):
                    plan.parts.insert(chance.randint(0, len(plan.parts)), ["continue"])
        if plan.options or plan.rivals:
            return
        if chance.random() < 0.08:
            plan.options = {"start_delay": chance.choice(("200ms", "900ms"))}
        if not plan.ending and not plan.reason and chance.random() < 0.15:
            plan.is_paused = True

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
        self._may_park = True
        plan.parts = self._parts(plan, chance.randint(0, 2), depth=1)
        self._may_park = False
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

    def _add_timed(self, plan: Plan) -> None:
        """Timeouts, workflow retries, cron."""
        chance = self._chance
        kind = chance.choice(("run", "execution", "both", "retry", "retry", "cron"))
        if kind == "retry":
            plan.parts = self._parts(plan, chance.randint(0, 1), depth=0)
            plan.parts.append(["until", self._name("a"), chance.randint(2, 4)])
            plan.options = {"retry": Retry(interval="150ms", backoff=1.5, max_interval="1s")}
            if chance.random() < 0.3:
                plan.parts.insert(0, ["continue"])
            return
        if kind == "cron":
            plan.parts = [["step", self._name("s"), 0.0]]
            plan.options, plan.ending = {"cron": "* * * * *"}, "cron"
            plan.statuses = frozenset({"cancelled"})
            return
        plan.ending, plan.statuses = "timeout", frozenset({"timed_out"})
        plan.parts = self._parts(plan, chance.randint(0, 2), depth=int(kind != "both"))
        plan.parts.append(["nap", 900.0])
        limit = chance.choice(("300ms", "800ms", "2s"))
        if kind == "run":
            plan.options = {"run_timeout": limit}
        elif kind == "execution":
            plan.options = {"execution_timeout": limit}
        else:
            retry = Retry(max_attempts=chance.choice((2, 3)), interval="300ms", backoff=1)
            plan.options = {"run_timeout": limit, "execution_timeout": "4s", "retry": retry}

    def _add_rivals(self, plan: Plan) -> None:
        """Several start the same id; whoever is replaced is terminated."""
        chance = self._chance
        plan.is_many = True
        plan.ending = "rivals"  # what it starts may be cut off
        plan.statuses = frozenset({"completed"})
        plan.parts = self._parts(plan, chance.randint(1, 3), depth=1)
        plan.rivals = [
            (
                self._parts(plan, chance.randint(1, 3), depth=1),
                chance.choice(("use_existing", "fail", "terminate_existing", "terminate_existing")),
            )
            for _ in range(chance.randint(1, 3))
        ]

    def _add_server(self, plan: Plan) -> None:
        """Mailboxes ask it and watch it."""
        chance = self._chance
        plan.questions = chance.randint(1, 4)
        plan.parts = [
            *self._parts(plan, chance.randint(0, 1), depth=1),
            ["serve", plan.questions],
            *self._parts(plan, chance.randint(0, 1), depth=0),
        ]
        if chance.random() < 0.3:
            plan.parts.insert(chance.randint(0, 1), ["continue"])

    def _add_watcher(self, plan: Plan) -> None:
        """It watches those that were planned before it, so that nobody waits in a circle."""
        chance = self._chance
        parts = self._parts(plan, chance.randint(0, 2), depth=1)
        others = [
            other.id
            for other in self.plans
            if other.is_top and other is not plan and not other.reason and other.ending != "cron"
        ]
        for _ in range(chance.randint(1, 3) if others else 0):
            parts.insert(chance.randint(0, len(parts)), self._watch(chance.choice(others)))
        if others and chance.random() < 0.3:
            other = chance.choice(others)
            parts += [["monitor_on", other], ["continue"], ["hear_of", other]]
        if chance.random() < 0.3:
            parts.insert(0, ["continue"])
        if chance.random() < 0.3:
            id = f"{plan.id}-{self._name('k')}"
            how = chance.choice(("pulled", "endured", "spared"))
            child = Plan(id, [["nap", 900.0]], is_top=False)
            if how == "pulled":
                child.statuses, child.error = frozenset({"failed"}), FALL
            else:
                child.parts = [["endure", ""]] if how == "endured" else [["nap", 1.5]]
            self.plans.append(child)
            parts.append(["pull", id, how])
            plan.statuses, plan.error = frozenset({"failed"}), FALL
        plan.parts = parts

    def _watch(self, id: str) -> Part:
        kind = self._chance.choice(("monitor", "fickle", "await_end", "linked", "linked"))
        if kind == "linked":
            return [kind, id, self._chance.random() < 0.5]
        return [kind, id]

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
                ["book", name, chance.choice((0, 0, 1))],
                ["book", name, chance.choice((0, 1))],
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
        kind = chance.choice(_FAMILIES)
        if kind == "share":
            return self._shared()
        statuses = {"completed", "cancelled", "terminated"} if may_be_cut else {"completed"}
        child = Plan(id, [], is_optional=may_be_cut, is_top=False, ending=plan.ending)
        if kind in ("twin", "end_other"):
            child.statuses = frozenset({"terminated" if kind == "twin" else "cancelled"})
            if may_be_cut:
                child.statuses |= {"terminated", "cancelled"}
            self.plans.append(child)
            return [kind, id]
        if kind in _SINGLE:
            return self._only_child(kind, child, may_be_cut=may_be_cut)
        child.parts = self._parts(child, chance.randint(1, 2), depth=depth - 1)
        if chance.random() < 0.15:
            child.parts.insert(chance.randint(0, len(child.parts)), ["continue"])
        if kind == "leave":
            policy = chance.choice(("terminate", "abandon", "request_cancel"))
            if policy == "abandon":
                statuses = {"completed"}
            else:
                how = "terminated" if policy == "terminate" else "cancelled"
                statuses.add(how)
                child.is_optional = may_be_cut
                # By no draw, so that a seed goes on as it did.
                if len(self.plans) % 2 and not self._may_park:
                    child.parts.append(["nap", 900.0])  # only its parent's end ends it
                    statuses.discard("completed")
            child.statuses = frozenset(statuses)
            self._may_be_cut(child)
            self.plans.append(child)
            return ["leave", id, child.parts, policy]
        child.statuses = frozenset(statuses)
        self.plans.append(child)
        if kind == "replace":
            child.is_many = True
            return [kind, id, child.parts, chance.choice((0.0, 0.2))]
        return [kind, id, child.parts]

    def _only_child(self, kind: str, child: Plan, *, may_be_cut: bool) -> Part:
        """A child whose program follows from the part."""
        chance = self._chance
        tag, status, part = self._name("a"), "completed", [kind, child.id]
        if kind == "converse":
            count = chance.randint(1, 4)
            child.parts = [["echo", tag, count]]
            part += [tag, count, chance.random() < 0.5]
        elif kind == "again":
            attempts = chance.randint(2, 3)
            child.parts = [["until", tag, attempts]]
            part += [tag, attempts]
        elif kind == "late_child":
            status = "timed_out"
        elif kind == "delayed_child":
            part.append(chance.choice((0.1, 0.6)))
        elif kind == "defied":
            status = "terminated"
        else:
            child.parts = [["mind", ""]]
        child.statuses = frozenset({status})
        if kind == "defied":
            child.statuses |= {"cancelled"}  # if the cancel came before its first turn
        if may_be_cut:
            child.statuses |= {"terminated", "cancelled"}
        self.plans.append(child)
        return part

    def _shared(self) -> Part:
        """A child that others may have started already."""
        if self._shared_plan is None:
            child = Plan("shared", [], is_optional=True, is_top=False, is_many=True)
            child.parts = self._parts(child, self._chance.randint(1, 2), depth=0)
            child.statuses = frozenset({"completed", "terminated", "cancelled"})
            self.plans.append(child)
            self._shared_plan = child
        return ["share", "shared", self._shared_plan.parts]

    def _may_be_cut(self, plan: Plan) -> None:
        """The children of a child that may be ended may be ended with it, or never start."""
        if plan.statuses == ENDED_WELL:
            return
        for other in self.plans:
            if other.id.startswith(plan.id + "-"):
                other.is_optional = True
                other.statuses |= {"terminated", "cancelled"}
