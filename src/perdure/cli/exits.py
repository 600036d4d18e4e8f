"""Exit codes, and what an exception is to the shell: a code and one line.

| code | meaning |
|--:|---|
| 0 | done; the run completed |
| 1 | the run failed (or timed out), a handler of it refused; `lint` or `check` found something |
| 2 | usage or bad input |
| 3 | not found, or erased |
| 4 | conflict: it exists already, it has ended already |
| 5 | the run was cancelled or terminated |
| 6 | the store, or a worker that must answer, cannot be reached |
| 70 | a defect of Perdure |
| 74 | the output cannot be written (a full disk) |
| 124 | the wait timed out; the run goes on |
| 130 | interrupted (Ctrl-C) |
| 141 | nobody reads the output any more |
"""

from __future__ import annotations

from perdure import errors

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
CANCELLED = 5
UNREACHABLE = 6
DEFECT = 70
NOT_WRITTEN = 74
TIMED_OUT = 124
INTERRUPTED = 130
NO_READER = 141

# The first class that fits decides.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.WorkflowCancelled, CANCELLED),
    (errors.WorkflowTerminated, CANCELLED),
    (errors.Failure, FAILED),
    (errors.NondeterminismError, FAILED),
    (errors.Closed, CONFLICT),
    (errors.NotFound, NOT_FOUND),
    (errors.Erased, NOT_FOUND),
    (errors.HumanTaskError, CONFLICT),
    (errors.AlreadyExists, CONFLICT),
    (errors.Conflict, CONFLICT),
    (errors.ConcurrencyLimit, CONFLICT),
    (errors.RateLimited, CONFLICT),
    (errors.PolicyDenied, CONFLICT),
    (errors.PermissionDenied, CONFLICT),
    (errors.Unauthenticated, CONFLICT),
    (errors.StoreError, UNREACHABLE),
    (errors.Invalid, USAGE),
    (errors.UsageError, USAGE),
    (errors.DefinitionError, USAGE),
    (TimeoutError, TIMED_OUT),
)


_UNTOLD = (errors.Kind.CANCELED, errors.Kind.INTERNAL)
"""Kinds that say nothing which the text does not: of an exception, it names the class."""


def code_of(exc: BaseException) -> int:
    """Return the exit code for an exception; ``DEFECT`` if it is none that users can cause."""
    for cls, code in _CODES:
        if isinstance(exc, cls):
            return code
    return DEFECT


def line_of(exc: BaseException) -> str:
    """Return what to print for an exception, in one line."""
    return " ".join(lines_of(exc).split())


def lines_of(exc: BaseException) -> str:
    """Return what to print for an exception: in one line, but a list of mistakes keeps its own, and
    so does a text with a caret under the place that is meant.
    """
    text = exc.message if isinstance(exc, errors.PerdureError) else str(exc) or type(exc).__name__
    if isinstance(exc, errors.Failure) and exc.kind not in (*_UNTOLD, exc.code):
        text = f"{text} ({exc.kind})"
    has_lines = "\n  - " in text or text.rpartition("\n")[2].strip() == "^"
    return text if has_lines else " ".join(text.split())
