"""Perdure runs workflows that outlive crashes.

Write an ``async`` function, decorate it with ``workflow.define``, call activities in it, and run it
with an :class:`Engine`: every run reaches its end through kills, restarts and months of waiting.

Names are loaded when they are first used, so that ``import perdure`` costs nothing by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure import activity, human, personal, workflow
    from perdure.client import Client
    from perdure.engine.alerts import Alert
    from perdure.engine.engine import Engine
    from perdure.engine.processes.watchdog import Watchdog
    from perdure.errors import ApplicationError, PerdureError
    from perdure.handle import Handle
    from perdure.personal import Personal
    from perdure.store.blobs import BlobStore, FileBlobs
    from perdure.store.sealing import Codec
    from perdure.values.principals import Principal
    from perdure.values.queues import TaskQueue
    from perdure.values.retry import Retry
    from perdure.values.states import Status

__version__ = "0.1.0"

__all__ = [
    "Alert",
    "ApplicationError",
    "BlobStore",
    "Client",
    "Codec",
    "Engine",
    "FileBlobs",
    "Handle",
    "PerdureError",
    "Personal",
    "Principal",
    "Retry",
    "Status",
    "TaskQueue",
    "Watchdog",
    "activity",
    "human",
    "personal",
    "workflow",
]

_HOMES = {
    "Alert": "perdure.engine.alerts",
    "ApplicationError": "perdure.errors",
    "BlobStore": "perdure.store.blobs",
    "Client": "perdure.client",
    "Codec": "perdure.store.sealing",
    "Engine": "perdure.engine.engine",
    "FileBlobs": "perdure.store.blobs",
    "Handle": "perdure.handle",
    "PerdureError": "perdure.errors",
    "Personal": "perdure.personal",
    "Principal": "perdure.values.principals",
    "Retry": "perdure.values.retry",
    "Status": "perdure.values.states",
    "TaskQueue": "perdure.values.queues",
    "Watchdog": "perdure.engine.processes.watchdog",
    "activity": "",
    "human": "",
    "personal": "",
    "workflow": "",
}
"""Where each name lives; those without a home are modules of this package."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    value = getattr(import_module(home), name) if home else import_module(f"{__name__}.{name}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
