"""Conditions that are texts: CEL if they name the context, else labels."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of

from perdure.errors import DefinitionError, WorkflowFailed
from perdure.graph import (
    BaseMachineStep,
    Edge,
    ExclusiveGateway,
    InclusiveGateway,
    WorkflowDefinition,
    branch,
    flow,
)

CARET = """\
      context.get('score' >= 80
                               ^"""


class Give(BaseMachineStep):
    """Gives its name on."""

    async def execute(self, context: Any) -> Any:
        return self.name


def deciding(*conditions: str, **options: Any) -> WorkflowDefinition:
    """Make a graph of one decision; it ends at the step that the first true condition leads to."""
    names = [f"way{number}" for number in range(len(conditions))]
    edges = [Edge("decide", name, it) for name, it in zip(names, conditions, strict=True)]
    steps = [ExclusiveGateway("decide"), *map(Give, [*names, "else"])]
    return WorkflowDefinition(
        "deciding", steps=steps, edges=[*edges, Edge("decide", "else")], **options
    )


@pytest.mark.parametrize(
    ("condition", "data", "way"),
    [
        ("context.get('score') >= 80", {"score": 80}, "way0"),
        ('context.get("score") >= 80', {"score": 79}, "else"),
        ("context.get('score') >= 80", {"score": 80.5}, "way0"),
        ("context.get('score', 100) >= 80", {}, "way0"),
        ("context.get('score', 0) >= 80", {}, "else"),
        (
            "context.data.score >= 80 && context.data.kind == 'a'",
            {"score": 81, "kind": "a"},
            "way0",
        ),
        ("context.input.plan in ['pro', 'enterprise']", {"plan": "pro"}, "way0"),
        ("context.data['a-b'].get('c', 0) == 1", {"a-b": {"c": 1}}, "way0"),
        ("context.prev.items.exists(i, i.n > 2)", {"items": [{"n": 1}, {"n": 3}]}, "way0"),
        ("size(context.metadata) == 0 && context.current_step == 'decide'", {}, "way0"),
        ("has(context.data.score) && context.data.score > 1", {}, "else"),
        ("timestamp(context.started_at) > timestamp('2020-01-01T00:00:00Z')", {}, "way0"),
        ("context.input.?plan.orValue('free') == 'free'", {}, "way0"),
        ("context.get('name').lowerAscii().startsWith('ä') == false", {"name": "Bo"}, "way0"),
        ("'context' in context.data", {"context": 1}, "way0"),
        ("size(context.get('name')) == 5  // characters, not bytes", {"name": "héllo"}, "way0"),
        ("context.user_id == null", {}, "way0"),
    ],
)
async def test_an_expression_reads_the_context(tmp_path: Path, condition: str, data: Any, way: str):
    graph = deciding(condition)
    assert graph.validate() == []
    async with engine_on(tmp_path, graph) as engine:
        assert await engine.client.execute(graph, data) == way


async def test_conditions_of_choices_and_loops_and_gateways_may_be_expressions(tmp_path: Path):
    def count(before: Any) -> dict[str, int]:
        return {"n": (before or {}).get("n", 0) + 1}

    made = (
        flow("counts")
        .task("count", count)
        .loop("again", "context.steps.count.n < 3", "count", max_iterations=5)
        .choice("which", [("context.steps['count'].n == 3", "three")], default="other")
        .pass_("three", result="three", end=True)
        .pass_("other", result="other", end=True)
        .build()
    )
    gate = WorkflowDefinition(
        "gate",
        steps=[
            ExclusiveGateway("review", "context.get('score') >= 80 ? 'good' : 'bad'"),
            InclusiveGateway("good"),
            *map(Give, ["bad", "one", "two", "three"]),
        ],
        edges=[
            Edge("review", "good"),
            Edge("review", "bad"),
            Edge("good", "one", "context.get('score') > 90"),
            Edge("good", "two", "context.get('score') > 70"),
            Edge("good", "three", "context.get('score') > 100"),
        ],
    )
    assert gate.validate() == []
    async with engine_on(tmp_path, made, gate) as engine:
        assert await engine.client.execute(made) == "three"
        assert await engine.client.execute(gate, {"score": 10}) == "bad"
        handle = await engine.client.start(gate, {"score": 95})
        await handle.result("20s")
        steps = (await handle.query("graph"))["steps"]
        assert set(steps) == {"one", "two"}


async def test_a_condition_of_an_edge_sees_the_output_of_the_step_it_leaves(tmp_path: Path):
    graph = WorkflowDefinition(
        "after",
        steps=[*map(Give, ["a", "b", "c"])],
        edges=[Edge("a", "b", "context.prev == 'b'"), Edge("a", "c", "context.prev == 'a'")],
    )
    broken = WorkflowDefinition(
        "broken", steps=[Give("a"), Give("b")], edges=[Edge("a", "b", "context.prev.x == 1 &&")]
    )
    async with engine_on(tmp_path, graph) as engine:
        assert await engine.client.execute(graph) == "c"
        with pytest.raises(DefinitionError, match="Edge from 'a' to 'b': (.|\n)*Syntax error"):
            engine.register(broken)


@dataclass
class Order:
    total: int
    note: str | None = None


async def test_an_input_of_a_class_is_read_by_its_fields(tmp_path: Path):
    made = (
        flow("typed", input=Order)
        .choice("size", [("context.input.total > 10 && context.input.note == null", "large")])
        .end("large")
        .build()
    )
    async with engine_on(tmp_path, made) as engine:
        await engine.client.execute(made, Order(11))


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (
            "context.get('score') >= 80",
            r"\(null, int\); context.get\('score'\) at column 1 is missing: there is no 'score'",
        ),
        (
            "context.data.name + 1 == 2",
            r"_\+_\(string, int\); context.data.name at column 1 is string",
        ),
        (
            "1 == 1 && context.data.name.first == 'A'",
            "context.data.name.first at column 11 is missing: 'name' is string",
        ),
        ("context.data.name\n == 'Ada' && context.data.b", "line 2, column 14"),
        ("context.input.big > 1", "Integer value '1180591620717411303424' out of range"),
        ("context.data.name", r"gave 'Ada', not bool"),
    ],
)
async def test_what_cannot_be_evaluated_fails_the_step_with_text_place_and_types(
    tmp_path: Path, condition: str, says: str
):
    graph = deciding(condition)
    async with engine_on(tmp_path, graph) as engine:
        with pytest.raises(WorkflowFailed, match=says) as caught:
            await engine.client.execute(graph, {"name": "Ada", "big": 2**70})
        assert 'Step "decide" failed: condition ' in caught.value.message
        assert caught.value.kind == "Invalid"


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (
            "context.get('score' >= 80",
            f"line 1, column 26: Syntax error: missing ')' at '<EOF>'\n{CARET}",
        ),
        (
            "context.input.x > 1 &&\n context.y",
            "line 2, column 2: context has no 'y' (it has: input, prev, steps, data, metadata",
        ),
        ("context.prev == undefined", "line 1, column 17: undeclared reference to 'undefined'"),
        ("size(context.data)", "gives int, not bool"),
        ("'a' > 1 || context.prev", "no matching overload for '_>_'"),
    ],
)
def test_mistakes_in_expressions_are_found_when_it_is_built_with_line_column_and_caret(
    condition: str, says: str
):
    with pytest.raises(DefinitionError) as caught:
        flow("f").choice("which", [(condition, "end")]).end().build()
    assert "Step 'which': condition " in caught.value.message
    assert says in caught.value.message


def test_a_gateway_that_gives_no_name_is_a_mistake():
    for condition, says in [
        ("context.get('x') == 1", "gives bool, not string or list<string>"),
        ("approved", "names no context: it decides nothing"),
    ]:
        graph = WorkflowDefinition("g", steps=[ExclusiveGateway("gate", condition)])
        assert says in graph.validate()[0]


async def test_a_label_always_holds_and_the_validation_warns_of_it(tmp_path: Path):
    graph = deciding("approved")
    said = "Edge from 'decide' to 'way0': condition 'approved' is a label, which always holds"
    with pytest.warns(UserWarning, match="workflow 'deciding': Edge from") as caught:
        assert graph.validate() == []
    assert caught[0].filename == __file__
    assert [doubt.partition(":")[0] for doubt in graph.warnings()] == [said.partition(":")[0]]
    assert graph.warnings()[0].startswith(said)
    async with engine_on(tmp_path, graph) as engine:
        assert await engine.client.execute(graph) == "way0"


def test_the_builder_warns_of_labels_in_choices_and_branches():
    inner = branch("b").choice("c", [("fine", "end")]).end()
    with pytest.warns(UserWarning, match="Step 'p', branch 'b': Step 'c': condition 'fine'"):
        flow("f").parallel("p", [inner]).build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow("f").choice("c", [("context.prev == null", "end")]).end().build()


async def test_what_a_condition_gave_is_recorded_and_a_replay_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    graph = deciding("context.get('score') >= 80", "context.get('score') >= 70")
    waiting = WorkflowDefinition(
        "deciding",
        steps=[*graph.steps.values(), *flow("f").webhook("go").outline().steps.values()],
        edges=[*graph.edges, Edge("way1", "go")],
    )
    async with engine_on(tmp_path, waiting) as engine:
        handle = await engine.client.start(waiting, {"score": 75})
        recorded = [e.data for e in await events_of(handle, "side_effect_recorded")]
    assert [it["name"] for it in recorded] == ["decide -> way0", "decide -> way1"]
    assert [it["value"] for it in recorded] == [{"value": False}, {"value": True}]
    # Another library, say, that sees it otherwise.
    monkeypatch.setattr("perdure.expr.Expression.evaluate", lambda *_: True)
    async with engine_on(tmp_path, waiting) as engine:
        handle = engine.client.get(handle.id)
        await handle.send("go", "on")
        assert await handle.result("20s") == "on"
        assert (await handle.query("graph"))["steps"]["way1"] == "way1"


def test_without_the_extra_an_expression_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
):
    from perdure import expr

    expr._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "cel_expr_python.cel", None)
    with pytest.raises(DefinitionError, match=r"Step 'c': .*pip install 'perdure\[policy\]'"):
        flow("f").choice("c", [("context.get('never seen before')", "end")]).end().build()


def test_graphs_without_expressions_and_schemas_load_none_of_the_extras():
    code = (
        "import sys; from perdure.graph import flow\n"
        "flow('f').choice('c', [(lambda c: True, 'end')]).end().build()\n"
        "print(sorted({'cel_expr_python', 'jsonschema_rs', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asked_outside_of_a_run_an_expression_is_evaluated_at_once():
    context = SimpleNamespace(data={"score": 81}, current_step="decide")
    graph = deciding("context.get('score') > 80", "context.get('score') > 90")
    assert graph.get_next_steps("decide", context) == ["way0", "else"]
