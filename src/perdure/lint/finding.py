"""What the check says about one place."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One place in workflow code that a replay may not repeat, and what to do instead."""

    file: str
    line: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}: {self.message}"
