"""JSON and YAML: texts to values, with the lines that mistakes are told by.

YAML is read as YAML 1.2 reads it: ``yes``, ``on`` and dates are text; a key may stand once; tags
and merge keys are refused. It needs PyYAML, of the extra ``yaml``, which is loaded when it is used.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from perdure import errors

NEEDS = "YAML needs PyYAML: pip install 'perdure[yaml]'"
_MOST = 100_000
_DEEPEST = 100
_BREAKS = "\x85\u2028\u2029"
_PLAIN: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
)
"""What unquoted text means (the core schema of YAML 1.2), and the characters it begins with."""
Path_ = tuple[str | int, ...]


class Read(NamedTuple):
    """A value, and where it is known, the line of each of its parts, from 1."""

    value: Any
    lines: dict[Path_, int]
    source: str = ""


def take(given: str | bytes | Path) -> tuple[str, str]:
    """Return a text and the name of its file, if it is of one.

    Raises:
        DefinitionError: the file cannot be read, or is not UTF-8.
    """
    source = str(given) if isinstance(given, Path) else ""
    try:
        data = given.read_bytes() if isinstance(given, Path) else given
        return (data.decode("utf-8-sig") if isinstance(data, bytes) else data), source
    except OSError as exc:
        raise errors.DefinitionError(f"{source}: cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise errors.DefinitionError(f"{source or 'text'}: this is not UTF-8 text") from None


def read_json(given: str | bytes | Path) -> Read:
    """Read JSON.

    Raises:
        DefinitionError: it is none, or a key stands twice.
    """
    text, source = take(given)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise errors.DefinitionError(f"{_at(source)}the key {twice!r} stands twice")
        return found

    def constant(name: str) -> Any:
        raise errors.DefinitionError(f"{_at(source)}{name} is no JSON")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise errors.DefinitionError(f"{_at(source, where)}not JSON: {exc.msg}") from None
    except RecursionError:
        raise errors.DefinitionError(f"{_at(source)}it is nested too deeply") from None
    return Read(value, {}, source)


def read_yaml(given: str | bytes | Path) -> Read:
    """Read YAML.

    Raises:
        DefinitionError: it is none, has what is refused, or nothing is installed that reads it.
    """
    text, source = take(given)
    yaml = _yaml()
    loader = _loader()(text)
    try:
        node = loader.get_single_node()
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        said = getattr(exc, "problem", None) or str(exc)
        raise errors.DefinitionError(f"{_at(source, where)}not YAML: {said}") from None
    finally:
        loader.dispose()
    reading = _Reading(source)
    value = reading.value(node, ()) if node is not None else None
    return Read(value, reading.lines, source)


def write_yaml(value: Any) -> str:
    """Write JSON types as YAML."""
    text: str = _yaml().dump(
        value, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=100
    )
    return text


class _Reading:
    """Nodes to values."""

    def __init__(self, source: str) -> None:
        self.lines: dict[Path_, int] = {}
        self._source = source
        self._count = 0

    def value(self, node: Any, path: Path_) -> Any:
        self._count += 1
        self.lines.setdefault(path, node.start_mark.line + 1)
        if self._count > _MOST or len(path) > _DEEPEST:
            raise self._wrong(node, "this is too large, or refers to itself")
        if node.id == "mapping":
            return self._mapping(node, path)
        if node.id == "sequence":
            self._demand(node, "seq")
            return [self.value(it, (*path, number)) for number, it in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: Any, path: Path_) -> dict[str, Any]:
        self._demand(node, "map")
        found: dict[str, Any] = {}
        for key, inner in node.value:
            if key.id != "scalar":
                raise self._wrong(key, "a key is text")
            name = key.value
            if name in found:
                raise self._wrong(key, f"the key {name!r} stands twice")
            self.lines[*path, name] = key.start_mark.line + 1
            found[name] = self.value(inner, (*path, name))
        return found

    def _scalar(self, node: Any) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text: str = node.value
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int" and len(text) < 4_000:
            return int(text)
        if kind == "float":
            return float(text)
        raise self._wrong(node, f"the tag {node.tag!r} is not known here")

    def _demand(self, node: Any, kind: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            raise self._wrong(node, f"the tag {node.tag!r} is not known here")

    def _wrong(self, node: Any, text: str) -> errors.DefinitionError:
        return errors.DefinitionError(
            f"{_at(self._source, f'line {node.start_mark.line + 1}')}{text}"
        )


def _at(source: str, where: str = "") -> str:
    place = ", ".join(filter(None, (source, where)))
    return f"{place}: " if place else ""


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise errors.DefinitionError(NEEDS) from None
    return yaml


@functools.cache
def _loader() -> Any:
    return _with_plain(type("Loader", (_yaml().SafeLoader,), {}))


@functools.cache
def _dumper() -> Any:
    made: Any = _with_plain(type("Dumper", (_yaml().SafeDumper,), {}))
    made.ignore_aliases = _no_aliases
    made.add_representer(str, _represent)
    return made


def _represent(dumper: Any, text: str) -> Any:
    # Line breaks of Unicode become blanks in any other style.
    style = '"' if any(it in text for it in _BREAKS) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _no_aliases(*_: object) -> bool:
    return True


def _with_plain(cls: Any) -> Any:
    """Let unquoted text mean the same to what reads and to what writes."""
    cls.yaml_implicit_resolvers = {}
    for kind, pattern, first in _PLAIN:
        whole = re.compile(f"(?:{pattern})$")
        firsts = [*(it for it in first if it != "\0"), *([""] if "\0" in first else [])]
        cls.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", whole, firsts)
    return cls
