"""Failures as data: what an exception becomes when it is recorded, and back.

The shape keeps kind, retryability, message, details and the chain of causes, so that an error reads
the same in the activity, the workflow, its parent and the client (Temporal's failure chain). What
is rebuilt and recorded again, because a workflow let an activity's failure through, is as it was.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, cast

import msgspec

from perdure import errors
from perdure.values import payload

_TRACEBACK_FRAMES = 12
_TEXT_LIMIT = 8_192
_CHAIN_LIMIT = 16
_MEMBERS_NAMED = 5
_FRAME = re.compile(r'^  File "(.+)", line (\d+)', re.MULTILINE)
_STEP = re.compile(r'^in step ".+?"(?= of )', re.MULTILINE)
_NOT_USERS = (
    "<",
    str(Path(__file__).parents[1] / "_")[:-1],
    str(Path(traceback.__file__).parent / "_")[:-1],
)
_PACKAGES = re.compile(r"[/\\](site|dist)-packages[/\\]")


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
        """What went wrong: the first failure that is not a wrapper around another."""
        info = self
        while info.cause is not None and info.type in _WRAPPERS:
            info = info.cause
        return info

    @property
    def text(self) -> str:
        """What went wrong, in one line: class, message, and the place in the user's code.

        That of the root; of a group, which names its members, that of the group.
        """
        info = self
        while info.cause is not None and info.type in _WRAPPERS - _GROUPS:
            info = info.cause
        return one_line(info.type, info.message, info.trace)

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Tell whether a pattern is this failure's kind, its class name, or text in its message."""
        return any(p in (self.kind, self.type) or p in self.message for p in patterns)


_CARRIERS: dict[str, type[errors.PerdureError]] = {
    cls.__name__: cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.PerdureError)
}
_GROUPS = frozenset({"BaseExceptionGroup", "ExceptionGroup"})
_WRAPPERS = _GROUPS | {"ActivityFailed", "ChildFailed", "LinkedRunFailed", "WorkflowFailed"}
_RECORDED = "perdure_recorded"


def from_exception(exc: BaseException, *, _depth: int = 0) -> FailureInfo:
    """Record ``exc``. An exception that is not Perdure's becomes kind ``Internal``, retryable.

    A group is recorded like a wrapper around its first exception; it may be tried again if all of
    its exceptions may. Whatever its class makes of ``str()`` or of its attributes, there is a
    record: a run must not wait for ever because an exception has no text.
    """
    try:
        return _from_exception(exc, _depth)
    except Exception as broken:  # noqa: BLE001 - the code of the exception's class may raise anything
        name = _clean(type(exc).__name__)
        message = f"{name} (it could not be read: {_clean(type(broken).__name__)})"
        return FailureInfo(message, type=name)


def _from_exception(exc: BaseException, depth: int) -> FailureInfo:
    cause = exc.__cause__
    if isinstance(exc, errors.PerdureError):
        # A class of the user may have left out super().__init__().
        cause = getattr(exc, "cause", None) or cause
    members = _members(exc)
    if cause is None and members:
        cause = members[0]
    inner = None
    if cause is not None and depth < _CHAIN_LIMIT:
        inner = from_exception(cause, _depth=depth + 1)
    if isinstance(exc, errors.PerdureError):
        return _from_perdure(exc, inner)
    message = _text(exc) or type(exc).__name__
    kind = str(errors.Kind.TIMEOUT if isinstance(exc, TimeoutError) else errors.Kind.INTERNAL)
    if members and inner is not None:
        message, kind = f"{message}: {_named(members)}", inner.root.kind
    return FailureInfo(
        message=_clean(message),
        kind=kind,
        type=type(exc).__name__,
        retryable=all(bool(getattr(member, "retryable", True)) for member in members),
        trace=_trace(exc),
        cause=inner,
    )


def one_line(type_: str, message: str, trace: str) -> str:
    """Return ``KeyError: 'boom' (orders.py:24)``; of an error of Perdure's, the message alone.

    A step that is noted in the traceback (:func:`in_step`) stands in the brackets, too.
    """
    text = " ".join(message.split())
    if type_ and type_ not in _CARRIERS:
        text = type_ if text in ("", type_) else f"{type_}: {text}"
    step = _STEP.search(trace)
    told = [_place(trace), step[0] if step else ""]
    place = ", ".join(part for part in told if part)
    return f"{text} ({place})" if place and type_ not in _GROUPS else text


def in_step(name: str, of: str) -> str:
    """Return the note for an exception that says in which step of what it was raised."""
    return f'in step "{name}" of {of!r}'


def is_wrapper(type_: str) -> bool:
    """Tell whether failures of this class only say where another one arrived."""
    return type_ in _WRAPPERS


def _place(trace: str) -> str:
    """Return file and line of the innermost frame of user code in a recorded traceback."""
    frames = _FRAME.findall(trace)
    own = [frame for frame in frames if _is_users(frame[0])]
    if not own:
        return ""
    file, line = own[-1]
    return f"{PurePath(file).name}:{line}"


def _is_users(file: str) -> bool:
    return not file.startswith(_NOT_USERS) and not _PACKAGES.search(file)


def _named(members: tuple[BaseException, ...]) -> str:
    """Name the members of a group, each by its class, message and place."""
    texts = [from_exception(member).text for member in members[:_MEMBERS_NAMED]]
    if len(members) > _MEMBERS_NAMED:
        texts.append(f"{len(members) - _MEMBERS_NAMED} more")
    return "; ".join(texts)


def _members(exc: BaseException) -> tuple[BaseException, ...]:
    return cast("Any", exc).exceptions if isinstance(exc, BaseExceptionGroup) else ()


def _from_perdure(exc: errors.PerdureError, cause: FailureInfo | None) -> FailureInfo:
    recorded: FailureInfo | None = vars(exc).get(_RECORDED)
    # What is raised as data says enough; of a call that was refused, users need the line.
    is_data = recorded is not None or isinstance(exc, errors.Failure)
    return FailureInfo(
        message=_clean(getattr(exc, "message", type(exc).__name__)),
        kind=_clean(getattr(exc, "kind", exc.default_kind)),
        type=type(exc).__name__ if recorded is None else recorded.type,
        retryable=bool(getattr(exc, "retryable", exc.default_retryable)),
        details=_encode_details(getattr(exc, "details", None)),
        trace=_notes(exc) if is_data else _trace(exc, _is_users),
        cause=cause,
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
    vars(exc)[_RECORDED] = info
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
        return payload.encode(_text(details, repr))


def _decode_details(details: bytes | None) -> Any:
    return None if details is None else payload.decode(details)


def _trace(exc: BaseException, wanted: Callable[[str], bool] = lambda _file: True) -> str:
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if wanted(f.filename)]
    lines = "".join(traceback.format_list(frames[-_TRACEBACK_FRAMES:])).rstrip()
    return _clean("\n".join(part for part in (lines, _notes(exc)) if part))


def _notes(exc: BaseException) -> str:
    notes: list[object] = getattr(exc, "__notes__", [])
    return _clean("\n".join(_text(note) for note in notes))


def _clean(text: object) -> str:
    """Return text that can be encoded: file names, for one, may hold lone surrogates."""
    return _text(text)[:_TEXT_LIMIT].encode(errors="backslashreplace").decode()


def _text(value: object, read: Callable[[object], str] = str) -> str:
    """Return what ``read`` makes of a value, or say that it could not."""
    try:
        return read(value)
    except (KeyboardInterrupt, errors.ControlFlow):
        raise
    except BaseException as exc:  # noqa: BLE001 - it is not our code
        name, why = type(value).__name__, type(exc).__name__
        return f"<{name}: its {read.__name__}() raised {why}>"
