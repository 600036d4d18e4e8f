"""Which definitions there are, by name and semantic version; and workflows written as classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

from perdure import errors
from perdure.definition import highest_active, version_key
from perdure.graph.definition import WorkflowDefinition
from perdure.graph.exceptions import WorkflowNotFoundError
from perdure.graph.outline import Edge

Given = type[Any] | WorkflowDefinition


class Workflow:
    """A workflow as a class: its parts in the class body, or a ``get_definition`` of its own."""

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1.0.0"
    description: ClassVar[str] = ""
    steps: ClassVar[Mapping[str, Any] | Iterable[Any]] = ()
    edges: ClassVar[Iterable[Edge]] = ()
    initial_step: ClassVar[Any] = ""
    terminal_steps: ClassVar[Iterable[Any]] = ()

    @classmethod
    def get_definition(cls) -> WorkflowDefinition:
        """Return the definition that the class body describes."""
        return WorkflowDefinition(
            cls.name or cls.__name__,
            cls.version,
            cls.description or (cls.__doc__ or "").partition("\n")[0],
            cls.steps,
            cls.edges,
            cls.initial_step,
            cls.terminal_steps,
        )


class WorkflowRegistry:
    """Definitions by name and version. The *latest* is the highest active semantic version.

    A version that is deactivated is not chosen for new instances; those that have it go on.
    """

    def __init__(self) -> None:
        self._definitions: dict[str, dict[str, WorkflowDefinition]] = {}
        self._inactive: set[tuple[str, str]] = set()
        self._classes: dict[str, type[Any]] = {}
        self._of_class: dict[type[Any], tuple[str, str]] = {}

    # -- registering -----------------------------------------------------------------------------

    def register_definition(self, definition: WorkflowDefinition) -> None:
        """Add a definition; the same one again changes nothing.

        Raises:
            DefinitionError: another one has its name and version.
        """
        self._add(definition)

    def register_workflow_class(self, workflow: type[Any]) -> None:
        """Add a class with a ``get_definition``; it is asked once."""
        self._definition_of(workflow)

    def register(self, workflow: Given) -> None:
        """Add a class or a definition."""
        self.resolve(workflow)

    def unregister(self, name: str, version: str | None = None) -> None:
        """Forget a version, or all versions of a name; what is not there is no mistake."""
        versions = self._definitions.get(name, {})
        for one in [version] if version is not None else list(versions):
            versions.pop(one, None)
            self._inactive.discard((name, one))
            for cls in [cls for cls, key in self._of_class.items() if key == (name, one)]:
                del self._of_class[cls]
        if not versions:
            self._definitions.pop(name, None)
            self._classes.pop(name, None)

    def deactivate(self, name: str, version: str) -> None:
        """Let no new instance begin with a version unless it is asked for by its number.

        Raises:
            WorkflowNotFoundError: there is no such version.
        """
        self._inactive.add((name, self._exactly(name, version).version))

    def activate(self, name: str, version: str) -> None:
        """Undo :meth:`deactivate`.

        Raises:
            WorkflowNotFoundError: there is no such version.
        """
        self._inactive.discard((name, self._exactly(name, version).version))

    # -- asking ----------------------------------------------------------------------------------

    def get_definition(self, name: str, version: str | None = None) -> WorkflowDefinition:
        """Return a version, or the latest.

        Raises:
            WorkflowNotFoundError: there is none; it is a ``KeyError`` too.
        """
        if version is not None:
            return self._exactly(name, version)
        latest = highest_active(name, self._versions(name), self._inactive)
        if latest is None:
            said = f"Workflow '{name}' has no active version"
            raise WorkflowNotFoundError(name, message=said)
        return self._definitions[name][latest]

    def list_definitions(self, active_only: bool = True) -> list[WorkflowDefinition]:
        """Return definitions by name and version; with ``active_only`` those not deactivated."""
        return [
            self._definitions[name][version]
            for name in sorted(self._definitions)
            for version in sorted(self._definitions[name], key=version_key)
            if not active_only or (name, version) not in self._inactive
        ]

    def has_definition(self, name: str, version: str | None = None) -> bool:
        """Tell whether there is a definition of the name, in this version if one is given."""
        versions = self._definitions.get(name, {})
        return version in versions if version is not None else bool(versions)

    has_workflow = has_definition

    def is_active(self, name: str, version: str) -> bool:
        """Tell whether a version is there and not deactivated."""
        return self.has_definition(name, version) and (name, version) not in self._inactive

    def get_workflow_class(self, name: str) -> type[Any]:
        """Return the class that was registered last under a name.

        Raises:
            WorkflowNotFoundError: there is none.
        """
        found = self._classes.get(name)
        if found is None:
            said = f"Workflow class '{name}' not found in registry"
            raise WorkflowNotFoundError(name, message=said)
        return found

    def get_versions(self, name: str) -> list[str]:
        """Return all versions of a name, the lowest first.

        Raises:
            WorkflowNotFoundError: nothing has this name.
        """
        return sorted(self._versions(name), key=version_key)

    # -- for engines -----------------------------------------------------------------------------

    def resolve(self, workflow: str | Given, version: str | None = None) -> WorkflowDefinition:
        """Return the registered definition of a name, a class or a definition; one that is new is
        registered.

        Raises:
            DefinitionError: another definition has its name and version; or it is none of these.
            WorkflowNotFoundError: nothing has this name and version.
        """
        given = cast("Any", workflow)
        if isinstance(given, str):
            return self.get_definition(given, version)
        if isinstance(given, WorkflowDefinition):
            definition = self._add(given)
        elif hasattr(given, "get_definition"):
            definition = self._definition_of(given)
        else:
            raise errors.DefinitionError(
                f"{given!r} is no workflow: give a name, a class with get_definition(), or a "
                "definition"
            )
        return definition if version is None else self._exactly(definition.name, version)

    def _add(self, definition: WorkflowDefinition) -> WorkflowDefinition:
        versions = self._definitions.setdefault(definition.name, {})
        known = versions.setdefault(definition.version, definition)
        if known is not definition and known.code != definition.code:
            raise errors.DefinitionError(
                f"two workflows are named {definition.name!r} with version {definition.version}, "
                "and they differ: give the new one a version of its own, or unregister the old one"
            )
        return known

    def _definition_of(self, workflow: type[Any]) -> WorkflowDefinition:
        key = self._of_class.get(workflow)
        if key is not None:
            return self._exactly(*key)
        definition = self._add(workflow.get_definition())
        self._of_class[workflow] = definition.name, definition.version
        self._classes[definition.name] = workflow
        return definition

    def _versions(self, name: str) -> dict[str, WorkflowDefinition]:
        versions = self._definitions.get(name)
        if not versions:
            said = f"Workflow '{name}' not found in registry"
            raise WorkflowNotFoundError(name, message=said)
        return versions

    def _exactly(self, name: str, version: str) -> WorkflowDefinition:
        versions = self._versions(name)
        if version not in versions:
            known = ", ".join(sorted(versions, key=version_key))
            said = f"Version '{version}' not found for workflow '{name}'. Available versions: "
            raise WorkflowNotFoundError(name, version, message=said + known)
        return versions[version]
