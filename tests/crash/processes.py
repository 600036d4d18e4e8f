"""Worker processes that are killed, and what is read of what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.crash.programs import EFFECTS, LIMIT

WORKER = """
import asyncio, sys
from perdure import Engine
from tests.crash import programs

async def main():
    async with Engine(sys.argv[1], [programs]):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
ROOT = Path(__file__).parents[2]


class EndedEarly(Exception):
    """A process ended before its first line."""


class Place:
    """A database, a file in the folder if no URL says another, and its effects log."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.url = url or f"sqlite:///{folder / 'crash.db'}"
        self.effects = folder / "effects.log"
        self.effects.touch()
        self._limit = folder / "effects.limit"
        self.environment = {
            **os.environ,
            EFFECTS: str(self.effects),
            LIMIT: str(self._limit),
            "PERDURE_ALLOW_IO": "1",  # programs write their effects also from workflow code
            "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        }

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.effects.read_text().splitlines()]

    def limit(self, count: int) -> None:
        """Let steps end while there are no more effects than these, however late we look."""
        written = self._limit.with_suffix(".new")
        written.write_text(str(count))
        written.replace(self._limit)

    def unlimit(self) -> None:
        self._limit.unlink()

    def start(
        self, code: str = WORKER, *args: object, stdin: bool = False
    ) -> subprocess.Popen[str]:
        """Start a process and wait for its first line; ``stdin``: it can be written to."""
        process = subprocess.Popen(
            [sys.executable, "-c", code, self.url, *(str(arg) for arg in args)],
            env=self.environment,
            stdin=subprocess.PIPE if stdin else None,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise EndedEarly(f"with code {kill(process)}, before it was ready")
        return process

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[str]]:
        process = self.start()
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[str]) -> int:
    """SIGKILL a process of ours and wait for its end."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    return code


def steps_of(lines: Sequence[Sequence[str]]) -> dict[tuple[str, int], list[Sequence[str]]]:
    """Group the effects by (run, step number)."""
    found: dict[tuple[str, int], list[Sequence[str]]] = {}
    for line in lines:
        found.setdefault((line[1], int(line[2])), []).append(line)
    return found
