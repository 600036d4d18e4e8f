"""JSON Schemas as what an input or an output must be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure.errors import DefinitionError, Invalid, WorkflowFailed
from perdure.graph import flow
from perdure.values.schemas import Schema

ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "items": {
            "type": "array",
            "items": {"type": "object", "required": ["sku"], "properties": {"n": {"minimum": 1}}},
        },
        "mail": {"type": "string", "format": "email"},
    },
    "required": ["id"],
    "additionalProperties": False,
}


def give(value: Any) -> Any:
    return value


async def test_a_flow_takes_what_fits_its_schema_and_refuses_the_rest_with_each_path(
    tmp_path: Path,
):
    made = flow("ordering", input=ORDER).task("give", give).build()
    async with engine_on(tmp_path, made) as engine:
        order = {"id": "A-1", "items": [{"sku": "x", "n": 2}]}
        assert await engine.client.execute(made, order) == order
        with pytest.raises(Invalid) as caught:
            wrong = {"items": [{"sku": "x"}, {"n": 0}], "mail": "nobody", "more": 1}
            await engine.client.start(made, wrong)
        said = caught.value.message
        assert "input.items[1].n: 0 is less than the minimum of 1" in said
        assert 'input.items[1]: "sku" is a required property' in said
        assert 'input: "id" is a required property' in said
        assert "input.mail:" in said
        assert "'more' was unexpected" in said
        with pytest.raises(Invalid, match=r"input: null is not of type"):
            await engine.client.start(made)
        with pytest.raises(Invalid, match=r'"id" is a required property'):
            await engine.client.start("ordering", {})


async def test_a_step_checks_what_comes_in_and_what_goes_out(tmp_path: Path):
    needs = flow("needs").pass_("p", result={"id": 7}).task("t", give, input=ORDER).build()
    gives = flow("gives").task("t", give, output=ORDER).build()
    fine = flow("fine").task("t", give, input=ORDER, output=ORDER).build()
    async with engine_on(tmp_path, needs, gives, fine) as engine:
        with pytest.raises(
            WorkflowFailed,
            match=r'Step "t" failed: Input validation .*input\.id: 7 is not of type "string"',
        ) as caught:
            await engine.client.execute(needs)
        assert caught.value.kind == "Invalid"
        with pytest.raises(WorkflowFailed, match=r'Output validation failed: .*"id" is a required'):
            await engine.client.execute(gives, {})
        assert await engine.client.execute(fine, {"id": "A"}) == {"id": "A"}


async def test_a_poll_checks_the_result_it_has_waited_for(tmp_path: Path):
    def check() -> dict[str, Any]:
        return {"done": True, "result": {"id": ""}}

    made = flow("polls").poll("wait", check, interval="1ms", timeout="1m", output=ORDER).build()
    async with engine_on(tmp_path, made) as engine:
        with pytest.raises(WorkflowFailed, match=r"wait -> output: output\.id: .*shorter than 1"):
            await engine.client.execute(made)


def test_schemas_that_are_themselves_wrong_are_found_when_it_is_built_with_their_place():
    wrong = (
        flow("wrong", input={"type": "objekt"})
        .task("a", give, input={"properties": {"x": {"minimum": "one"}}})
        .task("b", give, output={"$ref": "https://example.com/order.json"})
        .task("c", give, input=7)
    )
    with pytest.raises(DefinitionError) as caught:
        wrong.build()
    _, flow_, a, b, c = caught.value.message.split("\n  - ")
    assert flow_.startswith("Input: wrong(input): the JSON Schema is wrong: schema.type: ")
    assert "Step 'a': a(input): the JSON Schema is wrong: schema.properties.x.minimum" in a
    assert "Step 'b'" in b
    assert "Retrieval is disabled" in b
    assert c == "Step 'c': c(input): 7 is neither a type nor a JSON Schema"


def test_without_the_extra_a_schema_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(DefinitionError, match=r"Step 't': .*pip install 'perdure\[human\]'"):
        flow("f").task("t", give, input=ORDER).build()


def test_mappers_that_cannot_be_called_by_two_values_are_mistakes():
    made = flow("f").task("a", give, input=lambda prev: prev)
    with pytest.raises(DefinitionError, match=r"Step 'a': .*is called by \(prev, workflow_input\)"):
        made.build()


def test_only_so_many_mistakes_of_a_value_are_told_and_the_rest_counted():
    schema = Schema({"items": {"type": "integer"}})
    with pytest.raises(Invalid, match=r"value\[19\]: .*; and 5 more$"):
        schema.check(["x"] * 25)
