"""Lock files, by which workers see who lives.

A live worker holds a lock file from before its row can be seen until it leaves, so whoever reads
the row can ask the kernel whether the process lives. In memory there is only this process, and its
workers live as long as the store does.
"""

from __future__ import annotations

from perdure.errors import StoreError, Unavailable
from perdure.store.sqlite.locks import LockFile, is_locked, remove_file, try_lock


class Presence:
    """The lock files of the workers that joined through one store; ``path`` is the database's."""

    def __init__(self, path: str | None) -> None:
        self._database = path
        self._held: dict[int, LockFile | None] = {}

    def hold(self, worker: int) -> None:
        """Lock a new worker's file.

        Raises:
            Unavailable: it cannot be made.
            StoreError: somebody holds it.
        """
        if self._database is None:
            self._held[worker] = None
            return
        try:
            lock = try_lock(self._path(worker))
        except OSError as exc:
            raise Unavailable(f"no lock file for worker {worker}: {exc}", cause=exc) from exc
        if lock is None:
            raise StoreError(
                f"{self._path(worker)} is locked, though worker {worker} is new: was the database "
                "file replaced while a worker ran? Stop all workers and remove the file"
            )
        self._held[worker] = lock

    def is_alive(self, worker: int) -> bool | None:
        """Tell whether a worker that has not left still lives; ``None`` if that cannot be told."""
        if worker in self._held or self._database is None:
            return worker in self._held
        try:
            return is_locked(self._path(worker))
        except OSError:
            return None

    def forget(self, worker: int) -> None:
        """Give up the lock of a worker that left, or remove the file of one taken over."""
        lock = self._held.pop(worker, None)
        if lock is not None:
            lock.release(remove=True)
        elif self._database is not None:
            remove_file(self._path(worker))

    def close(self) -> None:
        """Give all locks back; rows that did not leave will be seen as dead."""
        for worker in list(self._held):
            self.forget(worker)

    def _path(self, worker: int) -> str:
        return f"{self._database}-worker-{worker}"
