"""Two stores at one database at the same moment: whoever is later waits, and is told the truth.

A test holds the first of them between two of its statements, at a place that it names, until the
server says that the other one waits (or is done). Nothing here sleeps.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.contract.store_contract import World, closed, closing, request, turn, waiting
from tests.contract.test_store_keeping import keeps
from tests.contract.test_store_people import asked
from tests.contract.test_store_pruning import ended, goes_on, runs
from tests.contract.test_store_schedules import S, fire, put

from perdure.errors import LeaseLost, TaskClosed
from perdure.store.opening import open_store
from perdure.store.port import Act, Post, Prune, Pruned
from perdure.values.meters import Meter, Spend, Spent, window_rate
from perdure.values.people import HumanTaskStatus

_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s"


class Pair:
    """Two stores of one database, each with a worker and a thread; and somebody who looks on."""

    def __init__(self, url: str) -> None:
        self.a, self.b = self._world(url), self._world(url)
        self.b.now = self.a.now + 100
        self._threads = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]
        self._look = psycopg.connect(url, autocommit=True)
        self._deadlocks: int | None = self.deadlocks()

    def _world(self, url: str) -> World:
        return World(open_store(url))

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown()
        for world in (self.a, self.b):
            world.store.close()
        self._look.close()

    def deadlocks(self) -> int:
        found = self._look.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
        assert found is not None
        return int(found[0])

    def overlap(
        self,
        first: Callable[[], Any],
        second: Callable[[], Any],
        *,
        before: str = "COMMIT",
    ) -> tuple[Any, Any]:
        """Do ``first`` on ``a`` and ``second`` on ``b``: the second begins when the first is about
        to send the statement ``before``, and that goes on when the second waits for it or is done.

        What either raises is returned.
        """
        database = self.a.store.database  # type: ignore[attr-defined]
        plain = database.execute
        held, goes_on = threading.Event(), threading.Event()

        def execute(text: str, *args: Any, **kwargs: Any) -> Any:
            is_there = text == before if before == "COMMIT" else before in text
            if is_there and not held.is_set():
                if database.pipeline is not None:
                    database.pipeline.sync()  # so far everything has happened
                held.set()
                assert goes_on.wait(30)
            return plain(text, *args, **kwargs)

        database.execute = execute
        try:
            one = self._threads[0].submit(first)
            assert held.wait(30) or one.done()
            two = self._threads[1].submit(second)
            self._until_it_waits(two)
            goes_on.set()
            return one.exception() or one.result(), two.exception() or two.result()
        finally:
            goes_on.set()
            del database.execute

    def _until_it_waits(self, done: Future[Any]) -> None:
        pid = self.b.store.database.connection.info.backend_pid  # type: ignore[attr-defined]
        while not done.done():
            found = self._look.execute(_WAITS, [pid]).fetchone()
            if found is not None and found[0]:
                return

    def forgive(self) -> None:
        """Take what happened so far for what must be."""
        self._deadlocks = None

    def check_no_deadlock(self) -> None:
        """Nobody had to be ended by the server: that would cost a second."""
        if self._deadlocks is not None:
            self._look.execute("SELECT pg_stat_clear_snapshot()")
            assert self.deadlocks() == self._deadlocks


@pytest.fixture
def pair(postgres_url: str) -> Iterator[Pair]:
    pair = Pair(postgres_url)
    yield pair
    try:
        pair.check_no_deadlock()
    finally:
        pair.close()


def test_of_two_claims_of_one_run_one_wins_and_the_other_is_lost(pair: Pair):
    run = pair.a.asleep().run
    claims = [turn(run, claim=2, state=waiting(3)) for _ in range(2)]
    one, two = pair.overlap(lambda: pair.a.commit(claims[0]), lambda: pair.b.commit(claims[1]))
    assert (list(one.lost), list(two.lost)) == ([], [run])
    assert len(pair.a.payloads(run)) == 2


@pytest.mark.parametrize("first", ["post", "close"])
def test_a_post_while_the_run_closes_is_kept_or_refused_and_never_lost(pair: Pair, first: str):
    run = pair.a.owned().run if first == "close" else pair.b.owned().run

    def close(world: World) -> Any:
        return world.commit(closing(run))

    def post(world: World) -> Any:
        return world.post()

    if first == "close":
        ended, posted = pair.overlap(lambda: close(pair.a), lambda: post(pair.b))
        assert (list(ended.reopened), posted.outcome) == ([], "closed")
        assert pair.a.inbox(run) == []
    else:
        posted, ended = pair.overlap(lambda: post(pair.a), lambda: close(pair.b))
        assert (list(ended.reopened), posted.outcome) == ([run], "delivered")
        assert pair.a.inbox(run) == [b"hello"]
        assert not pair.a.row(run).status.is_terminal


@pytest.mark.parametrize("addressed", ["by execution", "by workflow id"])
def test_two_posts_to_one_run_do_not_wait_for_ever(pair: Pair, addressed: str):
    run = pair.a.asleep().run
    to: Any = {"execution": run} if addressed == "by execution" else {"workflow_id": "order-1"}

    def post(world: World, event: bytes) -> Any:
        return world.store.post([Post(event, **to)], 5)[0].outcome

    assert pair.overlap(lambda: post(pair.a, b"1"), lambda: post(pair.b, b"2")) == (
        "delivered",
        "delivered",
    )
    assert pair.a.inbox(run) == [b"1", b"2"]


@pytest.mark.parametrize("conflict", ["fail", "use_existing", "terminate_existing"])
def test_of_many_starts_of_one_id_at_once_one_execution_is_open(postgres_url: str, conflict: str):
    count = 50
    stores = [open_store(postgres_url) for _ in range(10)]
    stores[0].migrate(1)
    meet = threading.Barrier(len(stores))

    def body(number: int) -> list[Any]:
        meet.wait(30)
        return [
            stores[number].start([request("one", run_id=f"r-{number}-{n}", conflict=conflict)], 5)[
                0
            ]
            for n in range(count // len(stores))
        ]

    with ThreadPoolExecutor(len(stores)) as threads:
        answers = [a for one in threads.map(body, range(len(stores))) for a in one]
    rows = stores[0].rows([answer.run for answer in answers])
    open_rows = [row for row in rows if not row.status.is_terminal]
    created = [answer for answer in answers if answer.created]
    assert len(open_rows) == 1
    if conflict == "terminate_existing":
        assert len(created) == count
        assert len(rows) == count
    else:
        assert [answer.run for answer in created] == [open_rows[0].run]
        refused = {answer.refused for answer in answers if not answer.created}
        assert refused == {"already_exists" if conflict == "fail" else ""}
    for store in stores:
        store.close()


@pytest.mark.parametrize("first", ["owner", "start"])
def test_a_start_that_replaces_a_run_and_the_owners_commit_come_one_after_the_other(
    pair: Pair, first: str
):
    owner, other = (pair.a, pair.b) if first == "owner" else (pair.b, pair.a)
    run = owner.owned().run

    def replace() -> Any:
        again = request(run_id="again", conflict="terminate_existing")
        return other.store.start([again], other.now)[0]

    def work() -> Any:
        return owner.commit(turn(run))

    if first == "owner":
        committed, started = pair.overlap(work, replace)
        assert list(committed.lost) == []
        assert owner.payloads(run)[:2] == [b"first", b"turn at 3"]
    else:
        started, committed = pair.overlap(replace, work)
        assert committed.is_recalled
        assert list(committed.lost) == [run]
        assert b"turn at 3" not in owner.payloads(run)
    assert (started.created, started.replaced) == (True, run)
    assert owner.row(run).status.is_terminal


@pytest.mark.parametrize("bucket", ["child-1", "order-1"])
def test_a_start_that_replaces_a_run_and_its_owners_start_of_a_child(pair: Pair, bucket: str):
    # The owner holds its own row, and wants the id; the start wants both.
    run = pair.a.owned().run
    child = request(bucket, run_id="child", parent=(run, 3), conflict="fail")

    def replace() -> Any:
        again = request(run_id="again", conflict="terminate_existing")
        return pair.b.store.start([again], pair.b.now)[0]

    committed, started = pair.overlap(
        lambda: pair.a.commit(turn(run, children=[child])), replace, before="advisory"
    )
    assert list(committed.lost) in ([], [run])
    assert started.created


@pytest.mark.parametrize("first", ["parent", "child"])
def test_a_parent_and_its_child_that_end_at_once_both_end(pair: Pair, first: str):
    of_parent, of_child = (pair.a, pair.b) if first == "parent" else (pair.b, pair.a)
    parent = of_parent.owned("parent").run
    child = of_child.owned("child", parent=(parent, 2)).run
    end = [
        lambda: of_parent.commit(closing(parent, closes_children=True)),
        lambda: of_child.commit(
            closing(child, posts=[Post(b"child", execution=parent, is_control=True)])
        ),
    ]
    if first == "child":
        end.reverse()
    one, two = pair.overlap(*end)
    assert list(one.reopened) == []
    if list(two.reopened):  # what the first one told it came before its end
        assert pair.b.load(parent if first == "child" else child).inbox
    else:
        assert pair.a.row(parent).status.is_terminal
        assert pair.a.row(child).status.is_terminal


def test_a_takeover_waits_for_the_batch_that_is_under_way_and_does_not_come_for_it(pair: Pair):
    run = pair.a.owned().run
    seen = next(w for w in pair.b.store.workers() if w.id == pair.a.worker.id)

    def take(lease_until: int | None) -> Any:
        return pair.b.store.take_over(seen.id, seen.epoch, 9, lease_until=lease_until)

    committed, taken = pair.overlap(
        lambda: pair.a.commit(turn(run)), lambda: take(seen.lease_until)
    )
    assert (list(committed.lost), taken) == ([], False)
    committed, taken = pair.overlap(lambda: pair.a.commit(turn(run, first=4)), lambda: take(None))
    assert (list(committed.lost), taken) == ([], True)
    assert pair.a.row(run).owner is None
    assert len(pair.a.payloads(run)) == 3
    with pytest.raises(LeaseLost):
        pair.a.commit(turn(run, first=5))


def test_a_batch_that_comes_while_its_worker_is_taken_over_is_refused(pair: Pair):
    run = pair.b.owned().run
    worker = pair.b.worker
    taken, committed = pair.overlap(
        lambda: pair.a.store.take_over(worker.id, worker.epoch, 9),
        lambda: pair.b.commit(turn(run)),
    )
    assert taken is True
    assert isinstance(committed, LeaseLost)
    assert len(pair.a.payloads(run)) == 1


def test_who_asks_what_was_committed_waits_for_what_is_under_way(pair: Pair):
    run = pair.a.owned().run
    worker = pair.a.worker
    number = pair.a.numbers[worker.id] + 1
    _, resolved = pair.overlap(
        lambda: pair.a.commit(turn(run)),
        lambda: pair.b.store.resolve(worker.id, worker.epoch),
    )
    assert resolved == number


def test_a_batch_whose_run_was_replaced_under_its_eyes_is_begun_again(pair: Pair):
    # Both replace the execution of one id: the second finds another owner than it has locked.
    pair.a.owned()

    def replace(world: World, run_id: str) -> Any:
        again = request(run_id=run_id, conflict="terminate_existing")
        first = turn(0, first=1, count=2, state=waiting(2), payload=b"first")
        again.first = first
        return world.commit(starts=[again]).started[0]

    one, two = pair.overlap(lambda: replace(pair.a, "x"), lambda: replace(pair.b, "y"))
    assert (one.created, two.created, two.replaced) == (True, True, one.run)


def test_two_that_replace_each_others_runs_both_get_it_done(pair: Pair):
    # The one case that costs the server's time to find a deadlock.
    mine, theirs = pair.a.owned("mine").run, pair.b.owned("theirs").run

    def replace(world: World, id: str) -> Any:
        return world.commit(
            starts=[request(id, run_id=f"again-{id}", conflict="terminate_existing")]
        ).started[0]

    one, two = pair.overlap(
        lambda: replace(pair.a, "theirs"), lambda: replace(pair.b, "mine"), before="FOR NO KEY"
    )
    assert (one.created, one.replaced) == (True, theirs)
    assert (two.created, two.replaced) == (True, mine)
    pair.forgive()


@pytest.mark.parametrize("first", ["person", "turn"])
def test_a_human_task_that_is_decided_while_its_turn_gives_it_up_has_one_end(
    pair: Pair, first: str
):
    person, worker = (pair.a, pair.b) if first == "person" else (pair.b, pair.a)
    run = worker.owned().run
    worker.commit(turn(run, asks=[asked()]))
    gives_up = turn(run, first=4, gives_up=(("t-1", HumanTaskStatus.EXPIRED),))
    act = Act("t-1", "complete", "ana", value=b"7")
    both = [lambda: person.store.act(act, 5), lambda: worker.commit(gives_up)]
    if first == "turn":
        both.reverse()
    one, two = pair.overlap(*both)
    found = pair.a.store.human_task("t-1")
    assert found is not None
    if first == "person":
        assert found.status is HumanTaskStatus.COMPLETED
        assert list(two.reopened) == [run]
        assert len(pair.a.inbox(run)) == 1
    else:
        assert found.status is HumanTaskStatus.EXPIRED
        assert list(one.reopened) == []
        assert isinstance(two, TaskClosed)
        assert pair.a.inbox(run) == []


@pytest.mark.parametrize("first", ["the end", "the look"])
def test_an_execution_that_ends_while_its_retention_is_looked_at_is_kept_for_it(
    pair: Pair, first: str
):
    keep_for, now = 100, 5_000
    run = (pair.a if first == "the end" else pair.b).owned(keep_for=keep_for).run
    pair.b.start("newest")
    state = closed(3)
    state.closed_at = now - 10

    def end(world: World) -> Any:
        return world.commit(turn(run, first=3, closes=True, state=state))

    def look(world: World) -> Any:
        return world.store.prune(Prune(now, scope="own"))

    if first == "the end":
        _, pruned = pair.overlap(lambda: end(pair.a), lambda: look(pair.b))
        assert keeps(pair.a) == {run: (keep_for, now - 10 + keep_for)}
    else:
        pruned, _ = pair.overlap(lambda: look(pair.a), lambda: end(pair.b))
        assert keeps(pair.a) == {run: (keep_for, now + keep_for)}
    assert pruned == Pruned(0)


def test_two_who_delete_the_same_executions_do_not_wait_for_ever(pair: Pair):
    # One is deleted, one is moved on; the other of the two takes both in another order.
    first = pair.a.asleep("chain", run_id="r1", keep_for=500)
    second = goes_on(pair.a, first.run, first.execution, "r2", at=1_000, first=3)
    goes_on(pair.a, second, first.execution, "r3", at=1_010)
    ended(pair.a, "old", at=1_000, keep_for=10)
    pair.a.start("newest")
    own, by_hand = pair.overlap(
        lambda: pair.a.store.prune(Prune(5_000, scope="own")),
        lambda: pair.b.store.prune(Prune(5_000)),
    )
    assert (own, by_hand) == (Pruned(2, 4), Pruned(0))
    assert runs(pair.a) == {"r1", "r3", "run-of-newest"}
    assert keeps(pair.a) == {first.execution: (500, 5_500)}


def test_what_schedules_begin_and_a_door_pay_for_the_same_rates_without_a_deadlock(pair: Pair):
    a, b = (Meter(key, window_rate("100/minute")) for key in "ab")
    for id, meter in (("first", b), ("second", a)):
        put(pair.a, id, template={"meters": (meter,)})

    def pay() -> Any:
        return pair.b.store.spend(Spend(meters=(a, b)), 11 * S)

    fired, spent = pair.overlap(lambda: fire(pair.a, 11 * S), pay, before="= excluded.paid_until")
    assert [len(one.started) for one in fired.happened] == [1, 1]
    assert spent == Spent()
