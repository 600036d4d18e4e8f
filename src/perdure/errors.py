"""Every error of Perdure, in one place.

Three families, kept apart:

* :class:`Failure` subclasses cross workflow boundaries as data. Raised by user code
  (:class:`ApplicationError`) or by an ``await`` on something that failed
  (:class:`ActivityFailed`, :class:`ChildFailed`), they fail the *workflow*.
* Other :class:`PerdureError` subclasses answer a caller: a bad id, a bad payload, a store that is
  away. Each has a stable ``code``.
* :class:`ControlFlow` subclasses are ``BaseException``: an ``except Exception`` in user code cannot
  swallow them. (The idea is trio's ``Cancelled`` and DBOS's base exception.)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, cast


class Kind(StrEnum):
    """Classification of a failure. Users may use kinds of their own: any text."""

    NOT_FOUND = "NotFound"
    ALREADY_EXISTS = "AlreadyExists"
    INVALID = "Invalid"
    PERMISSION_DENIED = "PermissionDenied"
    UNAVAILABLE = "Unavailable"
    INTERNAL = "Internal"
    CANCELED = "Canceled"
    CONFLICT = "Conflict"
    TIMEOUT = "Timeout"
    RATE_LIMITED = "RateLimited"
    UNKNOWN = "Unknown"
    WORKER_LOST = "WorkerLost"


class PerdureError(Exception):
    """Something went wrong in Perdure."""

    code: ClassVar[str] = "error"
    default_kind: ClassVar[str] = Kind.INTERNAL
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        kind: str | None = None,
        retryable: bool | None = None,
        details: Any = None,
        cause: BaseException | None = None,
    ) -> None:
        """Keep what every face shows: message, kind, whether a retry may help, details, cause."""
        self.message = message if message is not None else (self.__doc__ or "").split("\n")[0]
        super().__init__(self.message)
        self.kind: str = str(kind) if kind is not None else str(self.default_kind)
        self.retryable = self.default_retryable if retryable is None else retryable
        self.details = details
        self.cause = cause
        if cause is not None:
            self.__cause__ = cause

    def __str__(self) -> str:
        """Return the message alone (``KeyError`` bases would quote it)."""
        return self.message


# -- failures: they travel as data ---------------------------------------------------------------


class Failure(PerdureError):
    """A failure that crosses activity, workflow, parent and client with kind and cause kept."""

    code = "failure"


class ApplicationError(Failure):
    """Raise this in workflow or activity code to fail with a kind of your own.

    ``retryable=False`` stops an activity's retries at once. ``details`` is any payload.
    """

    code = "application"
    default_kind = Kind.UNKNOWN
    default_retryable = True


class ActivityFailed(Failure):
    """An activity failed for good; ``cause`` is what it raised last."""

    code = "activity.failed"


class ChildFailed(Failure):
    """A child workflow did not complete; ``cause`` is its failure."""

    code = "child.failed"


class LinkedRunFailed(Failure):
    """A linked run ended badly."""

    code = "link.failed"


class WorkflowFailed(Failure):
    """The workflow failed; ``cause`` is what its code raised."""

    code = "workflow.failed"


class WorkflowCancelled(Failure):
    """The workflow was cancelled."""

    code = "workflow.cancelled"
    default_kind = Kind.CANCELED


class WorkflowTerminated(Failure):
    """The workflow was terminated."""

    code = "workflow.terminated"
    default_kind = Kind.CANCELED


class WorkflowTimedOut(Failure):
    """The workflow ran out of time."""

    code = "workflow.timed_out"
    default_kind = Kind.TIMEOUT


# -- answers to a caller -------------------------------------------------------------------------


class NotFound(PerdureError, KeyError, ValueError):
    """No such execution, run or definition."""

    code = "not_found"
    default_kind = Kind.NOT_FOUND


class AlreadyExists(PerdureError):
    """An execution with this id is already there."""

    code = "already_exists"
    default_kind = Kind.ALREADY_EXISTS


class Invalid(PerdureError, ValueError):
    """The input is not acceptable; the message names the field."""

    code = "invalid"
    default_kind = Kind.INVALID


class Closed(NotFound):
    """The execution has ended. A refused message has kind ``NotFound``; all else ``Conflict``."""

    code = "closed"
    default_kind = Kind.CONFLICT  # histories hold it: of updates that the end of the run refused


class Conflict(PerdureError):
    """The state changed meanwhile."""

    code = "conflict"
    default_kind = Kind.CONFLICT


class ConcurrencyLimit(PerdureError):
    """A concurrency limit refused the start."""

    code = "concurrency_limit"
    default_kind = Kind.RATE_LIMITED
    default_retryable = True


class RateLimited(PerdureError):
    """A rate limit refused the start; ``details["retry_after"]``: seconds until one may begin."""

    code = "rate_limited"
    default_kind = Kind.RATE_LIMITED
    default_retryable = True


class Unauthenticated(PerdureError):
    """Nobody who is known asks: the key or token is missing, unknown, over or forged (401)."""

    code = "unauthenticated"
    default_kind = Kind.PERMISSION_DENIED


class PermissionDenied(PerdureError):
    """Who asks is known, and may not do this (403)."""

    code = "permission_denied"
    default_kind = Kind.PERMISSION_DENIED


class PolicyDenied(PerdureError):
    """A policy refused the operation.

    ``code``: ``POLICY_DENIED``, ``POLICY_ERROR`` (it could not be evaluated) or the code of a check
    that is always made; ``reason``: in words; ``rule``: the key, or the check, that refused it.
    """

    code = "policy.denied"
    default_kind = Kind.PERMISSION_DENIED

    def __init__(
        self,
        code: str = "POLICY_DENIED",
        reason: str | None = None,
        rule: str = "",
        *,
        version: str = "",
        **recorded: Any,
    ) -> None:
        if recorded:  # a failure that was recorded comes back: its message stands first
            super().__init__(code, **recorded)
        else:
            said = {"code": code, "rule": rule, "version": version}
            super().__init__(reason or "a policy refused the operation", details=said)
        is_said = isinstance(cast("object", self.details), dict)
        found: dict[str, Any] = self.details if is_said else {}
        self.reason, self.rule = self.message, str(found.get("rule", ""))
        self.version = str(found.get("version", ""))
        self.__dict__["code"] = found.get("code", "POLICY_DENIED")


class BudgetExceeded(PerdureError):
    """A budget of the run has not enough left; ``details`` say which, and how much."""

    code = "budget_exceeded"
    default_kind = Kind.RATE_LIMITED


class HumanTaskError(PerdureError):
    """Something cannot be done to a human task."""

    code = "human_task"
    default_kind = Kind.CONFLICT


def _said(given: object, text: str) -> str | None:
    """Return what an error about a human task says: an id, which has no spaces, stands for the
    whole sentence.
    """
    if given is None or " " in str(given):
        return None if given is None else str(given)
    return text.format(given)


class TaskNotFound(HumanTaskError, NotFound):
    """There is no such human task."""

    code = "human_task.not_found"
    default_kind = Kind.NOT_FOUND

    def __init__(self, message: object = None, **more: Any) -> None:
        super().__init__(_said(message, "Task '{}' not found"), **more)


class TaskClosed(HumanTaskError, Conflict):
    """The human task was decided or given up before; the message says by whom and when."""

    code = "human_task.closed"

    def __init__(self, message: object = None, **more: Any) -> None:
        super().__init__(_said(message, "Task '{}' is already completed"), **more)


class TaskClaimed(HumanTaskError, Conflict):
    """Somebody else has claimed the human task; or nobody has, and only who has could do this."""

    code = "human_task.claimed"


class TaskDenied(HumanTaskError):
    """The human task is assigned to somebody else."""

    code = "human_task.denied"
    default_kind = Kind.PERMISSION_DENIED

    def __init__(self, message: object = None, user_id: str = "", **more: Any) -> None:
        text = f"User '{user_id}' is not authorized to complete task '{{}}'"
        super().__init__(_said(message, text), **more)


class ScheduleNotFound(NotFound):
    """There is no such schedule."""

    code = "schedule.not_found"

    def __init__(self, message: object = None, **more: Any) -> None:
        super().__init__(_said(message, "there is no schedule '{}'"), **more)


class Erased(PerdureError):
    """It was erased for good: the key of a personal value, or what a run was given and gave."""

    code = "erased"
    default_kind = Kind.NOT_FOUND


class ChannelClosed(PerdureError):
    """The channel is closed and drained."""

    code = "channel.closed"
    default_kind = Kind.CONFLICT


class UsageError(PerdureError):
    """Perdure was called in a way that cannot work."""

    code = "usage"
    default_kind = Kind.INVALID


class DefinitionError(PerdureError):
    """A workflow or activity definition is wrong."""

    code = "definition"
    default_kind = Kind.INVALID


class NondeterminismError(PerdureError):
    """The code no longer does what the history recorded."""

    code = "nondeterminism"


class IORefused(NondeterminismError):
    """Workflow code touched the world outside, which only activities may."""

    code = "io_refused"


# -- the store -----------------------------------------------------------------------------------


class StoreError(PerdureError):
    """The store could not do it."""

    code = "store"


class Unavailable(StoreError):
    """The store cannot be reached or written now; nothing was changed."""

    code = "store.unavailable"
    default_kind = Kind.UNAVAILABLE
    default_retryable = True


class StoreGone(Unavailable):
    """The database was deleted, moved or replaced while it was open; this process must end."""

    code = "store.gone"
    default_retryable = False


class Corrupt(StoreError):
    """A stored row cannot be read."""

    code = "store.corrupt"


class Sealed(StoreError):
    """Stored data cannot be opened here: its codec, a key of it or the blob store is missing."""

    code = "store.sealed"


class SchemaMismatch(StoreError):
    """The database was written by another version of Perdure."""

    code = "store.schema"


class LeaseLost(StoreError):
    """This worker's lease was taken over; it must drop what it holds."""

    code = "store.lease_lost"


class StoreRefused(StoreError):
    """The database refused the data of a turn; nothing of the batch was written."""

    code = "store.refused"
    default_kind = Kind.INVALID


class AlreadyRead(StoreRefused):
    """An inbox row of the turn is in a history already; nothing of the batch was written."""

    code = "store.already_read"


class Superseded(StoreError):
    """The attempt was decided elsewhere; its transaction was rolled back."""

    code = "store.superseded"


# -- control flow: never caught by ``except Exception`` ------------------------------------------


class ControlFlow(BaseException):
    """Base of what unwinds user code without being an error of it."""


class Evicted(ControlFlow):
    """Closes a coroutine whose run leaves memory. ``finally`` blocks run; nothing is recorded."""


class TurnVoid(ControlFlow):
    """Unwinds workflow code whose turn will not count; ``error`` says why."""

    def __init__(self, error: PerdureError) -> None:
        super().__init__(error.message)
        self.error = error


class TurnTimeout(ControlFlow):
    """A turn held the loop longer than the limit and was interrupted."""
