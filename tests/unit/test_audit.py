"""What workflow code may not do, event by event, and what passes all the same."""

from __future__ import annotations

import asyncio
import decimal
import gc
import glob
import http.client
import importlib
import importlib.metadata
import linecache
import logging
import os
import pkgutil
import shutil
import smtplib
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.request
import uuid
import warnings
import weakref
import webbrowser
import zoneinfo
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit import drive
from tests.unit.drive import Run

from perdure import errors, workflow
from perdure.engine import audit

HERE = Path(__file__)


@pytest.fixture(autouse=True, scope="module")
def _hook() -> None:
    audit.install()


def refused(act: Any) -> errors.IORefused:
    """Return the error that ends the turn in which a workflow calls ``act``."""

    @workflow.define
    async def wf() -> str:
        act()
        return "done"

    with pytest.raises(errors.IORefused) as caught:
        Run(wf)
    return caught.value


def answer(act: Any) -> Any:
    """Return what ``act`` gives in workflow code."""
    found: list[Any] = []

    @workflow.define
    async def wf() -> None:
        found.append(act())

    assert Run(wf).closed is not None
    return found[0]


REFUSED: dict[str, tuple[Any, str]] = {
    "reading a file": (lambda: Path("data.txt").read_text(), "open('data.txt')"),
    "writing a file": (lambda: open("out.txt", "w"), "open('out.txt')"),
    "os.open": (lambda: os.open("data.txt", os.O_RDONLY), "open('data.txt')"),
    "a file in bytes": (lambda: open(b"data.txt"), "open(b'data.txt')"),
    "a descriptor": (lambda: open(1000), "open(1000)"),
    "its own source": (lambda: open(__file__), "open("),
    "writing beside a library": (lambda: open(f"{os.__file__}.new", "w"), "open("),
    "removing": (lambda: os.remove("data.txt"), "os.remove('data.txt')"),
    "renaming": (lambda: Path("a").rename("b"), "os.rename('a')"),
    "a folder": (lambda: os.mkdir("folder"), "os.mkdir('folder')"),
    "removing a folder": (lambda: os.rmdir("folder"), "os.rmdir('folder')"),
    "listing": (lambda: os.listdir("."), "os.listdir('.')"),
    "scanning": (lambda: list(os.scandir(".")), "os.scandir('.')"),
    "walking": (lambda: list(os.walk(".")), "os.walk('.')"),
    "globbing": (lambda: glob.glob("*.txt"), "glob.glob('*.txt')"),
    "a link": (lambda: os.symlink("a", "b"), "os.symlink('a')"),
    "rights": (lambda: os.chmod("data.txt", 0o600), "os.chmod('data.txt')"),
    "the working folder": (lambda: os.chdir("/"), "os.chdir('/')"),
    "setting the environment": (lambda: os.environ.update(A="b"), "os.putenv(b'A')"),
    "a copy": (lambda: shutil.copyfile("a", "b"), "shutil.copyfile('a')"),
    "a tree": (lambda: shutil.rmtree("folder"), "shutil.rmtree('folder')"),
    "a temporary file": (lambda: tempfile.NamedTemporaryFile(), "("),
    "a temporary folder": (lambda: tempfile.mkdtemp(dir="/tmp"), "tempfile.mkdtemp('/tmp/"),
    "a database": (lambda: sqlite3.connect("orders.db"), "sqlite3.connect('orders.db')"),
    "a socket": (lambda: socket.socket(), "socket.socket(…)"),
    "a name": (lambda: socket.getaddrinfo("example.org", 80), "getaddrinfo('example.org', 80)"),
    "the host's name": (lambda: socket.gethostname(), "socket.gethostname()"),
    "http.client": (lambda: http.client.HTTPConnection("localhost", 9).connect(), "localhost"),
    "urllib": (lambda: urllib.request.urlopen("http://a.test/?key=secret"), "urllib.request(…)"),
    "mail": (lambda: smtplib.SMTP("localhost", 9), "smtplib.connect('localhost')"),
    "a process": (lambda: subprocess.run(["true"], check=False), "subprocess.Popen('true')"),
    "a shell": (lambda: os.system("true secret"), "os.system(…)"),
    "posix_spawn": (
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "os.posix_spawn('/bin/true'",
    ),
    "exec": (lambda: os.execv("/bin/true", ["true"]), "os.exec('/bin/true')"),
    "fork": (lambda: os.fork(), "os.fork()"),
    "a signal": (lambda: os.kill(0, 0), "os.kill(…)"),
    "a browser": (lambda: webbrowser.GenericBrowser("true").open("a"), "webbrowser.open(…)"),
    "a thread": (lambda: threading.Thread(target=print).start(), "starting a thread"),
    "a pool": (lambda: ThreadPoolExecutor().submit(print), "starting a thread"),
    "input": (lambda: input(), "input("),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_world_is_refused_by_name_and_line(what: str):
    act, shown = REFUSED[what]
    error = refused(act)
    assert shown in error.message
    assert f"{HERE}:{act.__code__.co_firstlineno} in " in error.message
    assert "Do it in an activity" in error.message


def test_nothing_that_may_be_secret_is_shown():
    for what in ("urllib", "a shell"):
        assert "secret" not in refused(REFUSED[what][0]).message


def test_a_long_argument_is_cut():
    assert "x…)" in refused(lambda: open("x" * 200)).message


@pytest.mark.parametrize("caught", [Exception, OSError, BaseException])
def test_code_that_catches_the_refusal_does_not_save_the_turn(caught: Any):
    reached: list[str] = []

    @workflow.define
    async def wf() -> str:
        try:
            open("data.txt")
        except caught:
            reached.append("handler")
        return "as if nothing had happened"

    with pytest.raises(errors.IORefused, match=r"open\('data.txt'\)"):
        Run(wf)
    assert reached == (["handler"] if caught is BaseException else [])


def test_code_that_tries_for_ever_is_stopped_at_its_first_attempt():
    attempts: list[int] = []

    @workflow.define
    async def wf() -> None:
        while True:
            try:
                attempts.append(1)
                open("data.txt")
            except Exception:
                continue

    with pytest.raises(errors.IORefused):
        Run(wf)
    assert attempts == [1]


async def in_a_task() -> None:
    await asyncio.gather(quietly(), return_exceptions=True)


async def quietly() -> None:
    open("data.txt")


async def in_a_group() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(quietly())
    except* BaseException:
        pass


async def in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(lambda: open("data.txt"))
    await asyncio.sleep(0)  # sleep: one step of the loop


async def in_a_condition() -> None:
    calls = iter([False])
    await workflow.wait_condition(lambda: next(calls, None) is None and open("data.txt"))


async def in_a_spawned_task() -> None:
    workflow.spawn(quietly())
    await workflow.sleep("1h")


async def in_a_generator() -> None:
    async def produce() -> Any:
        yield 1
        open("data.txt")

    async for _ in produce():
        pass


@pytest.mark.parametrize(
    "body",
    [in_a_task, in_a_group, in_a_callback, in_a_condition, in_a_spawned_task, in_a_generator],
    ids=lambda body: body.__name__,
)
def test_wherever_in_the_run_it_happens_the_turn_is_void(body: Any):
    @workflow.define
    async def wf() -> None:
        await asyncio.sleep(0)  # sleep: one step of the loop
        await body()

    with pytest.raises(errors.IORefused, match=r"test_audit\.py:\d+ in "):
        Run(wf)


@dataclass
class Greedy:
    """A type that reads a file when it is decoded."""

    path: str

    def __post_init__(self) -> None:
        open(self.path)


def test_types_that_do_io_when_they_are_decoded_void_the_turn():
    @workflow.define
    async def wf(given: Greedy) -> str:
        return given.path

    with pytest.raises(errors.IORefused, match=r"open\('data.txt'\)"):
        Run(wf, {"path": "data.txt"})


def test_a_later_turn_is_void_and_the_ones_before_it_replay():
    @workflow.define
    async def wf() -> None:
        await workflow.listen("go").receive()
        open("data.txt")

    run = Run(wf)
    with pytest.raises(errors.IORefused):
        run.message("go")
    assert run.replayed().length == len(run.commands) + 1


def test_a_replay_that_meets_io_is_refused(monkeypatch: pytest.MonkeyPatch):
    @workflow.define
    async def wf() -> None:
        Path(__file__).stat()
        open(__file__).close()
        await workflow.sleep("1h")

    monkeypatch.setenv(audit.SWITCH, "1")
    run = Run(wf)
    run.is_checked = False
    assert run.asked
    monkeypatch.delenv(audit.SWITCH)
    with pytest.raises(errors.IORefused, match="open"):
        run.replayed()


@pytest.mark.parametrize(("value", "is_refused"), [("1", False), ("0", True), ("", True)])
def test_the_environment_can_allow_it(
    value: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(audit.SWITCH, value)
    if is_refused:
        refused(lambda: open(__file__).close())
    else:
        assert answer(lambda: open(__file__).close()) is None
        drive.RUNS.clear()  # nothing replays it: the variable is gone by then


# -- queries and validators ------------------------------------------------------------------------


@workflow.define
async def asked() -> str:
    seen: list[str] = []

    @workflow.query("reads a file")
    def reads() -> str:
        return Path("data.txt").read_text()

    @workflow.query("hides it")
    def hides() -> str:
        try:
            return Path("data.txt").read_text()
        except BaseException:
            return "nothing happened"

    @workflow.query("seen")
    def look() -> list[str]:
        return seen

    def validate(value: str) -> None:
        Path(value).read_text()

    @workflow.update("add", validator=validate)
    def add(value: str) -> None:
        seen.append(value)

    seen.append(await workflow.listen("go").receive())
    return seen[0]


@pytest.mark.parametrize("name", ["reads a file", "hides it"])
def test_a_query_is_refused_and_its_run_goes_on(name: str):
    run = Run(asked)
    with pytest.raises(errors.IORefused, match=r"open\('data.txt'\)"):
        run.query(name)
    assert not run.instance.is_spoilt
    assert run.query("seen") == []
    run.message("go", "on")
    assert run.result == "on"


def test_a_validator_is_refused_and_its_run_goes_on():
    run = Run(asked)
    with pytest.raises(errors.IORefused, match=r"open\('data.txt'\)"):
        run.instance.validate_update("add", lambda handler: handler.validate(b'["data.txt"]'))
    assert run.query("seen") == []
    run.message("go", "on")
    assert run.result == "on"


# -- what passes -----------------------------------------------------------------------------------


def import_afresh() -> str:
    sys.modules.pop("colorsys", None)
    importlib.invalidate_caches()
    return importlib.import_module("colorsys").__name__


def format_a_traceback() -> str:
    linecache.clearcache()
    try:
        raise ValueError("x")
    except ValueError:
        return traceback.format_exc()


def source_line() -> str:
    linecache.clearcache()
    return linecache.getline(__file__, 1)[:32]


def log() -> str:
    handler = logging.FileHandler(os.devnull, delay=True)
    logger = logging.getLogger("test_audit")
    logger.addHandler(handler)
    try:
        logger.warning("hello")
    finally:
        logger.removeHandler(handler)
        handler.close()
    return "logged"


def warn() -> str:
    linecache.clearcache()
    return warnings.formatwarning("hello", UserWarning, __file__, 1)


class Opens:
    """Opens a file when it is collected."""

    def __del__(self) -> None:
        with open(os.devnull):
            pass


def summer(name: str) -> str:
    zoneinfo.ZoneInfo.clear_cache()
    return str(datetime(2025, 7, 1, tzinfo=zoneinfo.ZoneInfo(name)).utcoffset())


PASSES: dict[str, tuple[Any, Any]] = {
    "a time zone": (lambda: summer("Europe/Berlin"), "2:00:00"),
    "all time zones": (lambda: "Europe/Berlin" in zoneinfo.available_timezones(), True),
    "an import": (import_afresh, "colorsys"),
    "a traceback": (lambda: 'raise ValueError("x")' in format_a_traceback(), True),
    "a source line": (lambda: source_line(), '"""What workflow code may not do'),
    "a package's data": (
        lambda: bool(pkgutil.get_data("perdure.store.sqlite", "queries.sql")),
        True,
    ),
    "a log file": (log, "logged"),
    "a warning": (lambda: "UserWarning: hello" in warn(), True),
    "a library's own file": (lambda: bool(Path(os.__file__).read_text()), True),
    "a package's version": (lambda: bool(importlib.metadata.version("pytest")), True),
    "decimals": (lambda: str(decimal.Decimal(1) / 3)[:5], "0.333"),
    "a uuid": (lambda: str(uuid.uuid5(uuid.NAMESPACE_DNS, "a"))[14], "5"),
    "codecs": (lambda: "ü".encode("cp1140").decode("cp1140"), "ü"),
    "printing": (lambda: print("hello"), None),
    "joining paths": (lambda: str(Path("a") / "b"), "a/b"),
}


@pytest.mark.parametrize("what", PASSES)
def test_what_touches_no_world_passes(what: str):
    act, expected = PASSES[what]
    assert answer(act) == expected


def test_finalizers_that_the_collector_runs_pass():
    held = Opens()
    released: list[int] = []

    class Thing:
        pass

    thing = Thing()
    weakref.finalize(thing, lambda: released.append(len(Path(os.devnull).read_text())))
    garbage: list[Any] = [held, thing]
    del held, thing
    answer(lambda: (garbage.clear(), gc.collect()))
    assert released == [0]


def test_an_exception_of_user_code_is_recorded_with_its_lines():
    linecache.clearcache()

    @workflow.define
    async def wf() -> None:
        raise RuntimeError("a bug")

    assert 'raise RuntimeError("a bug")' in Run(wf).failure.trace


def test_cleanup_of_a_run_that_leaves_memory_is_not_refused():
    closed: list[str] = []

    @workflow.define
    async def wf() -> None:
        try:
            await workflow.sleep("1h")
        finally:
            closed.append(Path(os.devnull).read_text())

    run = Run(wf)
    run.is_checked = False
    run.instance.evict()
    assert closed == [""]


def test_code_outside_of_activations_is_not_refused(tmp_path: Path):
    seen: list[str] = []

    @workflow.define
    async def wf() -> None:
        inside.set()
        assert may_go_on.wait(10)

    inside, may_go_on = threading.Event(), threading.Event()

    def elsewhere() -> None:
        assert inside.wait(10)
        try:
            (tmp_path / "a").write_text("b")
            sqlite3.connect(":memory:").close()
            threading.Thread(target=print).start()
            seen.append((tmp_path / "a").read_text())
        finally:
            may_go_on.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    Run(wf)
    thread.join()
    assert seen == ["b"], "another thread works while an activation is in force"
    assert (tmp_path / "a").read_text() == "b", "so does this one, afterwards"


def test_an_import_around_the_activation_lets_nothing_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "starts_at_import.py").write_text(
        "from tests.unit.test_audit import refused\n"
        "message = refused(lambda: open('data.txt')).message\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("starts_at_import")
    assert "starts_at_import.py:2 in " in module.message


def test_the_hook_is_installed_once(monkeypatch: pytest.MonkeyPatch):
    added: list[Any] = []
    monkeypatch.setattr(sys, "addaudithook", added.append)
    audit.install()
    assert added == []
    monkeypatch.setattr(audit, "_installed", False)
    monkeypatch.setenv(audit.SWITCH, "1")
    audit.install()
    assert added == [], "switched off: it costs nothing"
    monkeypatch.delenv(audit.SWITCH)
    audit.install()
    assert len(added) == 1
