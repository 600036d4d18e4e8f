"""However a schedule is looked at, each of its ticks is dealt with once, in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.values.test_firing import Played

from perdure.values.schedules import Overlap, Spec, ticks_after

S = 1_000_000

specs = st.builds(
    Spec,
    every=st.integers(1, 20).map(lambda n: n * S),
    overlap=st.sampled_from(list(Overlap)),
    catch_up=st.integers(0, 60).map(lambda n: n * S),
    jitter=st.integers(0, 30).map(lambda n: n * S),
    max_executions=st.integers(0, 9),
)
steps = st.lists(st.tuples(st.integers(0, 40 * S), st.booleans()), max_size=25)


@given(specs, steps)
def test_each_tick_begins_waits_is_skipped_or_is_missed_exactly_once(
    spec: Spec, steps: list[tuple[int, bool]]
):
    one, now = Played(spec), 0
    for pause, is_over in steps:
        now += pause
        if is_over:
            one.open.clear()
        look = one.look(now)
        following = look.next_at()
        while following is not None and following <= now:
            look = one.look(now)
            following = look.next_at()
        assert look.waits_for() is None or look.waits_for() in one.open
    standing = one.standing
    waiting = len(standing.buffer)
    dealt = standing.fired + standing.skipped + standing.missed + waiting
    ticks = [tick for tick, _ in zip(ticks_after(spec, 0), range(dealt), strict=False)]
    assert standing.done == (ticks[-1] if ticks else 0)
    assert sorted(set(one.begun)) == sorted(one.begun)
    assert set(one.begun) <= set(ticks)
    if spec.max_executions:
        assert standing.counted + waiting <= spec.max_executions


@given(specs, steps)
def test_only_where_it_is_allowed_two_are_open_together(spec: Spec, steps: list[tuple[int, bool]]):
    one, now = Played(spec), 0
    for pause, is_over in steps:
        now += pause
        if is_over:
            one.open.clear()
        one.look(now)
        assert spec.overlap is Overlap.ALLOW or len(one.open) <= 1
