"""`perdure graph`, and definition files where a module is asked for."""

from __future__ import annotations

import pytest
from tests.cli.shell import Shell

SHOP = """
from perdure import workflow
from perdure.graph import branch, flow

def check(order, ctx):
    return {"total": order["total"]}

def fail(_):
    raise ValueError("no stock")

order = (
    flow("order")
    .task("check", check)
    .choice("large", [("context.prev.total > 10", "ask")], default="ship")
    .webhook("ask", next="ship")
    .task("ship", fail)
    .build()
)

@workflow.define
async def plain() -> None: ...
"""
FLOW = """\
perdure: 1
name: doubling
steps:
  double: {kind: task, handler: 'handlers:double', next: rest}
  rest: {kind: wait, duration: 1ms, next: large}
  large:
    kind: choice
    choices: [{when: context.prev > 10, next: end}]
    default: double
  end: {kind: end, end: true}
"""
DIAGRAM = """\
graph TD
    double[START: Double]
    rest([Rest])
    large{Large}
    end_[END: End]
    double --> rest
    rest --> large
    large -->|context.prev #gt; 10| end_
    large -->|default| double"""


@pytest.fixture
def code(shell: Shell) -> Shell:
    (shell.folder / "shop.py").write_text(SHOP)
    (shell.folder / "flow.yaml").write_text(FLOW)
    (shell.folder / "handlers.py").write_text("def double(number):\n    return 2 * number\n")
    return shell


def test_a_graph_of_a_module_is_drawn(code: Shell):
    for target in ("shop:order", "shop.py:order"):
        lines = code.ok("graph", target).lines
        assert lines[0] == "graph TD"
        assert "    check[START: Check]" in lines
        assert "    large -->|context.prev.total #gt; 10| ask" in lines


def test_json_gives_nodes_and_edges(code: Shell):
    graph = code.ok("graph", "shop:order", "-o", "json").json
    assert graph["nodes"][1] == {
        "id": "large",
        "label": "Large",
        "type": "gateway",
        "is_initial": False,
        "is_terminal": False,
    }
    assert graph["edges"] == [
        {"source": "check", "target": "large"},
        {"source": "ask", "target": "ship"},
        {"source": "large", "target": "ask", "condition": "context.prev.total > 10"},
        {"source": "large", "target": "ship", "condition": "default"},
    ]


def test_the_state_of_a_run_needs_no_worker(code: Shell):
    with code.worker("shop.py"):
        code.ok("start", "order", '{"total": 11}', "--id", "waits")
        code.ok("start", "order", '{"total": 1}', "--id", "fails")
        code.ok("start", "plain", "--id", "other")
        code("result", "fails")
        code.until(lambda: code.status("waits") == "waiting")
    waits = code.ok("graph", "shop:order", "--run", "waits").lines
    assert [line.split(",")[0] for line in waits if "style" in line] == [
        "    style check fill:#90EE90",
        "    style large fill:#90EE90",
        "    style ask fill:#FFD700",
    ]
    fails = code.ok("graph", "shop:order", "--run", "fails", "-o", "json").json
    assert fails["state"] == {
        "current": [],
        "completed": ["check", "large"],
        "failed": ["ship"],
        "skipped": ["ask"],
    }
    drawn = code.ok("graph", "shop:order", "--run", "fails").lines
    assert [line.split(",")[0] for line in drawn if "style ask" in line] == [
        "    style ask fill:#F5F5F5"
    ]
    other = code("graph", "shop:order", "--run", "other")
    assert (other.code, other.out) == (2, "")
    assert "'other' is a run of 'plain', not of 'order'" in other.err
    (code.folder / "shop.py").write_text(SHOP.replace(".webhook(", ".wait('x', '1h').webhook("))
    changed = code("graph", "shop:order", "--run", "waits")
    assert (changed.code, changed.out) == (2, "")


def test_what_is_no_graph_is_told(code: Shell):
    done = code("graph", "shop:plain")
    assert done.code == 2
    assert "'plain' is a function" in done.err


def test_a_definition_file_is_drawn_served_run_and_checked(code: Shell):
    assert code.ok("graph", "flow.yaml").out.rstrip() == DIAGRAM
    assert code.ok("run", "flow.yaml", "3").out == "12\n"
    assert code.ok("run", "flow.yaml:doubling", "30").out == "60\n"
    code.ok("lint", "flow.yaml")
    with code.worker("flow.yaml"):
        code.ok("start", "doubling", "4", "--id", "w")
        assert code.ok("result", "w", "--timeout", "20s").out == "16\n"
    code.ok("check", "flow.yaml")


def test_mistakes_in_a_definition_file_are_told_with_its_line(code: Shell):
    (code.folder / "flow.yaml").write_text(FLOW.replace("handler:", "handle:"))
    done = code("dev", "flow.yaml")
    assert done.code == 2
    assert (
        "flow.yaml, line 4: steps.double.handle: unknown key; did you mean 'handler'?" in done.err
    )
    missing = code("graph", "nowhere.yaml")
    assert (missing.code, "nowhere.yaml: cannot be read: No such file" in missing.err) == (2, True)


def test_mistakes_of_a_file_stand_each_in_a_line(code: Shell):
    wrong = FLOW.replace("default: double", "default: dubble").replace("next: rest", "next: rust")
    (code.folder / "flow.yaml").write_text(wrong)
    said = code("graph", "flow.yaml").err.splitlines()
    assert said[0].startswith("error: ")
    assert [line for line in said if line.startswith("  - ") and "did you mean 'double'?" in line]
    assert len(said) > 2


def test_show_says_a_failed_steps_message_once(code: Shell):
    done = code("run", "shop:order", "total=1", "--id", "o-1")
    assert done.code == 1
    [error] = [it for it in code.ok("show", "o-1").out.splitlines() if it.startswith("  error")]
    assert error.split(maxsplit=1)[1] == (
        'Step "ship" failed: no stock ← ValueError: no stock (shop.py:9)'
    )


def test_show_says_a_reason_once_that_has_no_place(code: Shell):
    (code.folder / "asks.py").write_text(
        "from perdure.graph import branch, flow\n"
        'inner = branch("x").human("decide", title="?", expires="1ms")\n'
        'asking = flow("asking").parallel("both", [inner]).build()\n'
    )
    assert code("run", "asks:asking", "--id", "a-1").code == 1
    [error] = [it for it in code.ok("show", "a-1").out.splitlines() if it.startswith("  error")]
    assert error.count("expired") == 1


def test_a_class_that_describes_a_workflow_is_drawn_too(shell: Shell):
    (shell.folder / "greeting.py").write_text(
        "from perdure.graph import BaseHumanStep, Workflow\n\n"
        "class Ask(BaseHumanStep):\n    name = 'ask'\n\n"
        "class Greeting(Workflow):\n    name = 'greeting'\n    steps = (Ask,)\n"
    )
    for target in ("greeting:Greeting", "greeting"):
        assert shell.ok("graph", target).out.strip() == "graph TD\n    ask{{START: Ask}}"
