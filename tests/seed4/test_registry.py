"""The registry of seed 4: names, semantic versions, classes, and what is told of the missing."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.errors import DefinitionError, NotFound
from perdure.graph import (
    BaseMachineStep,
    Edge,
    Workflow,
    WorkflowDefinition,
    WorkflowNotFoundError,
    WorkflowRegistry,
)


class Work(BaseMachineStep):
    async def execute(self, context: Any) -> str:
        return self.name


def definition(version: str = "1.0.0", name: str = "order", *steps: str) -> WorkflowDefinition:
    return WorkflowDefinition(name, version, steps=[Work(step) for step in steps or ("work",)])


def registry_of(*versions: str) -> WorkflowRegistry:
    registry = WorkflowRegistry()
    for version in versions:
        registry.register_definition(definition(version))
    return registry


def test_the_latest_is_the_highest_semantic_version_and_not_the_last_of_the_alphabet():
    registry = registry_of("2.0.0", "10.0.0", "9.9.9", "10.0.0-rc1")
    assert registry.get_definition("order").version == "10.0.0"
    assert registry.get_versions("order") == ["2.0.0", "9.9.9", "10.0.0-rc1", "10.0.0"]


def test_a_version_that_is_deactivated_is_chosen_only_by_its_number():
    registry = registry_of("1.0.0", "2.0.0")
    registry.deactivate("order", "2.0.0")
    assert registry.get_definition("order").version == "1.0.0"
    assert registry.get_definition("order", "2.0.0").version == "2.0.0"
    assert [one.version for one in registry.list_definitions()] == ["1.0.0"]
    assert [one.version for one in registry.list_definitions(active_only=False)] == [
        "1.0.0",
        "2.0.0",
    ]
    assert not registry.is_active("order", "2.0.0")
    registry.activate("order", "2.0.0")
    assert registry.get_definition("order").version == "2.0.0"
    registry.deactivate("order", "1.0.0")
    registry.deactivate("order", "2.0.0")
    with pytest.raises(WorkflowNotFoundError, match="'order' has no active version"):
        registry.get_definition("order")


def test_what_is_not_there_is_told_with_what_is():
    registry = registry_of("1.0.0", "1.10.0", "1.9.0")
    for ask, says in (
        (lambda: registry.get_definition("nobody"), "Workflow 'nobody' not found in registry"),
        (
            lambda: registry.get_definition("order", "3.0.0"),
            "'3.0.0' not found for workflow 'order'. Available versions: 1.0.0, 1.9.0, 1.10.0",
        ),
        (lambda: registry.get_workflow_class("order"), "Workflow class 'order' not found"),
        (lambda: registry.get_versions("nobody"), "Workflow 'nobody' not found in registry"),
        (lambda: registry.deactivate("nobody", "1.0.0"), "Workflow 'nobody' not found"),
    ):
        for kind in (KeyError, ValueError, NotFound):
            with pytest.raises(kind, match=says.replace("(", r"\(")):
                ask()
    assert not registry.has_definition("nobody")
    assert registry.has_workflow("order", "1.9.0")
    assert not registry.has_workflow("order", "3.0.0")


def test_a_class_says_its_parts_in_its_body_or_by_get_definition():
    class Short(Workflow):
        """Two steps."""

        name = "short"
        version = "1.2.0"
        steps = (Work("a"), Work("b"))
        edges = (Edge("a", "b"),)

    class Long:
        @classmethod
        def get_definition(cls) -> WorkflowDefinition:
            return definition(name="long")

    registry = WorkflowRegistry()
    registry.register_workflow_class(Short)
    registry.register(Long)
    found = registry.get_definition("short")
    assert (found.version, found.description, found.initial_step) == ("1.2.0", "Two steps.", "a")
    assert registry.get_workflow_class("long") is Long
    assert registry.resolve(Long) is registry.get_definition("long")
    assert [one.name for one in registry.list_definitions()] == ["long", "short"]


def test_definition_and_class_of_one_workflow_are_registered_side_by_side():
    class Order:
        @classmethod
        def get_definition(cls) -> WorkflowDefinition:
            return definition()

    registry = WorkflowRegistry()
    registry.register_definition(Order.get_definition())
    registry.register_workflow_class(Order)
    assert registry.resolve(Order) is registry.get_definition("order")
    assert len(registry.list_definitions()) == 1


def test_another_definition_of_a_name_and_version_is_refused():
    registry = registry_of("1.0.0")
    with pytest.raises(DefinitionError, match="two workflows are named 'order' with version 1.0.0"):
        registry.register_definition(definition("1.0.0", "order", "other"))
    registry.unregister("order")
    registry.register_definition(definition("1.0.0", "order", "other"))
    assert list(registry.get_definition("order").steps) == ["other"]


def test_what_is_unregistered_is_forgotten_and_what_is_not_there_is_no_mistake():
    registry = registry_of("1.0.0", "2.0.0")
    registry.deactivate("order", "2.0.0")
    registry.unregister("order", "2.0.0")
    registry.unregister("order", "7.0.0")
    registry.unregister("nobody")
    assert registry.get_versions("order") == ["1.0.0"]
    registry.register_definition(definition("2.0.0"))
    assert registry.get_definition("order").version == "2.0.0", "its old mark is gone with it"


def test_what_is_no_workflow_is_refused_with_what_would_be_one():
    with pytest.raises(DefinitionError, match=r"give a name, a class with get_definition\(\)"):
        WorkflowRegistry().register(42)  # type: ignore[arg-type]
