"""CEL, the Common Expression Language, behind a small adapter.

An expression is compiled once and then evaluated on plain values. It can neither loop for ever nor
reach anything but what it is given. The library is ``cel-expr-python`` of the extra ``policy``; it
is loaded when the first expression is compiled.

Everything an expression reads hangs on one variable, whose members are known. Which parts of them
it reads is found in its text, so that no more than these are handed over: a value is copied for
each evaluation. Beside what CEL has, a map has ``get(key)`` and ``get(key, default)``.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, cast

from perdure.errors import Invalid

NEEDS = "a CEL expression needs cel-expr-python: pip install 'perdure[policy]'"
_EXTENSIONS = ("strings", "math", "encoders", "bindings", "optional")
_GETS = "get()"
"""The key under which a map holds another one that answers its ``get``."""
TEXT = r"""(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
_PASSED_OVER = (
    rf"""(?s:[rR]?\"\"\".*?\"\"\"|[rR]?'''.*?''')|[rR](?:"[^"\n]*"|'[^'\n]*')|{TEXT}|//[^\n]*"""
)
_STEP = re.compile(
    rf"\s*\.\s*get\s*\(\s*(?P<got>{TEXT})\s*[,)]|\s*\.\s*(?P<name>[A-Za-z_]\w*)(?!\s*\(|\w)"
    rf"|\s*\[\s*(?P<key>{TEXT})\s*\]"
)
_MISTAKE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_VALUE = re.compile(r" for '\w+(?:\[.*|'.*)", re.DOTALL)
"""What would show a value: its path, the value, and at the end perhaps its type."""
_WORDS: dict[type, str] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "double",
    str: "string",
    list: "list",
    dict: "map",
}


class Read(NamedTuple):
    """A value that an expression reads: its path below the variable, and where in the text."""

    path: tuple[str, ...]
    text: str
    at: int


class Expression:
    """A compiled expression.

    Args:
        text: CEL.
        variable: what it may read.
        members: names of what the variable has.
        gets: the member whose keys ``variable.get(key)`` reads.

    Raises:
        Invalid: it is no CEL (the message has line, column and a caret), reads a member that the
            variable does not have, or nothing is installed that compiles it.
    """

    def __init__(self, text: str, variable: str, members: Sequence[str], *, gets: str) -> None:
        self.text = text
        self.reads = tuple(find_reads(text, variable, gets))
        self._variable, self._members, self._gets = variable, tuple(members), gets
        for read in self.reads:
            if read.path and read.path[0] not in members:
                known = ", ".join(members)
                what = f"{variable} has no {read.path[0]!r} (it has: {known})"
                raise Invalid(pointed(text, what, *place(text, read.at)))
        self._compiled = compile_text(text, _environment(variable))

    @property
    def gives(self) -> str:
        """The type of its value (``BOOL``, ``STRING``, …); ``DYN`` if only a run can tell."""
        return self._compiled.return_type().name()

    def needs(self) -> set[str]:
        """Return the members it reads."""
        if any(not read.path for read in self.reads):
            return set(self._members)
        return {read.path[0] for read in self.reads}

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return its value, given the members it needs, of JSON types.

        Raises:
            Invalid: it cannot be evaluated; the message has the reason, and for each value that it
                reads, the column and the type.
        """
        given: dict[str, Any] = self._narrowed(values)
        given[_GETS] = given.get(self._gets, {})
        try:
            return evaluated(self._compiled, data={self._variable: given})
        except Invalid as exc:
            raise Invalid(f"{exc.message}{self._seen(values)}") from None

    def _narrowed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts of the values that the expression reads."""
        parts: dict[str, Any] = {}
        whole: set[str] = set(values) if any(not read.path for read in self.reads) else set()
        whole |= {read.path[0] for read in self.reads if len(read.path) == 1}
        for read in self.reads:
            name = read.path[0] if read.path else ""
            if name not in values or name in whole:
                continue
            member = values[name]
            if not isinstance(member, Mapping):
                parts[name] = member
                continue
            inside = cast("Mapping[str, Any]", member)
            part: dict[str, Any] = parts.setdefault(name, {})
            if read.path[1] in inside:
                part[read.path[1]] = inside[read.path[1]]
        return {**parts, **{name: values[name] for name in sorted(whole) if name in values}}

    def _seen(self, values: Mapping[str, Any]) -> str:
        told: list[str] = []
        for read in self.reads:
            line, column = place(self.text, read.at)
            where = f"line {line}, column {column}" if "\n" in self.text else f"column {column}"
            told.append(f"{read.text} at {where} is {_word(values, read.path)}")
        return f"; {', '.join(told)}" if told else ""


def find_reads(text: str, variable: str, gets: str = "") -> Iterable[Read]:
    """Find what is read of a variable: ``v.a.b``, ``v["a"]``, ``v.get("a")``.

    ``gets``: the member whose keys ``v.get("a")`` reads.
    """
    begin = re.compile(rf"(?P<over>{_PASSED_OVER})|(?<![\w.]){variable}\b")
    at = 0
    while (found := begin.search(text, at)) is not None:
        at = found.end()
        if found["over"] is not None:
            continue
        path: list[str] = []
        while (step := _STEP.match(text, at)) is not None:
            if step["got"] is not None and not path:
                path.append(gets)
            path.append(step["name"] or str(ast.literal_eval(step["got"] or step["key"])))
            at = step.end()
            if step["got"] is not None and text[at - 1] != ")":
                break  # what follows is the default's
        yield Read(tuple(path), _shown(text[found.start() : at]), found.start())


def _shown(text: str) -> str:
    return " ".join(text.split()).removesuffix(",") + (", …)" if text.endswith(",") else "")


@functools.lru_cache
def _environment(variable: str) -> Any:
    def gets(cel: Any) -> list[Any]:
        some = cel.Type.Map(cel.Type.DYN, cel.Type.DYN)
        one = _overload(cel, "map_get", [some, cel.Type.STRING])
        other = _overload(cel, "map_get_or", [some, cel.Type.STRING, cel.Type.DYN])
        return [cel.FunctionDecl("get", [one, other])]

    return environment(lambda cel: {variable: cel.Type.DYN}, gets)


def environment(
    variables: Callable[[Any], Mapping[str, Any]], functions: Callable[[Any], Sequence[Any]]
) -> Any:
    """Return what expressions are compiled in: what they may read, and the functions that they have
    beside CEL's. Both are made of the library, which is loaded here.

    Raises:
        Invalid: nothing is installed that compiles CEL.
    """
    try:
        cel = import_module("cel_expr_python.cel")
    except ImportError:
        raise Invalid(NEEDS) from None
    extensions: list[Any] = [cel.CelExtension("perdure", list(functions(cel)))]
    for name in _EXTENSIONS:
        module = import_module(f"cel_expr_python.ext.ext_{name}")
        extensions.append(getattr(module, f"Ext{name.title()}")())
    return cel.NewEnv(variables=dict(variables(cel)), extensions=extensions)


def compile_text(text: str, environment: Any) -> Any:
    """Compile an expression.

    Raises:
        Invalid: it is no CEL, or its types do not fit; the message has line, column and a caret.
    """
    try:
        return environment.compile(text)
    except RuntimeError as exc:
        raise Invalid(explained(text, str(exc))) from None


def evaluated(compiled: Any, facts: Any = None, **data: Any) -> Any:
    """Return the value of a compiled expression, given an activation or its ``data``.

    Raises:
        Invalid: it cannot be evaluated; the message has the reason.
    """
    try:
        found = compiled.eval(facts, **data)
        value = found.value()
        if value is True or value is False:
            return value
        if found.type().name() != "ERROR":
            return found.plain_value()
        reason = str(value)
    except (RuntimeError, TypeError, ValueError, OverflowError) as exc:
        reason = str(exc)
    raise Invalid(_reason(reason))


def _overload(cel: Any, name: str, parameters: list[Any]) -> Any:
    return cel.Overload(
        name, return_type=cel.Type.DYN, parameters=parameters, is_member=True, impl=_get
    )


def _get(given: Mapping[str, Any], key: str, default: Any = None) -> Any:
    return given.get(_GETS, given).get(key, default)


def explained(text: str, said: str) -> str:
    """Return the compiler's words as lines with carets."""
    found = [(int(m[1]), int(m[2]), m[3]) for m in _MISTAKE.finditer(said)]
    if not found:
        return said.removeprefix("INVALID_ARGUMENT: ")
    told = [pointed(text, what, line, column) for line, column, what in found]
    return "\n".join(told)


def pointed(text: str, what: str, line: int, column: int) -> str:
    """Return a mistake with its place, the line and a caret under it."""
    what = what.replace(" (in container '')", "").replace(" [INVALID_ARGUMENT]", "")
    what = re.sub(r" expecting \{.*\}", "", what)
    shown = text.splitlines()[line - 1] if text else ""
    return f"line {line}, column {column}: {what}\n      {shown}\n      {' ' * (column - 1)}^"


def place(text: str, at: int) -> tuple[int, int]:
    """Return line and column, from 1."""
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1


def _reason(said: str) -> str:
    """Return what the library says without its status codes."""
    text = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$", "", said)
    text = _VALUE.sub(_type_of, text)
    return text.replace(" : ", ": ").replace("null_type", "null").replace("int64", "int")


def _type_of(found: re.Match[str]) -> str:
    """Return what may be shown of a value: its type, if that is told."""
    told = re.search(r"': ([\w.]+)\.$", found[0])
    return f": {told[1]}" if told else ""


def _word(values: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """Return the type of what stands at a path, or that nothing does."""
    here: Any = values
    for depth, name in enumerate(path):
        if not isinstance(here, Mapping):
            return f"missing: {path[depth - 1]!r} is {_word_of(here)}"
        if name not in here:
            return f"missing: there is no {name!r}"
        here = cast("Mapping[str, Any]", here)[name]
    return _word_of(here)


def _word_of(value: object) -> str:
    return _WORDS.get(type(value), type(value).__name__)
