"""What the definitions of workflows and activities check alike."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from perdure import errors

_NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")


def is_name(text: object) -> bool:
    """Tell whether ``text`` can name an activity, a query or an update: 1 to 200 characters."""
    return isinstance(text, str) and bool(text.strip()) and _NAME.fullmatch(text) is not None


def defined_name(fn: Any, name: Any, what: str) -> str:
    """Return the name of a definition of ``fn``.

    Raises:
        DefinitionError: ``fn`` is no function, or has no name and none is given.
    """
    if not callable(fn):
        hint = f"; to name it write define(name={fn!r})" if isinstance(fn, str) else ""
        raise errors.DefinitionError(f"{what}.define: {fn!r} is no function{hint}")
    found = getattr(fn, "__name__", None) if name is None else name
    if found is None:
        raise errors.DefinitionError(f"{what}.define: {fn!r} has no name; give name=")
    return found  # checked with the rest of the definition


def check_options(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Refuse options that there are not.

    Raises:
        DefinitionError: with those there are.
    """
    if unknown := sorted(set(given) - set(known)):
        raise errors.DefinitionError(
            f"{what}.define: unknown option {', '.join(unknown)}; there are {', '.join(known)}"
        )


def warn_of_namesake(fn: Any, kind: type[Any], what: str) -> None:
    """Warn when a definition takes the place of another under the same name in its module."""
    if getattr(fn, "__qualname__", "") != getattr(fn, "__name__", None):
        return
    before: Any = fn.__globals__.get(fn.__name__)
    if isinstance(before, kind) and not _is_same_place(before.fn, fn):
        warnings.warn_explicit(
            f"{what} {fn.__name__!r} takes the place of the one defined at line "
            f"{before.fn.__code__.co_firstlineno}: rename one of the functions",
            RuntimeWarning,
            fn.__code__.co_filename,
            fn.__code__.co_firstlineno,
        )


def _is_same_place(one: Any, other: Any) -> bool:
    """Tell whether two functions are one, or the same one after a reload of its module."""
    return one is other or one.__code__.co_firstlineno == other.__code__.co_firstlineno
