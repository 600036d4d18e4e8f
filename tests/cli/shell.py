"""Runs `perdure` as people do: real processes, in a folder of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from perdure import Client

PERDURE = [sys.executable, "-P", "-m", "perdure"]
PATIENCE = 20.0


class Done:
    """A finished command."""

    def __init__(self, finished: subprocess.CompletedProcess[str]) -> None:
        self.code = finished.returncode
        self.out = finished.stdout
        self.err = finished.stderr

    @property
    def json(self) -> Any:
        """What it printed, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __repr__(self) -> str:
        return f"<exit code {self.code}\nstdout: {self.out}\nstderr: {self.err}>"


class Shell:
    """A folder and an environment in which commands run."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PERDURE_DB")}
        self.environment = {**kept, **variables}

    def __call__(self, *args: str, stdin: str = "", **variables: str) -> Done:
        finished = subprocess.run(
            [*PERDURE, *args],
            cwd=self.folder,
            env={**self.environment, **variables},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in finished.stderr, finished.stderr
        return Done(finished)

    def ok(self, *args: str, **kwargs: Any) -> Done:
        """Run a command that must succeed."""
        done = self(*args, **kwargs)
        assert done.code == 0, done
        return done

    def spawn(self, *args: str, variables: Mapping[str, str] | None = None) -> Background:
        """Begin a command and leave it running."""
        return Background(self, args, variables or {})

    @contextmanager
    def worker(self, *args: str) -> Iterator[Background]:
        """Serve modules while the block runs."""
        with self.spawn("dev", *args) as worker:
            worker.until_says("ready;")
            yield worker

    def until(self, happened: Callable[[], Any]) -> Any:
        """Look until ``happened()`` is true, and return what it says."""
        deadline = time.monotonic() + PATIENCE
        while not (found := happened()):
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.01)  # sleep: between two looks at what other processes do
        return found

    def status(self, id: str, database: str = "perdure.db") -> str:
        """Look into the database from here: tests wait for things, and processes are slow."""

        async def look() -> str:
            async with Client(f"sqlite:///{self.folder / database}", read_only=True) as client:
                return str(await client.get(id).status())

        return asyncio.run(look())


class Background:
    """A command that runs beside the test; its block's end kills it."""

    def __init__(self, shell: Shell, args: tuple[str, ...], variables: Mapping[str, str]) -> None:
        number = len(list(shell.folder.glob("*.stderr")))
        self.said_file = shell.folder / f"{number}.stderr"
        self.out_file = shell.folder / f"{number}.stdout"
        with self.said_file.open("wb") as err, self.out_file.open("wb") as out:
            self.process = subprocess.Popen(
                [*PERDURE, *args],
                cwd=shell.folder,
                env={**shell.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self.said_file.read_text()

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    def until_says(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            assert self.process.poll() is None, f"it ended, saying: {self.said}"
            assert time.monotonic() < deadline, f"it says only: {self.said}"
            time.sleep(0.01)  # sleep: between two looks at what another process says

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE)
