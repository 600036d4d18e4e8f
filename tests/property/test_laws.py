"""Laws that hold for every program and every order in which things happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.property.programs import interpret, programs, telling
from tests.property.schedules import Story, schedules
from tests.unit.drive import state

from perdure.kernel.instance import Instance, StoredTurn
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.states import TERMINAL, TRANSITIONS, Status, may


@pytest.fixture(autouse=True)
def _leave_no_loop() -> Iterator[None]:
    yield
    assert asyncio._get_running_loop() is None


def stored(story: Story) -> list[StoredTurn]:
    return [StoredTurn(ev.decode_turn(data), time, True, len(data)) for data, time in story.rows]


def unmarked(commands: Sequence[ev.Event]) -> list[ev.Event]:
    return [command for command in commands if type(command) not in ev.SOFT]


def replayed(turns: list[StoredTurn]) -> tuple[Instance, list[list[ev.Event]]]:
    """Replay; return the instance and what its code asked for, turn by turn."""
    instance, asked = Instance(interpret), []
    for events, time, _, size in turns:
        count = ev.split(events)
        asked.append(instance.apply(events[:count], time, events[count:]).commands)
        instance.size += size
    return instance, asked


def log_of(instance: Instance) -> Any:
    if "log" not in instance.queries:
        return None
    return payload.decode(instance.query("log", lambda handler: handler.answer(b"[]")))


@given(programs, schedules, schedules)
def test_a_replayed_run_is_the_live_run_and_goes_on_like_it(program, schedule, rest):
    story = Story(program).follow(schedule)
    turns = stored(story)
    recorded = [unmarked(turn.events[ev.split(turn.events) :]) for turn in turns]
    first, asked = replayed(turns)
    second, asked_again = replayed(turns)
    assert asked == asked_again == recorded
    assert log_of(first) == log_of(second) == log_of(story.instance)

    other = Story.__new__(Story)
    other.__dict__.update(story.__dict__, instance=first, rows=[*story.rows])
    assert other.follow(rest).rows == story.follow(rest).rows
    assert state(first) == state(story.instance)
    for instance in (first, second, story.instance):
        instance.evict()


@given(programs, schedules)
def test_any_prefix_of_the_turns_gives_a_prefix_of_the_commands(program, schedule):
    story = Story(program).follow(schedule)
    turns = stored(story)
    for length in range(len(turns)):
        instance, _ = replayed(turns[:length])
        for events, time, _, size in turns[length:]:
            count = ev.split(events)
            assert instance.apply(events[:count], time).commands == events[count:]
            instance.size += size
        instance.evict()
    story.instance.evict()


@given(programs, schedules, st.randoms(use_true_random=False))
def test_a_run_fits_its_history_whatever_its_code_tells(program, schedule, chance):
    versions = [program, telling(program, chance), telling(program, chance)]
    for before in versions:
        story = Story(before).follow(schedule)
        turns = stored(story)
        hard = [unmarked(turn.events[ev.split(turn.events) :]) for turn in turns]
        for after in versions:
            started = msgspec.structs.replace(turns[0].events[0], input=payload.encode(after))
            edited = [turns[0]._replace(events=[started, *turns[0].events[1:]]), *turns[1:]]
            instance, asked = replayed(edited)
            assert list(map(_identities, asked)) == list(map(_identities, hard))
            assert [*instance.activities] == [*story.instance.activities]
            assert instance.length == story.instance.length
            instance.evict()
        story.instance.evict()


def _identities(commands: Sequence[ev.Event]) -> list[str]:
    """Return what a replay holds the code to: not arguments, not results."""
    return [command.brief() for command in commands]


@given(programs, schedules)
def test_a_turn_on_an_unchanged_history_asks_for_nothing(program, schedule):
    story = Story(program).follow(schedule)
    instance, _ = replayed(stored(story))
    if instance.closed is None:
        before = log_of(instance)
        for _ in range(2):
            turn = instance.apply([], story.time)
            assert (turn.commands, turn.closed) == ([], None)
        assert log_of(instance) == before
        assert instance.waits() == story.instance.waits()
    instance.evict()
    story.instance.evict()


@given(programs, schedules)
def test_evicting_after_every_turn_changes_nothing(program, schedule):
    def rebuild(story: Story) -> None:
        story.instance.evict()
        story.instance, _ = replayed(stored(story))

    live = Story(program).follow(schedule)
    evicted = Story(program, after_turn=rebuild).follow(schedule)
    assert evicted.rows == live.rows
    assert state(evicted.instance) == state(live.instance)
    live.instance.evict()
    evicted.instance.evict()


@given(programs, schedules)
def test_evicting_records_nothing_and_leaves_nothing_to_run(program, schedule):
    story = Story(program).follow(schedule)
    instance = story.instance
    before = instance.length, len(instance.effects), instance.closed
    instance.evict()
    assert (instance.length, len(instance.effects), instance.closed) == before
    assert not instance.loop.ready
    for task in instance.loop.tasks.values():
        coro: Any = task.get_coro()
        frame = getattr(getattr(coro, "coro", coro), "cr_frame", None)
        assert task.done() or coro is None or frame is None


@given(programs, schedules)
def test_rows_are_read_back_as_they_were_written(program, schedule):
    story = Story(program).follow(schedule)
    for data, _ in story.rows:
        events = ev.decode_turn(data)
        assert ev.encode_turn(events) == data
        assert [plain["kind"] for plain in ev.decode_plain(data)] == [e.kind for e in events]
    numbers = [len(ev.decode_turn(data)) for data, _ in story.rows]
    assert sum(numbers) == story.instance.length
    story.instance.evict()


@given(programs, schedules)
def test_queries_at_any_moment_change_nothing(program, schedule):
    def ask(story: Story) -> None:
        assert log_of(story.instance) is not None
        assert not story.instance.is_spoilt

    asked = Story(program, after_turn=ask).follow(schedule)
    unasked = Story(program).follow(schedule)
    assert asked.rows == unasked.rows
    asked.instance.evict()
    unasked.instance.evict()


class Life(RuleBasedStateMachine):
    """Whoever asks before changing a status never leaves the table, and ends once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = [Status.PENDING]

    @property
    def status(self) -> Status:
        return self.seen[-1]

    @rule(after=st.sampled_from(list(Status)))
    def somebody_wants_another_status(self, after: Status) -> None:
        if may(self.status, after):
            self.seen.append(after)

    @rule(event=st.sampled_from(sorted(ev.CLOSES_AS.values())))
    def it_ends(self, event: str) -> None:
        if may(self.status, Status(event)):
            self.seen.append(Status(event))

    @precondition(lambda self: self.status in (Status.PAUSED, Status.PARKED))
    @rule()
    def it_is_resumed(self) -> None:
        assert may(self.status, Status.RUNNING)
        self.seen.append(Status.RUNNING)

    @precondition(lambda self: not self.status.is_terminal)
    @rule(end=st.sampled_from([Status.TERMINATED, Status.TIMED_OUT]))
    def it_can_be_ended_without_its_code(self, end: Status) -> None:
        assert may(self.status, end)
        self.seen.append(end)

    @invariant()
    def only_steps_of_the_table_were_taken(self) -> None:
        for before, after in zip(self.seen, self.seen[1:], strict=False):
            assert before is after or after in TRANSITIONS[before]

    @invariant()
    def an_end_is_the_last_status(self) -> None:
        ends = [number for number, status in enumerate(self.seen) if status in TERMINAL]
        assert len(set(self.seen[number] for number in ends)) <= 1
        assert not ends or set(self.seen[ends[0] :]) == {self.seen[ends[0]]}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100)
