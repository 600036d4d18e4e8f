"""The propagated context as user code reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

POLICY_KEY: Final = "policy"
"""Where it has the version of the policies that let a run begin."""
ROLE_KEY: Final = "default_role"
"""Where it has the role of whatever a run asks people for and names no role."""


class ContextView(Mapping[str, Any]):
    """What ``read`` gives where it is asked, read-only."""

    def __init__(self, read: Callable[[], Mapping[str, Any]]) -> None:
        self._read = read

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(dict(self._read()))
