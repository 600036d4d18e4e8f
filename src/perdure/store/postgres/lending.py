"""Connections that are lent to transactional activities, and those that lie ready for the next.

To open a connection takes longer than a small transaction. So a few are kept, and what user code
has set on one ends with its turn: on the server by DISCARD ALL, and here because the next user gets
a new object on the same session. The old object is closed for good, whoever still has it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from perdure.errors import StoreError, UsageError
from perdure.store.postgres import faults
from perdure.store.postgres.connect import Settings, connect, lend

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

R = TypeVar("R")

NOT_YOURS = (
    "the transaction of a transactional activity belongs to Perdure: no commit, no rollback. Raise "
    "an exception to undo; savepoints are fine (connection.transaction())"
)
_OVER = "the transactional activity that this connection was lent to is over"
_MOST_SPARES = 4


class LentConnection(psycopg.Connection[Any]):
    """A connection whose transaction is not its user's to end.

    ``is_lent``: user code holds it. ``is_over``: it is not for use any more.
    """

    is_lent = False
    is_over = False

    def commit(self) -> None:
        """Refuse: the transaction ends with the outcome."""
        self._refuse_if_lent()
        super().commit()

    def rollback(self) -> None:
        """Refuse: raise an exception to undo."""
        self._refuse_if_lent()
        super().rollback()

    def close(self) -> None:
        """Close, unless user code holds it."""
        self._refuse_if_lent()
        if not self.is_over:
            super().close()

    @property
    def closed(self) -> bool:
        """Whether it can no longer be used."""
        return self.is_over or super().closed

    def wait(self, gen: Generator[Any, Any, R], *args: Any, **kwargs: Any) -> R:
        """Let the driver talk to the server: all that cursors do comes through here."""
        if self.is_over:
            raise UsageError(_OVER)
        return super().wait(gen, *args, **kwargs)

    def _refuse_if_lent(self) -> None:
        if self.is_lent:
            raise UsageError(NOT_YOURS)


class Lender:
    """Lends connections of one store; from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._spares: list[PGconn] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._is_closed = False

    @contextmanager
    def connection(self) -> Generator[LentConnection]:
        """Give a connection in a transaction that has just begun; what it leaves open is undone.

        Raises:
            Unavailable: there is none to be had.
            UsageError: the store was closed, or is used in a forked process.
        """
        connection = self._begun()
        try:
            yield connection
        finally:
            connection.is_lent = False
            self._take_back(connection)

    def close(self) -> None:
        """Close those that lie here; those that are lent are closed when they come back."""
        with self._lock:
            self._is_closed = True
            spares, self._spares = self._spares, []
        if self._pid == os.getpid():
            for session in spares:
                session.finish()

    def _begun(self) -> LentConnection:
        while (session := self._spare()) is not None:
            connection = LentConnection(session)
            lend(connection, self.settings)
            try:
                connection.execute("BEGIN")
            except psycopg.Error:  # lost while it lay here
                connection.close()
            else:
                return connection
        connection = connect(self.settings, LentConnection)
        assert isinstance(connection, LentConnection)
        try:
            connection.execute("BEGIN")
        except psycopg.Error as exc:
            connection.close()
            raise faults.translate(exc, self.settings.name) from exc
        return connection

    def _spare(self) -> PGconn | None:
        if self._pid != os.getpid():
            raise UsageError(
                f"{self.settings.name} was opened in process {self._pid} and is used in its fork "
                f"{os.getpid()}; open it again after the fork"
            )
        with self._lock:
            if self._is_closed:
                raise UsageError(f"{self.settings.name} was closed")
            return self._spares.pop() if self._spares else None

    def _take_back(self, connection: LentConnection) -> None:
        if (
            self.settings.pooler
            or connection.closed
            or connection.info.transaction_status is not TransactionStatus.IDLE
        ):
            connection.close()  # ends what was not committed
            return
        try:
            psycopg.Cursor(connection).execute("DISCARD ALL", prepare=False)
        except (psycopg.Error, StoreError):
            connection.close()
            return
        with self._lock:
            if not self._is_closed and len(self._spares) < _MOST_SPARES:
                connection.is_over = True
                self._spares.append(connection.pgconn)
                return
        connection.close()
