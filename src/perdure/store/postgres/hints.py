"""Hints: empty notifications by which workers and clients hear of each other's commits.

A hint is sent after the commit, in a transaction of its own that does not wait for the disk, and at
most every 5 ms: inside the durable one it would make commits wait for each other (R14). None is
ever needed: everybody also looks once a second. Who listens has a thread and a connection for
both ways, so that no commit waits for the hint of the one before; between two hints it is idle and
in no transaction, and holds up no vacuum. Who does not listen sends on the writing connection.

Nobody can listen behind a pooler in transaction mode: who is there looks often, and sends hints to
those who are not.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from perdure.errors import StoreError
from perdure.store.complaints import Complaints
from perdure.store.postgres.connect import Settings, connect
from perdure.store.postgres.database import Database

log = logging.getLogger("perdure.store")

_EVERY_SECONDS = 0.005
_AGAIN_SECONDS = 1.0


class Hints:
    """Sends hints for one store, and listens to those of others."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._channel = f"perdure_{database.schema}"
        self._token = os.urandom(6).hex()
        # One message: whoever waits for what was committed wants this processor.
        script = (
            "BEGIN; SET LOCAL synchronous_commit = off; "
            f"NOTIFY \"{self._channel}\", '{self._token}'; COMMIT"
        )
        self._script = script.encode()
        self._is_due = False
        self._sent = 0.0
        self._line: _Line | None = None
        self._trouble = Complaints(log, time.monotonic)

    def add(self) -> None:
        """Something was committed that concerns others."""
        self._is_due = True

    def send(self) -> float | None:
        """See to it that a hint is sent if one is due; return in how many seconds to ask again."""
        if not self._is_due:
            return None
        if self._line is not None:
            self._is_due = False
            self._line.send()
            return None
        wait = self._sent + _EVERY_SECONDS - time.monotonic()
        if wait > 0:
            return wait
        self._is_due = False
        self._sent = time.monotonic()
        try:
            self._database.connection.cursor().execute(self._script, prepare=False)
        except psycopg.Error as exc:
            self._database.roll_back()
            self._trouble.add("a hint to other workers was not sent: %s", exc)
        return None

    def listen(self, told: Callable[[], None]) -> Callable[[], None] | None:
        """Call ``told`` in a thread of its own after each hint; return what ends that."""
        if self._database.settings.pooler:
            return None
        self._line = _Line(self._database.settings, self._channel, self._token, self._script, told)
        self._line.start()
        return self._hang_up

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.stop()


class _Line(threading.Thread):
    """A connection on which hints come and go."""

    def __init__(
        self,
        settings: Settings,
        channel: str,
        token: str,
        script: bytes,
        told: Callable[[], None],
    ) -> None:
        super().__init__(name="perdure-hints", daemon=True)
        self._settings = settings
        self._channel = channel
        self._token = token.encode()
        self._script = script
        self._told = told
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        self._rung.setblocking(False)
        self._sources = selectors.DefaultSelector()
        self._sources.register(self._rung, selectors.EVENT_READ)
        self._is_due = False
        self._ends = False
        self._trouble = Complaints(log, time.monotonic)

    def send(self) -> None:
        """Send a hint soon; from any thread."""
        if not self._is_due:
            self._is_due = True
            self._ring()

    def stop(self) -> None:
        """Send what is due, and end."""
        self._ends = True
        self._ring()
        self.join()
        self._sources.close()
        self._bell.close()
        self._rung.close()

    def run(self) -> None:
        while not self._ends:
            try:
                with connect(self._settings) as connection:
                    connection.execute(f'LISTEN "{self._channel}"'.encode())
                    self._trouble.over("hints of other workers come again")
                    self._told()  # what came meanwhile
                    number = connection.fileno()
                    self._sources.register(number, selectors.EVENT_READ)
                    try:
                        self._talk(connection.pgconn)
                    finally:
                        self._sources.unregister(number)
            except (psycopg.Error, StoreError) as exc:
                self._is_due = True  # what was to be sent may not have been
                if not self._ends:
                    self._trouble.add("hints to and of other workers are not sent: %s", exc)
                    self._pause()

    def _talk(self, session: PGconn) -> None:
        """Send and hear, until this ends."""
        sent = 0.0
        while True:
            self._hear(session)
            now = time.monotonic()
            if self._is_due and (self._ends or now >= sent + _EVERY_SECONDS):
                self._is_due = False
                sent = now
                self._tell(session)
                continue  # hints of others may have come with the answer
            if self._ends:
                return
            self._wait(sent + _EVERY_SECONDS - now if self._is_due else None)

    def _hear(self, session: PGconn) -> None:
        session.consume_input()
        is_told = False
        while (hint := session.notifies()) is not None:
            is_told = is_told or hint.extra != self._token
        if is_told:
            self._told()

    def _tell(self, session: PGconn) -> None:
        # The driver's cursors would cost more than what they send.
        answer = session.exec_(self._script)
        if answer.status != ExecStatus.COMMAND_OK:
            raise psycopg.OperationalError(answer.get_error_message())

    def _pause(self) -> None:
        until = time.monotonic() + _AGAIN_SECONDS
        while not self._ends and (left := until - time.monotonic()) > 0:
            self._wait(left)

    def _wait(self, seconds: float | None) -> None:
        """Wait for the bell, the server or the time, whatever is first."""
        self._sources.select(seconds)
        with suppress(BlockingIOError):
            self._rung.recv(64)

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it is ringing
            self._bell.send(b".")
