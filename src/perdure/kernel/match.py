"""Holding what code asks for against what history recorded.

A replayed turn has a *script*: the commands recorded for it. Each command of the code must be the
next of the script, by kind and by what identifies it (an activity's name, a child's id; not
arguments, not durations: a harmless edit must not strand a run). Soft commands (version marks,
recorded values, progress, what is emitted) are no part of that: they may be anywhere in their turn,
those that the code no longer makes are passed over, and those that it makes anew are not asked for
here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import CodeType, CoroutineType, FrameType
from typing import Any

from perdure.errors import NondeterminismError
from perdure.values.events import SOFT, Event, SideEffectRecorded, VersionMarked

_PACKAGE = "perdure."
_HOME = str(Path(__file__).parents[1] / "_")[:-1]
_UNKNOWN = "an unknown place"
_SKIPPED = ("asyncio.", "contextlib", "importlib", "<frozen")


class Script:
    """The recorded commands of one turn and how far code has followed them."""

    __slots__ = ("_commands", "_cursor", "_first_id", "_passed", "_read")

    def __init__(self, commands: Sequence[Event], first_id: int, passed: dict[str, int]) -> None:
        """``passed`` takes the version marks that are passed over, for later turns."""
        self._commands = commands
        self._first_id = first_id
        self._cursor = 0
        self._passed = passed
        self._read: dict[str, int] = {}

    def follow(self, event: Event, where: Callable[[], str]) -> int:
        """Return the id of the recorded command that ``event`` is.

        Raises:
            NondeterminismError: it is not the next one of the script.
        """
        commands, cursor = self._commands, self._cursor
        while cursor < len(commands) and type(commands[cursor]) in SOFT:
            self._pass_over(commands[cursor])
            cursor += 1
        if cursor < len(commands):
            recorded = commands[cursor]
            if type(recorded) is type(event) and event.same_as(recorded):
                self._cursor = cursor + 1
                return self._first_id + cursor
        self._cursor = cursor
        raise self._divergence(event, where())

    def next_id(self) -> int:
        """Return the event id of the next recorded command."""
        commands, cursor = self._commands, self._cursor
        while cursor < len(commands) and type(commands[cursor]) in SOFT:
            cursor += 1
        return self._first_id + cursor

    def mark(self, change: str) -> int | None:
        """Return the version recorded for ``change`` in this turn, if it is."""
        for command in self._commands:
            if isinstance(command, VersionMarked) and command.change == change:
                return command.version
        return None

    def value(self, name: str) -> bytes | None:
        """Return the next value of ``name`` that was recorded in this turn, if one is left."""
        seen = self._read.get(name, 0)
        for command in self._commands:
            if isinstance(command, SideEffectRecorded) and command.name == name:
                if not seen:
                    self._read[name] = self._read.get(name, 0) + 1
                    return command.value
                seen -= 1
        return None

    def finish(self, where: Callable[[], str]) -> None:
        """Check that nothing of the script is left.

        Raises:
            NondeterminismError: history has a command here that the code did not ask for.
        """
        if self._cursor == len(self._commands):
            return
        if self._rest():
            raise self._divergence(None, where())
        for soft in self._commands[self._cursor :]:
            self._pass_over(soft)

    def _pass_over(self, soft: Event) -> None:
        if isinstance(soft, VersionMarked):
            self._passed.setdefault(soft.change, soft.version)

    def _rest(self) -> list[Event]:
        return [c for c in self._commands[self._cursor :] if type(c) not in SOFT]

    def _divergence(self, event: Event | None, where: str) -> NondeterminismError:
        rest = self._rest()
        expected = rest[0].identity() if rest else "nothing more in this turn"
        actual = event.identity() if event is not None else "nothing"
        number = self._first_id + self._cursor
        at = f" at {where}" if where else ""
        return NondeterminismError(
            f"event {number}: history has {expected}, the code asked for {actual}{at}. "
            f"{_usual_cause(rest[0] if rest else None, event)}",
            details={"event": number, "expected": expected, "actual": actual, "where": where},
        )


def place(frame: FrameType | None = None) -> str:
    """Return ``file:line in function`` of the innermost user code of the activation."""
    return asking_place(frame or sys._getframe(1)) or _UNKNOWN  # pyright: ignore[reportPrivateUsage]


def asking_place(frame: FrameType | None) -> str:
    """Return what :func:`place` does, or ``""``; callers of the activation are no part of it."""
    while frame is not None and not is_boundary(frame):
        if is_user_code(frame.f_globals.get("__name__", "")):
            return describe(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return ""


def place_of(steps: Iterable[str]) -> str:
    """Return where the running workflow code asks; if it is Perdure's own, the steps it is at."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - as in place
    return asking_place(frame) or named_steps(steps)


def named_steps(names: Iterable[str]) -> str:
    """Say which steps a program is at, by the names that it gives them."""
    named = ", ".join(repr(name) for name in names)
    return f"step{'s' if ', ' in named else ''} {named}" if named else ""


def is_boundary(frame: FrameType) -> bool:
    """Tell whether a frame is where an activation begins."""
    return frame.f_code.co_name == "_activate" and (
        frame.f_globals.get("__name__") == "perdure.kernel.instance"
    )


def raising_place(exc: BaseException) -> str:
    """Return where user code raised ``exc``; empty if none did."""
    found = ""
    trace = exc.__traceback__
    while trace is not None:
        if is_user_code(trace.tb_frame.f_globals.get("__name__", "")):
            found = describe(trace.tb_frame.f_code, trace.tb_lineno)
        trace = trace.tb_next
    return found


def waiting_place(coro: Any) -> str:
    """Return where a suspended coroutine's innermost user code waits."""
    found = _UNKNOWN
    for frame in waiting_frames(coro):
        found = describe(frame.f_code, frame.f_lineno)
    return found


def waiting_frames(coro: Any) -> list[FrameType]:
    """Return the user frames of a suspended coroutine, outermost first."""
    frames: list[FrameType] = []
    while isinstance(coro, CoroutineType):
        frame = coro.cr_frame
        if frame is not None and is_user_code(frame.f_globals.get("__name__", "")):
            frames.append(frame)
        coro = coro.cr_await
    return frames


def is_user_code(module: str) -> bool:
    """Tell user modules from Perdure's own and the machinery around them."""
    return not module.startswith((_PACKAGE, *_SKIPPED)) and module not in ("perdure", "asyncio")


def beginning_place(code: CodeType) -> str:
    """Return where a program's function begins, or ``""`` if that is Perdure's own."""
    return "" if code.co_filename.startswith(_HOME) else describe(code, code.co_firstlineno)


def describe(code: CodeType, line: int) -> str:
    """Write a place the way editors open it."""
    return f"{code.co_filename}:{line} in {code.co_qualname}"


def _usual_cause(recorded: Event | None, asked: Event | None) -> str:
    if recorded is None:
        return (
            "Usually a step was added while this run was under way: guard it with "
            "workflow.patched(), or give the changed definition a new version and keep the old one "
            "beside it."
        )
    if asked is None:
        return (
            "Usually a step was removed, or a branch depends on something that is not recorded "
            "(the clock, the environment, a global)."
        )
    return (
        "Usually steps were reordered, renamed or replaced while this run was under way: guard "
        "the change with workflow.patched() or workflow.version(), or give the changed definition "
        "a new version and keep the old one beside it."
    )
