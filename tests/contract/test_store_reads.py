"""The reading verbs: finding, listing, loading, and what is due."""

from typing import Any

import pytest
from tests.contract.store_contract import World, closing, parked, request, running, turn, waiting

from perdure.errors import Invalid
from perdure.store.port import Counted, Filter, Place, Store
from perdure.values.states import Status


def listed(store: Store, limit: int = 100, before: int | None = None, **where: Any) -> list[int]:
    place: Place | None = None
    if before is not None:
        [row] = store.rows([before])
        place = Place(row.run, row.created_at)
    return [row.run for row in store.list(Filter(**where), limit=limit, before=place).rows]


def test_a_run_is_found_by_its_workflow_id_or_the_id_of_its_first_run(world: World):
    first = world.owned("order-1", run_id="r1")
    world.commit(
        closing(
            first.run,
            status=Status.CONTINUED_AS_NEW,
            continued=request("order-1", run_id="r2", execution=first.execution),
        )
    )
    for key in ("order-1", "r1"):
        found = world.store.find(key)
        assert found is not None
        assert found.run_id == "r2"
    assert world.store.find("r2") is None
    assert world.store.find("nobody") is None
    assert world.store.find("order-1", namespace="elsewhere") is None
    assert world.store.find("r1", namespace="elsewhere") is None


def test_many_are_found_at_once_each_where_it_was_asked_for(world: World):
    world.start("order-1", run_id="r1")
    world.start("order-2", run_id="r2")
    names = ["order-2", "nobody", "r1", "order-1", "order-2", "r3"]
    found = world.store.latest([("default", name) for name in names])
    assert [row and row.run_id for row in found] == ["r2", None, "r1", "r1", "r2", None]
    assert world.store.latest([("elsewhere", "order-1")]) == [None]
    assert world.store.latest([]) == []


def test_one_run_of_an_execution_is_found_by_its_run_id(world: World):
    world.start("order-1", run_id="r1")
    for key in ("order-1", "r1", ""):
        found = world.store.find(key, run_id="r1")
        assert found is not None
        assert found.run_id == "r1"
    assert world.store.find("order-2", run_id="r1") is None
    assert world.store.find("order-1", run_id="r2") is None
    assert world.store.find("order-1", run_id="r1", namespace="elsewhere") is None


def test_prefixes_of_workflow_ids_and_run_ids_find_the_latest_runs(world: World):
    old = world.owned("order-1", run_id="aa1")
    world.commit(closing(old.run))
    new = world.start("order-1", run_id="aa2")
    other = world.start("order-2\U0010ffff", run_id="bb1")
    world.start("invoice", run_id="cc1")
    found = sorted(row.run for row in world.store.prefix("order-"))
    assert found == [new.run, other.run]
    assert sorted(row.run for row in world.store.prefix("aa")) == [old.run, new.run]
    assert len(world.store.prefix("order-", limit=1)) == 1
    assert world.store.prefix("order-", namespace="elsewhere") == []


def test_lists_are_newest_first_and_go_on_where_they_stopped(world: World):
    runs = [world.start(f"order-{n}").run for n in range(5)]
    assert listed(world.store) == runs[::-1]
    assert listed(world.store, limit=2) == [runs[4], runs[3]]
    assert listed(world.store, before=runs[3]) == [runs[2], runs[1], runs[0]]


def test_a_later_run_is_listed_by_the_tags_of_its_execution(world: World):
    first = world.owned(tags=("b", "a", "b"))
    following = request(run_id="r2", execution=first.execution)
    world.commit(
        closing(first.run, status=Status.CONTINUED_AS_NEW, continued=following),
    )
    [second] = [run for run in listed(world.store) if run != first.run]
    for tags in (("a",), ("b", "a")):
        assert listed(world.store, tags=tags) == [second, first.run]
    assert listed(world.store, tags=("a", "c")) == []


def test_a_run_that_follows_with_tags_of_its_own_is_listed_by_those(world: World):
    first = world.owned(tags=("a", "b"))
    following = request(run_id="r2", execution=first.execution, tags=("b", "c"))
    world.commit(closing(first.run, status=Status.CONTINUED_AS_NEW, continued=following))
    [second] = [run for run in listed(world.store) if run != first.run]
    assert world.row(second).tags == ("b", "c")
    found = {tag: listed(world.store, tags=(tag,)) for tag in "abc"}
    assert found == {"a": [first.run], "b": [second, first.run], "c": [second]}


@pytest.fixture
def zoo(world: World) -> dict[str, int]:
    """A run of each kind that filters tell apart."""
    runs = {
        "plain": world.start("plain").run,
        "other": world.start("other", workflow="invoice").run,
        "tagged": world.start("tagged", tags=("red", "blue")).run,
        "acme": world.start("acme", tenant="acme", created_by="ann", correlation_id="c").run,
        "away": world.start("away", namespace="away", search={"n": 1}).run,
        "one": world.start("one", search={"n": 1, "colours": ["red", "blue"], "yes": True}).run,
        "two": world.start("two", search={"n": 2.5, "colours": ["red"], "t": "x"}).run,
        "asleep": world.asleep("asleep", search={"n": 1}).run,
        "done": world.owned("done").run,
    }
    world.commit(closing(runs["done"]))
    world.now += 1_000
    runs["late"] = world.start("late").run
    return runs


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ({"workflow": "invoice"}, ["other"]),
        ({"workflow_id": "plain"}, ["plain"]),
        ({"namespace": "away"}, ["away"]),
        ({"namespace": "away", "search": {"n": 1}}, ["away"]),
        ({"tags": ("red",)}, ["tagged"]),
        ({"tags": ("red", "blue")}, ["tagged"]),
        ({"tags": ("red", "green")}, []),
        ({"tenant": "acme"}, ["acme"]),
        ({"created_by": "ann"}, ["acme"]),
        ({"correlation_id": "c"}, ["acme"]),
        ({"tenant": "acme", "correlation_id": "c", "workflow": "order"}, ["acme"]),
        ({"search": {"n": 1}}, ["asleep", "one"]),
        ({"search": {"n": 2.5}}, ["two"]),
        ({"search": {"n": 1, "yes": True}}, ["one"]),
        ({"search": {"yes": True}}, ["one"]),
        ({"search": {"yes": 1}}, []),
        ({"search": {"n": True}}, []),
        ({"search": {"n": 1, "yes": 1}}, []),
        ({"search": {"t": "x", "n": True}}, []),
        ({"search": {"n": 1.0}}, ["asleep", "one"]),
        ({"search": {"t": "x"}}, ["two"]),
        ({"search": {"colours": "red"}}, ["two", "one"]),
        ({"search": {"colours": ["red", "blue"]}}, ["one"]),
        ({"search": {"n": 1}, "status": (Status.WAITING,)}, ["asleep"]),
        ({"search": {"n": 3}}, []),
        ({"status": (Status.COMPLETED,)}, ["done"]),
        ({"status": (Status.COMPLETED, Status.WAITING)}, ["done", "asleep"]),
        ({"status": (Status.WAITING, Status.RUNNING), "workflow": "invoice"}, ["other"]),
        ({"status": (Status.COMPLETED,), "workflow": "invoice"}, []),
        ({"started_after": 1_900}, ["late"]),
        ({"started_before": 1_900, "workflow": "invoice"}, ["other"]),
    ],
)
def test_filters_select(world: World, zoo: dict[str, int], where: dict[str, Any], names: list[str]):
    assert listed(world.store, **where) == [zoo[name] for name in names]
    assert world.store.count(Filter(**where)) == Counted(len(names))
    if len(names) > 1:
        assert listed(world.store, limit=1, before=zoo[names[0]], **where) == [zoo[names[1]]]


def test_a_filter_by_a_value_that_no_attribute_can_have_is_refused(world: World):
    with pytest.raises(Invalid, match="search: k=None"):
        world.store.list(Filter(search={"k": None}), limit=1)


def test_counts_stop_at_their_limit(world: World):
    for n in range(4):
        world.start(f"order-{n}")
    some = Filter(status=(Status.RUNNING, Status.WAITING))
    assert world.store.count(Filter(), limit=3) == Counted(3, is_all=False)
    assert world.store.count(some, limit=3) == Counted(3, is_all=False)
    assert world.store.count(Filter(), limit=4) == Counted(4)
    assert world.store.count(Filter(), limit=None) == Counted(4)


def test_a_history_is_read_in_parts(world: World):
    run = world.owned().run
    for first in (3, 4, 5):
        world.commit(turn(run, first=first))
    assert [row.first for row in world.store.history(run)] == [1, 3, 4, 5]
    assert [row.first for row in world.store.history(run, after=1, limit=2)] == [3, 4]
    assert world.store.history(run, after=5) == []
    assert world.store.last_turn(999) is None


def test_a_load_brings_all_of_each_run_and_leaves_unknown_ones_out(world: World):
    one, two = world.owned("one").run, world.asleep("two").run
    world.commit(turn(one))
    world.post("two", event=b"a")
    world.post("two", event=b"b")
    loaded = {found.row.run: found for found in world.store.load([two, 999, one])}
    assert set(loaded) == {one, two}
    assert [row.first for row in loaded[one].turns] == [1, 3]
    assert [row.event for row in loaded[two].inbox] == [b"a", b"b"]
    assert (loaded[one].broken, loaded[two].broken) == ("", "")
    assert loaded[one].row == world.row(one)


def test_waiting_and_stopped_runs_that_nobody_owns_are_due_soonest_first(world: World):
    late, soon = world.asleep("late", wake_at=300).run, world.asleep("soon", wake_at=200).run
    world.asleep("never")
    world.asleep("beyond", wake_at=301)
    world.asleep("foreign", wake_at=1, workflow="unknown")
    held = world.asleep("held", wake_at=1).run
    world.commit(turn(held, claim=2, state=running(3, wake_at=1)))
    stopped = world.asleep("stopped", wake_at=1).run
    world.commit(turn(stopped, claim=2, state=parked(3, wake_at=100)))
    due = world.store.due(300, ["order"], ["default"], limit=9)
    assert due == [(stopped, 100), (soon, 200), (late, 300)]
    assert world.store.due(300, ["order"], ["default"], limit=1) == [(stopped, 100)]
    # Anybody may end a stopped run at its deadline: that needs no code.
    assert world.store.due(300, ["order"], ["slow"], limit=9) == [(stopped, 100)]
    assert world.store.due(300, ["order"], ["default"], limit=9, after=200) == [(late, 300)]


def test_claimable_and_unserved_runs_divide_by_workflow(world: World):
    ours, slow = world.start("ours").run, world.start("slow", queue="slow").run
    foreign = world.start("foreign", workflow="unknown").run
    world.owned("busy")
    world.asleep("asleep")
    assert world.store.claimable(["order"], ["default"], limit=9) == [ours]
    assert world.store.claimable(["order"], ["default", "slow"], limit=9) == [ours, slow]
    assert world.store.claimable(["order"], ["default", "slow"], limit=1) == [ours]
    unserved = world.store.unserved
    assert [row.run for row in unserved([(["order"], ["default"])], 0, limit=9)] == [slow, foreign]
    assert [row.run for row in unserved([(["order"], ["default", "slow"])], 0, limit=9)] == [
        foreign
    ]
    services = [(["order"], ["default"]), (["unknown"], ["slow"])]
    assert [row.run for row in unserved(services, 0, limit=9)] == [slow, foreign]
    services = [(["order", "unknown"], ["default"]), (["order"], ["slow"])]
    assert unserved(services, 0, limit=9) == []
    assert [row.run for row in unserved([], 0, limit=1)] == [ours]


@pytest.mark.parametrize("until", [99, 100])
def test_what_waits_is_unserved_once_it_is_due(world: World, until: int):
    due = world.asleep("due", wake_at=100, workflow="unknown").run
    world.asleep("ours", wake_at=100)
    world.asleep("never", workflow="unknown")
    parking = world.asleep("parked", workflow="unknown").run
    world.commit(turn(parking, claim=2, state=parked(3, wake_at=100)))
    begun = world.start("begun", workflow="unknown").run
    delayed = request("late", workflow="unknown", not_before=100)
    late = world.store.start([delayed], 50)[0].run
    found = world.store.unserved([(["order"], ["default"])], until, limit=9)
    assert [row.run for row in found] == ([begun] if until < 100 else [due, begun, late])


def test_a_name_with_a_version_serves_that_version_only(world: World):
    first = world.start("first", version="1").run
    second = world.start("second", version="2").run
    assert world.store.claimable(["order 2"], ["default"], limit=9) == [second]
    assert world.store.claimable(["order 1", "order 2"], ["default"], limit=9) == [first, second]
    unserved = world.store.unserved([(["order 2"], ["default"])], 0, limit=9)
    assert [row.run for row in unserved] == [first]


@pytest.mark.parametrize("reason", ["unknown_workflow", "unserved_queue"])
def test_a_run_parked_because_nobody_served_it_is_found_once_somebody_does(
    world: World, reason: str
):
    run = world.asleep("order-1").run
    world.commit(turn(run, claim=2, state=parked(3, reason)))
    assert world.store.served_again(["order"], ["default"], limit=9) == [run]
    assert world.store.served_again(["other"], ["default"], limit=9) == []


def test_parked_runs_are_listed_by_reason_in_steps(world: World):
    runs = [world.asleep(f"order-{n}").run for n in range(3)]
    reasons = ("a", "b", "a")
    for run, reason in zip(runs, reasons, strict=True):
        world.commit(turn(run, claim=2, state=parked(3, reason)))
    assert [row.run for row in world.store.parked(["a"], limit=9)] == [runs[0], runs[2]]
    assert [row.run for row in world.store.parked(["a", "b"], limit=9, after=runs[0])] == runs[1:]
    assert [row.run for row in world.store.parked(["a", "b"], limit=1)] == runs[:1]


def test_the_newest_states_are_seen_at_once(world: World):
    run = world.asleep().run
    assert listed(world.store, status=(Status.WAITING,)) == [run]
    world.commit(turn(run, claim=2, state=waiting(3)))
    assert world.row(run).length == 3


def test_one_look_tells_whether_the_others_are_worth_it(world: World):
    def has_work(now: int = 100, workflow: str = "order") -> bool:
        news = world.store.news(now, now + 50, [workflow], ["default"], world.worker.id)
        return news.has_work

    assert not has_work()
    claimable = world.start("claimable")
    assert has_work()
    assert not has_work(workflow="other")
    world.commit(turn(claimable.run, first=2, claim=1, state=waiting(2)))
    assert not has_work()
    sleeping = world.asleep("sleeping", wake_at=200)
    assert not has_work(now=199)
    assert has_work(now=200)
    world.commit(turn(sleeping.run, claim=2, state=waiting(3)))
    assert not has_work(now=200)
    world.post("sleeping")
    assert has_work()
    assert not has_work(workflow="other")
    world.commit(turn(sleeping.run, first=4, claim=3, consumed=(1,), state=waiting(4)))
    assert not has_work()
    world.start("later", not_before=1_140)
    assert not has_work(now=1_000)
    assert has_work(now=1_100)


def test_one_look_tells_which_definitions_are_inactive(world: World):
    def inactive() -> frozenset[tuple[str, str]]:
        return world.store.news(5, 5, ["order"], ["default"], world.worker.id).inactive

    assert inactive() == frozenset()
    world.store.activate("order", "1", is_active=False)
    assert inactive() == {("order", "1")}
