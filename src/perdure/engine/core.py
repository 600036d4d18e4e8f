"""The worker's parts and what they share: which runs are at hand, who waits for what.

``Core`` wires the parts together and keeps three books: runs in memory (with a bounded cache of
waiting ones), starts whose commit is awaited, and waits for the end of runs. The parts do the work:
turns, loader, committer, runner, timers, intake, leases.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from perdure import errors
from perdure.definition import Workflow
from perdure.door import refusal
from perdure.ends import Watch
from perdure.engine import timeouts
from perdure.engine.activities import Runner
from perdure.engine.answers import Answers
from perdure.engine.blind import WITHOUT_CODE
from perdure.engine.carrier import Carrier
from perdure.engine.clock import Clock
from perdure.engine.commits import Commits
from perdure.engine.committer import Committer
from perdure.engine.escalating import Escalations
from perdure.engine.guard import NoGuard, TurnGuard
from perdure.engine.intake import Intake
from perdure.engine.listeners import Listeners
from perdure.engine.loader import Loader
from perdure.engine.logs import Logs
from perdure.engine.registry import Registry
from perdure.engine.release import Release
from perdure.engine.retention import Retention
from perdure.engine.revival import Revival
from perdure.engine.rows import run_of
from perdure.engine.runs import Input, Phase, Run, labels_of
from perdure.engine.schedules import Schedules
from perdure.engine.settings import Settings
from perdure.engine.sweep import Sweeper
from perdure.engine.timers import Timers
from perdure.engine.turns import Turns
from perdure.kernel.compat import FLAVOUR
from perdure.kernel.instance import Instance, Turn
from perdure.store.desk import Desk
from perdure.store.port import (
    InboxRow,
    Loaded,
    Post,
    Posted,
    Reader,
    RunRow,
    Started,
    StartRequest,
    TurnWrite,
)
from perdure.subjects import Subjects
from perdure.values import events as ev
from perdure.values.states import MENDED_BY_CODE, ParkReason, Status

T = TypeVar("T")

_log = logging.getLogger("perdure.engine")
_FAR = 30_000_000
_AGAIN_SECONDS = 0.1
_CONSUMED = 50_000
_CHUNK = 1_000
ALWAYS_REPLAY = "PERDURE_ALWAYS_REPLAY"


class Core:
    """See the module's text."""

    flavour = FLAVOUR

    def __init__(
        self,
        desk: Desk,
        clock: Clock,
        chance: Callable[[int], bytes],
        settings: Settings,
        *,
        guard: TurnGuard | NoGuard,
    ) -> None:
        self.desk = desk
        self.clock = clock
        self.chance = chance
        self.settings = settings
        self.max_payload = settings.max_payload
        self.turn_limit = settings.turn_limit_seconds
        self.transaction_limit = settings.transaction_limit
        self.registry = Registry([one.name for one in settings.task_queues], settings.limits)
        self.worker_name = ""
        self.lease_until = 0
        """This worker's lease lasts at least until then."""
        self.runs: dict[int, Run] = {}
        self.start_waiters: dict[str, asyncio.Future[Started]] = {}
        self.left_in_inbox: set[int] = set()
        """Inbox rows of stopped runs, seen and left where they are; some cannot be read."""
        self.on_fenced: Callable[[], None] = lambda: None
        self.on_gone: Callable[[errors.StoreGone], None] = lambda _error: None
        self.on_sealed: Callable[[errors.Sealed], None] = lambda _error: None
        self.always_replay = os.environ.get(ALWAYS_REPLAY, "") not in ("", "0")
        self._cache: OrderedDict[int, Run] = OrderedDict()
        self._refused: set[tuple[str, int]] = set()
        self._consumed: OrderedDict[int, None] = OrderedDict()
        self.guard = guard
        self.listeners = Listeners(desk)
        self.commits = Commits()
        self.watch = Watch(desk)
        self.watch.is_at_hand = self._will_hear
        self.turns = Turns(self)
        self.loader = Loader(self)
        self.services = settings.services
        """What attempts in this process get."""
        self.logs = Logs(self)
        self.committer = Committer(desk, clock, Release(self), self.logs)
        self.runner = Runner(
            self, slots=settings.activity_slots, thread_slots=settings.thread_slots
        )
        self.carrier = Carrier(self, settings.task_queues)
        self.timers = Timers(clock, self.timer_due)
        self.intake = Intake(self)
        self.answers = Answers(self)
        self.sweeper = Sweeper(self)
        self.revival = Revival(self)
        self.escalations = Escalations(self)
        self.retention = Retention(self)
        self.schedules = Schedules(self)
        self.subjects = Subjects(desk, clock.now, asyncio.get_running_loop())

    # -- runs at hand ------------------------------------------------------------------------

    def start(
        self, request: StartRequest, started: ev.RunStarted, definition: Workflow[Any, Any]
    ) -> asyncio.Future[Started]:
        """Start a run and take its first turn; both are committed together."""
        started.code = definition.code
        started.version = request.version = definition.version
        started.flavour = self.flavour
        timeouts.limit_start(definition, request, started)
        run = Run(0)
        run.workflow, run.workflow_id = request.workflow, request.workflow_id
        run.run_id, run.namespace, run.queue = request.run_id, request.namespace, request.queue
        run.tenant, run.labels = request.tenant, labels_of(request)
        run.definition = definition
        run.started = started
        run.instance = Instance(definition, max_payload=self.max_payload)
        future: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.start_waiters[request.run_id] = future
        # Not here: an activation never runs inside a task (CPython 3.14 forbids it).
        self.turns.begin(run, request, started)
        return future

    def take_up(self, key: int, length: int = 0) -> Run:
        """Return the run, loading it if it is not at hand, or shorter than ``length`` here."""
        run = self.runs.get(key)
        if run is None:
            run = self.runs[key] = Run(key)
            self.loader.request(run)
        elif run.length < length and run.phase is Phase.IDLE:
            self.reload(run)
        return run

    def claim(self, key: int) -> None:
        """Take up a run that is to run and is nobody's; one at hand was moved by a worker since."""
        run = self.take_up(key)
        if run.phase is Phase.IDLE and not run.is_owned and not run.is_queued:
            self.reload(run)

    def reload(self, run: Run) -> None:
        """Rebuild a run from the store, and what its inbox holds by then."""
        run.drop_instance()
        run.inputs = [item for item in run.inputs if not item.inbox]
        run.seen.clear()
        self.loader.request(run)

    def feed(self, posted: Posted, fact: ev.Event) -> None:
        """Give a run an inbox row; one that is not at hand is loaded, with the row.

        The row may be old news: if another worker has taken it since, the store refuses the turn.
        """
        if posted.id in self.left_in_inbox or posted.id in self._consumed or not posted.run:
            return
        run = self.runs.get(posted.run)
        if run is None:
            self.take_up(posted.run)
        else:
            self.turns.put(run, Input(fact, posted.id))

    def feed_unreadable(self, row: InboxRow) -> None:
        """Let the loader meet an inbox row that cannot be read: it parks the run."""
        if row.id in self.left_in_inbox or row.id in self._consumed:
            return
        run = self.take_up(row.run)
        if run.phase is Phase.IDLE:
            self.reload(run)

    def note_consumed(self, row: int) -> None:
        """Remember an inbox row that is in a history now.

        A look that began before the commit may still bring it.
        """
        self._consumed[row] = None
        if len(self._consumed) > _CONSUMED:
            self._consumed.popitem(last=False)

    def settle(self, run: Run) -> None:
        """A run has nothing to do now: keep it, cache it or let it go."""
        if run.phase is not Phase.IDLE or not run.key:
            return
        if run.inputs or run.timer_due:
            self.turns.wake(run)
            return
        instance = run.instance
        if run.on_idle and (instance is not None or run.status.is_stopped):
            self._call_idle(run)
            if run.inputs:
                return
        if run.is_owned and instance is not None and (instance.timers or run.has_deadline):
            due = run.next_due()
            if due is not None:
                self.timers.add(run.key, due, even_if_far=True)
        if self.always_replay:
            run.drop_instance()
        if run.is_owned or run.work or run.updates:
            return
        rests = run.status is Status.WAITING or run.status.is_stopped
        # Due in a queue, it begins when the store lets it in: a timer would fire again at once.
        is_let_in = not run.in_queue or (run.wake_at or 0) > self.clock.now()
        if run.wake_at is not None and rests and is_let_in:
            self.timers.add(run.key, run.wake_at)
        far = run.wake_at is not None and run.wake_at - self.clock.now() > _FAR
        if far or run.instance is None or run.status is not Status.WAITING:
            self.forget(run)
            return
        self._cache[run.key] = run
        self._cache.move_to_end(run.key)
        if len(self._cache) > self.settings.cache:
            self._trim()

    def forget(self, run: Run) -> None:
        """Let a run go from memory; what is due or posted brings it back."""
        self.runs.pop(run.key, None)
        self._cache.pop(run.key, None)
        run.drop_instance()
        run.phase = Phase.GONE
        self._call_idle(run)
        updates, run.updates = run.updates, {}
        for waiting in updates.values():
            for answer in waiting:
                answer(None)

    def give_back(self, run: Run) -> None:
        """A run is not this worker's: forget it, and post what came in by hand to its inbox."""
        self.runner.cancel_all(run)
        items, run.inputs = run.inputs, []
        self.timers.remove(run.key)
        self.forget(run)
        if run.status.is_terminal and run.status is not Status.CONTINUED_AS_NEW:
            for item in items:
                if item.done is not None:
                    item.done(errors.Closed(f"workflow {run.workflow_id!r} has ended"))
        else:
            self.post_back(run, items)

    def post_back(self, run: Run, items: Sequence[Input]) -> None:
        """Put facts that came in by hand where the next owner will find them."""
        for item in items:
            run.seen.discard(item.inbox)
            if item.done is not None:
                post = Post(
                    event=ev.encode_turn([item.fact]),
                    execution=run.execution,
                    is_control=not isinstance(item.fact, ev.MessageReceived),
                )
                self.committer.add_post(post, self._tell(item, run.workflow_id))

    def leave_in_inbox(self, run: Run, items: Sequence[Input]) -> None:
        """Keep facts from a stopped run until it goes on."""
        self.left_in_inbox.update(item.inbox for item in items if item.inbox)
        self.post_back(run, items)

    def timer_due(self, key: int) -> None:
        """A run's time has come."""
        run = self.runs.get(key)
        if run is None:
            self.take_up(key)
            return
        run.timer_due = True
        self.turns.wake(run)

    def ended(self, run: Run, write: TurnWrite, turn: Turn | None) -> None:
        """A run has ended: answer whoever waits, and let it go."""
        closing = turn.closed if turn is not None else ev.decode_turn(write.payload)[-1]
        assert closing is not None
        self.runner.cancel_all(run)
        self.timers.remove(run.key)
        self.give_back(run)
        self.watch.resolve(run.key, closing)
        if run.started is not None and run.started.schedule:
            self.schedules.look()  # the next one may wait for this end

    def taken_away(self, key: int) -> None:
        """A run was ended or moved by somebody else: stop what is under way here."""
        run = self.runs.get(key)
        if run is not None and run.phase is Phase.IDLE:
            self.reload(run)
        self.watch.look()

    def look_at_owned(self) -> None:
        """Some of this worker's runs were taken from it: find out which, and let them go."""
        task = asyncio.get_running_loop().create_task(self._look_at_owned())
        task.add_done_callback(_note)

    async def _look_at_owned(self) -> None:
        keys = [run.key for run in self.runs.values() if run.is_owned]
        me = self.committer.worker
        for start in range(0, len(keys), _CHUNK):
            part = keys[start : start + _CHUNK]
            rows = await self._read_patiently(lambda store, part=part: store.rows(part))
            for row in rows:
                if row.owner != me:
                    self.taken_away(row.run)

    def closed_elsewhere(self, run: Run) -> None:
        """A loaded run turns out to have ended."""
        self.watch.look()
        self.give_back(run)

    # -- what stops a run --------------------------------------------------------------------

    def wants_unparked(self, run: Run, row: RunRow, parked: ev.RunParked | None) -> bool:
        """Tell whether a stopped run should be tried: somebody asked, or the code is another."""
        if any(isinstance(item.fact, ev.GOES_ON) for item in run.inputs):
            return True
        if run.status is not Status.PARKED or run.definition is None:
            return False
        if row.reason in (ParkReason.UNKNOWN_WORKFLOW, ParkReason.UNSERVED_QUEUE):
            return True
        if row.reason not in MENDED_BY_CODE or parked is None:
            return False
        return parked.code != self.registry.code(run.definition)

    def cannot_replay(self, run: Run, reason: ParkReason, detail: str) -> None:
        """Park a run whose history the code does not fit, or let it end: that needs no code."""
        if any(isinstance(item.fact, WITHOUT_CODE) for item in run.inputs):
            self.turns.wake(run)
            return
        asked = [item for item in run.inputs if isinstance(item.fact, ev.GOES_ON)]
        run.inputs = [item for item in run.inputs if item not in asked]
        if run.status is Status.PARKED and not asked:
            self.leave_in_inbox(run, run.inputs)
            run.inputs = []
            self.forget(run)
            return
        run.status = Status.RUNNING
        self.turns.blind.park(run, [], reason, detail, first=asked)

    def park_unserved(self, loaded: Loaded, *, is_known: bool) -> None:
        """Park a run no live worker serves; ``is_known``: some know it, on other queues.

        Anybody ends it when it is out of time.
        """
        row = loaded.row
        if row.run in self.runs:
            return
        run = self.runs[row.run] = run_of(loaded)
        version = f" (version {row.version})" if row.version else ""
        what = f"workflow {row.workflow!r}{version}"
        if is_known:
            detail = f"no running worker that defines {what} serves task queue {row.queue!r}"
            self.turns.blind.park(run, [], ParkReason.UNSERVED_QUEUE, detail)
        else:
            detail = f"no running worker defines {what}"
            self.turns.blind.park(run, [], ParkReason.UNKNOWN_WORKFLOW, detail)

    # -- sends -------------------------------------------------------------------------------

    def note_refusals(self, fed: Sequence[tuple[Posted, ev.Event]]) -> None:
        """Remember which sends of this batch were refused: their answer is in the inbox."""
        self._refused = {
            (fact.asked_by, fact.send) for _, fact in fed if isinstance(fact, ev.SendResolved)
        }

    def resolve_send(self, run: Run, number: int) -> None:
        """A message (or cancel) is committed: tell the code, unless it was refused."""
        is_open = run.instance is not None and number in run.instance.sends
        if is_open and (run.run_id, number) not in self._refused:
            self.turns.put(run, Input(ev.SendResolved(send=number, asked_by=run.run_id)))

    # -- failures of the store ---------------------------------------------------------------

    def resolve_start(self, request: StartRequest, answer: asyncio.Future[Started]) -> None:
        """Find out whether a start whose acknowledgement was lost is in the store."""

        async def look() -> None:
            row = await self._read_patiently(
                lambda store: store.find(
                    request.workflow_id, namespace=request.namespace, run_id=request.run_id
                )
            )
            if answer.done():
                return
            if row is None:
                answer.set_exception(errors.Unavailable("the start was not written; try again"))
                return
            answer.set_result(
                Started(
                    row.run,
                    row.execution,
                    row.run_id,
                    row.workflow_id,
                    created=True,
                    status=row.status,
                )
            )
            self.take_up(row.run)

        asyncio.get_running_loop().create_task(look()).add_done_callback(_note)

    def fenced(self) -> None:
        """Drop everything this worker held; :attr:`on_fenced` rejoins."""
        _log.warning("the lease of %s was taken over; dropping all its runs", self.worker_name)
        became = "it may or may not have been written"  # before the lease was lost
        self.drop(errors.Unavailable(f"this worker lost its lease; {became}, try again"))
        self.on_fenced()

    def drop(self, error: errors.Unavailable) -> None:
        """Forget all runs, and answer whoever waits for something that was not committed."""
        for item in self.turns.forget():
            if item.done is not None:
                item.done(error)
        for run in list(self.runs.values()):
            doubted, run.doubt = run.doubt[1] if run.doubt is not None else [], None
            for item in (*doubted, *run.inputs):
                if item.done is not None:
                    item.done(error)
            run.inputs = []
            self.runner.cancel_all(run)
            self.forget(run)
        self.carrier.drop()
        for answer in self.start_waiters.values():
            if not answer.done():
                answer.set_exception(error)
        self.start_waiters.clear()
        self.loader.forget()
        self.timers.clear()

    # -- inside ------------------------------------------------------------------------------

    def _will_hear(self, key: int) -> bool:
        """Tell whether this worker will know of a run's end first.

        Not of one that only waits here: a start may take its place.
        """
        run = self.runs.get(key)
        return run is not None and (run.is_owned or run.phase is not Phase.IDLE)

    def _trim(self) -> None:
        while len(self._cache) > self.settings.cache:
            # One that is busy comes back into the cache when it settles.
            _, run = self._cache.popitem(last=False)
            is_idle = run.phase is Phase.IDLE and not run.is_queued and not run.inputs
            if is_idle and not run.is_owned and not run.updates and not run.work:
                self.forget(run)

    async def _read_patiently(self, verb: Callable[[Reader], T]) -> T:
        """Read, again and again while the store cannot be reached."""
        while True:
            try:
                return await self.desk.read(verb)
            except errors.Unavailable:
                await asyncio.sleep(_AGAIN_SECONDS)

    def _tell(self, item: Input, workflow_id: str) -> Callable[[Posted], None]:
        """Pass on to whoever handed a fact in what became of its inbox row."""

        def done(posted: Posted) -> None:
            assert item.done is not None
            item.done(refusal(posted, workflow_id))
            if posted.outcome == "delivered":
                self.feed(posted, item.fact)

        return done

    def _call_idle(self, run: Run) -> None:
        waiting, run.on_idle = run.on_idle, ()
        for call in waiting:
            call()


def _note(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("could not find out what became of a run", exc_info=error)
