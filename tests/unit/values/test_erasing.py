"""What is erased of each event: whatever users may have put in, but for names and ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from tests.unit.values.test_events import any_event

from perdure.values import events as ev
from perdure.values.erasing import ERASED, without_payloads
from perdure.values.retry import RetryPolicy
from perdure.values.terms import Terms

SECRET = "Ada Lovelace"
EVERY = ev.FACTS + ev.COMMANDS
STAYS = {
    # who, where, and which: names and ids
    "activity_completed": {"worker"},
    "activity_failed": {"failure.kind", "failure.type", "worker"},
    "activity_scheduled": {"isolation", "name", "queue", "step"},
    "attempt_failed": {"failure.kind", "failure.type", "worker"},
    "attempt_lost": {"worker"},
    "cancel_requested": {"by"},
    "cancel_sent": {"namespace", "target"},
    "child_closed": {"asked_by", "failure.kind", "failure.type", "run_id", "status"},
    "child_scheduled": {
        "conflict",
        "messages.id",
        "messages.sender",
        "messages.topic",
        "namespace",
        "parent_close",
        "places",
        "queue",
        "reuse",
        "run_id",
        "version",
        "workflow",
        "workflow_id",
    },
    "emitted": {"event", "name", "path", "step"},
    "execution_ended": {
        "asked_by",
        "failure.kind",
        "failure.type",
        "run_id",
        "status",
        "way",
        "workflow_id",
    },
    "forked": {"how", "keys.key", "keys.name", "origin", "origin_run", "run_id", "workflow_id"},
    "human_task_closed": {"id", "outcome"},
    "human_task_decided": {
        "approvals.by",
        "approvals.person",
        "asked_by",
        "begins.places",
        "begins.policy",
        "begins.timeout_action",
        "by",
        "outcome",
    },
    "human_task_opened": {
        "assignee",
        "handling.escalate",
        "handling.not_by",
        "handling.type",
        "id",
        "name",
        "role",
    },
    "message_received": {"message.id", "message.sender", "message.topic"},
    "message_sent": {"namespace", "target", "topic"},
    "run_cancelled": {"failure.kind", "failure.type"},
    "run_completed": {"messages.id", "messages.sender", "messages.topic", "next_run"},
    "run_continued": {
        "children.run_id",
        "children.workflow_id",
        "messages.id",
        "messages.sender",
        "messages.topic",
        "notices.failure.kind",
        "notices.failure.type",
        "notices.notice",
        "notices.sender",
        "run_id",
        "workflow",
    },
    "run_failed": {
        "failure.kind",
        "failure.type",
        "messages.id",
        "messages.sender",
        "messages.topic",
        "next_run",
        "not_undone.kind",
        "not_undone.type",
    },
    "run_handed_over": {"by"},
    "run_moved": {"by", "version"},
    "run_parked": {"code", "reason", "unblock"},
    "run_paused": {"by"},
    "run_resumed": {"by"},
    "run_started": {
        "children.run_id",
        "children.workflow_id",
        "code",
        "continued_from",
        "first_run_id",
        "flavour",
        "messages.id",
        "messages.sender",
        "messages.topic",
        "namespace",
        "notices.failure.kind",
        "notices.failure.type",
        "notices.notice",
        "notices.sender",
        "parent.run_id",
        "parent.workflow_id",
        "places",
        "queue",
        "run_id",
        "schedule",
        "version",
        "workflow",
        "workflow_id",
    },
    "run_taken": {"code", "worker"},
    "run_terminated": {"by"},
    "run_timed_out": {"next_run", "timeout"},
    "run_unparked": {"by"},
    "send_resolved": {"asked_by", "failure.kind", "failure.type"},
    "side_effect_recorded": {"name"},
    "update_accepted": {"name", "update"},
    "update_completed": {"failure.kind", "failure.type", "update"},
    "version_marked": {"change"},
    "watch_dropped": {"namespace", "target", "way"},
    "watch_set": {"namespace", "target", "way"},
}
"""Of each kind, the fields that stay. A new field is erased, or stands here."""


def filled(kind: Any, deep: int = 0) -> Any:
    """Return a value of a kind with the secret in all that can hold it."""
    if kind in (Terms, RetryPolicy):
        return None  # times and numbers; a key of a queue, which is a label
    if kind is bytes:
        return f'"{SECRET}"'.encode()
    if kind is str:
        return SECRET
    if kind in (int, float, bool):
        return kind(1)
    parts = get_args(kind)
    if get_origin(kind) is tuple:
        inner = [filled(part, deep) for part in parts if part is not Ellipsis]
        return tuple(inner)
    if parts:  # a union with None
        return filled(next(part for part in parts if part is not type(None)), deep)
    if deep > 2:
        return None
    found = {
        name: value
        for name, hint in get_type_hints(kind).items()
        if name in kind.__struct_fields__
        and name not in ("v", "seed")
        and (value := filled(hint, deep + 1)) is not None
    }
    return kind(**found, **({"seed": b"0" * 16} if "seed" in kind.__struct_fields__ else {}))


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    elif SECRET in (value.decode("latin-1") if isinstance(value, bytes) else str(value)):
        yield path


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_what_stays_of_an_event_is_named_here(cls: type[ev.Event]):
    event = filled(cls)
    [plain] = without_payloads(ev.decode_plain(ev.encode_turn([event])))
    left = {
        path.replace("failure.cause.", "failure.").replace("not_undone.cause.", "not_undone.")
        for path in leaves(plain)
    }
    left = {path.replace("cause.", "") for path in left}
    assert left == STAYS.get(event.kind, set())


@given(any_event)
def test_an_erased_event_is_read_and_erased_again_it_is_the_same(event: ev.Event):
    once = without_payloads(ev.decode_plain(ev.encode_turn([event])))
    [back] = ev.decode_turn(ev.encode_plain(once))
    assert back.kind == event.kind
    assert back.brief() is not None
    assert getattr(back, "seed", b"") == getattr(event, "seed", b"")
    assert without_payloads(once) == once


def test_the_marker_is_what_json_makes_of_it():
    assert msgspec.json.encode(msgspec.json.decode(ERASED)) == ERASED


def test_marks_of_steps_keep_what_the_graph_says_of_them():
    kept = ev.Emitted(name="step.started", step="s", data=b'{"step_type":"task"}')
    users = ev.Emitted(event="seen", data=b'{"step_type":"task"}')
    turn = without_payloads(ev.decode_plain(ev.encode_turn([kept, users])))
    assert [event["data"] for event in turn] == [kept.data, ERASED]
