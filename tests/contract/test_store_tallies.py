"""Meters, places and budgets: what is counted for all processes together."""

from typing import Any

from tests.contract.store_contract import World, closed, closing, request, running, turn

from perdure.store.port import Prune, Started
from perdure.values.meters import BudgetRow, Charge, Meter, Spend, Spent, window_rate
from perdure.values.states import Status

SECOND = 1_000_000
MINUTE = 60 * SECOND


def meter(key: str = "run:app.billing:0", text: str = "3/minute", count: int = 1) -> Meter:
    return Meter(key, window_rate(text), count)


def spend(world: World, *meters: Meter, at: int | None = None) -> Spent:
    return world.store.spend(Spend(meters), world.now if at is None else at)


def charge(world: World, amount: int, unit: str = "tokens", hold: str = "", of: int = 0) -> Spent:
    wish = Spend(charges=(Charge("run-of-order-1", unit, amount),), hold=hold, execution=of)
    return world.store.spend(wish, world.now)


def budget(world: World, unit: str = "tokens") -> BudgetRow:
    [row] = [it for it in world.store.budgets(["run-of-order-1"]) if it.unit == unit]
    return row


def numbers(world: World) -> tuple[int, int]:
    row = budget(world)
    return row.used, row.reserved


def end(world: World, started: Started, **rest: Any) -> None:
    row = world.row(started.run)
    claim = None if row.owner else row.length
    first = row.length + 1
    world.commit(
        closing(started.run, first=first, execution=started.execution, claim=claim, **rest)
    )


# -- meters ----------------------------------------------------------------------------------------


def test_a_meter_lets_as_many_through_at_once_as_its_rate_has_and_then_as_they_come(world: World):
    assert [spend(world, meter()).refused for _ in range(4)] == ["", "", "", "run:app.billing:0"]
    refused = spend(world, meter())
    assert refused.retry_at == world.now + 20 * SECOND
    assert not spend(world, meter(), at=refused.retry_at).is_refused
    assert spend(world, meter(), at=refused.retry_at).is_refused


def test_of_several_meters_all_are_spent_or_none(world: World):
    spend(world, meter("b", "1/minute"))
    assert spend(world, meter("a"), meter("b", "1/minute")).refused == "b"
    assert [spend(world, meter("a")).refused for _ in range(4)] == ["", "", "", "a"]


def test_a_count_is_spent_as_a_whole(world: World):
    assert spend(world, meter(count=4)).refused
    assert not spend(world, meter(count=3)).refused
    assert spend(world, meter()).refused


def test_a_meter_that_says_nothing_any_more_is_forgotten(world: World):
    spend(world, meter())
    world.store.forget(world.now + 19 * SECOND)
    assert not spend(world, meter(count=2)).refused
    world.store.forget(world.now + 10 * MINUTE)
    assert not spend(world, meter(count=3), at=world.now + 10 * MINUTE).refused


# -- places ----------------------------------------------------------------------------------------

ONE = (("service:app.billing", 1),)


def test_a_start_without_a_place_is_refused_and_leaves_nothing(world: World):
    assert world.start("order-1", places=ONE).created
    refused = world.start("order-2", places=ONE)
    assert (refused.refused, refused.place) == ("place", "service:app.billing")
    assert world.store.find("order-2") is None


def test_the_commit_that_ends_an_execution_gives_its_place_back(world: World):
    first = world.owned("order-1", places=ONE)
    end(world, first)
    assert world.start("order-2", places=ONE).created
    assert world.start("order-3", places=ONE).refused == "place"


def test_an_execution_that_ends_with_its_first_turn_leaves_its_place_at_once(world: World):
    first = turn(0, first=1, count=2, state=closed(2), closes=True, payload=b"first")
    both = [request(f"order-{n}", first=first, places=ONE) for n in (1, 2)]
    assert [one.refused for one in world.commit(starts=both).started] == ["", ""]
    assert world.start("order-3", places=ONE).created


def test_every_key_of_a_start_needs_a_place(world: World):
    world.start("order-1", places=(("workflow:order", 2), ("service:a", 1)))
    assert world.start("order-2", places=(("workflow:order", 2), ("service:a", 1))).refused
    assert world.start("order-3", places=(("workflow:order", 2), ("service:b", 1))).created
    refused = world.start("order-4", places=(("workflow:order", 2), ("service:c", 1)))
    assert refused.place == "workflow:order"


def test_starts_of_one_batch_see_each_other(world: World):
    first = turn(0, first=1, count=2, state=running(2), payload=b"first")
    both = [request(f"order-{n}", first=first, places=ONE) for n in (1, 2)]
    assert [one.refused for one in world.commit(starts=both).started] == ["", "place"]


def test_a_start_that_uses_an_open_execution_takes_no_place(world: World):
    world.start("order-1", places=ONE)
    again = world.start("order-1", places=ONE, conflict="use_existing", run_id="another")
    assert (again.created, again.refused) == (False, "")
    assert world.start("order-2", places=ONE).refused == "place"


def test_a_start_that_is_repeated_after_a_lost_answer_takes_one_place(world: World):
    two = (("service:app.billing", 2),)
    assert world.start("order-1", places=two).created
    assert world.start("order-1", places=two).created
    assert world.start("order-2", places=two).created
    assert world.start("order-3", places=two).refused == "place"


def test_who_takes_the_place_of_an_execution_takes_its_place_too(world: World):
    world.start("order-1", places=ONE)
    new = world.start(
        "order-1", places=ONE, conflict="terminate_existing", run_id="new", event=b"new"
    )
    assert new.created
    assert world.start("order-2", places=ONE).refused == "place"
    end(world, new)
    assert world.start("order-2", places=ONE).created


def test_an_execution_keeps_its_place_when_it_continues_as_new(world: World):
    first = world.owned("order-1", places=ONE)
    following = request("order-1", execution=first.execution, conflict="none", run_id="second")
    end(world, first, status=Status.CONTINUED_AS_NEW, continued=following)
    assert world.start("order-2", places=ONE).refused == "place"


# -- budgets ---------------------------------------------------------------------------------------

TOKENS = (("tokens", 100),)


def test_a_budget_is_used_up_to_its_amount_and_not_beyond(world: World):
    world.start(budget=TOKENS)
    assert not charge(world, 60).refused
    refused = charge(world, 41)
    assert (refused.unit, refused.left) == ("tokens", 40)
    assert not charge(world, 40).refused
    assert numbers(world) == (100, 0)


def test_a_budget_that_is_not_there_refuses(world: World):
    world.start()
    assert charge(world, 1).is_gone


def test_what_is_reserved_is_not_there_for_others_and_what_was_not_used_is_again(world: World):
    started = world.start(budget=TOKENS)
    assert not charge(world, 80, hold="h1", of=started.execution).is_refused
    assert charge(world, 30).left == 20
    assert world.store.settle("h1", {"tokens": 10})
    assert numbers(world) == (10, 0)


def test_a_reservation_is_settled_once(world: World):
    started = world.start(budget=TOKENS)
    charge(world, 80, hold="h1", of=started.execution)
    assert [world.store.settle("h1", {"tokens": 10}) for _ in range(2)] == [True, False]
    assert numbers(world) == (10, 0)


def test_a_reservation_that_is_asked_for_again_is_the_same_one(world: World):
    started = world.start(budget=TOKENS)
    for _ in range(2):
        assert not charge(world, 80, hold="h1", of=started.execution).is_refused
    assert numbers(world) == (0, 80)


def test_what_nobody_has_settled_counts_as_used_when_the_execution_ends(world: World):
    started = world.owned(budget=TOKENS)
    charge(world, 70, hold="h1", of=started.execution)
    end(world, started)
    assert numbers(world) == (70, 0)
    assert not world.store.settle("h1", {"tokens": 0})
    assert numbers(world) == (70, 0)


def test_an_execution_that_has_ended_reserves_nothing(world: World):
    started = world.owned(budget=TOKENS)
    end(world, started)
    assert charge(world, 1, hold="h1", of=started.execution).is_closed
    assert numbers(world) == (0, 0)


def test_more_may_be_used_than_was_reserved_since_it_was_used(world: World):
    started = world.start(budget=TOKENS)
    charge(world, 80, hold="h1", of=started.execution)
    world.store.settle("h1", {"tokens": 130})
    assert numbers(world) == (130, 0)
    assert charge(world, 1).left == 0


def test_meters_and_budgets_are_spent_together_or_not_at_all(world: World):
    world.start(budget=TOKENS)
    both = Spend((meter(text="1/minute"),), (Charge("run-of-order-1", "tokens", 60),))
    assert not world.store.spend(both, world.now).refused
    assert world.store.spend(both, world.now).refused == "run:app.billing:0"
    assert numbers(world) == (60, 0)
    assert world.store.spend(both, world.now + MINUTE).refused == "run-of-order-1"
    assert not spend(world, meter(text="1/minute"), at=world.now + MINUTE).refused


def test_a_run_that_is_deleted_takes_its_budget_along(world: World):
    started = world.owned(budget=TOKENS)
    end(world, started)
    other = world.owned("order-2")
    end(world, other)
    last = world.owned("order-3")
    assert last.run
    world.store.prune(Prune(before=world.now + 1))
    assert world.store.budgets(["run-of-order-1"]) == []


def test_the_end_of_another_execution_leaves_reservations_alone(world: World):
    started = world.owned(budget=TOKENS)
    other = world.owned("order-2")
    charge(world, 70, hold="h1", of=started.execution)
    end(world, other)
    assert numbers(world) == (0, 70)
