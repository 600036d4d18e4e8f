"""What a dialect gives to the code that all stores on SQL share.

Queries are named; the same names stand in each dialect's file, with the same parameters and the
same columns. What is asked about a batch answers with one row that holds one JSON text, so that the
number of calls does not grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from perdure.store.sealing import Seal
from perdure.store.writes import Batch

P = ParamSpec("P")
R = TypeVar("R")


class Answer(Protocol):
    """What came of a statement: a driver's cursor."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        ...


class Writing(Protocol):
    """A connection inside a transaction, ours or a caller's.

    ``written``: an estimate, in bytes, of what was written; verbs add what they encoded. ``seal``:
    users' data is sealed by it before it goes into a statement, and opened when it has come out.
    """

    name: str
    written: int
    seal: Seal

    @property
    def sql(self) -> Mapping[str, str]:
        """The texts of the named queries."""
        ...

    def run(self, query: str, *parameters: Any) -> Answer:
        """Run a named query."""
        ...

    def ask(self, text: str, parameters: Sequence[Any]) -> Answer:
        """Run a query whose text was made here, with a ``?`` for each parameter."""
        ...

    def insert(self, query: str, columns: int, flat: Sequence[Any]) -> Sequence[int]:
        """Insert rows that hold bytes, laid end to end in ``flat``; return their ids in order.

        A table without ids gives any numbers.
        """
        ...

    def foresee(self, batch: Batch) -> Any:
        """Begin to find out what :meth:`hold` must hold for a batch."""
        ...

    def hold(self, foreseen: Any, *, limits: bool) -> None:
        """Keep everybody else from changing what a batch's answers depend on, to the commit.

        ``foreseen``: what :meth:`foresee` gave for it. ``limits``: slots are among it.
        """
        ...

    def hold_anew(self) -> None:
        """Begin the transaction again if :meth:`hold` holds too little: a start of the batch wants
        more than it did.
        """
        ...

    def hold_slots(self) -> None:
        """Keep everybody else from giving or taking slots, to the commit."""
        ...

    def hold_human_tasks(self, ids: Sequence[str]) -> None:
        """Keep everybody else from changing what becomes of these human tasks, to the commit."""
        ...

    def hold_executions(self, executions: Sequence[int]) -> bool:
        """Keep everybody else from changing what becomes of these executions, to the commit.

        ``True``: others may have changed it before; look again.
        """
        ...

    def guess_runs(self, count: int, after: int) -> Sequence[int] | None:
        """Return likely numbers of that many new runs; asked outside of the transaction.

        ``after``: the last number that this connection knows of. ``None``: they can only be drawn.
        """
        ...

    def draw_runs(self, count: int) -> Answer:
        """Draw numbers for that many new runs, a row each."""
        ...

    def new_runs(self, guess: Sequence[int], above: int) -> Sequence[int]:
        """Return as many numbers for new runs, ascending, each greater than ``above``."""
        ...


class Database(Writing, Protocol):
    """A connection that is ours."""

    def close(self) -> None:
        """Close it; a second call does nothing."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Let the queries of a ``with`` block see one state of the database."""
        ...

    def read(self, call: Callable[[], R]) -> R:
        """Call something that reads, with the driver's errors translated."""
        ...

    def write(self, call: Callable[[], R]) -> R:
        """Call something that writes in one short transaction.

        Raises:
            Unavailable: nothing was written; or it is not known, and then ``resolve`` tells.
        """
        ...


class _HasDatabase(Protocol):
    @property
    def database(self) -> Database: ...


S = TypeVar("S", bound=_HasDatabase)


def reading(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method a reading verb."""

    def verb(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.database.read(partial(method, self, *args, **kwargs))

    verb.__doc__ = method.__doc__
    verb.__name__ = method.__name__
    return verb


def writing(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method a writing verb of one short transaction."""

    def verb(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.database.write(partial(method, self, *args, **kwargs))

    verb.__doc__ = method.__doc__
    verb.__name__ = method.__name__
    return verb


def one(database: Writing, query: str, *parameters: Any) -> Any:
    """Return the only value of a named query's only row."""
    return database.run(query, *parameters).fetchone()[0]
