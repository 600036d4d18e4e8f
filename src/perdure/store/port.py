"""The store port: what the engine and the client ask of a database.

Theory of operation
-------------------
A *run* is an append-only history plus one narrow state row. Three verbs carry it on (R9):

* ``start`` writes event 1 of a run, or a copy of another run's rows. Anybody may.
* ``post`` puts one row into an execution's inbox. Anybody may. So do ``act`` (people), ``transact``
  (transactional activities) and ``take_over`` (offers that a dead worker had claimed).
* ``commit`` is the only way a history grows after event 1. Only a worker whose lease has the
  current epoch may, and the check is the first statement of the batch's transaction (I1, I6).

Others write, and add nothing to a history. ``claim`` and ``hand_back`` say who carries out an
offer, under the same check; what comes of it is in a ``commit``. ``admit`` lets runs out of queues,
``suspect`` counts on a run. ``prune`` deletes ended runs with all of theirs, ``forget`` what nobody
needs, ``reseal`` changes how a value is stored and not what it says, ``erase`` takes what users had
put into ended runs out of them. The rest keeps workers
(``join``, ``extend``, ``leave``, ``take_over``) and what they define or sweep, mailboxes and
watches, carries questions to live code and back (``ask``, ``answer``), or reads.

**Owners.** ``state.owner`` is the worker that has work of the run in flight. A run that waits (for
a message, a timer, a child, a person) has no owner, so sleeping runs cost nothing at a restart or
a takeover. A turn of an unowned run *claims* it in the same commit: ``TurnWrite.claim`` is the
history length the turn was computed on; if the run has an owner, has grown or has closed
meanwhile, the turn is dropped and named in ``Committed.lost``.

**Workflows and queues** say what a worker serves: a run is its own if the queue is among the
queues, and ``name`` (any version) or ``name version`` is among the workflows.

**Replacing** a run (``terminate_existing``) is the one end that its owner does not write: the
start takes the run from its owner, counts that in the owner's row, and ends it. The owner's next
batch looks which of its runs are gone.

**Limits.** Workers register with ``join`` how many executions of a workflow may be open. One that
is admitted holds a slot until it ends; its runs share it. Limits are judged inside the transaction
that starts an execution; one that has to wait is ``pending`` and stands in a queue. The transaction
that frees a slot gives it to the first in the queue, whose run is then running and nobody's, like
a run that was started from outside. How many may begin in a time is judged there too; what waits
for its time is let in by whoever calls ``admit`` then.

**Lanes** (a tenant, or a key) take turns, in queues and in ``claimable``, within a priority.

**Human tasks** are opened and given up by turns, in their commit. What people do to one comes in
by ``act``, which puts the decision into the inbox of its execution in the same transaction; a turn
that gives up what was decided meanwhile is dropped. So exactly one of them wins.

**Schedules** begin executions by the clock. ``fire`` finds those that are due, by an index; with a
schedule's row held it judges what its ticks do (``values/firing.py``), starts what follows and
moves it on, in one transaction. So each tick begins at most one execution, whoever looks.

**Offers** (``offers.py``) are activities in task queues that turns open, any worker claims, and
outcomes, turns or the end of the run take away. What a worker has claimed hangs on its lease.

**Records** are documents that administrators keep; ``amend`` writes them by compare-and-set.

**Audit.** Starts, posts, acts, batches and ``amend`` may carry lines that are appended in their
transaction, to one chain for the whole database (``values/audit.py``); no line costs nothing.
**Tallies** count for all processes: meters (rates in time), places (open executions under a key),
budgets (amounts that executions and their children share). A start takes its places, the commit
that ends the execution gives them back, and settles what it had reserved of budgets.

**Batches** are shared fate for the fence, and per-run for the rest: a dropped turn takes its posts,
children, attributes and consumed inbox rows with it, and its neighbours commit.

Verbs are synchronous and are called from one thread at a time; ``store.desk`` puts them behind
threads. Every verb takes ``now`` (microseconds since 1970): SQL never asks for the time. Payloads
are bytes; how they are kept (compressed, encrypted, elsewhere) is ``sealing.py``'s business and
seen by nobody above. Nothing here knows graphs or the shape of user code.

Errors of every verb: ``Unavailable`` (nothing was changed, or it is not known: see ``resolve``),
``Corrupt``, ``Sealed`` where users' data is read or written, ``LeaseLost`` where a worker writes. A
driver's own exceptions never leave a store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from perdure.store.beside import Beside
from perdure.store.erasing import Erase, ErasedPart, Erasing
from perdure.store.journal import Journal, JournalRow
from perdure.store.lines import LogLine
from perdure.store.news import News
from perdure.store.offers import Claimed, OfferKey, Wanted
from perdure.store.reader import Reader
from perdure.store.rows import (
    Acted,
    Beat,
    Committed,
    Counted,
    Definition,
    Filter,
    Fork,
    InboxRow,
    Listed,
    Loaded,
    Moved,
    OpenRun,
    Place,
    Posted,
    Pruned,
    Question,
    Resealed,
    RunRow,
    Started,
    Sweep,
    TurnRow,
    Worker,
)
from perdure.store.schedules import (
    Fired,
    Happened,
    ScheduleDrop,
    ScheduleFilter,
    SchedulePut,
    ScheduleRow,
    ScheduleSteer,
    Scheduling,
)
from perdure.store.writes import (
    Batch,
    HumanTaskRaise,
    HumanTaskWrite,
    Post,
    Prune,
    StartRequest,
    StateWrite,
    TurnWrite,
    Watch,
)
from perdure.values.concurrency import Limit, Standing
from perdure.values.people import Act, HumanTaskFilter, HumanTaskRow, LogEntry
from perdure.values.queues import QueueLimit

__all__ = [
    "Act",
    "Acted",
    "Batch",
    "Beat",
    "Committed",
    "Counted",
    "Definition",
    "Erase",
    "ErasedPart",
    "Filter",
    "Fired",
    "Fork",
    "Happened",
    "HumanTaskFilter",
    "HumanTaskRaise",
    "HumanTaskRow",
    "HumanTaskWrite",
    "InboxRow",
    "Journal",
    "JournalRow",
    "Limit",
    "Listed",
    "Loaded",
    "LogEntry",
    "LogLine",
    "Moved",
    "News",
    "OpenRun",
    "Place",
    "Post",
    "Posted",
    "Prune",
    "Pruned",
    "Question",
    "Reader",
    "Resealed",
    "RunRow",
    "ScheduleDrop",
    "ScheduleFilter",
    "SchedulePut",
    "ScheduleRow",
    "ScheduleSteer",
    "Standing",
    "StartRequest",
    "Started",
    "StateWrite",
    "Store",
    "Sweep",
    "TurnRow",
    "TurnWrite",
    "Watch",
    "Worker",
]

R = TypeVar("R")


class Store(Reader, Beside, Scheduling, Erasing, Protocol):
    """The whole port. About the calls: see the module's text."""

    def migrate(self, now: int) -> None:
        """Bring the database to this version's schema.

        Raises:
            SchemaMismatch: it was written by a newer version, or an applied migration was edited.
        """
        ...

    def unlock(self) -> None:
        """Make sure that this process can open what the database holds: that it has the codecs and
        keys that others seal with, and the blob store (``sealing.py``).

        Raises:
            Sealed: it cannot; the message says what is missing.
        """
        ...

    def reseal(self, after: str, *, limit: int) -> Resealed:
        """Seal up to ``limit`` rows anew that are not sealed as they would be now; ``after``: where
        to go on, ``""`` at first.

        It may be repeated, and may be done while workers commit: a row that changes meanwhile is
        left as it is.

        Raises:
            Sealed: a key that is needed is missing.
        """
        ...

    def forget_codecs(self) -> int:
        """Forget codecs and keys that nothing is sealed with any more: all but the current one.

        Only after :meth:`reseal` has found nothing left. Returns how many there were.
        """
        ...

    def unused_blobs(self, names: Sequence[str]) -> list[str]:
        """Return which of these blobs no history row refers to. Nobody will refer to one of them
        that is older than an hour.
        """
        ...

    def start(self, requests: Sequence[StartRequest], now: int) -> list[Started]:
        """Start runs without an owner. A refused start changes nothing."""
        ...

    def start_within(
        self, connection: object, requests: Sequence[StartRequest], now: int
    ) -> list[Started]:
        """Start runs in a caller's own transaction, on its connection and in its thread.

        Raises:
            Invalid: the connection is not one to this database, or has no transaction.
            Unavailable: its transaction cannot be written now.
        """
        ...

    def post(self, posts: Sequence[Post], now: int) -> list[Posted]:
        """Put rows into inboxes."""
        ...

    def commit(self, batch: Batch) -> Committed:
        """Write a worker's batch in one transaction.

        Raises:
            LeaseLost: the worker's epoch is not current; nothing was written.
            Unavailable: it may or may not have been written: ask ``resolve``.
            StoreRefused: one turn's data is not acceptable; nothing was written.
        """
        ...

    def resolve(self, worker: int, epoch: int) -> int:
        """Return the number of the worker's last committed batch (I12).

        Raises:
            LeaseLost: the epoch is not current.
        """
        ...

    def join(
        self,
        name: str,
        pid: int,
        host: str,
        *,
        now: int,
        lease_until: int,
        workflows: Sequence[str],
        queues: Sequence[str],
        definitions: Sequence[Definition],
        activities: Sequence[str] = (),
        limits: Sequence[QueueLimit] = (),
    ) -> Worker:
        """Register a worker with a new id, what it serves, and its definitions.

        ``limits``: of task queues; they hold for all workers from now on.
        """
        ...

    def extend(
        self, worker: int, epoch: int, *, now: int, lease_until: int, beats: Sequence[Beat] = ()
    ) -> tuple[int, int | None]:
        """Extend a lease and keep heartbeat details; return how many runs were taken from the
        worker one by one since it joined, and what ``time`` says.

        Raises:
            LeaseLost: it was taken over.
        """
        ...

    def leave(self, worker: int, epoch: int, now: int) -> None:
        """Hand all runs back, and what was claimed and not begun; end the worker's registration."""
        ...

    def take_over(
        self, worker: int, epoch: int, now: int, *, lease_until: int | None = None
    ) -> bool:
        """End the lease of a dead worker (if its epoch still is ``epoch``) and release its runs;
        the runs whose offered activities it has claimed hear that an attempt was lost.

        Returns ``False`` if somebody else did, or if the lease has been extended since it was seen
        to end at ``lease_until``.
        """
        ...

    def claim(
        self,
        worker: int,
        epoch: int,
        *,
        now: int,
        wanted: Sequence[Wanted],
        activities: Sequence[str],
        most: int = 100,
    ) -> Claimed:
        """Claim activities on offer that this worker knows by name, for its lease.

        At most ``most`` in all. By priority, then one of each lane in turn, then by age; within the
        limits of the queue.
        After a lost acknowledgement ``carried_by`` says what was claimed.

        Raises:
            LeaseLost: the worker's epoch is not current.
        """
        ...

    def hand_back(self, worker: int, epoch: int, keys: Sequence[OfferKey]) -> None:
        """Put on offer again what the worker has claimed and not begun. It may be repeated.

        Raises:
            LeaseLost: the worker's epoch is not current.
        """
        ...

    def admit(self, now: int) -> int:
        """Give free slots to the first in their queues, and queue those whose delay is over; return
        how many there were.

        Anybody may: it writes no history. Commits do it for the slots that they free.
        """
        ...

    def suspect(self, run: int) -> None:
        """Count that this run's turn holds a worker that is about to give up (R8)."""
        ...

    def define(self, definitions: Sequence[Definition], now: int) -> None:
        """Register definitions of a worker that has joined already; their limits are not."""
        ...

    def activate(self, name: str, version: str, *, is_active: bool) -> bool:
        """Let new executions begin with a version of a workflow, or none that do not ask for it by
        its number. ``False``: there is no such definition. It may be repeated.
        """
        ...

    def sweep(self, sweep: Sweep, *, instead: int = 0) -> bool:
        """Record how far a workflow's open runs were checked, for its scope.

        Returns ``False``, and changes nothing, if another worker than ``sweep.worker`` and
        ``instead`` is at it. A lost acknowledgement costs checking some runs twice.
        """
        ...

    def prune(self, prune: Prune) -> Pruned:
        """Delete a batch of ended runs with everything of theirs, and note the highest history row.

        Which runs may go is said in ``store/sql/pruning.py``. A lost acknowledgement costs nothing:
        what is gone is not found again.
        """
        ...

    def forget(self, now: int, *, after: str = "", limit: int = 1_000) -> str | None:
        """Forget what is over: senders behind ``after`` that have been silent for a week (up to
        ``limit`` are looked at), and at the beginning also mailboxes, questions and workers.

        Returns from where to go on; ``None``: that was all.
        """
        ...

    def ask(self, question: Question, now: int) -> None:
        """Put a question to live code."""
        ...

    def answer(self, question: str, answer: bytes, now: int) -> None:
        """Answer a question; the first answer stays."""
        ...

    def transact(
        self,
        run: int,
        activity: int,
        attempt: int,
        fn: Callable[[Any], R],
        *,
        outcome: Callable[[R], bytes],
        time_limit: float,
        now: int,
    ) -> tuple[R, Posted]:
        """Run a transactional activity (R7): ``fn(connection)``, the deletion of the attempt's
        deciding row and the inbox row ``outcome(result)`` in one transaction.

        Called from an activity's thread; a file's store uses a connection of its own for it.

        Raises:
            Superseded: the attempt was decided elsewhere; ``fn`` left no trace.
            TimeoutError: it took longer than ``time_limit`` seconds; it left no trace.
        """
        ...

    def keep_mailboxes(self, mailboxes: Sequence[str], until: int) -> None:
        """Open mailboxes, or keep them open, until a time. What is sent to any other is dropped."""
        ...

    def close_mailboxes(self, mailboxes: Sequence[str], now: int) -> None:
        """Close these mailboxes, and those whose time is over, with their mail and watches."""
        ...

    def drop_mail(self, rows: Sequence[int]) -> None:
        """Take away what was read."""
        ...

    def watch(self, watches: Sequence[Watch], now: int) -> list[str]:
        """Let mailboxes watch executions: ``watching``, ``ended`` (told at once), ``not_found``."""
        ...

    def time(self) -> int | None:
        """Return what the store's own clock says; ``None``: it goes by the machine's."""
        ...

    def listen(self, told: Callable[[], None]) -> Callable[[], None] | None:
        """Call ``told`` (from a thread of the store) after commits of others that may concern this
        process; return what ends that. ``None``: ask ``changed`` again and again.
        """
        ...

    def changed(self) -> bool:
        """Tell cheaply whether another process (or connection) committed since the last call."""
        ...

    def tidy(self, *, idle: bool) -> float | None:
        """Do what must not overlap with commits nor delay an answer (checkpoints, hints); return in
        how many seconds it wants to be called again, if it does.
        """
        ...

    def close(self) -> None:
        """Close connections and give locks back."""
        ...
