"""Values that are computed once: a replay reads them, whatever the code would compute then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.drive import Run

from perdure import errors, workflow
from perdure.kernel import traps
from perdure.kernel.recording import recorded
from perdure.values import events as ev
from perdure.workflow import call

said: list[bytes] = []


def counted() -> bytes:
    said.append(b"%d" % (len(said) + 1))
    return said[-1]


def ask(name: str, compute: Callable[[], bytes] = counted) -> str:
    return recorded(traps.here(), name, compute).decode()


@pytest.fixture(autouse=True)
def _clean():
    said.clear()


@workflow.define(name="asking")
async def asking():
    first = [ask("a"), ask("b"), ask("a")]
    await call("step")
    return [*first, ask("a")]


def test_a_replay_reads_each_value_in_the_order_in_which_its_name_was_asked():
    run = Run(asking)
    assert run.asked[:3] == [
        "side_effect_recorded 'a'",
        "side_effect_recorded 'b'",
        "side_effect_recorded 'a'",
    ]
    said.clear()
    run.complete("step")
    assert run.result == ["1", "2", "3", "1"]
    assert said == [b"1"], "the live turn alone has computed anything"
    said[:] = [b"other"] * 10
    replayed = run.replayed().closed
    assert isinstance(replayed, ev.RunCompleted)
    assert replayed.result == b'["1","2","3","1"]'


def test_code_may_stop_asking_and_may_ask_anew_while_runs_are_under_way():
    @workflow.define(name="asking")
    async def changed():
        first = [ask("b"), ask("new", lambda: b"computed")]
        await call("step")
        return first

    run = Run(asking)
    run.instance.evict()
    run.instance, run.program = run.replayed(changed), changed
    run.complete("step")
    assert run.result == ["2", "computed"]


def test_a_query_may_not_record():
    @workflow.define
    async def curious():
        @workflow.query("q")
        def _() -> str:
            return ask("a")

        await call("step")

    run = Run(curious)
    with pytest.raises(errors.UsageError, match="may not record a value"):
        run.query("q")
