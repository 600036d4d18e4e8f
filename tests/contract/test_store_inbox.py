"""Posts and questions: what reaches a run from outside."""

import pytest
from tests.contract.store_contract import World, closing, parked, request, turn

from perdure.store.port import Post, Question
from perdure.values.limits import INBOX_PER_EXECUTION


def test_a_post_reaches_the_latest_execution_of_an_id(world: World):
    old = world.owned()
    world.commit(closing(old.run))
    new = world.start(run_id="new")
    answer = world.post(event=b"hello")
    assert (answer.outcome, answer.execution, answer.run) == ("delivered", new.execution, new.run)
    assert answer.event == b"hello"
    [row] = world.load(new.run).inbox
    assert (row.id, row.execution, row.run, row.event) == (
        answer.id,
        new.execution,
        new.run,
        b"hello",
    )


def test_a_post_may_name_the_execution(world: World):
    run = world.start()
    assert world.post("", execution=run.execution).outcome == "delivered"
    assert world.post("", execution=run.execution + 5).outcome == "not_found"


def test_a_post_to_nobody_or_to_the_dead_says_so(world: World):
    run = world.owned()
    world.commit(closing(run.run))
    assert world.post("nobody").outcome == "not_found"
    assert world.post(namespace="elsewhere").outcome == "not_found"
    assert world.post().outcome == "closed"
    assert world.inbox(run.run) == []


def test_posts_keep_their_order_and_their_answers_their_places(world: World):
    run = world.start().run
    posts = [Post(str(n).encode(), "nobody" if n % 3 == 0 else "order-1") for n in range(250)]
    answers = world.store.post(posts, world.now)
    kept = [n for n in range(250) if n % 3]
    assert [answer.outcome for answer in answers][:4] == [
        "not_found",
        "delivered",
        "delivered",
        "not_found",
    ]
    assert world.inbox(run) == [str(n).encode() for n in kept]
    ids = [row.id for row in world.load(run).inbox]
    assert ids == [answers[n].id for n in kept]
    assert ids == sorted(set(ids))


def test_a_repeated_post_is_a_duplicate_even_after_its_row_was_read(world: World):
    run = world.owned().run
    assert world.post(sender="ann", seq=1).outcome == "delivered"
    assert world.post(sender="ann", seq=1).outcome == "duplicate"
    [message] = world.load(run).inbox
    world.commit(turn(run, consumed=(message.id,)))
    assert world.post(sender="ann", seq=1).outcome == "duplicate"
    assert world.post(sender="bob", seq=1).outcome == "delivered"
    assert world.post(sender="ann", seq=2).outcome == "delivered"
    assert len(world.inbox(run)) == 2


def test_a_repeat_within_one_call_is_a_duplicate(world: World):
    world.start()
    post = Post(b"x", "order-1", sender="ann", seq=1)
    answers = world.store.post([post, post], world.now)
    assert [answer.outcome for answer in answers] == ["delivered", "duplicate"]


def test_a_refused_post_may_be_sent_again(world: World):
    assert world.post(sender="ann", seq=1).outcome == "not_found"
    world.start()
    assert world.post(sender="ann", seq=1).outcome == "delivered"


def test_a_mailbox_takes_everything_and_keeps_nothing(world: World):
    answer = world.post("@somebody")
    assert (answer.outcome, answer.id) == ("delivered", 0)
    sender = world.owned("sender").run
    result = world.commit(turn(sender, posts=[Post(b"x", "@somebody", refusal=b"no")]))
    assert result.fed == []
    assert world.inbox(sender) == []


def test_an_inbox_has_a_limit_that_refuses_messages_but_not_the_ends_of_children(world: World):
    run, sender = world.start(), world.owned("sender")
    posts = [Post(b"x", "order-1") for _ in range(INBOX_PER_EXECUTION - 1)]
    assert {answer.outcome for answer in world.store.post(posts, world.now)} == {"delivered"}
    last_two = [Post(b"by id", "order-1"), Post(b"by number", execution=run.execution)]
    answers = world.store.post(last_two, world.now)
    assert [answer.outcome for answer in answers] == ["delivered", "full"]
    assert world.post("", execution=run.execution).outcome == "full"
    result = world.commit(
        turn(
            sender.run,
            posts=[
                Post(b"message", "order-1", refusal=b"full"),
                Post(b"child closed", execution=run.execution),
            ],
        )
    )
    assert [fed.event for fed in result.fed] == [b"full", b"child closed"]
    assert world.inbox(sender.run) == [b"full"]


def test_a_start_that_brings_messages_to_an_inbox_without_room_is_refused_and_brings_none(
    world: World,
):
    run = world.start()
    world.store.post([Post(b"x", "order-1") for _ in range(INBOX_PER_EXECUTION - 3)], world.now)
    starts = [
        request(run_id=f"run-{n}", conflict="use_existing", messages=(b"1", b"2")) for n in range(2)
    ]
    assert [one.refused for one in world.store.start(starts, world.now)] == ["", "full"]
    assert len(world.inbox(run.run)) == INBOX_PER_EXECUTION - 1
    assert world.start(run_id="none", conflict="use_existing").refused == ""


def test_what_turns_post_is_fed_back_with_its_row(world: World):
    sender, target = world.owned("sender"), world.owned("target")
    result = world.commit(
        turn(
            sender.run,
            posts=[
                Post(b"to target", "target", refusal=b"no"),
                Post(b"to nobody", "nobody", refusal=b"nobody there"),
                Post(b"to the void", "nobody"),
            ],
        ),
        posts=[Post(b"from outside", "target")],
    )
    assert [(fed.run, fed.event) for fed in result.fed] == [
        (target.run, b"to target"),
        (sender.run, b"nobody there"),
    ]
    assert [fed.id for fed in result.fed] == [
        world.load(target.run).inbox[0].id,
        world.load(sender.run).inbox[0].id,
    ]
    assert [answer.event for answer in result.posted] == [b"from outside"]


def test_a_post_reaches_a_run_that_the_same_batch_starts(world: World):
    result = world.commit(starts=[request("new")], posts=[Post(b"hello", "new")])
    assert result.posted[0].run == result.started[0].run


def test_an_engine_reads_what_is_its_own_or_may_be_claimed(world: World):
    other = world.join("other")
    mine, theirs = world.owned("mine"), world.owned("theirs")
    world.commit(turn(theirs.run, payload=b"x"), worker=world.worker)
    sleeping, foreign = world.asleep("sleeping"), world.asleep("foreign", workflow="unknown")
    for workflow_id in ("mine", "theirs", "sleeping", "foreign"):
        world.post(workflow_id, event=workflow_id.encode())
    read = world.store.inbox(["order"], ["default"], world.worker.id, limit=9)
    assert [row.event for row in read] == [b"mine", b"theirs", b"sleeping"]
    assert [row.run for row in read] == [mine.run, theirs.run, sleeping.run]
    read = world.store.inbox(["order"], ["default"], other.id, limit=9)
    assert [row.event for row in read] == [b"sleeping"]
    assert world.store.inbox(["order"], ["slow"], other.id, limit=9) == []
    read = world.store.inbox(["unknown"], ["default"], other.id, limit=9)
    assert [row.run for row in read] == [foreign.run]
    assert len(world.store.inbox(["order"], ["default"], world.worker.id, limit=2)) == 2


def test_anybody_reads_what_reaches_a_parked_run(world: World):
    run = world.owned().run
    world.commit(turn(run, state=parked(3)))
    world.post(event=b"message")
    world.post(event=b"unpark", is_control=True)
    [row] = world.store.inbox([], [], world.worker.id, limit=9)
    assert row.event == b"unpark"


def test_a_question_is_put_answered_once_and_read(world: World):
    run = world.start()
    world.store.ask(Question("q", run.execution, "state", b"[1]", deadline=50), 10)
    [question] = world.store.questions(10, ["order"], limit=9)
    assert (question.id, question.run, question.args) == ("q", run.run, b"[1]")
    assert world.store.questions(10, ["other"], limit=9) == []
    assert world.store.questions(50, ["order"], limit=9) == []
    assert world.store.reply("q") is None
    world.store.answer("q", b"first", 11)
    world.store.answer("q", b"second", 12)
    assert world.store.reply("q") == b"first"
    assert world.store.questions(10, ["order"], limit=9) == []


@pytest.mark.parametrize("later", [60_000_000, 61_000_000])
def test_old_questions_are_forgotten_when_new_ones_come(world: World, later: int):
    run = world.start()
    world.store.ask(Question("old", run.execution, "state", b"[]", deadline=50), 10)
    world.store.answer("old", b"yes", 11)
    world.store.ask(Question("new", run.execution, "state", b"[]", deadline=later + 1), later)
    assert world.store.reply("old") == (b"yes" if later == 60_000_000 else None)
