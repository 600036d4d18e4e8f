"""When ticks are: cron texts in time zones, intervals, one-shots, jitter, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest

from perdure.errors import Invalid
from perdure.values.schedules import (
    DAY,
    Spec,
    check_schedule_id,
    checked,
    due_at,
    run_id_of,
    stamp,
    tick_after,
    ticks_after,
    upcoming,
    workflow_id_of,
)

SECOND = 1_000_000
HOUR = 3_600 * SECOND


def at(text: str) -> int:
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def local_times(cron: str, zone: str, after: str, count: int) -> list[str]:
    """The next ticks in local time with their offset, and notes."""
    spec = checked(Spec(cron=cron, timezone=zone))
    found = upcoming(spec, at(after), count)
    return [f"{one.local:%m-%d %H:%M%z}{' ' + one.note if one.note else ''}" for one in found]


def test_a_time_that_is_skipped_runs_when_the_clocks_have_gone_on():
    assert local_times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00+01:00", 3) == [
        "03-28 02:30+0100",
        "03-29 03:00+0200 the clocks skip the time it names; it runs at 03:00 instead",
        "03-30 02:30+0200",
    ]


def test_a_time_that_comes_twice_runs_once_the_first_time():
    assert local_times("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00+02:00", 3) == [
        "10-24 02:30+0200",
        "10-25 02:30+0200 02:30 comes twice; this is the first one",
        "10-26 02:30+0100",
    ]


def test_one_that_is_asked_for_between_the_two_does_not_run_in_the_past():
    between = at("2026-10-25T02:10+01:00")  # 02:30 has been once, and comes again
    assert tick_after(Spec(cron="30 2 * * *", timezone="Europe/Berlin"), between) == at(
        "2026-10-26T02:30+01:00"
    )


def test_half_an_hour_of_daylight_saving_is_known():
    # Lord Howe: at 02:00 +10:30 it is 02:30 +11:00 at once; at 02:00 +11 it is 01:30 +10:30.
    assert local_times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T03:00+10:30", 1) == [
        "10-04 02:30+1100 the clocks skip the time it names; it runs at 02:30 instead"
    ]
    assert local_times("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00+11:00", 2) == [
        "04-05 01:45+1100 01:45 comes twice; this is the first one",
        "04-06 01:45+1030",
    ]


def test_a_text_with_a_star_goes_by_the_time_that_passes():
    spec = Spec(cron="*/30 * * * *", timezone="Europe/Berlin")
    for day in ("2026-03-29T00:59+01:00", "2026-10-25T01:59+02:00"):
        ticks = list(islice(ticks_after(spec, at(day)), 6))
        assert {b - a for a, b in pairwise(ticks)} == {HOUR // 2}


def test_a_morning_stays_in_the_morning_and_the_note_says_that_the_night_was_shorter():
    assert local_times("0 9 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", 2) == [
        "03-29 09:00+0200 the clocks were put forward by 1h before it",
        "03-30 09:00+0200",
    ]
    assert local_times("0 9 * * *", "Europe/Berlin", "2026-10-24T12:00+02:00", 1) == [
        "10-25 09:00+0100 the clocks were put back by 1h before it"
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Berlin", "did you mean Europe/Berlin"),
        ("Europe/Berlinn", "did you mean Europe/Berlin"),
        ("new york", "America/New_York"),
        ("../etc/passwd", "there is no time zone"),
        ("", "there is no time zone"),
    ],
)
def test_an_unknown_time_zone_is_refused_with_names_that_are_near(name: str, near: str):
    with pytest.raises(Invalid, match=near):
        checked(Spec(cron="@daily", timezone=name))


def test_intervals_are_anchored_and_an_offset_moves_them():
    assert list(islice(ticks_after(Spec(every=HOUR), at("2026-01-01T10:20Z")), 2)) == [
        at("2026-01-01T11:00Z"),
        at("2026-01-01T12:00Z"),
    ]
    assert tick_after(Spec(every=HOUR, offset=HOUR // 4), at("2026-01-01T10:15Z")) == at(
        "2026-01-01T11:15Z"
    )


def test_start_is_in_and_end_is_out():
    spec = Spec(every=HOUR, start=3 * HOUR, end=5 * HOUR)
    assert list(ticks_after(spec, 0)) == [3 * HOUR, 4 * HOUR]


def test_a_one_shot_comes_once():
    assert list(ticks_after(Spec(at=HOUR), 0)) == [HOUR]
    assert tick_after(Spec(at=HOUR), HOUR) is None


@pytest.mark.parametrize(
    "spec",
    [
        Spec(every=HOUR),
        Spec(every=HOUR, start=at("9999-12-31T12:00Z")),
        Spec(cron="0 0 * * *", timezone="Pacific/Kiritimati"),
        Spec(cron="0 0 1 1 *"),
        Spec(at=at("9999-12-31T12:00Z")),
    ],
)
def test_ticks_end_with_the_calendar(spec: Spec):
    for after in ("9999-12-29T22:00Z", "9999-12-31T23:59Z"):
        assert [one.local.year for one in upcoming(spec, at(after), 5)] in ([], [9999], [9999] * 2)


def test_jitter_is_drawn_alike_by_everybody_and_stays_before_the_next_tick():
    spec = Spec(every=10 * SECOND, jitter=DAY)
    drawn = {tick: due_at(spec, "default/a", tick) for tick in islice(ticks_after(spec, 0), 200)}
    assert drawn == {tick: due_at(spec, "default/a", tick) for tick in drawn}
    late = [due - tick for tick, due in drawn.items()]
    assert min(late) >= 0
    assert max(late) < 10 * SECOND
    assert len(set(late)) > 190
    assert late != [due_at(spec, "default/b", tick) - tick for tick in drawn]


def test_aliases_are_resolved():
    assert checked(Spec(cron=" @Daily ")).cron == "0 0 * * *"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec(), "one of cron=, every= and at="),
        (Spec(cron="@daily", every=HOUR), "one of cron=, every= and at="),
        (Spec(cron="0 0 9 * * *"), "6 fields; it needs five"),
        (Spec(cron="0 9 31 2 *"), "bad day-of-month"),
        (Spec(cron="61 * * * *"), "bad minute"),
        (Spec(every=SECOND // 2), "every: 500ms is less than 1s"),
        (Spec(every=HOUR, offset=HOUR), "offset: 1h is not less than every=1h"),
        (Spec(at=HOUR, offset=1), "offset: only goes with every="),
        (Spec(every=HOUR, timezone="Europe/Berlin"), "timezone: only a cron text"),
        (Spec(every=HOUR, start=5, end=5), "end: is not after start"),
        (Spec(every=HOUR, max_executions=-1), "max_executions: -1 is negative"),
        (Spec(at=2 * HOUR, start=3 * HOUR), "at: is not from start= on and before end="),
        (Spec(at=2 * HOUR, end=2 * HOUR), "at: is not from start= on and before end="),
        (Spec(at=at("9999-12-31T23:00Z")), "at: is too late"),
        (Spec(every=HOUR, start=at("9999-12-31T23:00Z")), "start: is too late"),
    ],
)
def test_what_cannot_be_is_refused(spec: Spec, message: str):
    with pytest.raises(Invalid, match=message):
        checked(spec)


def test_who_wants_a_longer_interval_of_cron_texts_gets_it():
    with pytest.raises(Invalid, match="runs every 1m; at least 5m are allowed"):
        checked(Spec(cron="* * * * *"), least_cron=300 * SECOND)
    assert checked(Spec(cron="*/5 * * * *"), least_cron=300 * SECOND)


def test_ids_follow_from_the_tick():
    tick = at("2026-11-22T00:00Z")
    assert stamp(tick) == "2026-11-22T00:00:00Z"
    assert workflow_id_of("daily", tick, "clock") == "daily-2026-11-22T00:00:00Z"
    assert workflow_id_of("daily", tick, "backfill") == "daily-2026-11-22T00:00:00Z"
    assert workflow_id_of("daily", tick + 1, "trigger") == (
        "daily-trigger-2026-11-22T00:00:00.000001Z"
    )
    one = run_id_of("default", "daily-2026-11-22T00:00:00Z", tick)
    assert one == run_id_of("default", "daily-2026-11-22T00:00:00Z", tick)
    assert one != run_id_of("other", "daily-2026-11-22T00:00:00Z", tick)


def test_an_id_leaves_room_for_the_time():
    with pytest.raises(Invalid, match="at most 200"):
        check_schedule_id("x" * 201)
    with pytest.raises(Invalid, match="'@'"):
        check_schedule_id("@x")
