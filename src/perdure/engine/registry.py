"""Which workflows and activities a worker knows, and which runs it serves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from perdure import errors
from perdure.activity import Activity
from perdure.definition import Workflow, highest_active
from perdure.engine.limits import Limits
from perdure.engine.reach import fingerprint
from perdure.store.port import Definition, RunRow
from perdure.versions import version_to_start


class Registry:
    """Definitions by name; workflows also by version."""

    def __init__(self, queues: Sequence[str], limits: Limits | None = None) -> None:
        self.queues = tuple(queues)
        self.limits = limits or Limits()
        self._workflows: dict[str, dict[str, Workflow[Any, Any]]] = {}
        self._activities: dict[str, Activity[Any, Any]] = {}
        self._codes: dict[int, str] = {}
        self.inactive: frozenset[tuple[str, str]] = frozenset()
        self._stored: tuple[Definition, ...] = ()
        """Names and versions that no new execution takes unless it asks for them by number."""

    def register(self, definition: Workflow[Any, Any] | Activity[Any, Any]) -> None:
        """Add a definition.

        Raises:
            DefinitionError: another one has its name and version, or it cannot run.
        """
        if isinstance(definition, Activity):
            known = self._activities.setdefault(definition.name, definition)
            if known is not definition and known.fn is not definition.fn:
                raise errors.DefinitionError(
                    f"two activities are named {definition.name!r}: "
                    f"{known.fn.__module__}.{known.fn.__qualname__} and "
                    f"{definition.fn.__module__}.{definition.fn.__qualname__}"
                )
            return
        definition.check()
        versions = self._workflows.setdefault(definition.name, {})
        known_ = versions.setdefault(definition.version, definition)
        if known_ is not definition and known_.fn is not definition.fn:
            raise errors.DefinitionError(
                f"two workflows are named {definition.name!r} with version {definition.version}: "
                f"{known_.fn.__module__}.{known_.fn.__qualname__} and "
                f"{definition.fn.__module__}.{definition.fn.__qualname__}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the workflows this worker knows."""
        return tuple(self._workflows)

    @property
    def served(self) -> tuple[str, ...]:
        """What this worker runs: a name alone stands for all its versions."""
        return tuple(
            name if len(versions) == 1 else f"{name} {version}"
            for name, versions in self._workflows.items()
            for version in (versions if len(versions) == 1 else ("", *versions))
        )

    @property
    def listed(self) -> tuple[str, ...]:
        """What this worker runs, as others read it: also the version a name alone stands for."""
        named = (f"{w.name} {w.version}" for w in self.workflows())
        return tuple(dict.fromkeys((*self.served, *named)))

    def serves(self, row: RunRow) -> bool:
        """Tell whether this worker runs this workflow, in this version, on this queue."""
        return row.queue in self.queues and self.definition(row.workflow, row.version) is not None

    def workflows(self) -> list[Workflow[Any, Any]]:
        """Return all registered definitions."""
        return [w for versions in self._workflows.values() for w in versions.values()]

    def described(self, definitions: Iterable[Workflow[Any, Any]], now: int) -> list[Definition]:
        """Return what the store is told of definitions."""
        return [
            Definition(
                w.name,
                w.version,
                w.code,
                w.source,
                w.task_queue,
                registered_at=now,
                limit=self.limits.of(w.name, self.names),
                triggers=w.triggers,
            )
            for w in definitions
        ]

    def definition(self, name: str, version: str) -> Workflow[Any, Any] | None:
        """Return a definition: exactly ``version``, or the highest if that is ``""`` or gone; the
        highest active one, if any is.
        """
        versions = self._workflows.get(name)
        if not versions:
            return None
        exact = versions.get(version)
        if exact is not None:
            return exact
        if version and len(versions) > 1:
            return None
        chosen = highest_active(name, versions, self.inactive) or highest_active(name, versions, ())
        assert chosen is not None
        return versions[chosen]

    def learn(self, stored: Iterable[Definition]) -> None:
        """Take note of what the store has of definitions."""
        self._stored = tuple(stored)
        self.inactive = frozenset(
            (one.name, one.version) for one in self._stored if not one.is_active
        )

    def version_for(self, name: str) -> str:
        """Return the version of a child that is started by name, as a client chooses it; ``""`` if
        nothing here has the name.

        Raises:
            NotFound: no version is active.
        """
        if not any(one == name for one, _ in self.inactive):
            found = self.definition(name, "")
            return found.version if found is not None else ""
        return version_to_start(self._stored, name, "", lambda version: self.version(name, version))

    def version(self, name: str, version: str) -> Workflow[Any, Any] | None:
        """Return exactly this version of a workflow, or the highest if that is ``""``."""
        versions = self._workflows.get(name, {})
        return self.definition(name, "") if not version else versions.get(version)

    def code(self, definition: Workflow[Any, Any] | None) -> str:
        """Return a fingerprint of all code that a registered workflow uses."""
        if definition is None:
            return ""
        code = self._codes.get(id(definition))
        if code is None:
            code = self._codes[id(definition)] = fingerprint(definition)
        return code

    def codes(self) -> dict[str, str]:
        """Return a fingerprint of each workflow, with all its versions."""
        return {
            name: " ".join(
                f"{version}:{self.code(versions[version])}" for version in sorted(versions)
            )
            for name, versions in self._workflows.items()
        }

    @property
    def activities(self) -> tuple[str, ...]:
        """Names of the activities this worker knows."""
        return tuple(self._activities)

    def activity(self, name: str) -> Activity[Any, Any] | None:
        """Return an activity registered by name."""
        return self._activities.get(name)
