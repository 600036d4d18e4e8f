"""Policy files: YAML or JSON, read so that nothing of them is lost.

A key that is given twice stays given twice (both count, and either may be the stricter one), and
every value knows its line and column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from json import JSONDecodeError, decoder, loads
from pathlib import Path
from typing import Any, NamedTuple, cast

from perdure.errors import Invalid

_scan: Callable[[str, int, bool], tuple[str, int]] = cast("Any", decoder).scanstring
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r"-?\d[\w.+-]*|true|false|null")
_MAX_DEPTH = 100


class Node(NamedTuple):
    """A value and where it stands. ``value``: a scalar, a list of nodes or a :class:`Pairs`.

    ``line`` and ``column`` count from 1; 0 is nowhere (it was given in a program).
    """

    value: Any
    line: int = 0
    column: int = 0
    source: str = ""

    @property
    def where(self) -> str:
        """``"policies.yaml:3:7: "``, or ``""``."""
        return f"{self.source}:{self.line}:{self.column}: " if self.line else ""

    @property
    def items(self) -> list[Node] | None:
        """The items of a list; ``None``: it is none."""
        value: object = self.value
        if isinstance(value, Pairs) or not isinstance(value, list):
            return None
        return cast("list[Node]", value)


class Pairs(list[tuple[str, Node]]):
    """The members of a mapping, in their order, also those that have one name."""


def read_file(path: Path) -> Node:
    """Read a file: ``.json`` is JSON, everything else YAML (of which JSON is a part).

    Raises:
        Invalid: it cannot be read, or is neither; the message has line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = getattr(exc, "strerror", None) or exc
        raise Invalid(f"{path}: the policies cannot be read: {why}") from None
    if path.suffix == ".json":
        return _Json(text, str(path)).whole()
    return _read_yaml(text, str(path))


def read_value(value: Any) -> Node:
    """Return what a program gives as nodes without a place."""
    if isinstance(value, Mapping):
        members = cast("Mapping[Any, Any]", value)
        return Node(Pairs((str(key), read_value(inner)) for key, inner in members.items()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Node([read_value(inner) for inner in cast("Sequence[Any]", value)])
    return Node(value)


def plain(node: Node) -> Any:
    """Return a value without its places. Of two members of one name the last is taken."""
    if isinstance(node.value, Pairs):
        return {key: plain(inner) for key, inner in node.value}
    if node.items is not None:
        return [plain(inner) for inner in node.items]
    return node.value


class _Json:
    """A JSON text: the library's own reader forgets where values stand."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._at = 0

    def whole(self) -> Node:
        """Read the text to its end."""
        node = self._value(0)
        self._skip()
        if self._at < len(self._text):
            raise self._wrong("something follows the end of the value")
        return node

    def _value(self, depth: int) -> Node:
        self._skip()
        begin = self._at
        if depth > _MAX_DEPTH:
            raise self._wrong(f"values lie more than {_MAX_DEPTH} deep")
        found = self._text[begin : begin + 1]
        if found == "{":
            value: Any = Pairs(self._members(depth))
        elif found == "[":
            value = [self._value(depth + 1) for _ in self._items("]")]
        elif found == '"':
            value = self._string()
        else:
            match = _PLAIN.match(self._text, begin)
            if match is None:
                raise self._wrong("this is no JSON value")
            self._at = match.end()
            try:
                value = loads(match[0])
            except JSONDecodeError:
                self._at = begin
                raise self._wrong(f"{match[0]} is no JSON value") from None
        return Node(value, *self._place(begin), self._source)

    def _members(self, depth: int) -> Iterator[tuple[str, Node]]:
        for _ in self._items("}"):
            if self._text[self._at : self._at + 1] != '"':
                raise self._wrong("a name in double quotes is missing")
            name = self._string()
            self._skip()
            if self._text[self._at : self._at + 1] != ":":
                raise self._wrong("a colon is missing")
            self._at += 1
            yield name, self._value(depth + 1)

    def _items(self, end: str) -> Iterator[None]:
        """Stand before one item after another; each is read before the next is asked for."""
        self._at += 1
        self._skip()
        if self._text[self._at : self._at + 1] == end:
            self._at += 1
            return
        while True:
            self._skip()
            yield
            self._skip()
            found = self._text[self._at : self._at + 1]
            if found not in (",", end) or not found:
                raise self._wrong(f"a comma or {end} is missing")
            self._at += 1
            if found == end:
                return

    def _string(self) -> str:
        try:
            value, self._at = _scan(self._text, self._at + 1, True)
        except JSONDecodeError as exc:
            self._at = exc.pos
            raise self._wrong(exc.msg) from None
        return value

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        if self._text.startswith(("//", "/*"), self._at):
            raise self._wrong("JSON has no comments; in a .yaml file they begin with #")

    def _place(self, at: int) -> tuple[int, int]:
        before = self._text[:at]
        return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1

    def _wrong(self, what: str) -> Invalid:
        line, column = self._place(self._at)
        return Invalid(f"{self._source}:{line}:{column}: {what}")


def _read_yaml(text: str, source: str) -> Node:
    try:
        yaml: Any = import_module("yaml")
    except ImportError:
        raise Invalid(
            f"{source}: policies in YAML need PyYAML: pip install 'perdure[yaml]'; or write JSON"
        ) from None
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return Node(Pairs(), 1, 1, source)
            return _of_yaml(root, loader, source, 0)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark is not None else "1:1"
        raise Invalid(f"{source}:{place}: {exc.problem or exc.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise Invalid(f"{source}: this is no YAML: {' '.join(str(exc).split())}") from None


def _of_yaml(node: Any, loader: Any, source: str, depth: int) -> Node:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if depth > _MAX_DEPTH:  # also an alias of what it stands in
        raise Invalid(f"{source}:{line}:{column}: values lie more than {_MAX_DEPTH} deep")
    if node.id == "mapping":
        members = Pairs()
        for key, value in node.value:
            if key.id != "scalar" or key.tag == "tag:yaml.org,2002:merge":
                at = key.start_mark
                raise Invalid(f"{source}:{at.line + 1}:{at.column + 1}: this is no name of a key")
            members.append((str(key.value), _of_yaml(value, loader, source, depth + 1)))
        return Node(members, line, column, source)
    if node.id == "sequence":
        items = [_of_yaml(value, loader, source, depth + 1) for value in node.value]
        return Node(items, line, column, source)
    return Node(loader.construct_object(node), line, column, source)
