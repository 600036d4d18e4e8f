"""Decides which starts of a batch happen, given the latest runs of their workflow ids.

Pure: the same function answers before the transaction (guessing that nothing stands in the way) and
inside it (with what the database says). Starts of one batch are judged in order, each seeing those
before it, so two starts with one id behave as if they had come one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from perdure.store.port import Batch, Started, StartRequest, StateWrite, TurnWrite
from perdure.store.sql.rooms import UNLIMITED, Room
from perdure.values import limits
from perdure.values.concurrency import Place, Queued
from perdure.values.meters import Charge
from perdure.values.states import Status

Key = tuple[str, str]
"""Namespace and workflow id."""

USE_UNLESS_LEAVING = "use_unless_leaving"
"""What ``use_existing`` becomes when the execution in its way is about to end with its parent."""
USES = frozenset({"use_existing", USE_UNLESS_LEAVING})
REPLACES = frozenset({"terminate_existing", USE_UNLESS_LEAVING})
"""Starts that may end the execution that is in their way."""


class Existing(msgspec.Struct, gc=False):
    """The latest run of a workflow id. ``workflow``: what its execution began as.

    ``unread``: messages that it has not received, counted if a start brings some. ``tenant``: whose
    it is. ``is_erased``: what it was given and gave was erased, or is being. ``parent_close``: what
    becomes of it when its parent ends; ``asked_by``: run id of the parent that started it.
    ``is_leaving``: its parent has ended, and so it is about to.
    """

    run: int
    execution: int
    run_id: str
    status: Status
    workflow: str
    owner: int | None = None
    parent: tuple[int, int] | None = None
    unread: int = 0
    tenant: str | None = None
    is_erased: bool = False
    parent_close: str = ""
    asked_by: str = ""
    is_leaving: bool = False


class Decision(msgspec.Struct, gc=False):
    """What becomes of one start. ``parent`` is the request's, with a new execution filled in.

    ``ends``: an open run that the new one takes the place of. ``follows``: the run of the same
    execution before it, whose memo and attributes it takes over. ``place``: where a limited one
    stands.
    """

    request: StartRequest
    started: Started
    parent: tuple[int, int] | None
    is_written: bool
    ends: Existing | None = None
    follows: int = 0
    place: Place | None = None

    @property
    def is_queued(self) -> bool:
        """Whether it waits for a slot: a first turn that came with it has not happened."""
        return self.place in (Place.HELD, Place.READY)

    @property
    def state(self) -> StateWrite | None:
        """The run's first state, if the request says one; what stands aside says so."""
        state = self.request.state
        if state is None or self.place is not Place.ASIDE:
            return state
        return msgspec.structs.replace(state, reason=str(Queued.PAUSED))


class Decisions(msgspec.Struct):
    """All decisions: of the batch's own starts, and of those that its turns ask for.

    ``last_run``: the last number that was given to a new run. ``busy``: runs whose turn asks for a
    start that must wait for the next batch.
    """

    own: list[Decision]
    of_turns: list[Decision]
    last_run: int
    busy: frozenset[int]

    def everything(self) -> Iterator[Decision]:
        """Yield the decisions in the order they were made."""
        yield from self.own
        yield from self.of_turns


def needs_look(request: StartRequest) -> bool:
    """Tell whether the start depends on runs that exist already."""
    if request.retries:
        return True
    return request.execution is None and (
        request.conflict != "none" or request.reuse != "allow_duplicate"
    )


def _needs_slot(request: StartRequest) -> bool:
    """Tell whether the start opens an execution, or one that had ended (and left its slot)."""
    if request.state is not None and request.state.status.is_terminal:
        return False
    return request.execution is None or bool(request.retries)


def requests_of(batch: Batch) -> Iterator[StartRequest]:
    """Yield every start that a batch may contain."""
    for request in batch.starts:
        yield request
        if request.first is not None:
            yield from _of_turn(request.first)
    for turn in batch.turns:
        if turn.children or turn.continued is not None:
            yield from _of_turn(turn)


def _of_turn(turn: TurnWrite) -> Iterator[StartRequest]:
    yield from turn.children
    if turn.continued is not None:
        yield turn.continued


class Places:
    """How many open executions are counted under each key. ``held``: keys of those that a start may
    replace. ``left``: of budgets, by key and unit.
    """

    def __init__(
        self,
        taken: Mapping[str, int],
        held: Mapping[int, Sequence[str]],
        left: Mapping[tuple[str, str], int],
    ) -> None:
        self._taken = dict(taken)
        self._held = held
        self._left = dict(left)

    def copy(self) -> Places:
        """Return one that counts for itself."""
        return Places(self._taken, self._held, self._left)

    def too_dear(self, request: StartRequest) -> Charge | None:
        """Return the first charge for which too little is left."""
        for one in request.charges:
            if self._left.get((one.key, one.unit), 0) < one.amount:
                return one
        return None

    def full(self, request: StartRequest, replaced: int) -> tuple[str, int] | None:
        """Return the first key under which there is no place, with its limit."""
        leaves = self._held.get(replaced, ())
        for key, most in request.places:
            if self._taken.get(key, 0) - (key in leaves) >= most:
                return key, most
        return None

    def take(self, request: StartRequest, replaced: int) -> None:
        """Count a start."""
        for key in self._held.get(replaced, ()):
            self._taken[key] = self._taken.get(key, 0) - 1
        for unit, amount in request.budget:  # a child of this very batch may spend from it
            self._left[request.run_id, unit] = amount
        for one in request.charges:
            self._left[one.key, one.unit] -= one.amount
        first = request.first
        if first is not None and first.closes and first.continued is None:
            return  # it has left again before anybody could count it
        for key, _ in request.places:
            self._taken[key] = self._taken.get(key, 0) + 1


class Judge:
    """Goes through the starts of a batch.

    ``runs``: ascending numbers for new runs. ``same``: runs that exist under a request's run id,
    so that a start repeated after a lost answer is answered as the first one was. ``room``: what
    limits leave; ``None`` is no limit. ``places``: the same of places, if a start wants some.
    """

    def __init__(
        self,
        batch: Batch,
        runs: Sequence[int],
        latest: Mapping[Key, Existing],
        same: Mapping[str, Existing],
        room: Room | None = None,
        places: Places | None = None,
    ) -> None:
        self._batch = batch
        self._runs = runs
        self._created: set[int] = set()
        self._last_run = 0
        self._latest = dict(latest)
        self._same = same
        self._room = None if room is None else room.copy()
        self._places = None if places is None else places.copy()
        self._touched = {turn.run for turn in batch.turns}
        self._of_turns: list[Decision] = []
        self._busy: set[int] = set()
        self._children: set[int] = set()
        """Runs of this batch that have only event 1: one of them may be replaced at once."""
        self._brought: dict[int, int] = {}
        """Messages of starts, by the execution that is used instead."""
        self._orphaned: set[int] = set()
        """Executions whose children end with this batch."""
        self.has_found_leaving = False
        """Whether a start is to take the place of one that it would use, and did not say so."""

    def decide(self, dropped: frozenset[int], late: frozenset[str] = frozenset()) -> Decisions:
        """Judge all starts except those of ``dropped`` turns.

        ``late``: run ids of own starts whose first turn asks for what must wait for the next batch.
        """
        own: list[Decision] = []
        self._orphaned.update(
            turn.execution
            for turn in self._batch.turns
            if turn.closes and turn.run not in dropped and _leaves_children(turn)
        )
        for request in self._batch.starts:
            if request.run_id in late:
                there = self._latest.get((request.namespace, request.workflow_id))
                own.append(_refused(request, there, request.parent, "busy"))
                continue
            decision = self._judge(request, 0)
            own.append(decision)
            if request.first is not None and decision.is_written and not decision.is_queued:
                started = decision.started
                self._turn(_as_of(request, request.first), started.run, started.execution)
        for turn in self._batch.turns:
            if (turn.children or turn.continued is not None) and turn.run not in dropped:
                self._turn(turn, turn.run, turn.execution)
        return Decisions(own, self._of_turns, self._last_run, frozenset(self._busy))

    def _turn(self, turn: TurnWrite, run: int, execution: int) -> None:
        children = [self._judge(request, execution) for request in turn.children]
        if any(child.started.refused == "busy" for child in children):
            self._busy.add(run)
        self._of_turns += children
        if turn.continued is not None:
            self._of_turns.append(self._judge(turn.continued, execution, run))

    def _judge(self, request: StartRequest, execution: int, before: int = 0) -> Decision:
        parent = request.parent
        if parent is not None and parent[0] == 0:
            parent = (execution, parent[1])
        same = self._same.get(request.run_id)
        if same is not None:
            return Decision(request, _started(request, same, created=True), parent, False)
        ends: Existing | None = None
        if needs_look(request):
            existing = self._latest.get((request.namespace, request.workflow_id))
            if request.retries:
                before = request.retries
                if existing is None or existing.run != before or not existing.status.is_terminal:
                    return _refused(request, existing, parent)
                if existing.is_erased:
                    return _refused(request, existing, parent, "erased")
            elif existing is not None:
                decision = self._against(request, existing, parent)
                if not decision.is_written:
                    return decision
                ends = decision.ends
        replaced = ends.execution if ends else 0
        if self._places is not None and (counted := self._uncounted(request, replaced)):
            return Decision(request, counted, parent, False)
        verdict = UNLIMITED
        if self._room is not None and _needs_slot(request):
            verdict = self._room.judge(request, self._batch.now, replaced)
            if verdict.refusal:
                nobody = Existing(0, 0, request.run_id, Status.PENDING, request.workflow)
                code = "rate" if verdict.retry_at else "limit"
                answer = _started(request, nobody, created=False, refused=code)
                answer.detail, answer.retry_at = verdict.refusal, verdict.retry_at
                return Decision(request, answer, parent, False)
        if self._places is not None:
            self._places.take(request, replaced)
        # A first turn that continues as new does not know its execution's number yet.
        home = execution if request.execution == 0 else request.execution
        return self._create(request, parent, ends, home, before, verdict.place)

    def _uncounted(self, request: StartRequest, replaced: int) -> Started | None:
        """Return the answer to a start that has no place, or not enough of a budget."""
        assert self._places is not None
        full, dear = self._places.full(request, replaced), self._places.too_dear(request)
        if full is None and dear is None:
            return None
        nobody = Existing(0, 0, request.run_id, Status.PENDING, request.workflow)
        answer = _started(request, nobody, created=False, refused="place" if full else "budget")
        if full is not None:
            answer.detail, answer.place = f"{full[1]} are open, and no more may be", full[0]
        elif dear is not None:
            answer.detail = f"the budget of run {dear.key} has not enough {dear.unit} left"
        return answer

    def _create(
        self,
        request: StartRequest,
        parent: tuple[int, int] | None,
        ends: Existing | None,
        home: int | None,
        before: int,
        place: Place | None,
    ) -> Decision:
        run = self._last_run = self._runs[len(self._created)]
        self._created.add(run)
        first = request.first
        status = Status.RUNNING
        if place in (Place.HELD, Place.READY):
            status = Status.PENDING
        elif first is not None and first.state is not None:
            status = first.state.status
        elif request.state is not None:
            status = request.state.status
        elif request.not_before > self._batch.now:
            status = Status.PENDING
        latest = self._latest.get((request.namespace, request.workflow_id))
        is_same = latest is not None and latest.execution == home
        workflow = latest.workflow if latest is not None and is_same else request.workflow
        whose = latest.tenant if latest is not None and is_same else request.tenant
        new = Existing(
            run,
            home or run,
            request.run_id,
            status,
            workflow,
            None,
            parent,
            tenant=whose,
            parent_close=request.parent_close,
            asked_by=next((it.asked_by for it in request.watches if it.way == "child"), ""),
        )
        self._latest[request.namespace, request.workflow_id] = new
        if request.parent is not None:
            self._children.add(run)
        started = _started(request, new, created=True)
        started.is_queued = place in (Place.HELD, Place.READY)
        if ends is not None:
            started.replaced = ends.run
            self._orphaned.add(ends.execution)
        return Decision(request, started, parent, True, ends, before, place)

    def _against(
        self, request: StartRequest, existing: Existing, parent: tuple[int, int] | None
    ) -> Decision:
        if request.sees and existing.tenant != request.sees:
            return _refused(request, None, parent, "taken")
        if existing.status.is_terminal:
            allowed = request.reuse == "allow_duplicate" or (
                request.reuse == "allow_duplicate_failed_only"
                and existing.status is not Status.COMPLETED
            )
            if not allowed:
                return _refused(request, existing, parent)
            return Decision(request, _started(request, existing, created=True), parent, True)
        if request.conflict in USES and existing.workflow == request.workflow:
            if not self._is_leaving(existing) or (parent and parent[0] == existing.execution):
                return self._use(request, existing, parent)
            # Who used it would only hear that its parent has ended.
            self.has_found_leaving |= request.conflict != USE_UNLESS_LEAVING
            request.conflict = USE_UNLESS_LEAVING
        elif request.conflict != "terminate_existing":
            return _refused(request, existing, parent)
        if parent is not None and parent[0] == existing.execution:
            # A child cannot take the place of its parent.
            return _refused(request, existing, parent)
        is_in_batch = existing.run in self._created or existing.run in self._touched
        if is_in_batch and existing.run not in self._children:
            # This batch starts or moves it: whoever asks tries again with the next.
            return _refused(request, existing, parent, "busy")
        answer = _started(request, existing, created=True)
        return Decision(request, answer, parent, True, ends=existing)

    def _is_leaving(self, existing: Existing) -> bool:
        if existing.is_leaving:
            return True
        is_orphan = existing.parent is not None and existing.parent[0] in self._orphaned
        return is_orphan and existing.parent_close == "terminate"

    def _use(
        self, request: StartRequest, existing: Existing, parent: tuple[int, int] | None
    ) -> Decision:
        if request.messages:
            brought = self._brought.get(existing.execution, 0) + len(request.messages)
            if existing.unread + brought > limits.INBOX_PER_EXECUTION:
                return _refused(request, existing, parent, "full")
            self._brought[existing.execution] = brought
        return _refused(request, existing, parent, "")


def _leaves_children(turn: TurnWrite) -> bool:
    return turn.continued is None or turn.closes_children


def _refused(
    request: StartRequest,
    existing: Existing | None,
    parent: tuple[int, int] | None,
    code: str = "already_exists",
) -> Decision:
    # A retry of a run that the store does not know is refused with nothing to point at.
    there = existing or Existing(0, 0, "", Status.TERMINATED, request.workflow)
    answer = _started(request, there, created=False, refused=code)
    return Decision(request, answer, parent, False)


def _as_of(request: StartRequest, first: TurnWrite) -> TurnWrite:
    """Return a first turn; a run that goes on from it has what others get from the first run's row.

    Both rows go into one statement, which does not see the one while it writes the other.
    """
    continued = first.continued
    if continued is None or continued.execution != 0:
        return first
    continued = msgspec.structs.replace(
        continued,
        created_by=request.created_by,
        correlation_id=request.correlation_id,
        tenant=request.tenant,
        tags=request.tags,
        key=request.key,
        priority=request.priority,
    )
    return msgspec.structs.replace(first, continued=continued)


def _started(request: StartRequest, run: Existing, *, created: bool, refused: str = "") -> Started:
    return Started(
        run=run.run,
        execution=run.execution,
        run_id=run.run_id,
        workflow_id=request.workflow_id,
        created=created,
        status=run.status,
        refused=refused,
        workflow=run.workflow,
    )
