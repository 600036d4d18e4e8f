"""Forks and retries: new runs that begin with a copy of what another one recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from perdure import copying, errors, transfer
from perdure.door import Door, refused_by_limit
from perdure.store.port import RunRow, Started, StartRequest, TurnRow
from perdure.values import events as ev
from perdure.values import ids, payload
from perdure.values.duration import soonest
from perdure.values.erasing import ERASURES
from perdure.values.labels import check_tags
from perdure.values.principals import Principal, carrying, sees
from perdure.values.states import Status
from perdure.workflow import check_mapping, check_search


class _Same:
    def __repr__(self) -> str:
        return "SAME"


_NOBODY: Final = b"{}"
SAME: Final[Any] = _Same()
"""An option that was not given: as in the original."""


class Options(NamedTuple):
    """Start options that a fork may have of its own."""

    id: str | None = None
    memo: Any = SAME
    search: Any = SAME
    tags: Any = SAME


def erased(what: str, workflow_id: str, run_id: str) -> errors.Erased:
    """Return the error of what cannot be done to a run that was erased."""
    return errors.Erased(
        f"run {run_id} of {workflow_id!r} cannot be {what}: what it was given and gave was erased, "
        "or is being erased"
    )


def check_original(row: RunRow, what: str, who: Principal | None) -> None:
    """Make sure that there is something to copy, for ``who`` copies it.

    Raises:
        Erased: the run was erased.
        PermissionDenied: it is of a tenant that they do not see.
    """
    if not sees(who, row.tenant):
        assert who is not None
        raise errors.PermissionDenied(
            f"principal of tenant {who.tenant!r}: run {row.run_id} of {row.workflow_id!r} is not "
            f"that tenant's, and cannot be {what} for it"
        )
    if row.reason in ERASURES:
        raise erased(what, row.workflow_id, row.run_id)


class Original(NamedTuple):
    """The run that is copied, as the store has it."""

    row: RunRow
    turns: Sequence[TurnRow]
    search: dict[str, Any]


async def fork(
    door: Door,
    original: Original,
    *,
    after_event: int | None,
    before_step: str | None,
    input: Any,
    options: Options,
    max_payload: int,
    who: Principal | None,
) -> Started:
    """Start an execution that shares the original's history up to a point.

    It acts for ``who`` forks it, if that is known, and no more for whom the original does.
    """
    check_original(original.row, "forked", who)
    if (after_event is None) == (before_step is None):
        raise errors.Invalid("fork: give either after_event= or before_step=")
    turns = copying.read(original.turns)
    if before_step is not None:
        rows = copying.before_step(turns, payload.text(before_step, what="before_step"))
    else:
        rows = copying.cut(turns, _event(after_event, turns[-1].last))
    if input is not SAME:
        data = payload.encode(input, what="input")
        payload.limit(data, max_payload, what="input")
        _check_input(door, original.row, data)
        rows = copying.with_input(rows, data)
    copying.check_open(rows)
    request = new_execution(door, original.row, options, original.search)
    if options.memo is not SAME and request.memo is not None:
        payload.limit(request.memo, max_payload, what="memo")
    mark = mark_for(door, request, original.row, rows, "fork")
    handed = act_for(request, rows, original.turns, who)
    return await begin(door, request, original.row, rows, mark, handed)


async def retry(
    door: Door,
    original: Original,
    *,
    from_step: str | None,
    id: str | None,
    who: Principal | None,
) -> Started:
    """Start a run that keeps what succeeded; in the same execution unless ``id`` is given.

    In the same one it does what was asked for there, so it acts for whom that does. An execution of
    its own acts for ``who`` retries it, if that is known.
    """
    row = original.row
    if id is None and not row.status.is_terminal:
        raise errors.Conflict(
            f"workflow {row.workflow_id!r} has not ended (it is {row.status}): its next run can "
            "begin when it has. End it, unpark it, or give the retry an id of its own"
        )
    check_original(row, "retried", who)
    turns = copying.read(original.turns)
    if from_step is not None:
        from_step = payload.text(from_step, what="from_step")
    rows = copying.repair(turns, from_step)
    copying.check_open(rows)
    if id is not None:
        request = new_execution(door, row, Options(id), original.search)
    else:
        request = _request(door, row, row.workflow_id)
        request.execution, request.retries = row.execution, row.run
    mark = mark_for(door, request, row, rows, "retry")
    mark.keeps_chance = True
    mark.keys = copying.keys_to_keep(turns, rows)
    mark.keeps_parent = id is None
    handed = act_for(request, rows, original.turns, who)
    return await begin(door, request, row, rows, mark, handed)


def _event(given: Any, last: int) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= last:
        raise errors.Invalid(f"after_event: {given!r} is no event of the run; it has 1 to {last}")
    return given


def _check_input(door: Door, row: RunRow, data: bytes) -> None:
    definition = door.definition(row.workflow, row.version)
    if definition is not None:
        definition.check_input(data)


def new_execution(
    door: Door, row: RunRow, options: Options, search: Mapping[str, Any]
) -> StartRequest:
    """Return the start of an execution like ``row``'s, under an id of its own."""
    workflow_id = "" if options.id is None else ids.check_workflow_id(options.id)
    request = _request(door, row, workflow_id)
    if options.id is not None:
        request.conflict, request.reuse = "fail", "reject_duplicate"
    request.created_by, request.tenant = row.created_by, row.tenant
    request.correlation_id = row.correlation_id
    if options.memo is SAME:
        request.memo = row.memo
    else:
        memo = check_mapping(options.memo or {}, "memo")
        request.memo = payload.encode(dict(memo), what="memo") if memo else None
    request.search = dict(search) if options.search is SAME else check_search(options.search or {})
    request.tags = row.tags if options.tags is SAME else check_tags(options.tags or ())
    return request


def _request(door: Door, row: RunRow, workflow_id: str) -> StartRequest:
    now = door.now()
    run_id = ids.uuid7(now // 1000, door.chance(10))
    return StartRequest(
        workflow=row.workflow,
        workflow_id=workflow_id or run_id,
        run_id=run_id,
        event=b"",
        version=row.version,
        namespace=row.namespace,
        queue=row.queue,
        created_at=now,
        is_eager=False,
    )


def mark_for(
    door: Door, request: StartRequest, row: RunRow, rows: Sequence[TurnRow], how: str
) -> ev.Forked:
    """Return the event that says where the copy ends and whose history it is from there on."""
    mark = ev.Forked(
        seed=door.chance(16),
        origin=row.workflow_id,
        origin_run=row.run_id,
        event=rows[-1].first + rows[-1].count - 1,
        how=how,
        workflow_id=request.workflow_id,
        run_id=request.run_id,
    )
    copying.set_deadlines(mark, copying.started_as(rows), door.now())
    return mark


def act_for(
    request: StartRequest,
    rows: Sequence[TurnRow],
    turns: Sequence[TurnRow],
    who: Principal | None,
) -> ev.RunHandedOver | None:
    """Return the event that says who has made a copy of ``turns`` that begins with ``rows``.

    An execution of its own acts for them, if they are known; its tenant stays, since its data are
    that one's. Else it acts for whom the original does at its end: a fork's own fork, cut before
    that was handed over, would have the rights of the very first again.
    """
    copied, last = copying.started_as(rows).context, copying.started_as(turns).context
    acts = last or _NOBODY
    if who is not None and not request.retries:
        request.created_by, request.sees = who.id, who.tenant
        carried = carrying(payload.decode(acts), who)
        acts = payload.encode(dict(carried), what="context")
    by = who.id if who is not None else ""
    context = None if acts == (copied or _NOBODY) else acts
    return ev.RunHandedOver(by=by, context=context) if by or context else None


async def begin(
    door: Door,
    request: StartRequest,
    row: RunRow,
    rows: Sequence[TurnRow],
    mark: ev.Forked,
    handed: ev.RunHandedOver | None,
) -> Started:
    """Write the copy.

    Raises:
        AlreadyExists: the id is taken.
        Conflict: the retried run is no longer the execution's latest.
    """
    copying.go_on(request, rows, mark, door.now(), handed)
    request.places = copying.started_as(rows).places
    request.origin = (row.run, mark.event, mark.how)
    return await write(door, request)


async def write(door: Door, request: StartRequest) -> Started:
    """Write a start that brings its history along.

    Raises:
        ConcurrencyLimit, RateLimited: too many are open, or began lately, and are refused.
    """
    answer = await door.start_copy(request)
    if not answer.refused:
        return answer
    if (limited := refused_by_limit(answer, door.now())) is not None:
        raise limited
    if answer.refused == "taken":
        raise errors.AlreadyExists(f"the id {request.workflow_id!r} is taken: choose another")
    if answer.refused == "erased":
        raise erased("retried", request.workflow_id, answer.run_id)
    if request.retries and not answer.run:
        raise errors.NotFound(f"the run of {request.workflow_id!r} to retry has been deleted")
    if request.retries:
        raise errors.Conflict(
            f"workflow {request.workflow_id!r} has gone on in another run: retry that one",
            details={"run_id": answer.run_id, "status": str(answer.status)},
        )
    raise errors.AlreadyExists(
        f"an execution with id {request.workflow_id!r} exists and is {answer.status}",
        details={"run_id": answer.run_id, "status": str(answer.status)},
    )


# -- imports -------------------------------------------------------------------------------------


async def imported(
    door: Door,
    namespace: str,
    data: Mapping[str, Any],
    id: str | None,
    principal: Principal | None = None,
) -> tuple[Started, Callable[[bytes], Any]]:
    """Write a run that was exported; return the answer, and what reads the run's result.

    Raises:
        Invalid, AlreadyExists, ConcurrencyLimit: see ``Client.import_run``.
    """
    found = transfer.signed(transfer.read(data), principal)
    answer = await take_in(door, namespace, found, id, principal)
    definition = door.definition(found.document.workflow, found.document.version)
    return answer, definition.read_result if definition is not None else payload.decode


async def take_in(
    door: Door,
    namespace: str,
    found: transfer.Read,
    id: str | None,
    principal: Principal | None = None,
) -> Started:
    """Write an imported run."""
    document = found.document
    row = await _stands_for(door, namespace, found, id)
    request = new_execution(door, row, Options(row.workflow_id), {})
    if id is None:
        request.run_id = document.run_id
    transfer.fill(request, found, principal)
    last = found.rows[-1]
    length = last.first + last.count - 1
    now = door.now()
    if document.status.is_terminal:
        request.copied = found.rows
        request.state = transfer.state_of(document, length, now)
        return await _write_imported(door, request)
    if not found.has_seed:
        raise errors.Invalid(
            "import: the run is open and the document has no seed (its draws could not be "
            "repeated): export it with_seed"
        )
    copying.check_open(found.rows)
    mark = mark_for(door, request, row, found.rows, "import")
    mark.origin = document.workflow_id
    resume_by = 0
    if id is None:
        started = copying.started_as(found.rows)
        mark.keeps_chance = True
        mark.not_before = request.not_before = started.not_before
        mark.run_deadline = started.run_deadline
        mark.execution_deadline = started.execution_deadline
        resume_by = started.resume_by or 0
    copying.go_on(request, found.rows, mark, now)
    if document.status is Status.PAUSED:
        request.state = transfer.state_of(document, length + 1, now)
        request.state.wake_at = soonest(resume_by, request.deadline) or None
    return await _write_imported(door, request)


async def _write_imported(door: Door, request: StartRequest) -> Started:
    try:
        return await write(door, request)
    except errors.StoreRefused as error:
        raise errors.Invalid(f"import: {error.message}", cause=error) from error


async def _stands_for(door: Door, namespace: str, found: transfer.Read, id: str | None) -> RunRow:
    """Return the row the run will have, as far as the document says it.

    Raises:
        AlreadyExists: the run is here already.
    """
    document = found.document
    run_id = document.run_id
    if id is None:
        there = await door.read(lambda store: store.find("", namespace=namespace, run_id=run_id))
        if there is not None:
            raise errors.AlreadyExists(
                f"run {run_id} of {there.workflow_id!r} is in this database already; import it "
                "under another id to have a copy"
            )
    last = found.rows[-1]
    return RunRow(
        run=0,
        execution=0,
        run_id=run_id,
        namespace=namespace,
        workflow_id=document.workflow_id if id is None else ids.check_workflow_id(id),
        workflow=document.workflow,
        version=document.version,
        queue=document.queue,
        attempt=document.attempt,
        created_at=document.created_at,
        begins_at=document.begins_at,
        status=document.status,
        length=last.first + last.count - 1,
    )
