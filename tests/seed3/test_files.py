"""Definitions that are written to files and read from them."""

from __future__ import annotations

import functools
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on
from tests.seed3 import shop

from perdure import Retry, activity
from perdure.errors import DefinitionError
from perdure.graph import (
    ConditionalGroup,
    Edge,
    ExclusiveGateway,
    InclusiveGateway,
    MilestoneStep,
    ParallelGateway,
    ParallelGroup,
    SequentialGroup,
    ThreadMerge,
    ThreadSplit,
    TimerStep,
    WebhookStep,
    WorkflowDefinition,
    branch,
    flow,
)

SHOP = "tests.seed3.shop"
ORDERING = f"""\
perdure: 1
name: ordering
version: 2.1.0
description: An order, from its check to its end.
input:
  type: object
  required: [id, total]
timeout: 1h
default_retry: {{max_attempts: 3, interval: 2s, retry_on: [Busy]}}
task_queue: orders
triggers: ['event:ordered']
steps:
  validate:
    kind: task
    handler: {SHOP}:validate
    output: {{type: object}}
    retry: {{max_attempts: 2}}
    timeout: 5s
    next: check
  check:
    kind: choice
    choices:
      - when: context.steps.validate.in_stock && context.get('total') > 0
        next: fulfil
    default: wait
  fulfil:
    kind: parallel
    on_error: wait-all
    branches:
      shipping:
        steps:
          ship: {{kind: task, handler: '{SHOP}:ship', input: '{SHOP}:as_order'}}
      resting:
        steps:
          rest: {{kind: wait, duration: 1ms, next: done}}
          done: {{kind: end, end: true}}
    next: each
  wait: {{kind: poll, check: '{SHOP}:look', interval: 1ms, timeout: 10m, next: each}}
  each:
    kind: map
    items: {SHOP}:items
    max_concurrent: 2
    branch:
      name: double
      steps:
        double: {{kind: task, handler: '{SHOP}:double'}}
    next: again
  again:
    kind: loop
    condition: size(context.steps.each) < 2
    target: each
    max_iterations: 3
    next: review
  review: {{kind: step, class: '{SHOP}:Review', with: {{limit: 3}}, next: threshold}}
  threshold: {{kind: step, class: '{SHOP}:Threshold', with: {{above: 4, names: [a]}}, next: sum}}
  sum: {{kind: pass, transform: '{SHOP}:summed', end: true}}
"""


def everything() -> WorkflowDefinition:
    """Return a definition with a step of each kind, and each option."""
    return (
        flow(
            "everything",
            "1.2.0",
            input=shop.Order,
            description="All of it.",
            task_queue="slow",
            triggers=("event:all",),
        )
        .timeout(timedelta(minutes=90))
        .default_retry(Retry(4, "250ms", 3.0, "1m", retry_on=["Busy"], non_retryable=["Bad"]))
        .task("first", shop.validate, input=shop.Order, output={"type": "object"})
        .task("mapped", shop.ship, input=shop.as_order, retry=Retry(2), timeout=1.5)
        .task("mail", job="send-mail", input=shop.items, output=shop.as_order)
        .choice("choose", [("context.prev == null", "static"), ("label", "made")], default="made")
        .pass_("static", result={"deep": [1, None, "ü"]}, next="wait")
        .pass_("made", transform=shop.summed)
        .wait("wait", timedelta(seconds=2))
        .wait("computed", shop.which)
        .webhook("hook", topic="paid", timeout="1d")
        .poll("poll", shop.look, interval="5s", timeout="10m", max_attempts=3, output=dict)
        .loop("loop", "context.steps.poll != 'seen'", "poll", interval="1s", timeout="1h")
        .parallel(
            "both", [branch("a").task("x", shop.look), branch("b").end()], on_error="wait-all"
        )
        .map("map", shop.double, items=shop.items, max_concurrent=2, on_error="wait-all")
        .subflow("child", "another", input=shop.as_order)
        .add(shop.Review(limit=7, retry=Retry(2), timeout="3s", join="each"))
        .add(shop.Threshold(4, names=["a"]))
        .add(SequentialGroup(shop.Review("one"), shop.Review("two"), name="then"))
        .add(
            ParallelGroup(
                shop.Review("d"), shop.Review("e"), name="beside", callback=shop.Review("f")
            )
        )
        .add(ConditionalGroup(shop.which, {"yes": shop.Review("y")}, name="either"))
        .block("block", branch("inner").task("in", shop.look, section="till"), section="all")
        .map("more", shop.double, enough=2, rest="run", more="further", finish="done")
        .deferred_choice("first-of", {"yes": "stop", "no": "ask"}, timeout="1d", late="stop")
        .human(
            "ask",
            title="Fine?",
            form=shop.Order,
            role="finance",
            due="2d",
            expires="never",
            on_reject="stop",
        )
        .human("ask-again", title=shop.which, form={"type": "object"}, assignee=shop.which)
        .end("stop", cancels_rest=True)
        .start_at("first")
        .build()
    )


def gates() -> WorkflowDefinition:
    steps = [
        ExclusiveGateway("which", "context.get('n') > 1 ? 'all' : 'some'"),
        ParallelGateway("all", branches=["a"]),
        InclusiveGateway("some"),
        TimerStep("a", "1s"),
        WebhookStep("b", topic="t"),
        shop.Route("route"),
        ThreadSplit("split", 3),
        ThreadMerge("merge", shop.three),
        MilestoneStep("stone", "a", "b", late="low", cancels=["a"]),
        shop.Review("low", description="Looks at it.", join=2),
    ]
    edges = [
        Edge("route", "low"),
        Edge("which", "some"),
        Edge("which", "all"),
        Edge("all", "b"),
        Edge("some", "b", "context.get('n') == 0"),
        Edge("a", "split"),
        Edge("split", "merge"),
        Edge("merge", "stone"),
        Edge("stone", "route"),
        Edge("b", "low", "approved"),
        Edge("some", "route"),
    ]
    return WorkflowDefinition("gates", steps=steps, edges=edges, terminal_steps={"low"})


@pytest.mark.filterwarnings("ignore:workflow .* is a label")
@pytest.mark.parametrize("make", [everything, gates])
def test_what_is_written_is_read_as_the_same(make: Any):
    made = make()
    data = made.to_dict()
    for read in (
        WorkflowDefinition.from_dict(data),
        WorkflowDefinition.from_json(made.to_json()),
        WorkflowDefinition.from_yaml(made.to_yaml()),
    ):
        assert read.to_dict() == data
        assert read.code == made.code
        assert read.default_retry == made.default_retry
        assert read.timeout == made.timeout
        assert (read.version, read.task_queue, read.triggers, read.description) == (
            made.version,
            made.task_queue,
            made.triggers,
            made.description,
        )
    again = {name: step.policy for name, step in read.steps.items()}
    assert again == {name: step.policy for name, step in made.steps.items()}


@pytest.mark.filterwarnings("ignore:workflow .* is a label")
def test_a_document_holds_what_was_given_and_no_defaults():
    steps = everything().to_dict()["steps"]
    assert steps["wait"] == {"kind": "wait", "duration": "2s", "next": "computed"}
    assert steps["computed"] == {"kind": "wait", "duration": f"{SHOP}:which", "next": "hook"}
    assert steps["choose"] == {
        "kind": "choice",
        "choices": [
            {"when": "context.prev == null", "next": "static"},
            {"when": "label", "next": "made"},
        ],
        "default": "made",
    }
    assert steps["review"] == {
        "kind": "step",
        "class": f"{SHOP}:Review",
        "with": {"limit": 7, "retry": {"max_attempts": 2}, "timeout": "3s", "join": "each"},
        "next": "threshold",
    }
    assert steps["stop"] == {"kind": "end", "cancels_rest": True, "end": True}
    some = gates().to_dict()["steps"]["some"]["next"]
    assert some == [{"to": "b", "when": "context.get('n') == 0"}, "route"]


async def test_a_definition_of_a_file_runs(tmp_path: Path):
    file = tmp_path / "ordering.yaml"
    file.write_text(ORDERING, encoding="utf-8")
    ordering = WorkflowDefinition.from_yaml(file)
    async with engine_on(tmp_path, ordering, task_queues=("orders",)) as engine:
        for total, way in ((50, "fulfil"), (500, "wait")):
            result = await engine.client.execute(ordering, {"id": "A-1", "total": total})
            assert result["steps"] == sorted(["validate", way, "each", "review", "threshold"]) or (
                set(result["steps"]) >= {"validate", way, "each", "review", "threshold"}
            )


async def test_an_activity_may_be_a_handler(tmp_path: Path):
    assert isinstance(charge, activity.Activity)
    made = flow("pays").task("charge", charge).build()
    read = WorkflowDefinition.from_dict(made.to_dict())
    async with engine_on(tmp_path, read) as engine:
        assert await engine.client.execute(read, 4) == 5


@activity.define
async def charge(cents: int) -> int:
    return cents + 1


class Holder:
    def method(self) -> None: ...


def test_what_has_no_name_is_refused_with_its_step_and_what_to_do():
    def inner() -> None: ...

    made = (
        flow("nameless")
        .task("a", lambda: 1)
        .task("b", inner)
        .task("c", functools.partial(shop.double, 1))
        .task("d", shop.double, input=list[int])
        .choice("e", [(lambda c: True, "f"), (shop.which, "f")], default="f")
        .parallel("f", [branch("x").pass_("g", transform=lambda c: 1)])
        .pass_("h", result={1: "one"})
        .pass_("i", result={"when": timedelta(1)})
        .task("j", Holder().method)
        .build()
    )
    with pytest.raises(DefinitionError) as caught:
        made.to_dict()
    first, *found = caught.value.message.split("\n  - ")
    assert first == "workflow 'nameless' cannot be written to a file:"
    said = [
        f"steps.a.handler: a lambda ({__file__}:",
        "has no name; write it as a function of a module (def …)",
        f"steps.b.handler: 'inner' ({__file__}:",
        "stands within a function; move it to the top of its module",
        "steps.c.handler: functools.partial(",
        "steps.d.input: ",
        "steps.e.choices[0].when: the function",
        "cannot be written; write the condition as CEL",
        "steps.e.choices[1].when: the function 'which' cannot be written",
        "steps.f.branches.x.steps.g.transform: a lambda",
        "steps.h.result: the keys of a JSON object are text",
        "steps.i.result.when: datetime.timedelta(days=1) is no JSON value",
        "steps.j.handler: ",
    ]
    text = "\n".join(found)
    assert [it for it in said if it not in text] == []
    assert len(found) == 10


def test_a_function_that_its_name_does_not_find_is_refused(monkeypatch: pytest.MonkeyPatch):
    made = flow("f").task("a", shop.double).build()
    monkeypatch.setattr(shop, "double", shop.ship)
    with pytest.raises(DefinitionError, match="is another object than the one that is used here"):
        made.to_dict()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("perdure: 1", "perdure: 2", "line 1: perdure: the version of the format is 2"),
        ("perdure: 1\n", "", "the version of the format is missing; write `perdure: 1`"),
        ("timeout: 1h", "timout: 1h", "line 8: timout: unknown key; did you mean 'timeout'?"),
        ("version: 2.1.0", "version: 2.1", "line 3: version: 2.1 is no text; write it in quotes"),
        (
            "    handler: tests.seed3.shop:validate",
            "    handle: tests.seed3.shop:validate",
            "line 15: steps.validate.handle: unknown key; did you mean 'handler'?",
        ),
        (
            "shop:validate",
            "shop:valdate",
            "line 15: steps.validate.handler: module 'tests.seed3.shop' has no 'valdate'; did",
        ),
        (
            "tests.seed3.shop:validate",
            "tests.seed3.shp:validate",
            "there is no module 'tests.seed3.shp'; did you mean 'tests.seed3.shop'?",
        ),
        ("shop:validate", "shop:number", "'tests.seed3.shop:number' is 7, no function"),
        ("shop:validate", "shop.validate", "'tests.seed3.shop.validate' is no name"),
        ("kind: choice", "kind: chioce", "'chioce' is no kind of step; did you mean 'choice'?"),
        ("    kind: choice\n", "", "line 20: steps.check: 'kind' is missing (there are: block,"),
        (
            "timeout: 5s",
            "timeout: soon",
            "line 18: steps.validate.timeout: duration: 'soon' is not",
        ),
        ("max_attempts: 2}", "max_atempts: 2}", "max_atempts: unknown key; did you mean 'max_a"),
        ("max_attempts: 2}", "max_attempts: -2}", "max_attempts=-2 must be a whole number from 0"),
        (
            "    next: check",
            "    next: chekc",
            "leads to 'chekc', which is no step; did you mean 'check'",
        ),
        ("    next: check", "    next: {to: check, wen: x}", "next.wen: unknown key; did you mean"),
        ("      - when: ", "      - wen: ", "choices[0].wen: unknown key; did you mean 'when'?"),
        ("shop:Review'", "shop:not_a_step'", "'tests.seed3.shop:not_a_step' is no class of steps"),
        ("{limit: 3}", "{limt: 3}", "steps.review.with.limt: unknown key; did you mean 'limit'?"),
        ("{above: 4, ", "{", "steps.threshold.with: 'above' is missing"),
        ("  threshold: {kind", "  thresh: {kind", "Threshold names itself 'threshold'"),
        ("condition: size", "condition: sise", "undeclared reference"),
        ("required: [id", "required: id #", "the JSON Schema is wrong: schema.required"),
        ("end: true}\n", "end: maybe}\n", "end: 'maybe' is neither true nor false"),
    ],
)
def test_mistakes_are_told_with_the_line_and_the_nearest_name(
    tmp_path: Path, old: str, new: str, says: str
):
    assert old in ORDERING
    file = tmp_path / "ordering.yaml"
    file.write_text(ORDERING.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DefinitionError) as caught:
        WorkflowDefinition.from_yaml(file)
    assert says in caught.value.message
    assert str(file) in caught.value.message


def test_all_mistakes_of_a_document_are_told_at_once_by_their_paths():
    data = {
        "perdure": 1,
        "nam": "x",
        "steps": {
            "a": {"kind": "task", "handler": f"{SHOP}:nope", "next": 7},
            "b": {"kind": "wait"},
            "c": [],
            "d": {"kind": "parallel", "branches": {"x": {"steps": {"e": {"kind": "none"}}}}},
            "f": {"kind": "choice", "choices": [["context.x", "a"]]},
        },
    }
    with pytest.raises(DefinitionError) as caught:
        WorkflowDefinition.from_dict(data)
    first, *found = caught.value.message.split("\n  - ")
    assert first == "the definition cannot be read:"
    assert [it.partition(": ")[0] for it in found] == [
        "'name' is missing",
        "nam",
        "steps.a.next",
        "steps.a.handler",
        "steps.c",
        "steps.d.branches.x.steps.e.kind",
        "steps.f.choices[0]",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "line 2: the key 'a' stands twice"),
        ("a: [1", "line 1, column 6: not YAML: expected ',' or ']'"),
        (
            "a: !!python/object:os.system {}",
            "line 1: the tag 'tag:yaml.org,2002:python/object:os.s",
        ),
        ("a: !mine 1", "line 1: the tag '!mine' is not known here"),
        ("a: &x [*x]", "line 1: this is too large, or refers to itself"),
        ("? [a, b]\n: 1", "line 1: a key is text"),
        ("perdure: 1\n--- \nb: 2", "not YAML: but found another document"),
        ("- a", "this is no definition"),
        ("", "this is no definition"),
    ],
)
def test_texts_that_are_no_definition_are_refused(text: str, says: str):
    with pytest.raises(DefinitionError) as caught:
        WorkflowDefinition.from_yaml(text)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("{", "line 1, column 2: not JSON"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff", "this is not UTF-8 text"),
        (Path("nowhere.json"), "nowhere.json: cannot be read: No such file"),
    ],
)
def test_json_that_is_no_definition_is_refused(text: Any, says: str):
    with pytest.raises(DefinitionError) as caught:
        WorkflowDefinition.from_json(text)
    assert says in caught.value.message


def test_reading_runs_nothing_but_the_imports_and_the_step_classes_it_names():
    data = {
        "perdure": 1,
        "name": "x",
        "steps": {"a": {"kind": "step", "class": "subprocess:Popen", "with": {"args": ["true"]}}},
    }
    with pytest.raises(DefinitionError, match="'subprocess:Popen' is no class of steps"):
        WorkflowDefinition.from_dict(data)


def test_a_module_that_cannot_be_imported_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "broken_shop.py").write_text("import not_there_at_all\n")
    (tmp_path / "raising_shop.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    steps = {
        "a": {"kind": "task", "handler": "broken_shop:f", "next": "b"},
        "b": {"kind": "task", "handler": "raising_shop:f"},
    }
    with pytest.raises(DefinitionError) as caught:
        WorkflowDefinition.from_dict({"perdure": 1, "name": "x", "steps": steps})
    assert "module 'broken_shop' cannot be imported: No module named 'not_there" in str(
        caught.value
    )
    assert "module 'raising_shop' cannot be imported: ZeroDivisionError" in str(caught.value)


def test_without_the_extra_yaml_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(DefinitionError, match=r"pip install 'perdure\[yaml\]'"):
        WorkflowDefinition.from_yaml("perdure: 1")
