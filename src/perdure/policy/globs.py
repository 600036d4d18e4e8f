"""Names and patterns of them: ``report.*`` fits whatever begins with ``report.``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

_PART = r"[A-Za-z_][A-Za-z0-9_-]*"
_VERSION = r"\d+(?:\.\d+){0,2}(?:-[0-9A-Za-z.-]+)?"
_NAME = re.compile(
    rf"(?P<name>{_PART}(?:\.{_PART})*?)(?:\.v(?P<dotted>{_VERSION})|@v?(?P<marked>{_VERSION}))?"
)
_MAX_NAME = 200


class Name(NamedTuple):
    """A definition's name, as it is asked for. ``version`` is empty if none was said."""

    name: str
    version: str

    @property
    def namespace(self) -> str:
        """The text before the last dot; ``""``: there is none."""
        return self.name.rpartition(".")[0]


def namespace_of(service: str) -> str:
    """Return a service's namespace: the text before the last dot."""
    return service.rpartition(".")[0]


@lru_cache(maxsize=4_096)
def read_name(text: str) -> Name | None:
    """Read ``user.onboarding.v1``, ``user.onboarding.v1.2.0``, ``user.onboarding@1.2.0`` or a name
    without a version; ``None``: it is no such thing.
    """
    found = _NAME.fullmatch(text) if len(text) <= _MAX_NAME else None
    return None if found is None else Name(found["name"], found["dotted"] or found["marked"] or "")


@lru_cache(maxsize=4_096)
def glob(text: str, pattern: str) -> bool:
    """Tell whether a text fits a pattern, in which ``*`` matches anything, dots included."""
    return _compiled(pattern)(text) is not None


@lru_cache(maxsize=4_096)
def _compiled(pattern: str) -> Callable[[str], object]:
    words = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.compile(words, re.DOTALL).fullmatch


class Names:
    """Names and patterns. The names are looked up, the patterns are one expression."""

    def __init__(self, given: Iterable[str]) -> None:
        self.given = tuple(given)
        self._names = frozenset(one for one in self.given if "*" not in one)
        patterns = [
            ".*".join(re.escape(part) for part in one.split("*"))
            for one in self.given
            if "*" in one
        ]
        self._fits = re.compile("|".join(patterns), re.DOTALL).fullmatch if patterns else None

    def __contains__(self, name: str) -> bool:
        return name in self._names or (self._fits is not None and self._fits(name) is not None)

    def __repr__(self) -> str:
        return repr(list(self.given))
