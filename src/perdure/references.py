"""Functions and classes by name: ``module:name``."""

from __future__ import annotations

import importlib
import pkgutil
import re
from difflib import get_close_matches
from functools import reduce
from types import ModuleType
from typing import Any, cast

from perdure import errors

_DOTTED = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_NAMED = re.compile(f"{_DOTTED}:{_DOTTED}")


def named(value: object) -> bool:
    """Tell whether a value is a text that names something."""
    return isinstance(value, str) and _NAMED.fullmatch(value) is not None


def reference(value: Any) -> str:
    """Return the name under which a function or class is found again.

    Raises:
        DefinitionError: it has none: a lambda, a function within another, one of ``__main__``.
    """
    inner = getattr(value, "fn", value)
    name: str = getattr(value, "__qualname__", "") or getattr(inner, "__qualname__", "")
    module: str = getattr(inner, "__module__", "") or ""
    if not name or not module:
        raise errors.DefinitionError(
            f"{value!r} has no name of its own; write a function or a class of a module"
        )
    where = _where(inner)
    if name.endswith("<lambda>"):
        raise errors.DefinitionError(
            f"a lambda{where} has no name; write it as a function of a module (def …)"
        )
    if "<locals>" in name:
        raise errors.DefinitionError(
            f"{name.rpartition('.')[2]!r}{where} stands within a function; move it to the top of "
            "its module"
        )
    if module == "__main__":
        raise errors.DefinitionError(
            f"{name!r}{where} is of the script that runs; move it to a module that can be imported"
        )
    text = f"{module}:{name}"
    if resolve(text) is not value:
        raise errors.DefinitionError(f"{text!r} is another object than the one that is used here")
    return text


def resolve(text: str) -> Any:
    """Return what a name stands for; its module is imported.

    Raises:
        DefinitionError: no such module (or it cannot be imported), or no such name in it.
    """
    if not named(text):
        raise errors.DefinitionError(f"{text!r} is no name; write 'module:name'")
    module, _, path = text.partition(":")
    return within(imported(module), path)


def imported(name: str) -> ModuleType:
    """Import a module.

    Raises:
        DefinitionError: there is none, or it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and f"{name}.".startswith(f"{exc.name}."):
            said = f"there is no module {name!r}{_near_module(name)}"
            raise errors.DefinitionError(said) from None
        raise errors.DefinitionError(f"module {name!r} cannot be imported: {exc}") from exc
    except Exception as exc:
        said = f"{type(exc).__name__}: {exc}"
        raise errors.DefinitionError(f"module {name!r} cannot be imported: {said}") from exc


def within(module: ModuleType, path: str) -> Any:
    """Return what a module has under a dotted name.

    Raises:
        DefinitionError: there is nothing.
    """
    try:
        return reduce(getattr, path.split("."), cast("Any", module))
    except AttributeError:
        near = get_close_matches(path, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        said = f"module {module.__name__!r} has no {path!r}{hint}"
        raise errors.DefinitionError(said) from None


def _where(value: Any) -> str:
    code = getattr(value, "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""


def _near_module(name: str) -> str:
    package, _, last = name.rpartition(".")
    try:
        folders = importlib.import_module(package).__path__ if package else None
    except (ImportError, AttributeError):
        return ""
    near = get_close_matches(last, [found.name for found in pkgutil.iter_modules(folders)], n=1)
    full = f"{package}.{near[0]}" if near and package else near[0] if near else ""
    return f"; did you mean {full!r}?" if full else ""
