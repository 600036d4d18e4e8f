"""Failures as data: what an exception becomes when it is recorded, and back.

The shape keeps kind, retryability, message, details and the chain of causes, so that an error reads
the same in the activity, the workflow, its parent and the client (Temporal's failure chain).
"""

from __future__ import annotations

import traceback
from typing import Any

import msgspec

from perdure import errors
from perdure.values import payload

_TRACEBACK_FRAMES = 12
_MESSAGE_LIMIT = 8_192
_CHAIN_LIMIT = 16


class FailureInfo(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One failure. ``type`` is the exception's class name; ``details`` an encoded payload."""

    message: str
    kind: str = str(errors.Kind.INTERNAL)
    type: str = ""
    retryable: bool = True
    details: bytes | None = None
    trace: str = ""
    cause: FailureInfo | None = None

    @property
    def root(self) -> FailureInfo:
        """The innermost cause."""
        info = self
        while info.cause is not None:
            info = info.cause
        return info

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Tell whether a pattern is this failure's kind, its class name, or text in its message."""
        return any(p in (self.kind, self.type) or p in self.message for p in patterns)


_CARRIERS: dict[str, type[errors.PerdureError]] = {
    cls.__name__: cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.PerdureError)
}


def from_exception(exc: BaseException, *, _depth: int = 0) -> FailureInfo:
    """Record ``exc``. An exception that is not Perdure's becomes kind ``Internal``, retryable."""
    cause = exc.__cause__ if not isinstance(exc, errors.PerdureError) else exc.cause
    inner = (
        from_exception(cause, _depth=_depth + 1)
        if cause is not None and _depth < _CHAIN_LIMIT
        else None
    )
    if isinstance(exc, errors.PerdureError):
        return FailureInfo(
            message=exc.message[:_MESSAGE_LIMIT],
            kind=exc.kind,
            type=type(exc).__name__,
            retryable=exc.retryable,
            details=_encode_details(exc.details),
            cause=inner,
        )
    kind = errors.Kind.TIMEOUT if isinstance(exc, TimeoutError) else errors.Kind.INTERNAL
    text = str(exc) or type(exc).__name__
    return FailureInfo(
        message=text[:_MESSAGE_LIMIT],
        kind=str(kind),
        type=type(exc).__name__,
        trace=_trace(exc),
        cause=inner,
    )


def to_exception(info: FailureInfo) -> errors.PerdureError:
    """Rebuild the exception chain. Classes Perdure does not know come back as ApplicationError."""
    cls = _CARRIERS.get(info.type, errors.ApplicationError)
    cause = to_exception(info.cause) if info.cause is not None else None
    exc = cls(
        info.message,
        kind=info.kind,
        retryable=info.retryable,
        details=_decode_details(info.details),
        cause=cause,
    )
    if info.trace:
        exc.add_note(info.trace)
    return exc


def wrap(cls: type[errors.Failure], message: str, info: FailureInfo) -> errors.Failure:
    """Wrap a recorded failure for the place that awaits it; the kind is that of the root cause."""
    root = info.root
    return cls(
        message,
        kind=root.kind,
        retryable=info.retryable,
        details=_decode_details(root.details),
        cause=to_exception(info),
    )


def _encode_details(details: Any) -> bytes | None:
    if details is None:
        return None
    try:
        return payload.encode(details)
    except errors.Invalid:
        # The failure matters more than its details: keep them readable rather than lose both.
        return payload.encode(repr(details))


def _decode_details(details: bytes | None) -> Any:
    return None if details is None else payload.decode(details)


def _trace(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)[-_TRACEBACK_FRAMES:]
    return "".join(traceback.format_list(frames)).rstrip()
