"""Whose ``KeyboardInterrupt`` it is: a person's Ctrl-C, or one that user code raised.

Both come out of the same call. A person's must end the worker; user code's is an exception like
any other, and ending the worker for it would end it again at the next attempt.
"""

from __future__ import annotations

import asyncio
import functools
import opcode
import signal
import threading
from types import CodeType, TracebackType
from typing import Any

_RAISES = frozenset(
    opcode.opmap[name] for name in ("RAISE_VARARGS", "RERAISE") if name in opcode.opmap
)


def ends_the_loop(exc: BaseException) -> bool:
    """Tell whether what came out of user code in the loop's thread is not user code's own."""
    if isinstance(exc, KeyboardInterrupt):
        return _is_from_signal(exc)
    return isinstance(exc, asyncio.CancelledError)


def _is_from_signal(exc: KeyboardInterrupt) -> bool:
    """Tell whether SIGINT's handler raised it; only the main thread runs handlers."""
    if threading.current_thread() is not threading.main_thread():
        return False
    trace = exc.__traceback__
    if trace is None:
        return True
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        # It is written in C and has no frame: the last one is what was interrupted. Only in code
        # that raised it itself is that an instruction to raise.
        while trace.tb_next is not None:
            trace = trace.tb_next
        return trace.tb_frame.f_code.co_code[trace.tb_lasti] not in _RAISES
    code = _code_of(handler)
    return code is not None and _passed(trace, code)


def _passed(trace: TracebackType | None, code: CodeType) -> bool:
    while trace is not None:
        if trace.tb_frame.f_code is code:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> CodeType | None:
    while isinstance(handler, functools.partial):  # asyncio.Runner's
        handler = handler.func
    found: CodeType | None = getattr(handler, "__code__", None)
    return found
