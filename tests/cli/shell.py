"""Runs `perdure` as people do: processes in a folder of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from tests.support.forked import Forked, starts_alike

from perdure import Client

PERDURE = [sys.executable, "-P", "-m", "perdure"]
PATIENCE = 60.0


class Done:
    """A finished command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """What it printed, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __repr__(self) -> str:
        return f"<exit code {self.code}\nstdout: {self.out}\nstderr: {self.err}>"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class Shell:
    """A folder and an environment in which commands run."""

    is_cold = False
    """Whether each command has an interpreter of its own, and imports all it needs."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PERDURE_DB")}
        self.environment = {**kept, **variables}

    def __call__(self, *args: str, stdin: str = "", **variables: str) -> Done:
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin.encode())
            given.seek(0)
            process = self.begin(args, variables, given, out, err)
            try:
                code = process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            done = Done(code, _text(out), _text(err))
        assert "Traceback" not in done.err, done.err
        return done

    def begin(
        self,
        args: Sequence[str],
        variables: Mapping[str, str],
        stdin: IO[bytes],
        stdout: IO[bytes],
        stderr: IO[bytes],
    ) -> Forked | subprocess.Popen[bytes]:
        """Begin a command: forked, if that is the same."""
        environment = {**self.environment, **variables}
        if starts_alike(environment) and not self.is_cold:
            return Forked(
                "perdure",
                args,
                folder=self.folder,
                environment=environment,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        return subprocess.Popen(
            [*PERDURE, *args],
            cwd=self.folder,
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )

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
        with (
            Path(os.devnull).open("rb") as nothing,
            self.out_file.open("wb") as out,
            self.said_file.open("wb") as err,
        ):
            self.process = shell.begin(args, variables, nothing, out, err)

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
