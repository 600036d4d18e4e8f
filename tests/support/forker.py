"""Forks processes that have imported Perdure already.

A script for ``tests.support.forked``: ``forker.py CONTROL``, the number of a socket. A request is
a line of JSON (``module``, ``args``, ``folder``, ``environment``) that brings four descriptors:
stdin, stdout, stderr, and a socket on which two numbers (``NUMBER``) are told: the process's own,
and when it has ended its exit code, or minus the signal's. If the other end is closed before, it is
killed.

A child is what ``python -P -m MODULE`` is, but for the modules that it need not import any more.
This process runs nothing but imports before it forks, opens no database and starts no thread, so
there is nothing else that a child could have of it, or of the child before.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import time
from typing import Any

IMPORTED = (
    "concurrent.futures.thread",
    "perdure.cli.finding",
    "perdure.cli.live",
    "perdure.cli.loading",
    "perdure.client",
    "perdure.engine.engine",
    "perdure.store.sqlite.store",
    "shutil",
)
"""What most commands load; each has its own module to import."""
NUMBER = struct.Struct("=i")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
_PIECE = 1 << 20

Request = dict[str, Any]


class Forker:
    """The parent of all."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._told: dict[int, socket.socket] = {}
        """By the number of a process: where its end is told."""
        self._woken, self._waking = socket.socketpair()
        self._waking.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the children

    def serve(self) -> Request | None:
        """Fork for whoever asks: return the request in a child, ``None`` when nobody can ask."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    text, descriptors = self._read()
                    if not text:
                        self._kill_all()
                        return None
                    request: Request = json.loads(text)
                    if not self._fork(request, descriptors):
                        return request
                elif key.fileobj is self._woken:
                    self._woken.recv(4096)
                    self._tell_ends()
                elif key.data in self._told:
                    os.kill(key.data, signal.SIGKILL)
                    self._selector.unregister(key.fileobj)

    def _read(self) -> tuple[bytes, list[int]]:
        text, descriptors, _, _ = socket.recv_fds(self._control, _PIECE, 4)
        while text and not text.endswith(b"\n"):
            text += self._control.recv(_PIECE)
        return text, list(descriptors)

    def _fork(self, request: Request, descriptors: list[int]) -> int:
        told = socket.socket(fileno=descriptors.pop())
        # A signal that comes before the child has its handlers waits for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if not pid:
                told.close()
                self._leave()
                _become(request, descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if pid:
            for descriptor in descriptors:
                os.close(descriptor)
            self._told[pid] = told
            self._selector.register(told, selectors.EVENT_READ, pid)
            _tell(told, pid)
        return pid

    def _leave(self) -> None:
        """Give up, in a child, what is its parent's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for one in (self._control, self._woken, self._waking, *self._told.values()):
            one.close()

    def _tell_ends(self) -> None:
        for pid in list(self._told):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            told = self._told.pop(pid)
            if told in self._selector.get_map():
                self._selector.unregister(told)
                _tell(told, os.waitstatus_to_exitcode(status))
            told.close()

    def _kill_all(self) -> None:
        for pid in self._told:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _tell(told: socket.socket, number: int) -> None:
    try:
        told.sendall(NUMBER.pack(number))
    except OSError:
        pass  # nobody wants to know any more: the next look finds it out


def _become(request: Request, descriptors: list[int]) -> None:
    """Take the place that was asked for: streams, folder, environment, arguments."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = sys.__stdin__ = _anew(sys.stdin)
    sys.stdout = sys.__stdout__ = _anew(sys.stdout)
    sys.stderr = sys.__stderr__ = _anew(sys.stderr)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    called = ["-m", request["module"], *request["args"]]
    sys.argv = called[1:]
    sys.orig_argv = [sys.executable, "-P", *called]


def _anew(stream: Any) -> Any:
    """Open a standard stream on its new file; none of these is a terminal."""
    buffering = 0 if stream.write_through else -1
    number = stream.fileno()
    file: Any = open(number, f"{stream.mode}b", buffering, closefd=False)  # noqa: SIM115 - to the end
    getattr(file, "raw", file).name = stream.name
    anew: Any = io.TextIOWrapper(
        file,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    anew.mode = stream.mode
    return anew


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what everybody shares is not gone through, and so not copied, in the children
    request = Forker(socket.socket(fileno=int(sys.argv[1]))).serve()
    if request is not None:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
