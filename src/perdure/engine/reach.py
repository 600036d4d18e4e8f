"""A fingerprint of the code a workflow runs: its function, and what that uses of user modules.

``Workflow.code`` is of the function's own text. This one tells more: whether open runs have to be
checked again. So it errs to the side of a change (another Python has other bytecode, a text in a
log line is a change too), and looks at what is loaded, not at files, which may have been edited
since. It follows names to functions, classes, constants, activities and workflows, of any module
that is not Python's or an installed package's.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

from perdure.activity import Activity
from perdure.definition import Workflow

_MOST = 500
_SIMPLE = (int, float, complex, str, bytes, bool, type(None))
_PATHS = sysconfig.get_paths()
_FOREIGN = tuple({_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def fingerprint(definition: Workflow[Any, Any]) -> str:
    """Return a hash that changes when the code of the workflow does."""
    digest = hashlib.blake2b(digest_size=8)
    parts = [sys.version, definition.version, definition.code]
    seen: set[int] = set()
    waiting: deque[object] = deque([definition.fn, *definition.parts])
    while waiting and len(seen) < _MOST:
        found = _bare(waiting.popleft())
        if isinstance(found, (Activity, Workflow)):
            named = cast("Any", found)
            parts.append(f"{type(named).__name__} {named.name}")
        elif isinstance(found, FunctionType):
            if id(found) not in seen and _is_users(found.__globals__):
                seen.add(id(found))
                parts.append(_text(found.__code__))
                parts += [repr(value) for value in _defaults(found) if isinstance(value, _SIMPLE)]
                waiting += _used(found)
        elif isinstance(found, type):
            module = sys.modules.get(found.__module__)
            if id(found) not in seen and module is not None and _is_users(vars(module)):
                seen.add(id(found))
                parts.append(found.__qualname__)
                waiting += [value for _, value in sorted(vars(found).items())]
        elif isinstance(found, property):
            waiting += [found.fget, found.fset]
        elif _is_simple(found):
            parts.append(repr(found))
    for part in parts:
        digest.update(part.encode(errors="backslashreplace") + b"\0")
    return digest.hexdigest()


def _bare(value: Any) -> object:
    """Return the function of a method or behind a decorator, else the value itself."""
    if isinstance(value, (MethodType, staticmethod, classmethod)):
        value = cast("Any", value).__func__
    return inspect.unwrap(value) if isinstance(value, FunctionType) else value


def _used(function: FunctionType) -> Iterator[object]:
    """Yield what the names in a function's code stand for."""
    known = function.__globals__
    names = sorted(_names(function.__code__))
    for name in names:
        value = known.get(name)
        if isinstance(value, ModuleType):
            if _is_users(vars(value)):
                yield from (vars(value)[inner] for inner in names if inner in vars(value))
        elif value is not None:
            yield value
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        yield from value if isinstance(value, (list, tuple)) else (value,)  # pyright: ignore[reportUnknownVariableType]


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _text(code: CodeType) -> str:
    """Return what a piece of code does, as text: no places, no names of local variables."""
    constants = [
        _text(constant)
        if isinstance(constant, CodeType)
        else repr(sorted(repr(item) for item in cast("frozenset[Any]", constant)))
        if isinstance(constant, frozenset)
        else repr(constant)
        for constant in code.co_consts
    ]
    return f"{code.co_name} {code.co_code.hex()} {constants} {code.co_names}"


def _defaults(function: FunctionType) -> Iterator[object]:
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def _is_simple(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_simple, value))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(value, _SIMPLE)


def _is_users(space: dict[str, Any]) -> bool:
    name: str = space.get("__name__", "")
    if name.partition(".")[0] == "perdure" and not name.startswith("perdure.demo"):
        return False
    file = space.get("__file__")
    return name == "__main__" or (isinstance(file, str) and not file.startswith(_FOREIGN))
