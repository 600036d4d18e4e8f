"""How services name workflows: with a version, a part of one, or as a definition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from perdure.definition import Workflow, highest_active
from perdure.policy.globs import Name
from perdure.store.port import Definition
from perdure.values import payload


def named(workflow: str | Workflow[Any, Any]) -> str:
    """Return the name by which policies and the store are asked.

    Raises:
        Invalid: it is neither a definition nor text.
    """
    if isinstance(workflow, Workflow):
        return f"{workflow.name}@{workflow.version}"
    return payload.text(workflow, what="workflow_id")


def chosen(known: Iterable[Definition], name: Name) -> Definition | None:
    """Return the version that a name means: an exact one, or the highest that begins so."""
    fitting = {
        one.version: one
        for one in known
        if one.name == name.name and one.is_active and is_of(one.version, name.version)
    }
    highest = highest_active(name.name, list(fitting), [])
    return None if highest is None else fitting[highest]


def is_of(version: str, asked: str) -> bool:
    """Tell whether a version is ``asked``, or one of its: 1.2.0 is of 1 and of 1.2."""
    return not asked or version == asked or version.startswith(f"{asked}.")
