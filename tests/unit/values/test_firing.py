"""What a look at a schedule does: the policies, table by table."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.values.firing import (
    MOST_STARTS,
    MOST_TICKS,
    Backfill,
    Begun,
    Look,
    Standing,
    Waiting,
)
from perdure.values.schedules import DAY, Overlap, Spec

S = 1_000_000


class Played:
    """A schedule that is looked at as a store would; executions are numbers."""

    def __init__(self, spec: Spec, now: int = 0) -> None:
        self.spec, self.standing = spec, Standing(done=now)
        self.open: set[int] = set()
        self.begun: list[int] = []
        self.looks: Look
        self.refuses = False

    def look(self, now: int, *, is_paused: bool = False, there: Any = (), trigger: Any = None):
        look = self.looks = Look(
            "default/s",
            self.spec,
            self.standing,
            set(self.open),
            now,
            is_paused=is_paused,
            there=there,
        )
        if trigger is None:
            look.take()
        else:
            look.trigger(trigger)
        for start in list(look.starts):
            if self.refuses:
                look.refused(start, "full")
                continue
            execution = len(self.begun) + 1
            self.begun.append(start.tick)
            self.open.add(execution)
            ids = f"s-{start.tick}", f"r-{start.tick}", execution
            look.begun(start, Begun(start.tick, now, *ids, start.by))
        return look

    def passed(self, what: str) -> int:
        return sum(one.number for one in self.looks.passed if one.what == what)


def every(seconds: int = 10, **more: Any) -> Spec:
    return Spec(every=seconds * S, **more)


def test_nothing_is_due_before_its_time():
    one = Played(every())
    look = one.look(10 * S - 1)
    assert (one.begun, look.next_at(), look.waits_for()) == ([], 10 * S, None)


def test_a_tick_begins_once():
    one = Played(every())
    assert one.look(10 * S).next_at() == 20 * S
    one.look(10 * S)
    one.look(11 * S)
    assert one.begun == [10 * S]


@pytest.mark.parametrize(
    ("overlap", "begun", "skipped", "buffered"),
    [
        (Overlap.SKIP, [10], 3, 0),
        (Overlap.BUFFER_ONE, [10], 2, 1),
        (Overlap.BUFFER_ALL, [10], 0, 3),
        (Overlap.ALLOW, [10, 20, 30, 40], 0, 0),
    ],
)
def test_what_comes_while_one_is_open(
    overlap: Overlap, begun: list[int], skipped: int, buffered: int
):
    one = Played(every(overlap=overlap))
    for now in (10, 20, 30, 40):
        one.look(now * S)
    assert one.begun == [tick * S for tick in begun]
    assert (one.standing.skipped, len(one.standing.buffer)) == (skipped, buffered)
    assert one.standing.fired == len(begun)


def test_what_waits_begins_in_order_when_the_one_before_has_ended():
    one = Played(every(overlap=Overlap.BUFFER_ALL))
    for now in (10, 20, 30):
        look = one.look(now * S)
    assert look.waits_for() == 1
    one.open.clear()
    look = one.look(31 * S)
    assert (one.begun, look.waits_for(), look.next_at()) == ([10 * S, 20 * S], 2, 40 * S)
    one.open.clear()
    look = one.look(32 * S)
    assert (one.begun, look.waits_for()) == ([10 * S, 20 * S, 30 * S], None)


@pytest.mark.parametrize("overlap", [Overlap.CANCEL_OTHER, Overlap.TERMINATE_OTHER])
def test_the_other_is_asked_to_end_once_and_the_newest_tick_follows_it(overlap: Overlap):
    one = Played(every(overlap=overlap))
    one.look(10 * S)
    assert one.look(20 * S).stops == {1: overlap}
    assert one.begun == [10 * S]
    look = one.look(30 * S)
    assert (look.stops, one.passed("skipped"), look.waits_for()) == ({}, 1, 1)
    one.open.clear()
    one.look(31 * S)
    assert one.begun == [10 * S, 30 * S]


def test_late_ticks_that_would_end_each_other_do_not_begin():
    one = Played(every(overlap=Overlap.CANCEL_OTHER))
    one.look(45 * S)
    assert (one.begun, one.standing.skipped) == ([40 * S], 3)


def test_late_ticks_begin_in_order_where_they_may_overlap():
    one = Played(every(overlap=Overlap.ALLOW))
    one.look(45 * S)
    assert one.begun == [10 * S, 20 * S, 30 * S, 40 * S]


def test_what_is_too_late_is_missed():
    one = Played(every(overlap=Overlap.ALLOW, catch_up=15 * S))
    look = one.look(45 * S)
    assert one.begun == [30 * S, 40 * S]
    (missed,) = look.passed
    assert (missed.what, missed.number, missed.first, missed.last) == ("missed", 2, 10 * S, 20 * S)
    assert "15 s late" in missed.why


def test_without_a_window_only_what_is_on_time_begins():
    one = Played(every(catch_up=0))
    one.look(10 * S + 1)
    assert (one.begun, one.standing.missed) == ([], 1)
    one.look(20 * S)
    assert one.begun == [20 * S]


def test_millions_of_missed_ticks_are_counted_at_once():
    year = 365 * DAY
    one = Played(Spec(every=S, catch_up=10 * S))
    looks = 1
    while (look := one.look(year)).next_at() == year:
        looks += 1
    assert look.next_at() == year + S
    assert one.standing.missed == year // S - 11
    assert looks <= 2
    assert one.standing.fired == 1
    assert one.standing.skipped == 10


def test_a_look_is_bounded_and_the_next_follows_at_once():
    one = Played(Spec(every=S, overlap=Overlap.ALLOW))
    look = one.look(250 * S)
    assert (len(one.begun), look.next_at()) == (MOST_STARTS, 101 * S)
    one.look(250 * S)
    assert one.look(250 * S).next_at() == 251 * S
    assert one.begun == [tick * S for tick in range(1, 251)]
    skips = Played(Spec(cron="* * * * *"))
    assert skips.look(700 * 60 * S).next_at() == 60 * S * (MOST_TICKS + 1)
    skips.look(700 * 60 * S)
    assert (skips.standing.fired, skips.standing.skipped) == (1, 699)


def test_limits_end_a_schedule_and_it_says_so():
    one = Played(every(max_executions=2, overlap=Overlap.ALLOW))
    one.look(20 * S)
    look = one.look(50 * S)
    assert (look.next_at(), one.standing.finished) == (None, "max_executions")
    assert one.begun == [10 * S, 20 * S]
    over = Played(every(end=15 * S))
    assert (over.look(12 * S).next_at(), over.standing.finished) == (None, "end")
    once = Played(Spec(at=15 * S))
    assert (once.look(16 * S).next_at(), once.standing.finished) == (None, "at")


def test_what_waits_counts_against_the_limit_and_is_not_finished():
    one = Played(every(max_executions=2, overlap=Overlap.BUFFER_ALL))
    one.look(10 * S)
    look = one.look(45 * S)
    assert (look.next_at(), look.waits_for(), one.standing.finished) == (None, 1, "")
    one.open.clear()
    look = one.look(46 * S)
    assert (one.begun, look.next_at()) == ([10 * S, 20 * S], None)
    assert one.standing.finished == "max_executions"


def test_a_pause_holds_the_clock_and_what_waits():
    one = Played(every(overlap=Overlap.BUFFER_ONE))
    one.look(10 * S)
    one.look(20 * S)
    one.open.clear()
    look = one.look(30 * S, is_paused=True)
    assert (one.begun, look.next_at(), look.waits_for()) == ([10 * S], None, None)


def test_a_trigger_begins_at_once_and_two_at_one_moment_are_two():
    one = Played(every(overlap=Overlap.ALLOW))
    one.look(5 * S, trigger=Overlap.ALLOW)
    one.look(5 * S, trigger=Overlap.ALLOW)
    assert one.begun == [5 * S, 5 * S + 1]
    assert one.standing.counted == 0


def test_a_trigger_obeys_its_policy():
    one = Played(every())
    one.look(10 * S)
    one.look(11 * S, trigger=Overlap.SKIP)
    assert (one.begun, one.passed("skipped")) == ([10 * S], 1)
    look = one.look(12 * S, trigger=Overlap.TERMINATE_OTHER)
    assert look.stops == {1: Overlap.TERMINATE_OTHER}
    one.open.clear()
    one.look(13 * S)
    assert one.begun == [10 * S, 12 * S]


def test_one_that_began_in_the_same_look_is_asked_to_end_by_the_next():
    one = Played(every(overlap=Overlap.CANCEL_OTHER))
    one.standing.buffer = [Waiting(1)]
    look = one.look(10 * S)
    assert (one.begun, look.stops, look.next_at()) == ([1], {}, 10 * S)
    assert one.look(10 * S).stops == {1: Overlap.CANCEL_OTHER}


def test_a_backfill_goes_one_by_one_and_passes_what_is_there():
    one = Played(every(), now=100 * S)
    one.standing.backfills = [Backfill(10 * S, 50 * S, Overlap.BUFFER_ALL)]
    look = one.look(101 * S, there={20 * S})
    assert (one.begun, look.waits_for()) == ([10 * S], 1)
    for now in (102, 103):
        one.open.clear()
        one.look(now * S, there={20 * S})
    assert one.begun == [10 * S, 30 * S, 40 * S]
    one.open.clear()
    look = one.look(104 * S)
    assert (one.standing.backfills, look.next_at()) == ([], 110 * S)
    assert one.standing.counted == 0


def test_a_backfill_that_may_overlap_is_bounded_by_the_look():
    one = Played(Spec(every=S), now=1_000 * S)
    one.standing.backfills = [Backfill(0, 250 * S, Overlap.ALLOW)]
    looks = 0
    while one.standing.backfills:
        one.look(1_000 * S)
        looks += 1
    assert (len(one.begun), looks) == (250, 3)


def test_a_start_that_is_refused_is_skipped():
    one = Played(every(overlap=Overlap.BUFFER_ALL))
    one.refuses = True
    look = one.look(10 * S)
    assert (one.standing.skipped, look.next_at(), look.waits_for()) == (1, 20 * S, None)
    assert look.passed[0].why == "full"


def test_jitter_makes_a_tick_late_and_never_lost():
    one = Played(every(jitter=5 * S, overlap=Overlap.ALLOW))
    now = 0
    for _ in range(20):
        due = one.look(now).next_at()
        assert due is not None
        now = due
    one.look(now)
    assert one.begun == [n * 10 * S for n in range(1, 21)]
