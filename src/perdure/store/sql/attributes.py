"""Search attributes of runs as conditions of lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from perdure.errors import Invalid
from perdure.store.sql.encoding import to_json

Condition = tuple[str, list[Any]]
"""A text, and its parameters."""


def values_of(key: str, value: Any) -> list[Any]:
    """Return what a run's attribute must contain: all of a list, or the one value."""
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not values or not all(isinstance(one_of, (str, int, float)) for one_of in values):
        raise Invalid(f"search: {key}={value!r} is not text, a number, a boolean or a list")
    return values


def found(sql: Mapping[str, str], namespace: str, key: str, wanted: Any) -> Condition:
    """Return the condition by which the index of ``perdure_attr a`` finds a value; booleans and
    numbers may be one there: see :func:`of_type`.
    """
    text = f"a.namespace = ? AND a.key = ? AND a.value = {sql['json_value']}"
    return text, [namespace, key, to_json(wanted)]


def has(sql: Mapping[str, str], namespace: str, key: str, wanted: Any, run: str) -> Condition:
    """Return the condition that a run has a value; ``run``: the column that says which."""
    text = (
        "EXISTS (SELECT 1 FROM perdure_attr x WHERE x.namespace = ? AND x.key = ? "  # noqa: S608 - our own words
        f"AND x.value = {sql['json_value']} AND x.run = {run}"
        f"{of_type(sql, wanted)} {sql['for_each']})"
    )
    return text, [namespace, key, to_json(wanted)]


def of_type(sql: Mapping[str, str], value: Any) -> str:
    """Return what tells a boolean from a number, where both are stored as one."""
    if isinstance(value, bool):
        return f" {sql['is_boolean']}"
    return f" {sql['is_number']}" if isinstance(value, (int, float)) else ""
