"""Processes of ``python -P -m MODULE`` at a fraction of the price: see ``tests.support.forker``.

Each process of the test session has a forker of its own, from the first time that one is asked for
to the session's end. What a child does is what a process does that was started: it has its own
streams, folder, environment and signals, and its own modules from there on. What it cannot show is
how a process starts, and which modules a command forgets to import: tests of that start one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.support.forker import NUMBER

FORKER = Path(__file__).with_name("forker.py")
_FROM_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
"""So begin the variables that an interpreter reads when it starts."""


class Forked:
    """A process that was forked; what it shares with ``subprocess.Popen`` means the same."""

    def __init__(
        self,
        module: str,
        args: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdin: IO[bytes],
        stdout: IO[bytes],
        stderr: IO[bytes],
    ) -> None:
        self.returncode: int | None = None
        request = {
            "module": module,
            "args": list(args),
            "folder": str(folder),
            "environment": dict(environment),
        }
        self._told, theirs = socket.socketpair()
        with theirs:
            streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
            _forker().ask(request, [*streams, theirs.fileno()])
        self.pid = self._number()

    def poll(self) -> int | None:
        """Return the exit code, or ``None`` as long as it runs."""
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code, or minus the signal's number."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = self._number()
            except (TimeoutError, BlockingIOError):
                assert timeout is not None
                raise subprocess.TimeoutExpired(str(self.pid), timeout) from None
            self.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of it; if it still runs, it is killed."""
        self._told.close()

    def _number(self) -> int:
        said = self._told.recv(NUMBER.size)
        assert said, "the forker has ended"
        (number,) = NUMBER.unpack(said)
        return int(number)


class _Forker:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", FORKER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._control = ours
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, object], descriptors: list[int]) -> None:
        text = json.dumps(request).encode() + b"\n"
        with self._lock:
            sent = socket.send_fds(self._control, [text], descriptors)
            self._control.sendall(text[sent:])

    def close(self) -> None:
        self._control.close()
        self._process.wait()


_running: list[_Forker] = []
_begins = threading.Lock()


def _forker() -> _Forker:
    with _begins:
        if not _running:
            _running.append(_Forker())
        return _running[0]


def end() -> None:
    """End the forker of this process, if there is one; what it has forked is killed."""
    while _running:
        _running.pop().close()


def starts_alike(environment: Mapping[str, str]) -> bool:
    """Tell whether an interpreter with these variables would start as the forker has started."""

    def heeded(variables: Mapping[str, str]) -> dict[str, str]:
        return {k: v for k, v in variables.items() if k.startswith(_FROM_THE_START)}

    return heeded(environment) == heeded(os.environ)
