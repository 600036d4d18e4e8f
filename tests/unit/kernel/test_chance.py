"""Chance comes from the run's recorded secret seed (R4)."""

import uuid
from collections import Counter

from tests.unit.drive import Run

from perdure import workflow
from perdure.kernel.entropy import Entropy, idempotency_key
from perdure.values import events as ev
from perdure.workflow import call


@workflow.define
async def dice():
    first = [workflow.random(), str(workflow.uuid4()), workflow.random_bytes(40).hex()]
    await call("a")
    return [first, workflow.random()]


def rolled(**options):
    run = Run(dice, **options)
    run.complete("a")
    return run.result


def test_a_replay_draws_alike():
    run = Run(dice)
    run.instance = run.replayed()
    run.complete("a")
    assert run.result == rolled()


def test_another_seed_draws_otherwise():
    one, other = rolled(), rolled(seed=b"another seed 016")
    assert one[1] != other[1]
    assert all(a != b for a, b in zip(one[0], other[0], strict=True))


def test_nothing_but_the_seed_decides():
    run = Run(dice, time=7, queue="other")
    run.complete("a")
    assert run.result == rolled()


def test_draws_differ_from_each_other():
    @workflow.define
    async def wf():
        return [workflow.random_bytes(8).hex() for _ in range(1000)]

    assert len(set(Run(wf).result)) == 1000


def test_a_uuid_is_a_random_one():
    made = uuid.UUID(rolled()[0][1])
    assert (made.version, made.variant) == (4, uuid.RFC_4122)


def test_random_numbers_are_spread_over_zero_to_one():
    entropy = Entropy(b"seed")
    numbers = [entropy.fraction() for _ in range(10_000)]
    assert all(0 <= number < 1 for number in numbers)
    tenths = Counter(int(number * 10) for number in numbers)
    assert all(850 < tenths[tenth] < 1150 for tenth in range(10))


def test_bytes_of_any_length_can_be_drawn():
    entropy = Entropy(b"seed")
    assert [len(entropy.draw(size)) for size in (0, 1, 63, 64, 65, 1000)] == [
        0,
        1,
        63,
        64,
        65,
        1000,
    ]


def test_the_sequence_is_pinned_for_every_python_and_every_release():
    entropy = Entropy(bytes(range(16)))
    assert entropy.draw(8).hex() == "1977d555f2c87195"
    assert entropy.fraction() == 0.7628217854964006
    assert entropy.derive("child:7", 10).hex() == "6374a5865e685334c09f"
    assert idempotency_key(bytes(range(16)), 7) == "019ea3f882b8ee30dc6a549fdf8e3359"


def test_attempts_of_one_activity_share_a_key_that_others_do_not_have():
    run = Run(dice)
    keys = [run.instance.idempotency_key(number) for number in range(2, 50)]
    assert len(set(keys)) == 48
    assert keys[0] == run.replayed().idempotency_key(2)
    assert keys[0] != Run(dice, seed=b"another seed 016").instance.idempotency_key(2)


def test_keys_do_not_follow_from_what_everybody_may_know():
    run = Run(dice)
    known = run.started.run_id.encode()
    assert idempotency_key(known[:16], 2) != run.instance.idempotency_key(2)


def test_a_fork_draws_from_its_own_seed_and_keeps_the_keys_of_before():
    run = Run(dice)
    key = run.instance.idempotency_key(2)
    run.turn(ev.Forked(seed=b"the fork's seed.", origin="order-6"), run.completed("a"))
    assert run.result[0] == rolled()[0]
    assert run.result[1] != rolled()[1]
    assert run.instance.idempotency_key(2) == key
    assert run.instance.idempotency_key(20) == idempotency_key(b"the fork's seed.", 20)


def test_a_childs_id_does_not_depend_on_how_often_code_drew():
    @workflow.define(name="parent")
    async def before():
        await workflow.start("child")
        await call("a")

    @workflow.define(name="parent")
    async def after():
        workflow.random()
        await workflow.start("child")
        await call("a")

    run = Run(before)
    assert list(run.replayed(after).children) == list(run.instance.children)


def test_run_ids_of_children_are_fresh_and_tell_their_time():
    @workflow.define
    async def wf():
        return [(await workflow.start("child")).id for _ in range(20)]

    made = [uuid.UUID(one) for one in Run(wf).result]
    assert len(set(made)) == 20
    assert {one.version for one in made} == {7}
    assert {one.int >> 80 for one in made} == {1_750_000_000_000}
