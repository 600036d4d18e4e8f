"""What every call of the operations API answers: a status as HTTP has it, and data or an error.

Nothing raises for an outcome that is to be expected. What is left are mistakes of the program that
calls (``UsageError``), and errors of ours.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

import msgspec

from perdure import errors
from perdure.errors import Kind

P = ParamSpec("P")


class ApiResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer. ``error``: a sentence; ``code``: what programs tell refusals apart by."""

    status: int
    data: Any = None
    error: str | None = None
    code: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.status < 400


class Refused(Exception):
    """Ends a call with a refusal."""

    def __init__(self, status: int, code: str, error: str, data: Any = None) -> None:
        self.result = ApiResult(status, data, error, code)
        super().__init__(error)


_STATUSES: dict[str, tuple[int, str]] = {
    Kind.NOT_FOUND: (404, "not_found"),
    Kind.ALREADY_EXISTS: (409, "already_exists"),
    Kind.INVALID: (400, "invalid"),
    Kind.PERMISSION_DENIED: (403, "permission_denied"),
    Kind.CONFLICT: (409, "conflict"),
    Kind.RATE_LIMITED: (429, "rate_limited"),
    Kind.TIMEOUT: (504, "timeout"),
    Kind.UNAVAILABLE: (503, "unavailable"),
}


def answering(
    call: Callable[P, Awaitable[ApiResult]],
) -> Callable[P, Awaitable[ApiResult]]:
    """Let a call answer with what it would raise."""

    @functools.wraps(call)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> ApiResult:
        try:
            return await call(*args, **kwargs)
        except Refused as refused:
            return refused.result
        except errors.UsageError:
            raise
        except errors.PerdureError as error:
            return refusal(error)

    return answer


def refusal(error: errors.PerdureError) -> ApiResult:
    """Return the answer that an error is; ``data`` of one by policies has the ``rule``."""
    if isinstance(error, errors.PolicyDenied):
        return ApiResult(403, error.details, error.reason, error.code)
    status, code = _STATUSES.get(error.kind, (500, "internal"))
    if isinstance(error, errors.Erased):
        status, code = 410, error.code
    return ApiResult(status, error.details, error.message, code)
