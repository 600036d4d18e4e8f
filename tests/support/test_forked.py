"""A forked process is as good as a started one, has nothing of another, and does not outlive us."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support import forked
from tests.support.forked import Forked, starts_alike

PATIENCE = 20.0
ROOT = Path(__file__).parents[2]
# Imported by `perdure dev`, which then finds no workflow in it: it tells what process it is in.
PROBE = """
import gc, json, os, signal, sys, threading, warnings

if os.environ.get("WAIT"):
    print("waits", file=sys.stderr)
    signal.pause()
streams = [sys.stdin, sys.stdout, sys.stderr]
originals = [sys.__stdin__, sys.__stdout__, sys.__stderr__]
main = sys.modules["__main__"]
json.dump({
    "arguments": [sys.argv, sys.orig_argv, sys.flags, sys.path, sys.executable],
    "main": [main.__name__, main.__spec__.name, main.__file__],
    "place": [os.getcwd(), os.getpgrp(), os.getsid(0), os.umask(0o22)],
    "environment": dict(os.environ),
    "descriptors": sorted(fd for fd in os.listdir("/dev/fd")),
    "signals": [str(signal.getsignal(n)) for n in signal.valid_signals()],
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "streams": [
        [repr(s), s.errors, s.line_buffering, s.write_through, s.isatty(), s.fileno()]
        for s in streams
    ],
    "originals": [one is other for one, other in zip(streams, originals)],
    "given": sys.stdin.read(),
    "threads": threading.active_count(),
    "warnings": [str(one) for one in warnings.filters],
    "gc": [gc.isenabled(), gc.get_threshold()],
    "its own": [name for name in sys.modules if name.startswith("probe")],
}, open("told", "w"))
print("printed")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "probe.py").write_text(PROBE)
    return tmp_path


class Probe:
    """A process that has imported the module above, forked or started."""

    def __init__(self, folder: Path, kind: str, module: str = "probe.py", **more: str) -> None:
        self.folder = folder
        args = ["dev", module]
        self.environment = {**os.environ, "ONLY": "here", **more}
        (folder / "in").write_text("what is given")
        with (
            (folder / "in").open("rb") as stdin,
            (folder / "out").open("wb") as stdout,
            (folder / "err").open("wb") as stderr,
        ):
            if kind == "forked":
                self.process: Any = Forked(
                    "perdure",
                    args,
                    folder=folder,
                    environment=self.environment,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                )
            else:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "perdure", *args],
                    cwd=folder,
                    env=self.environment,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                )

    def end(self) -> list[Any]:
        """Wait for the end; return the exit code and all that it has said."""
        code = self.process.wait(timeout=PATIENCE)
        told = json.loads((self.folder / "told").read_text())
        return [code, *((self.folder / name).read_text() for name in ("out", "err")), told]


def test_a_forked_process_cannot_be_told_from_one_that_was_started(folder: Path):
    code, out, err, told = Probe(folder, "forked").end()
    started = Probe(folder, "started").end()
    assert told == started.pop()
    assert [code, out, err] == started
    assert (code, told["given"], told["its own"]) == (2, "what is given", ["probe"])
    assert told["environment"]["ONLY"] == "here"
    assert "printed" in out + err


def test_a_forked_process_has_nothing_of_the_one_before(folder: Path):
    first = Probe(folder, "forked", TZ="Asia/Tokyo", NEW="1").end()[-1]
    second = Probe(folder, "forked").end()[-1]
    assert second["its own"] == ["probe"]
    assert {"TZ", "NEW"} <= first["environment"].keys()
    assert "NEW" not in second["environment"]


def until_it_waits(probe: Probe) -> None:
    while "waits" not in (probe.folder / "err").read_text():
        assert probe.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_signal_that_ended_it_is_told(folder: Path, number: signal.Signals):
    probe = Probe(folder, "forked", WAIT="1")
    until_it_waits(probe)
    with pytest.raises(subprocess.TimeoutExpired):
        probe.process.wait(timeout=0.01)
    probe.process.send_signal(number)
    assert probe.process.wait(timeout=PATIENCE) == -number
    assert probe.process.poll() == -number
    probe.process.send_signal(number)  # nobody gets it


def test_ctrl_c_interrupts_it(folder: Path):
    probe = Probe(folder, "forked", WAIT="1")
    until_it_waits(probe)
    probe.process.send_signal(signal.SIGINT)
    assert probe.process.wait(timeout=PATIENCE) == 130


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watches a process that is not ours")
@pytest.mark.parametrize("end", ["it is let go", "the forker ends"])
def test_it_does_not_outlive_whoever_asked_for_it(folder: Path, end: str):
    probe = Probe(folder, "forked", WAIT="1")
    until_it_waits(probe)
    watched = os.pidfd_open(probe.process.pid)
    if end == "it is let go":
        probe.process.close()
    else:
        forked.end()
    ended, _, _ = select.select([watched], [], [], PATIENCE)
    os.close(watched)
    assert ended
    probe.process.close()


def test_what_an_interpreter_heeds_when_it_starts_is_not_for_a_forked_one():
    assert starts_alike({**os.environ, "PERDURE_DB": "x"})
    for name in ("PYTHONIOENCODING", "PYTHONHASHSEED", "LC_ALL"):
        assert not starts_alike({**os.environ, name: "other"})
