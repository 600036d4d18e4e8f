"""What a live instance is made of.

There may be 10,000 of them in a process, so the attributes have slots: in a dict they would take
five times the room.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any

from perdure import errors
from perdure.kernel import match
from perdure.kernel.channels import Mail, Queue
from perdure.kernel.edge import Mode, Program
from perdure.kernel.entropy import Entropy, Keys
from perdure.kernel.loop import DeterministicLoop, OrderedTask
from perdure.kernel.pending import Child, Condition, PendingActivity
from perdure.kernel.people import HumanTasks
from perdure.kernel.versions import Versions
from perdure.kernel.watching import Main, Watch
from perdure.values import events as ev
from perdure.values import failures


class State:
    """See the module's text; ``kernel/instance.py`` says how it changes."""

    __slots__ = (
        "_base",
        "_commands",
        "_context",
        "_divergence",
        "_failure",
        "_mail",
        "_main",
        "_notices",
        "_script",
        "_watches",
        "activities",
        "answered",
        "cancel",
        "children",
        "closed",
        "code",
        "conditions",
        "effects",
        "entropy",
        "human_tasks",
        "inherited",
        "is_cancelling",
        "is_overdue",
        "is_replaying",
        "is_spoilt",
        "keys",
        "length",
        "loop",
        "max_payload",
        "mode",
        "not_undone",
        "origin",
        "program",
        "queries",
        "root",
        "sends",
        "size",
        "spawned",
        "started",
        "steps",
        "time",
        "timers",
        "traps_cancel",
        "traps_links",
        "unlinked",
        "update_handlers",
        "updates",
        "versions",
    )

    loop: DeterministicLoop

    def __init__(self, program: Program, *, max_payload: int = 2 * 1024 * 1024) -> None:
        self.program = program
        self.max_payload = max_payload
        self.length: int = 0
        self.size: int = 0
        self.time: int = 0
        self.origin: int = 0
        self.mode = Mode.IDLE
        self.is_replaying = False
        self.closed: ev.Event | None = None
        self.started: ev.RunStarted | None = None
        self.code = ""
        """Fingerprint of the code that took the first turn."""
        self.entropy = Entropy(b"")
        self.activities: dict[int, PendingActivity] = {}
        self.timers: dict[int, tuple[int, Callable[[], None]]] = {}
        self.sends: dict[int, asyncio.Future[None]] = {}
        self.human_tasks = HumanTasks()
        self.children: dict[int, Child] = {}
        self.inherited: dict[tuple[str, int], str] = {}
        self.unlinked: dict[str, int] = {}
        self.conditions: list[Condition] = []
        self.queries: dict[str, Any] = {}
        self.update_handlers: dict[str, Any] = {}
        self.updates: dict[str, asyncio.Task[Any] | None] = {}
        self.spawned: set[asyncio.Task[Any]] = set()
        self.cancel: ev.CancelRequested | None = None
        self.is_overdue = False
        """Whether its time was over, and it went on."""
        self.is_cancelling = False
        """Whether a request has interrupted the code; a second one does not interrupt cleanup."""
        self.traps_links = self.traps_cancel = False
        self.not_undone: failures.FailureInfo | None = None
        self.effects: list[tuple[str, Any]] = []
        self.answered: dict[str, ev.UpdateCompleted] = {}
        self.is_spoilt = False
        """A query or validator has changed the run: drop the instance, a replay is not like it."""
        self.steps: Mapping[str, object] = {}
        """The names of the steps where the program says that it is, if it has such names."""
        self.versions = Versions()
        self.keys = Keys()
        self._context = contextvars.Context()
        self._commands: list[ev.Event] = []
        self._base: int = 0
        self._script: match.Script | None = None
        self._divergence: errors.NondeterminismError | None = None
        self.root: OrderedTask | None = None
        """The task of the main coroutine, once that has begun."""
        self._main: Main | None = None
        self._failure: BaseException | None = None
        self._mail: Mail | None = None
        self._notices: Queue | None = None
        self._watches: dict[int, Watch] | None = None

    # Most runs get no messages and start no children: 10,000 live ones need not pay for queues.

    @property
    def mail(self) -> Mail:
        """Messages of this run."""
        if self._mail is None:
            self._mail = Mail()
        return self._mail

    @property
    def has_mail(self) -> bool:
        """Whether anybody has asked for its messages."""
        return self._mail is not None

    @property
    def notices(self) -> Queue:
        """Notices about its children and what else it watches."""
        if self._notices is None:
            self._notices = Queue(None, "events")
        return self._notices

    @property
    def watches(self) -> dict[int, Watch]:
        """Executions whose end this run is to be told."""
        if self._watches is None:
            self._watches = {}
        return self._watches
