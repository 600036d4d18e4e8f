"""A pseudo-terminal in the place of stdout and stderr."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
from collections.abc import Mapping

from tests.cli.shell import PATIENCE, PERDURE, Shell


def on_terminal(
    shell: Shell, *args: str, columns: int = 80, variables: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a command whose output goes to a terminal; return exit code and what it showed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    kept = {k: v for k, v in shell.environment.items() if k not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [*PERDURE, *args],
        cwd=shell.folder,
        env={**kept, "TERM": "xterm", **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := _read(ours):
            shown += piece
        return process.wait(timeout=PATIENCE), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody has the other end any more
        return b""
