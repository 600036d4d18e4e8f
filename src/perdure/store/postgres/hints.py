"""Hints: empty notifications by which workers and clients hear of each other's commits.

A hint is sent after the commit, in a transaction of its own that does not wait for the disk, and at
most every 5 ms: inside the durable one it would make commits wait for each other (R14). None is
ever needed: everybody also looks once a second. Who listens has a connection for it that is idle
and in no transaction, so it holds up no vacuum.

Nobody can listen behind a pooler in transaction mode: who is there looks often, and sends hints to
those who are not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import psycopg

from perdure.errors import StoreError
from perdure.store.complaints import Complaints
from perdure.store.postgres.connect import Connection, Settings, connect
from perdure.store.postgres.database import Database

log = logging.getLogger("perdure.store")

_EVERY_SECONDS = 0.005
_LOOK_SECONDS = 0.5
_AGAIN_SECONDS = 1.0


class Hints:
    """Sends hints for one store, and listens to those of others."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._channel = f"perdure_{database.schema}"
        self._token = os.urandom(6).hex()
        self._is_due = False
        self._sent = 0.0
        self._trouble = Complaints(log, time.monotonic)

    def add(self) -> None:
        """Something was committed that concerns others."""
        self._is_due = True

    def send(self) -> float | None:
        """Send a hint if one is due; return in how many seconds it may be sent, if not yet."""
        if not self._is_due:
            return None
        wait = self._sent + _EVERY_SECONDS - time.monotonic()
        if wait > 0:
            return wait
        self._is_due = False
        self._sent = time.monotonic()
        # One message: whoever waits for what was committed wants this thread's processor.
        script = (
            "BEGIN; SET LOCAL synchronous_commit = off; "
            f"NOTIFY \"{self._channel}\", '{self._token}'; COMMIT"
        )
        try:
            self._database.connection.cursor().execute(script.encode(), prepare=False)
        except psycopg.Error as exc:
            self._database.roll_back()
            self._trouble.add("a hint to other workers was not sent: %s", exc)
        return None

    def listen(self, told: Callable[[], None]) -> Callable[[], None] | None:
        """Call ``told`` in a thread of its own after each hint; return what ends that."""
        if self._database.settings.pooler:
            return None
        listener = _Listener(self._database.settings, self._channel, self._token, told)
        listener.start()
        return listener.stop


class _Listener(threading.Thread):
    def __init__(
        self, settings: Settings, channel: str, token: str, told: Callable[[], None]
    ) -> None:
        super().__init__(name="perdure-hints", daemon=True)
        self._settings = settings
        self._channel = channel
        self._token = token
        self._told = told
        self._ends = threading.Event()
        self._trouble = Complaints(log, time.monotonic)

    def stop(self) -> None:
        """End within half a second."""
        self._ends.set()
        self.join()

    def run(self) -> None:
        while not self._ends.is_set():
            try:
                with connect(self._settings) as connection:
                    connection.execute(f'LISTEN "{self._channel}"'.encode())
                    self._trouble.over("hints of other workers come again")
                    self._told()  # what came meanwhile
                    self._wait(connection)
            except (psycopg.Error, StoreError) as exc:
                if not self._ends.is_set():
                    self._trouble.add("hints of other workers do not come: %s", exc)
                    self._ends.wait(_AGAIN_SECONDS)

    def _wait(self, connection: Connection) -> None:
        while not self._ends.is_set():
            for hint in connection.notifies(timeout=_LOOK_SECONDS, stop_after=1):
                if hint.payload != self._token:
                    self._told()
