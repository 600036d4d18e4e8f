"""Escalations that a workflow returns: its run ends, and people are asked beside it.

What asks them is a workflow of Perdure's own. It begins in the commit that ends the run
(``engine/returned.py``), waits for as long as it takes, and then starts the same workflow again
with what was answered. Whether a result is such an escalation is read off the recorded bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import msgspec

from perdure import errors, workflow
from perdure.human.forms import Form
from perdure.human.request import ask
from perdure.values import payload
from perdure.values.bounds import Bounds
from perdure.values.failures import FailureInfo
from perdure.values.labels import check_label, check_text
from perdure.values.limits import REASON
from perdure.values.people import PRIORITIES, PRIORITY
from perdure.values.terms import NO_TERMS, Terms
from perdure.workflow import check_search
from perdure.workflow.children import Heritage, schedule_child

SEARCH: Final = "escalation_of"
"""The search attribute by which what asks is found: the workflow id of what it asks for."""
_MARK: Final = b'escalation"'
_ALWAYS: Final = "perdure.escalation"
_IF_CERTIFIED: Final = "escalation"
ESCALATIONS: Final = (_ALWAYS, _IF_CERTIFIED)
"""The types of results that ask people."""
_HEARD: Final = "10ms"
"""A start that is refused is heard of in the next turn; this is how a run comes to one."""
_FIRST_SECONDS, _LONGEST_SECONDS = 1, 300


class Escalation(msgspec.Struct, frozen=True, tag_field="type", tag=_ALWAYS):
    """Return this from a workflow: the run ends, and a person is asked.

    When somebody has answered, the workflow is started again, with the same envelope and, in
    ``envelope.resolver``, the answer. To wait within the run, use ``human.request``.

    ``data``: what the person is shown; any payload. ``message``: what is asked. ``role``: whose it
    is; ``None``: the one that the workflow's configuration names. ``priority``: 1 (the most urgent)
    to 4. ``search``: search attributes that it is found by; they are plain in the database.

    Raises:
        Invalid: a priority, a text or a search attribute that cannot be meant.
    """

    data: Any = None
    message: str = ""
    role: str | None = None
    priority: int = PRIORITY
    search: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if type(self.priority) is not int or self.priority not in PRIORITIES:
            raise errors.Invalid(
                f"escalation: priority: {self.priority!r} is not a number from 1 (urgent) to 4"
            )
        check_text(self.message, "escalation: message", None)
        if self.role is not None:
            check_text(self.role, "escalation: role")
        if self.search is not None:
            msgspec.structs.force_setattr(self, "search", _found_by(self.search))


class _Said(msgspec.Struct):
    """A result that may be an escalation, as far as it matters."""

    type: Any = None
    data: msgspec.Raw = msgspec.Raw(payload.NULL)
    message: Any = ""
    role: Any = None
    priority: Any = PRIORITY
    search: Any = None


class _Metadata(msgspec.Struct, frozen=True):
    certified: Any = None


class _Envelope(msgspec.Struct, frozen=True):
    metadata: _Metadata = _Metadata()


_read_said = msgspec.json.Decoder(_Said).decode
_read_envelope = msgspec.json.Decoder(_Envelope).decode


class Question(NamedTuple):
    """What people are to be asked: the fields of :class:`Returned`, and the search attributes."""

    fields: dict[str, Any]
    search: dict[str, Any]


def returned(result: bytes, input: bytes) -> Question | None:
    """Return what people are to be asked by a result, if it is an escalation.

    The words of a mapping that cannot be meant (a priority of 9) count as left out: the run has
    ended, and somebody has to see it.
    """
    if not result.startswith(b"{") or _MARK not in result:
        return None
    said = _said(result, certified=_is_certified(input))
    if said is None:
        return None
    role: str | None = None
    with contextlib.suppress(errors.Invalid):
        role = check_label(said.role, "role") or None
    is_meant = type(said.priority) is int and said.priority in PRIORITIES
    fields = {
        "data": said.data,
        "message": said.message if isinstance(said.message, str) else "",
        "role": role,
        "priority": said.priority if is_meant else PRIORITY,
    }
    search: dict[str, Any] = {}
    with contextlib.suppress(errors.Invalid):
        search = _found_by(said.search or {})
    return Question(fields, search)


def raised(failure: FailureInfo, text: str, input: bytes) -> Question | None:
    """Return what people are to be asked by a failure, if the run was certified."""
    if not _is_certified(input):
        return None
    told = {"error": text, "kind": failure.kind, "trace": failure.trace}
    asked = f"Unhandled error: {text}"
    return Question({"data": told, "message": asked, "role": None, "priority": PRIORITY}, {})


def _found_by(search: Any) -> dict[str, Any]:
    """Return search attributes of an escalation, without those that are ``None``.

    Raises:
        Invalid: they cannot be meant.
    """
    checked = check_search(search)
    if SEARCH in checked:
        raise errors.Invalid(f"escalation: the search attribute {SEARCH!r} is Perdure's own")
    return {key: value for key, value in checked.items() if value is not None}


def _said(result: bytes, *, certified: bool) -> _Said | None:
    try:
        said = _read_said(result)
    except msgspec.DecodeError:
        return None  # no mapping
    is_one = said.type == _ALWAYS or (certified and said.type == _IF_CERTIFIED)
    return said if is_one else None


def _is_certified(input: bytes) -> bool:
    if b'"certified"' not in input:
        return False
    try:
        return _read_envelope(input).metadata.certified is True
    except msgspec.DecodeError:
        return False


# -- the run that asks ---------------------------------------------------------------------------


class Returned(msgspec.Struct):
    """What a run has left behind: of which workflow it was, what it asks, and its input; and what
    it was bound by.
    """

    workflow: str
    workflow_id: str
    run_id: str
    input: Any
    data: Any = None
    message: str = ""
    role: str | None = None
    priority: int = PRIORITY
    terms: Terms = NO_TERMS
    places: tuple[tuple[str, int], ...] = ()


@workflow.define(name=_ALWAYS)
async def companion(given: Returned) -> str:
    """Ask people what a run has returned; when somebody has answered, start its workflow again."""
    decided, recorded = await ask(
        f"{given.workflow} asks for a decision",  # titles are plain where all else is encrypted
        Form(None),
        {
            "description": _cut(given.message.replace("\0", "\ufffd"), REASON),
            "name": given.workflow_id,
            "type": given.workflow,
            "role": given.role,
            "priority": given.priority,
            "data": given.data,
        },
    )
    if not decided.is_completed:
        return decided.outcome
    id = f"rerun-{decided.id}"
    answered = _with_answer(given.input, decided.id, decided.value)
    await _start_again(given, id, answered, recorded.begins if recorded is not None else None)
    return id


def id_for(workflow_id: str, run_id: str) -> str:
    """Return the workflow id of the run that asks for what ``run_id`` has returned."""
    return f"{prefix_of(workflow_id)}{run_id}"


def prefix_of(workflow_id: str) -> str:
    """Return how the ids begin of those that ask for the runs of one workflow id.

    An id may be as long as ids may be, so it stands there as a digest.
    """
    digest = blake2b(workflow_id.encode(), digest_size=16).hexdigest()
    return f"{_ALWAYS}/{digest}/"


async def _start_again(given: Returned, id: str, input: Any, judged: Bounds | None) -> None:
    """Start the workflow again, however often a limit refuses it; an id is started once.

    It is bound by what a door has said that judged the answer, else by what the run was that ended.
    """
    options = {
        "id": id,
        "id_reuse_policy": "reject_duplicate",
        "task_queue": workflow.info().task_queue,
        "parent_close_policy": "abandon",
        "search": {"entity": given.workflow},
    }
    heritage = Heritage(given.terms, given.places, judged)
    pause = _FIRST_SECONDS
    while True:
        child = schedule_child(given.workflow, input, options, heritage=heritage)
        child.is_quiet = True
        await workflow.sleep(_HEARD)
        refused = _refusal(id, child.future.exception() if child.future.done() else None)
        if refused is None:
            return
        if not isinstance(refused, (errors.ConcurrencyLimit, errors.RateLimited)):
            raise refused
        workflow.logger.warning("%s was not started again, will try: %s", id, refused.message)
        await workflow.sleep(pause)
        pause = min(pause * 2, _LONGEST_SECONDS)


def _refusal(id: str, error: BaseException | None) -> errors.PerdureError | None:
    """Return why a start was refused; ``None``: it was not, or there is such a run already.

    Who begins may also have failed by now, of whatever kind: that is its own business.
    """
    is_failed = isinstance(error, errors.ChildFailed)
    if not is_failed or not error.message.startswith(f"child {id!r} refused: "):
        return None
    cause = error.cause if isinstance(error.cause, errors.PerdureError) else error
    return None if isinstance(cause, errors.AlreadyExists) else cause


def _with_answer(input: Any, task: str, answer: Any) -> dict[str, Any]:
    is_envelope = isinstance(input, Mapping)
    envelope = cast("Mapping[str, Any]", input) if is_envelope else {"data": input}
    told: Any = envelope.get("lt")
    lt: Mapping[str, Any] = cast("Any", told) if isinstance(told, Mapping) else {}
    known = {"escalation_id": task, "escalation_status": "resolved"}
    return {**envelope, "lt": {**lt, **known}, "resolver": answer}


def _cut(text: str, most: int) -> str:
    """Shorten a text, and say so; the run's result has all of it."""
    if len(text) <= most:
        return text
    more = " … (the result of the run has the rest)"
    return text[: most - len(more)] + more
