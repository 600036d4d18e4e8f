"""Perdure runs workflows that outlive crashes.

Write an ``async`` function, decorate it with ``workflow.define``, call activities in it, and run it
with an :class:`Engine`: every run reaches its end through kills, restarts and months of waiting.
"""

from perdure import activity, workflow
from perdure.client import Client, Handle
from perdure.engine.engine import Engine
from perdure.errors import ApplicationError, PerdureError
from perdure.values.retry import Retry
from perdure.values.states import Status

__version__ = "0.1.0"

__all__ = [
    "ApplicationError",
    "Client",
    "Engine",
    "Handle",
    "PerdureError",
    "Retry",
    "Status",
    "activity",
    "workflow",
]
