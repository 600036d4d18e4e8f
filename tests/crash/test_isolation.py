"""Subprocesses of an engine end with it, and not before it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.crash.processes import ROOT, Place, kill

from perdure import Client

WORKER = """
import asyncio, sys
from perdure import Engine
from tests.crash import isolated

async def main():
    engine = Engine(sys.argv[1], [isolated])
    async with engine:
        print("ready", flush=True)
        await engine.run()

asyncio.run(main())
"""


async def _lines(place: Place, count: int) -> list[list[str]]:
    async with asyncio.timeout(30):
        while len(place.lines()) < count:
            await asyncio.sleep(0.005)  # sleep: polls a file that another process writes
    return place.lines()


def _is_alive(pid: int) -> bool:
    """Tell whether a process lives; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _gone(*pids: int) -> None:
    async with asyncio.timeout(30):
        while any(_is_alive(pid) for pid in pids):
            await asyncio.sleep(0.005)  # sleep: polls for the end of other processes


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["asleep", "spinning", "in C"])
async def test_subprocesses_end_with_an_engine_that_is_killed_and_the_next_goes_on(
    tmp_path: Path, how: str
):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        engine = place.start(WORKER)
        try:
            handle = await client.start("holding", how, id="h")
            [[_, _, child]] = await _lines(place, 1)
            assert _is_alive(int(child))
            assert os.getsid(int(child)) == int(child), "a session of its own"
        finally:
            kill(engine)
        await _gone(int(child))
        engine = place.start(WORKER)
        try:
            assert await handle.result("30s") == 2
        finally:
            kill(engine)
        lost = [event for event in await handle.history() if event.kind == "attempt_lost"]
        assert [event.data["attempt"] for event in lost] == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_ctrl_c_in_a_terminal_reaches_the_engine_and_not_its_subprocesses(tmp_path: Path):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        engine = subprocess.Popen(  # noqa: ASYNC220 - nobody else uses the loop
            [sys.executable, "-c", WORKER, place.url],
            env=place.environment,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            assert engine.stdout is not None
            engine.stdout.readline()
            handle = await client.start("holding", "asleep", id="h")
            [[_, _, child]] = await _lines(place, 1)
            os.killpg(engine.pid, signal.SIGINT)  # as a terminal does: to the whole group
            (tmp_path / "release").touch()
            async with asyncio.timeout(30):
                while engine.poll() is None:
                    await asyncio.sleep(0.01)  # sleep: polls for the end of another process
            assert engine.returncode == 0
            kinds = [event.kind for event in await handle.history()]
        finally:
            kill(engine)
    assert "activity_completed" in kinds, "the attempt had its grace"
    await _gone(int(child))


SCRIPT = """
import asyncio, os, sys
from perdure import Engine, activity, workflow
from perdure.graph import flow

class Rates:
    def __init__(self, rate): self.rate = rate

@activity.define(isolation="process")
async def where() -> list:
    return [os.getpid(), activity.services()["rates"].rate, __name__]

async def step(input, ctx):
    return os.getpid()

machine = flow("machine").task("step", step).isolated(True).build()

@workflow.define
async def wf() -> list:
    return await where()

async def main():
    async with Engine("memory://", [wf, where, machine], services={"rates": Rates(3)}) as engine:
        pid, rate, name = await engine.client.execute(wf)
        assert rate == 3 and name == "__mp_main__", (rate, name)
        assert pid != os.getpid()
        assert await engine.client.execute(machine, 1) == pid
        print("done", flush=True)

"""


def _script(folder: Path, *lines: str, as_module: bool = False) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT + "\n".join(lines))
    command = ["-m", "script"] if as_module else ["script.py"]
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("as_module", [False, True])
def test_what_a_script_defines_is_found_by_its_file(tmp_path: Path, as_module: bool):
    done = _script(
        tmp_path, 'if __name__ == "__main__":', "    asyncio.run(main())", as_module=as_module
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_script_that_is_not_guarded_is_told_to_be(tmp_path: Path):
    done = _script(tmp_path, "asyncio.run(main())")
    assert done.returncode == 1
    assert "script.py" in done.stderr
    assert 'put that under `if __name__ == "__main__":`' in done.stderr


def test_what_a_session_defines_is_refused(tmp_path: Path):
    code = SCRIPT + "asyncio.run(main())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "in `python -c`, where a subprocess cannot find it" in done.stderr
