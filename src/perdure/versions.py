"""Which version of a workflow a start by name takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perdure import errors, why
from perdure.definition import Workflow, highest_active
from perdure.store.port import Definition


def version_to_start(
    known: Sequence[Definition],
    name: str,
    version: str,
    here: Callable[[str], Workflow[Any, Any] | None],
) -> str:
    """Return the version of a workflow that a start by name takes: the highest active one, or the
    one that is asked for.

    Args:
        known: what the store has.
        name: of the workflow.
        version: what is asked for; ``""``: none in particular.
        here: what is registered in this process under a version; what is comes first.

    Raises:
        NotFound: there is none, or none is active.
    """
    stored = [one for one in known if one.name == name and version in ("", one.version)]
    inactive = [(name, one.version) for one in stored if not (version or one.is_active)]
    fitting = [one.version for one in stored]
    own = here(version)
    if own is not None and own.version not in fitting:
        fitting.append(own.version)  # registered a moment ago
    ours = [one for one in fitting if here(one) is not None]
    chosen = highest_active(name, ours, inactive) or highest_active(name, fitting, inactive)
    if chosen is not None:
        return chosen
    if stored:
        listed = ", ".join(one.version for one in stored)
        raise errors.NotFound(f"workflow {name!r} has no active version (inactive: {listed})")
    raise why.unknown_workflow(name, version, [(one.name, one.version) for one in known])
