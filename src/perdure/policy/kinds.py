"""What a policy file holds, checked against the table of keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

import msgspec

from perdure.errors import Invalid
from perdure.policy.keys import AUDIT_LEVELS, KEYS, STATUSES, TIMEOUT_ACTIONS, Key, Kind, Several
from perdure.policy.reading import Node, Pairs, plain
from perdure.values import limits
from perdure.values.duration import microseconds
from perdure.values.meters import window_rate


class Given(NamedTuple):
    """One value of a key, and where it stands."""

    value: Any
    where: str = ""


Values = Mapping[str, tuple[Given, ...]]
"""Every key that is given, with all its values."""


def read_values(root: Node) -> dict[str, tuple[Given, ...]]:
    """Check a whole policy: keys with dots, or mappings within each other, or both.

    Raises:
        Invalid: an unknown key (the message names the nearest), or a value of the wrong type; the
            message has the key, the path in it and, from a file, line and column.
    """
    if not isinstance(root.value, Pairs):
        raise Invalid(f"{root.where}policies are a mapping of keys, not {_word(root)}")
    found: dict[str, list[Given]] = {}
    _collect(root, "", found)
    for name, values in found.items():
        if KEYS[name].several is Several.SAME and any(
            one.value != values[0].value for one in values
        ):
            said = " and ".join(repr(one.value) for one in values)
            raise Invalid(f"{values[-1].where}{name}: it is given as {said}; say it once")
    return {name: tuple(found[name]) for name in KEYS if name in found}


def fingerprint(values: Values) -> str:
    """Return the hash of a policy's normal text: which keys have which values, in any order."""
    normal = {name: sorted(_text(one.value) for one in given) for name, given in values.items()}
    return hashlib.sha256(msgspec.json.encode(normal, order="sorted")).hexdigest()[:16]


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _collect(node: Node, prefix: str, found: dict[str, list[Given]]) -> None:
    for name, inner in cast("Pairs", node.value):
        path = f"{prefix}.{name}" if prefix else name
        key = KEYS.get(path)
        if key is not None:
            found.setdefault(path, []).extend(_read(key, inner))
        elif isinstance(inner.value, Pairs) and any(k.startswith(path + ".") for k in KEYS):
            _collect(inner, path, found)
        else:
            check_key(path, inner.where)


def check_key(path: str, where: str = "") -> None:
    """Check that there is such a key.

    Raises:
        Invalid: there is none; the message names the nearest.
    """
    if path not in KEYS:
        near = get_close_matches(path, KEYS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Invalid(f"{where}{path}: there is no such key of a policy{hint}")


def _read(key: Key, node: Node) -> list[Given]:
    if key.kind is Kind.CONDITION and node.items is not None:
        return [
            Given(_condition(it, f"{key.name}[{number}]"), it.where)
            for number, it in enumerate(node.items)
        ]
    return [Given(_READERS[key.kind](node, key.name), node.where)]


def _wrong(node: Node, path: str, what: str) -> Invalid:
    return Invalid(f"{node.where}{path}: {_word(node)} is not {what}")


def _word(node: Node) -> str:
    if isinstance(node.value, Pairs):
        return "a mapping"
    if node.items is not None:
        return "a list"
    return repr(plain(node))


def _flag(node: Node, path: str) -> bool:
    if not isinstance(node.value, bool):
        raise _wrong(node, path, "true or false")
    return node.value


def _count(node: Node, path: str) -> int:
    if not isinstance(node.value, int) or isinstance(node.value, bool) or node.value < 0:
        raise _wrong(node, path, "a whole number, 0 or more")
    if node.value > limits.COUNTED:
        raise _wrong(node, path, f"at most {limits.COUNTED:,}; leave the key out for no limit")
    return node.value


def _span(unit: float) -> Callable[[Node, str], int]:
    """Return what reads a time, given the seconds of its unit."""

    def read(node: Node, path: str) -> int:
        count = _count(node, path)
        if count == 0:
            raise _wrong(node, path, "a time; leave the key out for no limit")
        try:
            microseconds(count * unit, what=path)
        except Invalid as exc:
            raise Invalid(f"{node.where}{exc.message}; leave the key out for no limit") from None
        return count

    return read


def _condition(node: Node, path: str) -> str:
    if not isinstance(node.value, str) or not node.value.strip():
        raise _wrong(node, path, "a CEL condition (a text)")
    return node.value


def _rate(node: Node, path: str) -> str:
    if not isinstance(node.value, str):
        raise _wrong(node, path, "a rate, like '100/minute'")
    try:
        window_rate(node.value, what=path)
    except Invalid as exc:
        raise Invalid(f"{node.where}{exc.message}") from None
    return node.value


def _texts(node: Node, path: str) -> list[str]:
    if node.items is None:
        raise _wrong(node, path, "a list of names")
    for number, it in enumerate(node.items):
        if not isinstance(it.value, str) or not it.value:
            raise _wrong(it, f"{path}[{number}]", "a name (a text)")
    return [it.value for it in node.items]


def _one_of(allowed: tuple[str, ...]) -> Callable[[Node, str], str]:
    def read(node: Node, path: str) -> str:
        if node.value not in allowed:
            near = get_close_matches(str(node.value), allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise _wrong(node, path, f"one of {', '.join(allowed)}{hint}")
        return node.value

    return read


def _statuses(node: Node, path: str) -> list[str]:
    if node.items is None:
        raise _wrong(node, path, "a list of statuses")
    read = _one_of(STATUSES)
    return [read(it, f"{path}[{number}]") for number, it in enumerate(node.items)]


def _mapping_of(read: Callable[[Node, str], Any]) -> Callable[[Node, str], dict[str, Any]]:
    def read_all(node: Node, path: str) -> dict[str, Any]:
        if not isinstance(node.value, Pairs):
            raise _wrong(node, path, "a mapping of workflows")
        found: dict[str, Any] = {}
        for name, inner in node.value:
            if name in found:
                raise Invalid(f"{inner.where}{path}.{name}: this workflow is given twice")
            found[name] = read(inner, f"{path}.{name}")
        return found

    return read_all


_READERS: dict[Kind, Callable[[Node, str], Any]] = {
    Kind.FLAG: _flag,
    Kind.COUNT: _count,
    Kind.MINUTES: _span(60),
    Kind.MILLISECONDS: _span(0.001),
    Kind.NAMES: _texts,
    Kind.CRONS: _texts,
    Kind.CONDITION: _condition,
    Kind.RATE: _rate,
    Kind.STATUSES: _statuses,
    Kind.FIELDS: _mapping_of(_texts),
    Kind.COUNTS: _mapping_of(_count),
    Kind.LEVEL: _one_of(AUDIT_LEVELS),
    Kind.ACTION: _one_of(TIMEOUT_ACTIONS),
}
