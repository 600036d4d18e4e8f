"""Workflow definitions: names, versions, inputs, and the fingerprint of the code."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import errors, workflow
from perdure.definition import Workflow, fingerprint, version_key


@dataclass
class Order:
    number: int


@workflow.define
async def fulfil(order: Order) -> Order:
    """Fulfil an order."""
    return order


def test_a_definition_takes_its_name_and_text_from_the_function():
    assert (fulfil.name, fulfil.version, fulfil.task_queue) == ("fulfil", "1.0.0", "default")
    assert fulfil.description == fulfil.__doc__ == "Fulfil an order."
    assert fulfil.__wrapped__ is fulfil.fn
    assert "async def fulfil" in fulfil.source
    assert repr(fulfil) == "<workflow 'fulfil' 1.0.0>"


def test_options_are_kept():
    made = workflow.define(
        name="orders.fulfil",
        version="2.1.0",
        task_queue="fast",
        triggers=("event:paid",),
        description="d",
    )(fulfil.fn)
    assert (made.name, made.version, made.task_queue) == ("orders.fulfil", "2.1.0", "fast")
    assert (made.triggers, made.description) == (("event:paid",), "d")


def test_calling_a_definition_is_calling_its_function():
    coro = fulfil(Order(3))
    with pytest.raises(StopIteration) as ended:
        coro.send(None)
    assert ended.value.value == Order(3)


def plain():
    """Not a coroutine function."""


async def two(a, b):
    """Too many inputs."""


async def starred(*a):
    """No single input."""


async def keyword(*, a=1):
    """No positional input."""


@pytest.mark.parametrize(
    ("fn", "options", "why"),
    [
        (plain, {}, "a workflow is an async function"),
        (two, {}, "takes one input or none; put several values in a dataclass"),
        (starred, {}, "takes one input or none"),
        (keyword, {}, "takes one input or none"),
        (fulfil.fn, {"name": "a b"}, "visible characters"),
        (fulfil.fn, {"name": "x" * 201}, "visible characters"),
        (fulfil.fn, {"version": "one"}, "is not like '1.2.0'"),
        (fulfil.fn, {"version": "1.2.3.4"}, "is not like '1.2.0'"),
    ],
)
def test_what_cannot_be_a_workflow_is_refused_with_its_place(fn, options, why):
    with pytest.raises(errors.DefinitionError, match=why) as caught:
        workflow.define(**options)(fn)
    assert f"({fn.__module__}.{fn.__qualname__})" in str(caught.value)


@workflow.define
async def without() -> None:
    """Takes nothing."""


@workflow.define
async def with_default(order: Order = Order(9)) -> int:  # noqa: B008 - as users write it
    return order.number


def test_input_is_checked_against_the_annotation():
    fulfil.check_input(b'{"number":1}')
    with pytest.raises(errors.Invalid, match=r"fulfil\(order\): Expected `int`.*`order.number`"):
        fulfil.check_input(b'{"number":"x"}')
    with pytest.raises(errors.Invalid, match="got `null`"):
        fulfil.check_input(b"null")


def test_a_workflow_without_input_takes_none():
    without.check_input(b"null")
    with pytest.raises(errors.Invalid, match="without: takes no input"):
        without.check_input(b"1")
    without.begin(b"null").close()


def test_no_input_means_the_default():
    with_default.check_input(b"null")
    with pytest.raises(StopIteration) as ended:
        with_default.begin(b"null").send(None)
    assert ended.value.value == 9


@pytest.mark.parametrize(
    "ordered",
    [
        ["1", "1.0.1", "1.2", "1.10.0", "2.0.0"],
        ["1.0.0-alpha", "1.0.0-beta", "1.0.0"],
        ["0.9", "1.0.0-rc.1", "1.0"],
    ],
)
def test_versions_sort_semantically(ordered):
    assert sorted(reversed(ordered), key=version_key) == ordered


@given(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)))
def test_a_version_has_three_numbers(numbers):
    assert version_key(".".join(map(str, numbers)))[:3] == numbers


def code(text: str) -> str:
    return fingerprint(text, plain)


BASE = "async def wf(x):\n    await step(x)\n    return 1\n"


@pytest.mark.parametrize(
    "text",
    [
        "async def wf(x):\n    # a comment\n    await step(x)\n\n    return 1  # another\n",
        'async def wf(x):\n    """A docstring."""\n    await step(x)\n    return 1\n',
        "@define(version='2')\nasync def wf(x):\n    await step(\n    x,\n    )\n    return 1\n",
    ],
    ids=["comments", "docstring", "layout and decorators"],
)
def test_comments_docstrings_and_layout_do_not_change_the_fingerprint(text):
    assert code(text) == code(BASE)


@pytest.mark.parametrize(
    "text",
    [
        BASE.replace("return 1", "return 2"),
        BASE.replace("step(x)", "step(x, 1)"),
        BASE.replace("    return 1\n", ""),
        BASE.replace("await step(x)", "await other(x)"),
    ],
)
def test_what_the_code_does_changes_the_fingerprint(text):
    assert code(text) != code(BASE)


def test_the_fingerprint_is_pinned_for_every_python():
    text = (
        "async def wf(x: 'O' = None, *a, k=1, **kw) -> int:\n"
        '    y = f"{x[\'a\']!r:>{k}} it\'s \\"q\\" {a}"\n'
        "    z = x[1:2, *a]\n"
        "    for i in 1, 2: pass\n"
        "    async with open(x) as q, open(y): pass\n"
        "    try: pass\n"
        "    except* ValueError as e: z = lambda: (yield)\n"
        "    match x:\n"
        "        case {'a': 1, **r}: pass\n"
        "        case [1, *_] | None: pass\n"
        "    return {**kw, 'a': 1e400, 'b': 1j}, (1,), -x ** -2, not (a and b), x if y else z\n"
    )
    assert code(text) == "ee2d5cfd4ccaa75b"


def test_without_source_there_is_a_fingerprint_all_the_same():
    namespace: dict = {}
    exec("async def wf():\n    return 1\n", namespace)
    made = Workflow(namespace["wf"])
    assert made.source == ""
    assert len(made.code) == 16
