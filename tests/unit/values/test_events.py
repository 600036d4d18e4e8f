"""Events and their encoding: every kind comes back as it went, and what is newer says so."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import errors
from perdure.kernel.apply import APPLY
from perdure.values import events as ev
from perdure.values.bounds import Bounds
from perdure.values.failures import FailureInfo
from perdure.values.retry import RetryPolicy
from perdure.values.terms import Terms

EVERY = ev.FACTS + ev.COMMANDS

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
blobs = st.binary(max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1)
failure_infos = st.deferred(
    lambda: st.builds(
        FailureInfo,
        message=texts,
        kind=texts,
        type=texts,
        retryable=st.booleans(),
        details=st.none() | blobs,
        trace=texts,
        cause=st.none() | failure_infos,
    )
)
FIELDS = {
    "int": numbers,
    "str": texts,
    "bytes": blobs,
    "bool": st.booleans(),
    "float": st.floats(allow_nan=False),
    "FailureInfo": failure_infos,
    "RetryPolicy": st.builds(
        RetryPolicy,
        max_attempts=numbers,
        interval=numbers,
        backoff=st.floats(1, 100),
        non_retryable=st.lists(texts, max_size=2).map(tuple),
    ),
    "Terms": st.builds(
        Terms,
        execution_timeout=numbers,
        start_delay=numbers,
        retry=st.none() | st.builds(RetryPolicy, max_attempts=numbers),
        cron=texts,
    ),
    "tuple[str, int]": st.tuples(texts, numbers),
    "Bounds": st.builds(
        Bounds,
        policy=texts,
        places=st.lists(st.tuples(texts, numbers), max_size=2).map(tuple),
        max_duration=numbers,
        timeout_action=texts,
        alerts=st.booleans(),
    ),
    "Approval": st.builds(
        ev.Approval,
        by=texts,
        at=numbers,
        value=st.none() | blobs,
        comment=texts,
        person=texts,
    ),
    "Handling": st.builds(
        ev.Handling,
        type=texts,
        escalate=st.lists(st.tuples(texts, numbers), max_size=2).map(tuple),
        approvers=numbers,
        not_by=st.lists(texts, max_size=2).map(tuple),
        form_version=numbers,
    ),
    "Parent": st.builds(
        ev.Parent, execution=numbers, workflow_id=texts, run_id=texts, child=numbers
    ),
    "OpenChild": st.builds(ev.OpenChild, workflow_id=texts, run_id=texts, child=numbers),
    "UnreadNotice": st.builds(
        ev.UnreadNotice,
        notice=texts,
        sender=texts,
        at=numbers,
        result=st.none() | blobs,
        failure=st.none() | failure_infos,
        reason=texts,
    ),
    "KeptKey": st.builds(ev.KeptKey, name=texts, args=texts, key=texts),
    "Message": st.builds(ev.Message, topic=texts, payload=blobs, sender=texts, sent_at=numbers),
}


def values_of(annotation: str) -> st.SearchStrategy:
    """Return a strategy for a field, by its annotation as it is written."""
    if annotation.endswith(" | None"):
        return st.none() | values_of(annotation.removesuffix(" | None"))
    if annotation.startswith("tuple["):
        kind = annotation.removeprefix("tuple[").removesuffix(", ...]")
        return st.lists(FIELDS[kind], max_size=3).map(tuple)
    return FIELDS[annotation]


def events_of(cls: type[ev.Event]) -> st.SearchStrategy[ev.Event]:
    fields = {name: values_of(kind) for name, kind in cls.__annotations__.items() if name != "rank"}
    return st.builds(cls, **fields)


any_event = st.one_of([events_of(cls) for cls in EVERY])


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_every_event_comes_back_as_it_was_written(cls, data):
    event = data.draw(events_of(cls))
    (back,) = ev.decode_turn(ev.encode_turn([event]))
    assert type(back) is cls
    assert back == event
    assert ev.encode_turn([back]) == ev.encode_turn([event])


@given(st.lists(any_event, max_size=8))
def test_a_turn_keeps_its_events_in_order(events):
    assert ev.decode_turn(ev.encode_turn(events)) == events


@given(any_event)
def test_plain_decoding_shows_kind_and_fields(event):
    (plain,) = ev.decode_plain(ev.encode_turn([event]))
    assert plain.pop("kind") == event.kind
    assert set(plain) <= set(event.__struct_fields__)


def test_every_event_has_a_kind_of_its_own_and_every_fact_a_handler():
    assert len(ev.KINDS) == len(EVERY)
    assert set(APPLY) == set(ev.FACTS)
    assert set(ev.CLOSES_AS) == ev.CLOSING


def test_kinds_are_those_that_stored_histories_hold():
    assert set(ev.KINDS) == {
        "activity_cancelled",
        "activity_completed",
        "activity_failed",
        "activity_scheduled",
        "attempt_failed",
        "attempt_lost",
        "attributes_set",
        "cancel_requested",
        "cancel_sent",
        "child_closed",
        "child_scheduled",
        "emitted",
        "execution_ended",
        "forked",
        "human_task_closed",
        "human_task_decided",
        "human_task_opened",
        "message_received",
        "message_sent",
        "progress_reported",
        "run_cancelled",
        "run_completed",
        "run_continued",
        "run_failed",
        "run_handed_over",
        "run_moved",
        "run_overdue",
        "run_parked",
        "run_paused",
        "run_resumed",
        "run_started",
        "run_taken",
        "run_terminated",
        "run_timed_out",
        "run_unparked",
        "send_resolved",
        "side_effect_recorded",
        "timer_cancelled",
        "timer_fired",
        "timer_started",
        "update_accepted",
        "update_completed",
        "version_marked",
        "watch_dropped",
        "watch_set",
    }


def test_fields_at_their_default_are_left_out():
    (plain,) = ev.decode_plain(ev.encode_turn([ev.ActivityScheduled(name="charge")]))
    assert plain == {"kind": "activity_scheduled", "name": "charge"}


def plain_turn(*events: dict) -> bytes:
    return msgspec.msgpack.encode(list(events))


def test_an_unknown_kind_says_that_the_worker_is_too_old():
    data = plain_turn({"kind": "timer_fired", "timer": 2}, {"kind": "moon_landed", "at": 1})
    with pytest.raises(errors.SchemaMismatch, match="'moon_landed' is unknown .* upgrade"):
        ev.decode_turn(data)


@pytest.mark.parametrize("timer", [2, "two"], ids=["same shape", "another shape"])
def test_an_unknown_version_of_a_kind_says_that_the_worker_is_too_old(timer):
    data = plain_turn({"kind": "timer_fired", "v": 2, "timer": timer})
    with pytest.raises(errors.SchemaMismatch, match="'timer_fired' has schema version 2.*upgrade"):
        ev.decode_turn(data)


def test_unknown_fields_are_passed_over_and_survive_in_plain_decoding():
    data = plain_turn({"kind": "timer_fired", "timer": 2, "drift": 7})
    assert ev.decode_turn(data) == [ev.TimerFired(timer=2)]
    assert ev.decode_plain(data) == [{"kind": "timer_fired", "timer": 2, "drift": 7}]


def test_unknown_kinds_survive_in_plain_decoding():
    data = plain_turn({"kind": "moon_landed", "at": 1})
    assert ev.decode_plain(data) == [{"kind": "moon_landed", "at": 1}]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93",
        msgspec.msgpack.encode({"kind": "timer_fired"}),
        plain_turn({"kind": "timer_fired"}),
    ],
    ids=["nothing", "noise", "cut off", "no array", "a field is missing"],
)
def test_bytes_that_are_no_turn_are_corrupt(data):
    with pytest.raises(errors.Corrupt):
        ev.decode_turn(data)


def test_plain_decoding_of_noise_is_corrupt():
    with pytest.raises(errors.Corrupt, match="is not a turn"):
        ev.decode_plain(b"\xc1")


@given(
    st.lists(st.one_of([events_of(cls) for cls in ev.FACTS]), max_size=4),
    st.lists(st.one_of([events_of(cls) for cls in ev.COMMANDS]), max_size=4),
)
def test_a_turn_is_split_into_its_facts_and_its_commands(facts, commands):
    assert ev.split([*facts, *commands]) == len(facts)


def test_facts_are_ranked_outcomes_messages_children_updates_cancel():
    ranks = [
        ev.ActivityCompleted.rank,
        ev.MessageReceived.rank,
        ev.ChildClosed.rank,
        ev.UpdateAccepted.rank,
        ev.CancelRequested.rank,
    ]
    assert ranks == sorted(set(ranks))
    assert ev.TimerFired.rank == ev.ActivityFailed.rank == ev.SendResolved.rank == 0


@pytest.mark.parametrize("cls", ev.COMMANDS, ids=lambda cls: cls.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_every_command_is_the_same_as_itself_and_briefly_told(cls, data):
    event = data.draw(events_of(cls))
    assert event.same_as(event)
    assert event.brief().startswith(event.kind)


@pytest.mark.parametrize(
    ("asked", "recorded", "same"),
    [
        (
            ev.ActivityScheduled(name="a", args=b"[1]"),
            ev.ActivityScheduled(name="a", args=b"[2]"),
            True,
        ),
        (ev.ActivityScheduled(name="a"), ev.ActivityScheduled(name="b"), False),
        (ev.ActivityScheduled(name="a"), ev.ActivityScheduled(name="a", timeout=5), True),
        (ev.TimerStarted(due=1), ev.TimerStarted(due=2), True),
        (ev.TimerCancelled(timer=1), ev.TimerCancelled(timer=2), False),
        (ev.ActivityCancelled(activity=1), ev.ActivityCancelled(activity=2), False),
        (
            ev.MessageSent(target="a", topic="t", payload=b"1"),
            ev.MessageSent(target="a", topic="t", payload=b"2"),
            True,
        ),
        (ev.MessageSent(target="a", topic="t"), ev.MessageSent(target="b", topic="t"), False),
        (ev.CancelSent(target="a"), ev.CancelSent(target="a", terminate=True), False),
        (
            ev.ChildScheduled(workflow="w", workflow_id="i", run_id="r", input=b"1"),
            ev.ChildScheduled(workflow="w", workflow_id="i", run_id="s", input=b"2"),
            True,
        ),
        (
            ev.ChildScheduled(workflow="w", workflow_id="i", run_id="r"),
            ev.ChildScheduled(workflow="w", workflow_id="j", run_id="r"),
            False,
        ),
        (
            ev.UpdateCompleted(update="a", result=b"1"),
            ev.UpdateCompleted(update="a", result=b"2"),
            True,
        ),
        (ev.UpdateCompleted(update="a"), ev.UpdateCompleted(update="b"), False),
        (ev.RunCompleted(result=b"1"), ev.RunCompleted(result=b"2"), True),
        (ev.VersionMarked(change="a", version=1), ev.VersionMarked(change="a", version=2), True),
        (
            ev.SideEffectRecorded(name="a", value=b""),
            ev.SideEffectRecorded(name="b", value=b""),
            False,
        ),
    ],
)
def test_a_command_is_recognised_by_what_identifies_it(asked, recorded, same):
    assert asked.same_as(recorded) is same
