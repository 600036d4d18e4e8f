"""Schedules: what is written, and what ``fire`` begins, in one transaction with the schedule."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.store_contract import World, closing, request

from perdure.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    PermissionDenied,
    ScheduleNotFound,
)
from perdure.store.port import (
    Definition,
    Filter,
    Fired,
    Happened,
    ScheduleFilter,
    SchedulePut,
    ScheduleRow,
    ScheduleSteer,
)
from perdure.values import events as ev
from perdure.values.concurrency import Limit
from perdure.values.meters import Meter, Spend, window_rate
from perdure.values.schedules import Overlap, Spec, Template
from perdure.values.states import Status

S = 1_000_000
CHANCE = bytes(range(32))


def put(world: World, id: str = "s", now: int = 0, **more: Any) -> ScheduleRow:
    spec = {"every": 10 * S, **more.pop("spec", {})}
    template = Template(**{"workflow": "order", **more.pop("template", {})})
    asked = SchedulePut("default", id, Spec(**spec), template, **more)
    return world.store.put_schedule(asked, now)


def get(world: World, id: str = "s") -> ScheduleRow:
    row = world.store.schedule(id)
    assert row is not None
    return row


def fire(world: World, now: int, **more: Any) -> Fired:
    return world.store.fire(now, CHANCE, **more)


def steer(world: World, verb: str, now: int, **more: Any) -> Happened:
    return world.store.steer_schedule(ScheduleSteer("default", "s", verb, **more), now, CHANCE)


def ticks(row: ScheduleRow) -> list[int]:
    return [one.tick // S for one in row.standing.last]


def end(world: World, workflow_id: str) -> None:
    """Let a worker take an execution up and end it."""
    row = world.store.find(workflow_id)
    assert row is not None
    world.commit(closing(row.run, first=row.length + 1, claim=row.length, execution=row.execution))


def test_a_schedule_is_there_as_it_was_put(world: World):
    spec = {"cron": "0 9 * * *", "every": 0, "timezone": "Europe/Berlin", "jitter": 5}
    template = {"version": "2", "queue": "q", "input": b'{"a":1}', "search": {"k": [1, "x"]}}
    made = put(world, spec=spec, template=template, note="ü", now=7)
    assert get(world) == made
    assert (made.spec.cron, made.template.search, made.note) == (
        "0 9 * * *",
        {"k": [1, "x"]},
        "ü",
    )
    assert (made.created_at, made.changed_at, made.revision, made.is_paused) == (7, 7, 1, False)
    assert world.store.schedule("s", namespace="elsewhere") is None


def test_a_tick_begins_an_execution_that_knows_it(world: World):
    put(world, template={"input": b"7", "tags": ("t",), "search": {"a": "b"}})
    assert fire(world, 10 * S - 1).happened == []
    fired = fire(world, 10 * S)
    [started] = fired.happened[0].started
    assert started.workflow_id == "s-1970-01-01T00:00:10Z"
    [event] = ev.decode_turn(world.payloads(started.run)[0])
    assert isinstance(event, ev.RunStarted)
    assert (event.schedule, event.scheduled_at) == ("s", 10 * S)
    assert (event.workflow, event.version, event.input) == ("order", "1", b"7")
    row = world.row(started.run)
    assert (row.status, row.owner, row.tags) == (Status.RUNNING, None, ("t",))
    assert world.store.attributes(started.run) == {"a": "b", "schedule_id": "s"}
    assert world.store.claimable(["order"], ["default"], limit=9) == [started.run]
    assert (fired.next_at, get(world).next_at) == (20 * S, 20 * S)


def test_a_tick_begins_once_however_often_it_is_asked_for(world: World):
    put(world, spec={"overlap": Overlap.ALLOW})
    for now in (10, 10, 11, 20, 20):
        fire(world, now * S)
    assert ticks(get(world)) == [10, 20]
    assert get(world).standing.fired == 2


def test_seeds_differ_with_the_chance_and_with_the_run(world: World):
    put(world, "s", spec={"overlap": Overlap.ALLOW})
    put(world, "t", spec={"overlap": Overlap.ALLOW})
    begun = [one for happened in fire(world, 10 * S).happened for one in happened.started]
    begun += world.store.fire(20 * S, bytes(32)).happened[0].started
    seeds = {ev.decode_turn(world.payloads(one.run)[0])[0].seed for one in begun}  # type: ignore[attr-defined]
    assert len(seeds) == len(begun) == 3


def test_what_is_open_is_known_from_its_state(world: World):
    put(world, spec={"overlap": Overlap.BUFFER_ONE})
    fire(world, 10 * S)
    fire(world, 20 * S)
    assert (ticks(get(world)), len(get(world).standing.open)) == ([10], 1)
    assert fire(world, 21 * S).next_at == 30 * S
    end(world, "s-1970-01-01T00:00:10Z")
    assert get(world).standing.open == []
    assert world.store.next_look() == 0
    assert fire(world, 22 * S).next_at == 30 * S
    assert ticks(get(world)) == [10, 20]


def test_an_execution_that_goes_on_in_a_new_run_is_open(world: World):
    put(world)
    [one] = fire(world, 10 * S).happened[0].started
    following = request(one.workflow_id, run_id="next", execution=0, conflict="none")
    world.commit(closing(one.run, first=2, claim=1, execution=one.execution, continued=following))
    assert world.row(one.run).status.is_terminal
    fire(world, 20 * S)
    assert (ticks(get(world)), get(world).standing.skipped) == ([10], 1)


@pytest.mark.parametrize(
    ("overlap", "kind"),
    [
        (Overlap.CANCEL_OTHER, ev.CancelRequested),
        (Overlap.TERMINATE_OTHER, ev.RunTerminated),
    ],
)
def test_the_other_is_asked_to_end_through_its_inbox(world: World, overlap: Overlap, kind: Any):
    put(world, spec={"overlap": overlap})
    [one] = fire(world, 10 * S).happened[0].started
    fire(world, 20 * S)
    fire(world, 21 * S)
    [event] = world.inbox(one.run)
    fact = ev.decode_fact(event)
    assert isinstance(fact, kind)
    assert "the next one is due" in fact.reason  # type: ignore[attr-defined]


def test_the_highest_active_version_and_its_queue_are_taken_when_it_begins(world: World):
    put(world, spec={"overlap": Overlap.ALLOW})
    world.join("b", Definition("order", "1"), Definition("order", "1.10", queue="fast"))
    [new] = fire(world, 10 * S).happened[0].started
    assert (world.row(new.run).version, world.row(new.run).queue) == ("1.10", "fast")
    world.store.activate("order", "1.10", is_active=False)
    [old] = fire(world, 20 * S).happened[0].started
    assert (world.row(old.run).version, world.row(old.run).queue) == ("1", "default")
    world.store.activate("order", "1", is_active=False)
    assert "no active version" in fire(world, 30 * S).happened[0].passed[0].why


def test_a_workflow_that_nobody_knows_yet_begins_all_the_same(world: World):
    put(world, template={"workflow": "unknown"})
    [one] = fire(world, 10 * S).happened[0].started
    assert (world.row(one.run).workflow, world.row(one.run).version) == ("unknown", "")


def test_a_start_that_a_limit_refuses_is_skipped_and_says_why(world: World):
    world.join("b", Definition("order", "1", limit=Limit(max_open=1)))
    put(world, spec={"overlap": Overlap.ALLOW})
    fire(world, 10 * S)
    [passed] = fire(world, 20 * S).happened[0].passed
    assert (passed.what, passed.number) == ("skipped", 1)
    assert "1" in passed.why
    assert get(world).standing.fired == 1


def test_an_execution_of_that_name_is_in_the_way_and_is_left_alone(world: World):
    world.start("s-1970-01-01T00:00:10Z")
    put(world)
    [passed] = fire(world, 10 * S).happened[0].passed
    assert "'s-1970-01-01T00:00:10Z' is there already" in passed.why
    assert world.store.count(Filter(), limit=None).number == 1


def test_many_that_are_due_begin_together_and_up_to_a_limit(world: World):
    for n in range(5):
        put(world, f"s{n}")
    fired = fire(world, 10 * S, limit=3)
    assert (len(fired.happened), fired.next_at) == (3, 10 * S)
    fired = fire(world, 10 * S, limit=3)
    assert (len(fired.happened), fired.next_at) == (2, 20 * S)


def test_the_same_put_twice_is_one_and_changes_nothing(world: World):
    made = put(world, now=5)
    assert put(world, now=10 * S) == made
    assert put(world, now=11 * S, replaces=True) == made
    with pytest.raises(AlreadyExists, match="every 10s"):
        put(world, spec={"every": 5 * S}, now=6)
    assert get(world) == made


def test_a_replacement_keeps_counts_and_stands_at_now(world: World):
    put(world)
    fire(world, 10 * S)
    row = put(world, spec={"every": 3 * S}, now=22 * S, replaces=True)
    assert (row.spec.every, row.standing.fired, row.next_at) == (3 * S, 1, 24 * S)
    assert len(row.standing.open) == 1
    assert get(world) == row


def test_with_the_same_spec_it_goes_on_where_it_stood(world: World):
    put(world, spec={"overlap": Overlap.ALLOW})
    put(
        world,
        spec={"overlap": Overlap.ALLOW},
        template={"input": b"2"},
        now=25 * S,
        replaces=True,
    )
    fire(world, 25 * S)
    assert ticks(get(world)) == [10, 20]


def test_a_replacement_leaves_a_pause_alone_unless_it_says_otherwise(world: World):
    put(world)
    steer(world, "pause", 1, note="why")
    row = put(world, spec={"every": 3 * S}, now=2, replaces=True)
    assert (row.is_paused, row.note, row.next_at) == (True, "why", None)
    row = put(world, spec={"every": 3 * S}, now=7 * S, replaces=True, is_paused=False)
    assert (row.is_paused, row.next_at) == (False, 9 * S)


def test_a_replacement_of_nothing_is_refused(world: World):
    with pytest.raises(ScheduleNotFound, match="'s'"):
        put(world, must_exist=True)


def test_a_schedule_without_a_tick_to_come_is_refused(world: World):
    with pytest.raises(Invalid, match="at: is over"):
        put(world, spec={"every": 0, "at": 5}, now=6)
    with pytest.raises(Invalid, match="end: no tick"):
        put(world, spec={"end": 5 * S}, now=0)
    assert world.store.schedule("s") is None


def test_a_paused_one_begins_nothing_and_goes_on_with_the_next_tick(world: World):
    put(world)
    row = steer(world, "pause", 5 * S, note="holidays").row
    assert (row.is_paused, row.note, row.next_at) == (True, "holidays", None)
    assert world.store.next_look() is None
    fire(world, 10 * S)
    row = steer(world, "resume", 35 * S).row
    assert (row.next_at, row.note, row.standing.missed) == (40 * S, "holidays", 0)
    fire(world, 40 * S)
    assert ticks(get(world)) == [40]


def test_a_trigger_begins_now_also_when_paused(world: World):
    put(world)
    steer(world, "pause", 5 * S)
    happened = steer(world, "trigger", 7 * S)
    [one] = happened.started
    assert one.workflow_id == "s-trigger-1970-01-01T00:00:07Z"
    assert get(world).standing.last[0].by == "trigger"
    assert steer(world, "trigger", 8 * S).passed[0].what == "skipped"
    assert len(steer(world, "trigger", 9 * S, overlap=Overlap.ALLOW).started) == 1
    assert get(world).standing.triggered == 9 * S


def test_a_backfill_leaves_out_what_has_begun_and_is_done_by_looks(world: World):
    put(world, spec={"overlap": Overlap.ALLOW})
    fire(world, 20 * S)
    row = steer(world, "backfill", 50 * S, overlap=Overlap.ALLOW, after=0, before=50 * S).row
    assert row.next_at == 30 * S
    fire(world, 50 * S)
    fire(world, 50 * S)
    row = get(world)
    assert sorted(ticks(row)) == [0, 10, 20, 30, 40, 50]
    assert row.standing.backfills == []


@pytest.mark.parametrize("owner", ["acme", None])
def test_a_tenant_changes_no_schedule_of_another_one_or_of_none(world: World, owner: str | None):
    put(world, template={"tenant": owner}, note="own")
    before = get(world)
    cases: list[dict[str, Any]] = [
        {},
        {"replaces": True},
        {"template": {"tenant": "globex"}, "replaces": True},
    ]
    for more in cases:
        with pytest.raises(AlreadyExists, match="^schedule id 's' is taken$"):
            put(world, sees="globex", **more)
    with pytest.raises(PermissionDenied, match="'globex'"):
        put(world, sees="globex", must_exist=True, note="mine")
    for verb in ("pause", "resume", "trigger", "backfill", "delete"):
        with pytest.raises(PermissionDenied, match="'globex'"):
            steer(world, verb, 5 * S, sees="globex", before=5 * S)
    assert get(world) == before
    if owner is not None:
        assert put(world, template={"tenant": owner}, sees=owner, note="own") == before
        assert steer(world, "trigger", 5 * S, sees=owner).started


def test_backfills_are_bounded_in_number(world: World):
    put(world)
    for _ in range(10):
        steer(world, "backfill", 50 * S, after=0, before=10 * S)
    with pytest.raises(Conflict, match="10 backfills"):
        steer(world, "backfill", 50 * S, after=0, before=10 * S)


def test_what_is_deleted_is_gone_and_what_it_began_goes_on(world: World):
    put(world)
    [one] = fire(world, 10 * S).happened[0].started
    steer(world, "delete", 11 * S)
    assert world.store.schedule("s") is None
    assert not world.row(one.run).status.is_terminal
    assert fire(world, 99 * S).happened == []
    for verb in ("delete", "pause", "resume", "trigger", "backfill"):
        with pytest.raises(ScheduleNotFound):
            steer(world, verb, 12 * S)


def test_a_list_goes_by_id_and_is_filtered(world: World):
    for id in ("b", "a", "c", "a2"):
        put(world, id, template={"workflow": "bill" if id == "c" else "order"}, is_paused=id == "b")

    def listed(limit: int = 9, after: str = "", **where: Any) -> list[str]:
        found = world.store.schedules(ScheduleFilter(**where), limit=limit, after=after)
        return [row.id for row in found]

    assert listed() == ["a", "a2", "b", "c"]
    assert listed(2) == ["a", "a2"]
    assert listed(2, "a2") == ["b", "c"]
    assert listed(workflow="bill") == ["c"]
    assert listed(prefix="a") == ["a", "a2"]
    assert listed(paused=True) == ["b"]
    assert listed(paused=False) == ["a", "a2", "c"]
    assert listed(namespace="elsewhere") == []


def test_the_news_say_when_the_next_look_is_due(world: World):
    def heard() -> int | None:
        return world.store.news(5, 5, ["order"], ["default"], world.worker.id).schedules_at

    assert heard() is None
    put(world)
    assert heard() == 10 * S
    put(world, "soon", spec={"every": 3 * S, "overlap": Overlap.BUFFER_ONE})
    assert heard() == 3 * S
    fire(world, 3 * S)
    fire(world, 6 * S)
    assert heard() == 9 * S
    end(world, "soon-1970-01-01T00:00:03Z")
    assert heard() == 0


def test_namespaces_do_not_meet(world: World):
    put(world)
    other = SchedulePut("other", "s", Spec(every=10 * S), Template("order"))
    world.store.put_schedule(other, 0)
    fired = fire(world, 10 * S)
    assert sorted(one.row.namespace for one in fired.happened) == ["default", "other"]
    assert len({one.started[0].run_id for one in fired.happened}) == 2


def test_what_a_tick_begins_takes_a_place_and_is_skipped_where_there_is_none(world: World):
    overlap = {"overlap": Overlap.ALLOW}
    put(world, spec=overlap, template={"places": (("service:a", 2),)})
    for now in (10, 20, 30):
        fired = fire(world, now * S)
    assert ticks(get(world)) == [10, 20]
    [passed] = fired.happened[0].passed
    assert (passed.what, passed.why) == ("skipped", "2 are open, and no more may be")
    end(world, get(world).standing.last[0].workflow_id)
    fire(world, 40 * S)
    assert ticks(get(world)) == [10, 20, 40]


def test_what_a_tick_begins_is_spent_of_a_rate_and_skipped_if_it_comes_too_soon(world: World):
    meter = Meter("run:app.billing:0", window_rate("2/minute"))
    put(world, spec={"overlap": Overlap.ALLOW}, template={"meters": (meter,)})
    fired = [fire(world, now * S) for now in (10, 20, 30)]
    assert ticks(get(world)) == [10, 20]
    [passed] = fired[-1].happened[0].passed
    assert (passed.what, passed.why) == ("skipped", "more than 2/minute")
    # Whoever else spends of it is counted too.
    assert world.store.spend(Spend(meters=(meter,)), 31 * S).refused == meter.key
    fire(world, 40 * S)
    assert ticks(get(world)) == [10, 20, 40]
    assert steer(world, "trigger", 41 * S).started == []
