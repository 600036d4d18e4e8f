"""Who holds the write lock: read from the kernel, for a warning that names the culprit.

SQLite's WAL writer lock is a POSIX lock on byte 120 of the ``-shm`` file. The kernel lists POSIX
locks with process and inode in ``/proc/locks``, so the file itself is never opened here (closing it
would drop this process's own locks). Elsewhere than on Linux the answer is "unknown".
"""

from __future__ import annotations

import os
from pathlib import Path

_WAL_WRITE_BYTE = 120
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for the disk",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "a zombie",
}


def describe_lock_holder(path: str) -> str:
    """Return, for people, which process holds the write lock of the database at ``path``."""
    pid = _holder(path)
    if pid is None:
        return "held by an unknown process"
    if pid == os.getpid():
        return f"held by this process (pid {pid}), perhaps in a transaction of your own"
    return f"held by pid {pid} ({_describe(pid)})"


def _holder(path: str) -> int | None:
    try:
        wanted = {_key(f"{path}-shm"), _key(path)} - {None}
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        # "3: POSIX  ADVISORY  WRITE 4711 fe:00:1234 120 120"; waiting locks have an extra "->"
        fields = line.split()
        if len(fields) < 8 or fields[1] != "POSIX" or fields[3] != "WRITE":
            continue
        start, end = fields[6], fields[7]
        covers = int(start) <= _WAL_WRITE_BYTE and (end == "EOF" or int(end) >= _WAL_WRITE_BYTE)
        if fields[5] in wanted and covers:
            return int(fields[4])
    return None


def _key(path: str) -> str | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    major, minor = os.major(found.st_dev), os.minor(found.st_dev)
    return f"{major:02x}:{minor:02x}:{found.st_ino}"


def _describe(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "not visible from here"
    name = stat[stat.find("(") + 1 : stat.rfind(")")]
    letter = stat[stat.rfind(")") + 2 :][:1]
    return f"{name}, {_STATES.get(letter, letter)}"
