"""Refuses I/O in workflow code (R6).

What workflow code reads from the world, a replay may not find again; what it writes, a replay
writes twice. So one audit hook of the process refuses files, sockets, processes, databases and new
threads, but only where an instance is being activated in this thread: in a turn, live or replayed,
and in query handlers and validators. Activities, the engine, other threads and the cleanup of a run
that leaves memory are not concerned.

A refusal raises ``TurnVoid`` at the place, which no ``except Exception`` holds up, and voids the
turn whatever else catches it: the run is parked, or whoever asked the query gets ``IORefused``.

What passes: imports and what they read; reading files of the interpreter and of installed packages
(time zones, for one); logging, warnings and tracebacks; debuggers; finalizers, which the garbage
collector may run in any code. The hook sees only what Python audits: not the clock, chance, the
environment, ``os.stat``, nor what is done with a file or a connection opened elsewhere. Those are
the business of ``perdure.lint``, and of the replay.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from types import FrameType
from typing import Any

from perdure import errors
from perdure.kernel import match, traps
from perdure.kernel.instance import Mode, in_force

SWITCH = "PERDURE_ALLOW_IO"
"""Environment variable: anything but empty and 0 lets workflow code do I/O."""

_FIRST = (0,)
_SECOND = (1,)
_NOTHING = ()
"""Arguments that may hold secrets are not shown: what is shown goes into the history."""

REFUSED: dict[str, tuple[int, ...]] = {
    "open": _FIRST,
    "builtins.input": _NOTHING,
    "_thread.start_new_thread": _NOTHING,
    "_thread.start_joinable_thread": _NOTHING,
    **dict.fromkeys(
        (
            "glob.glob",
            "os.chdir",
            "os.chflags",
            "os.chmod",
            "os.chown",
            "os.exec",
            "os.getxattr",
            "os.link",
            "os.listdir",
            "os.listxattr",
            "os.mkdir",
            "os.posix_spawn",
            "os.putenv",
            "os.remove",
            "os.removexattr",
            "os.rename",
            "os.rmdir",
            "os.scandir",
            "os.setxattr",
            "os.symlink",
            "os.truncate",
            "os.unsetenv",
            "os.utime",
            "os.walk",
            "os.fwalk",
            "pathlib.Path.glob",
            "pathlib.Path.rglob",
            "shutil.chown",
            "shutil.copyfile",
            "shutil.copymode",
            "shutil.copystat",
            "shutil.copytree",
            "shutil.make_archive",
            "shutil.move",
            "shutil.rmtree",
            "shutil.unpack_archive",
            "socket.gethostbyaddr",
            "socket.gethostbyname",
            "sqlite3.connect",
            "subprocess.Popen",
            "tempfile.mkdtemp",
            "tempfile.mkstemp",
        ),
        _FIRST,
    ),
    **dict.fromkeys(
        (
            "ftplib.connect",
            "http.client.connect",
            "imaplib.open",
            "os.spawn",
            "poplib.connect",
            "smtplib.connect",
            "socket.bind",
            "socket.connect",
        ),
        _SECOND,
    ),
    "socket.getaddrinfo": (0, 1),
    **dict.fromkeys(
        (
            "fcntl.flock",
            "fcntl.lockf",
            "ftplib.sendcmd",
            "http.client.send",
            "imaplib.send",
            "os.fork",
            "os.forkpty",
            "os.kill",
            "os.killpg",
            "os.lockf",
            "os.system",
            "poplib.putline",
            "pty.spawn",
            "smtplib.send",
            "socket.__new__",
            "socket.gethostname",
            "socket.getnameinfo",
            "socket.getservbyname",
            "socket.getservbyport",
            "socket.sendmsg",
            "socket.sendto",
            "socket.sethostname",
            "urllib.Request",
            "webbrowser.open",
        ),
        _NOTHING,
    ),
}
"""Audit events that void a turn, and which of their arguments a refusal shows."""

_NAMES = {
    "_thread.start_joinable_thread": "starting a thread",
    "_thread.start_new_thread": "starting a thread",
    "builtins.input": "input",
    "socket.__new__": "socket.socket",
    "urllib.Request": "urllib.request",
}
_PASS = frozenset(
    {
        # Python reads its own: source lines, modules, time zones, codecs.
        "_frozen_importlib",
        "_frozen_importlib_external",
        "encodings",
        "importlib",
        "linecache",
        "pkgutil",
        "traceback",
        "zipimport",
        "zoneinfo",
        # A log may roll over to a new file in any turn; a message more or less changes no command.
        "logging",
        "loguru",
        "warnings",
        # Finalizers run where the garbage collector finds them.
        "weakref",
        # Tools that watch user code from within.
        "_pydevd_bundle",
        "bdb",
        "coverage",
        "debugpy",
        "pdb",
        "pydevd",
    }
)
_SHOWN_LENGTH = 80
_library: tuple[str, ...] = ()
_installed = False


def install() -> None:
    """Add the hook, once per process; it cannot be removed, and is idle outside activations."""
    global _installed, _library  # noqa: PLW0603 - audit hooks are the process's
    if _installed or is_switched_off():
        return
    _installed = True
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    _library = ("<frozen ", *sorted(f"{folder}{os.sep}" for folder in folders))
    sys.addaudithook(_hook)
    if sys.version_info < (3, 12):
        _audit_threads()


def _audit_threads() -> None:
    """Let new threads raise the audit event that they raise from Python 3.12 on."""
    begin = vars(threading)["_start_new_thread"]

    def start_new_thread(function: Any, args: Any, *rest: Any) -> int:
        sys.audit("_thread.start_new_thread", function, args, *rest)
        return begin(function, args, *rest)

    threading.__dict__["_start_new_thread"] = start_new_thread


def is_switched_off() -> bool:
    """Whether the environment says that workflow code may do I/O."""
    return os.environ.get(SWITCH, "") not in ("", "0")


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # Every audit event of the process comes by, and outside of activations this is all that runs.
    if event not in REFUSED or not in_force:
        return
    instance = traps.current()  # in this thread
    if instance is None or instance.mode not in (Mode.LIVE, Mode.READ_ONLY):
        return
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - the documented way to the caller
    if _is_pythons_own(frame) or (event == "open" and _reads_library(args)) or is_switched_off():
        return
    instance.refuse(_refusal(_shown(event, args), _place(frame)))


def _refusal(what: str, where: str) -> errors.IORefused:
    return errors.IORefused(
        f"{what} at {where}: workflow code may not touch the world outside, because a replay "
        "would do it again and may find something else. Do it in an activity and await that",
        details={"what": what, "where": where},
    )


def _is_pythons_own(frame: FrameType | None) -> bool:
    """Tell whether machinery that passes stands between the activation and the event."""
    while frame is not None and not match.is_boundary(frame):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in _PASS or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _reads_library(args: tuple[Any, ...]) -> bool:
    """Tell whether a file of the interpreter, a package or the time zones is opened for reading."""
    path, mode, flags = args
    if isinstance(mode, str):
        is_reading = not set(mode) & set("wax+")
    else:
        is_reading = not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if not is_reading or isinstance(path, int):
        return False
    full = os.path.normpath(os.fsdecode(path))
    zones = getattr(sys.modules.get("zoneinfo"), "TZPATH", ())
    return full.startswith((*_library, *(f"{zone}{os.sep}" for zone in zones)))


def _shown(event: str, args: tuple[Any, ...]) -> str:
    """Write the event like the call it is: ``open('data.txt')``."""
    name = _NAMES.get(event, event)
    if event.startswith("_thread."):
        return name
    chosen = ", ".join(repr(args[index]) for index in REFUSED[event] if index < len(args))
    if len(chosen) > _SHOWN_LENGTH:
        chosen = chosen[: _SHOWN_LENGTH - 1] + "…"
    return f"{name}({chosen or ('…' if args else '')})"


def _place(frame: FrameType | None) -> str:
    """Return file, line and function of the innermost code that is not a library's."""
    outermost = "an unknown place"
    while frame is not None and not match.is_boundary(frame):
        if match.is_user_code(str(frame.f_globals.get("__name__", ""))):
            outermost = match.describe(frame.f_code, frame.f_lineno)
            if not frame.f_code.co_filename.startswith(_library):
                return outermost
        frame = frame.f_back
    return outermost
