"""Steps that people do: a human task, and where the run goes with what they decide."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from perdure import errors, human
from perdure.graph.codecs import DURATION_OR_FUNCTION, END_OR_FUNCTION, JSON_OR_FUNCTION, KIND
from perdure.graph.forms import Form
from perdure.graph.spans import no_span
from perdure.graph.states import StepType
from perdure.graph.steps import BaseStep, Left
from perdure.human.asking import NEVER, Options, When, asked
from perdure.human.forms import check_entered
from perdure.values import payload
from perdure.values.people import PRIORITY

if TYPE_CHECKING:
    from perdure.graph.context import WorkflowContext
    from perdure.graph.interpret import Visit
    from perdure.graph.outline import Outline


class BaseHumanStep(BaseStep):
    """Asks a person and waits. What is entered is the output; a mapping goes into the data too.

    Attributes are given in the class body or to the constructor. ``title``, ``description``,
    ``role``, ``assignee``, ``due``, ``expires``, ``remind``, ``data`` (what the person is shown),
    ``escalate`` (which roles it goes to, and when), ``approvers`` (how many people must complete
    it) and ``not_by`` (who must not) may be functions of the context; the last three are as in
    ``human.request``. ``due``: by when it is to be done; then it is overdue, and stays. It expires
    when ``expires`` says so; without that, when it is due, if ``on_expire`` or ``escalate`` say
    what happens to it else. ``group`` means ``role``. ``form_schema``: a type or a JSON Schema.
    ``assignee_key``: where in the data the assignee stands. ``on_reject`` and ``on_expire`` name
    the step to go to then; else the step fails, with the kind ``Rejected`` or ``Expired``; with
    ``Cancelled`` if somebody took it back.

    From here on, ``context.user_id`` is whoever did it.
    """

    step_type: ClassVar[StepType] = StepType.HUMAN
    form = Form(
        "human",
        title=JSON_OR_FUNCTION,
        description=JSON_OR_FUNCTION,
        form=("form_schema", KIND),
        assignee=JSON_OR_FUNCTION,
        role=JSON_OR_FUNCTION,
        group=JSON_OR_FUNCTION,
        due=DURATION_OR_FUNCTION,
        expires=END_OR_FUNCTION,
        remind=DURATION_OR_FUNCTION,
        data=JSON_OR_FUNCTION,
        escalate=JSON_OR_FUNCTION,
        approvers=JSON_OR_FUNCTION,
        not_by=JSON_OR_FUNCTION,
    )
    title: Any = ""
    form_schema: Any = None
    assignee_key: str = ""
    assignee: Any = None
    role: Any = None
    group: Any = None
    due: Any = None
    expires: Any = None
    remind: Any = None
    priority: int = PRIORITY
    data: Any = None
    escalate: Any = None
    approvers: Any = 1
    not_by: Any = ()
    type: str = ""
    form_version: int = 0
    on_reject: str = ""
    on_expire: str = ""

    def __init__(
        self,
        name: str = "",
        title: Any = "",
        description: str = "",
        form_schema: Any = None,
        assignee_key: str = "",
        **attributes: Any,
    ) -> None:
        given = {"title": title, "form_schema": form_schema, "assignee_key": assignee_key}
        attributes |= {key: value for key, value in given.items() if value not in ("", None)}
        super().__init__(name, description, **attributes)

    # -- what a subclass may say itself; workflow code, plain or async ---------------------------

    async def get_assignee(self, context: WorkflowContext) -> str | None:
        """Return whose it is, or ``None``: nobody's in particular."""
        found = context.get(self.assignee_key) if self.assignee_key else None
        return cast("str | None", self._of("assignee", context) if found is None else found)

    async def get_assignee_group(self, context: WorkflowContext) -> str | None:
        """Return the group whose it is."""
        found = self._of("role", context)
        return cast("str | None", self._of("group", context) if found is None else found)

    async def get_description(self, context: WorkflowContext) -> str:
        """Return the whole question."""
        return str(self._of("description", context) or "")

    async def get_due_date(self, context: WorkflowContext) -> When | None:
        """Return by when it is to be done: a duration from now on, or an aware datetime."""
        return cast("When | None", self._of("due", context))

    async def get_expiry_date(self, context: WorkflowContext) -> When | None:
        """Return when it expires: the same, or ``"never"``; ``None``: when it is due."""
        found = self._of("expires", context)
        is_to_end = self.on_expire or self._of("escalate", context)
        return cast("When | None", NEVER if found is None and not is_to_end else found)

    async def get_reminder_date(self, context: WorkflowContext) -> When | None:
        """Return when to remind: a duration before it is due, or an aware datetime."""
        return cast("When | None", self._of("remind", context))

    async def validate_submission(
        self, data: Any, context: WorkflowContext
    ) -> Sequence[str] | None:
        """Return what is wrong with what was entered, beyond the form: then it is asked again."""
        return None

    async def check_submission(self, data: Any, context: WorkflowContext) -> None:
        """Refuse what would be asked for again, before it is entered.

        Raises:
            Invalid: the data does not fit the form, or :meth:`validate_submission` refuses it.
        """
        if type(self).validate_submission is BaseHumanStep.validate_submission:
            return  # whoever completes checks the form
        form, entered = human.Form(self.form_schema), payload.encode(data, what="value")
        check_entered(form.schema, entered)
        value = payload.decode(payload.encode(form.read(entered), what="value"))
        if wrong := await self._refused(value, context):
            raise errors.Invalid(f"step {self.name!r}: {'; '.join(wrong)}", details=wrong)

    async def _refused(self, value: Any, context: WorkflowContext) -> list[str]:
        wrong: Any = await _answer(self.validate_submission(value, context))
        return [wrong] if isinstance(wrong, str) and wrong else [str(it) for it in wrong or ()]

    # -- the step --------------------------------------------------------------------------------

    async def visit(self, visit: Visit) -> Left:
        remark = ""
        while True:
            ctx = visit.ctx
            decided = await self._ask(ctx, remark)
            if not decided.is_completed:
                return self._not_done(decided)
            value = payload.decode(payload.encode(decided.value, what=f"output of {self.name}"))
            wrong = await self._refused(value, ctx)
            if not wrong:
                break
            remark = f"What {decided.by} entered was not taken: {'; '.join(wrong)}"
        visit.set_person(decided.by)
        if isinstance(value, Mapping):
            for key, entered in cast("Mapping[str, Any]", value).items():
                visit.set_data(key, entered)
        return Left(value)

    async def _ask(self, ctx: WorkflowContext, remark: str) -> human.Decision[Any]:
        described = str(await _answer(self.get_description(ctx)) or "")
        return await human.request(
            str(self._of("title", ctx) or _spoken(self.name)),
            form=self.form_schema,
            name=self.name,
            description="\n\n".join(part for part in (described, remark) if part),
            role=await _answer(self.get_assignee_group(ctx)),
            assignee=await _answer(self.get_assignee(ctx)),
            due=await _answer(self.get_due_date(ctx)),
            expires=await _answer(self.get_expiry_date(ctx)),
            remind=await _answer(self.get_reminder_date(ctx)),
            priority=self.priority,
            data=self._of("data", ctx),
            type=self.type,
            escalate=self._of("escalate", ctx),
            approvers=self._of("approvers", ctx),
            not_by=self._of("not_by", ctx),
            form_version=self.form_version,
        )

    def _not_done(self, decided: human.Decision[Any]) -> Left:
        target = {"rejected": self.on_reject, "expired": self.on_expire}.get(decided.outcome, "")
        told = {"outcome": decided.outcome, "by": decided.by, "comment": decided.comment}
        if target:
            return Left(told, to=[target])
        by = f" by {decided.by}" if decided.by else ""
        because = f": {decided.comment}" if decided.comment else ""
        raise errors.ApplicationError(
            f"it was {decided.outcome}{by}{because}",
            kind=decided.outcome.capitalize(),
            retryable=False,
            details=told,
        )

    def jumps(self) -> dict[str, str]:
        ways = {self.on_reject: "rejected", self.on_expire: "expired"}
        return {target: label for target, label in ways.items() if target}

    def functions(self) -> list[object]:
        own = [getattr(type(self), name) for name in _HOOKS]
        base = [getattr(BaseHumanStep, name) for name in _HOOKS]
        given = [getattr(self, name) for name in _GIVEN]
        return [
            *(fn for fn, default in zip(own, base, strict=True) if fn is not default),
            *(fn for fn in given if callable(fn)),
        ]

    def problems(self) -> list[str]:
        try:
            human.Form(self.form_schema)
        except errors.PerdureError as error:
            return [error.message]
        spans = [
            problem
            for name in _TIMES
            if isinstance(given := getattr(self, name), (str, int, float))
            and (name, given) != ("expires", NEVER)
            for problem in no_span(name, given)
        ]
        return [*spans, *self._what_cannot_be_asked(() if spans else _TIMES)]

    def _what_cannot_be_asked(self, times: Sequence[str]) -> list[str]:
        """Return what is wrong with whom it asks, as far as that is no function, and with these
        times of it.
        """
        said = (*_ASKED, *times)
        given = {name: self.asking(name) for name in said}
        options = cast("Options", {key: it for key, it in given.items() if not callable(it)})
        try:
            asked("", "it", human.Form(None), now=0, max_payload=0, options=options)
        except errors.Invalid as error:
            return [error.message]
        return []

    def shape(self) -> list[Any]:
        return [*super().shape(), self.on_reject, self.on_expire]

    def _of(self, name: str, ctx: WorkflowContext) -> Any:
        given = self.asking(name)
        return given(ctx) if callable(given) else given


def human_steps(outline: Outline, name: str) -> list[BaseHumanStep]:
    """Return the human steps of a name, in a graph and in what is inside its steps."""
    waiting: list[BaseStep] = list(outline.steps.values())
    found: list[BaseHumanStep] = []
    for step in waiting:  # grows
        if isinstance(step, BaseHumanStep) and step.name == name:
            found.append(step)
        waiting += step.parts()
    return found


_HOOKS = (
    "get_assignee",
    "get_assignee_group",
    "get_description",
    "get_due_date",
    "get_expiry_date",
    "get_reminder_date",
    "validate_submission",
)
_TIMES = ("due", "expires", "remind")
_ASKED = (
    "assignee",
    "role",
    "group",
    "priority",
    "escalate",
    "approvers",
    "not_by",
    "type",
    "form_version",
)
"""Attributes that can be checked before anybody is asked."""
_GIVEN = (
    "title",
    "description",
    "assignee",
    "role",
    "group",
    "due",
    "expires",
    "remind",
    "data",
    "escalate",
    "approvers",
    "not_by",
)


async def _answer(given: Any) -> Any:
    """Return what a hook gives, plain or async."""
    return await given if inspect.isawaitable(given) else given


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").capitalize()
