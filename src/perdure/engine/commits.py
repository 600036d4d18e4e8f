"""Who watches the commits of this worker: called after each, before anybody else acts on it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from perdure.engine.runs import Run
from perdure.values import events as ev

Watcher = Callable[[Run, int, ev.Event | None], None]
_log = logging.getLogger("perdure.engine")


class Commits:
    """``engine.commits``."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call ``watcher(run, first, closing)`` after each commit of a turn of this worker; return
        a function that ends it.

        ``first`` is the id of the turn's first event, ``closing`` the event that ended the run, if
        it did. The run's instance, if it is in memory, is at rest and may be queried. A watcher
        must be quick; its errors are logged.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def tell(self, run: Run, first: int, closing: ev.Event | None) -> None:
        """Tell of a commit."""
        for watcher in list(self._watchers):
            try:
                watcher(run, first, closing)
            except Exception:  # noqa: BLE001 - whatever it is, the run goes on
                _log.exception("what watches the commits of this engine failed at %r", run)
