"""What is exported is what is imported, and copies are cut where code can go on."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.property.programs import interpret, programs
from tests.property.schedules import Story, schedules

from perdure import copying, errors, transfer
from perdure.kernel.instance import Instance, StoredTurn
from perdure.store.port import RunRow, TurnRow
from perdure.values import events as ev
from perdure.values.states import Status


def rows_of(story: Story) -> list[TurnRow]:
    rows: list[TurnRow] = []
    first = 1
    for data, time in story.rows:
        count = len(ev.decode_plain(data))
        rows.append(TurnRow(5, first, count, time, True, 3, data))
        first += count
    return rows


def row_of(rows: list[TurnRow], **facts: Any) -> RunRow:
    [first, *_] = ev.decode_plain(rows[0].payload)
    last = ev.decode_turn(rows[-1].payload)[-1]
    status = Status(ev.CLOSES_AS.get(type(last), "waiting"))
    return RunRow(5, 5, "r", "default", "order-7", first["workflow"], "1.0.0", "default", 1, 1,
                  None, status, rows[-1].first + rows[-1].count - 1, **facts)  # fmt: skip


def through_a_file(document: dict[str, Any]) -> Any:
    return json.loads(json.dumps(document))


@given(programs, schedules)
def test_a_drawn_history_comes_back_byte_for_byte(program, schedule):
    story = Story(program).follow(schedule)
    story.instance.evict()
    rows = rows_of(story)
    document = transfer.export(row_of(rows), rows, {}, with_seed=True)
    found = transfer.read(through_a_file(document))
    assert [(r.first, r.count, r.time, r.applied, r.worker, r.payload) for r in found.rows] == [
        (r.first, r.count, r.time, r.applied, r.worker, r.payload) for r in rows
    ]
    assert found.has_seed
    without = transfer.read(
        through_a_file(transfer.export(row_of(rows), rows, {}, with_seed=False))
    )
    assert not without.has_seed
    again = transfer.export(row_of(rows), without.rows, {}, with_seed=False)
    assert again == transfer.export(row_of(rows), rows, {}, with_seed=False)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text() | st.sampled_from(["$base64", "$msgpack", "input"]), inner,
                      max_size=3),
    max_leaves=8,
)  # fmt: skip
names = st.sampled_from(sorted(ev.PAYLOADS)) | st.text(min_size=1)


@given(st.dictionaries(names, values, max_size=5), st.binary())
def test_fields_that_this_version_does_not_know_come_back_as_they_were(fields, data):
    event = {"kind": "run_started", "workflow": "w", "version": "1", "workflow_id": "i",
             "run_id": "r", "seed": b"s" * 16, "input": data}  # fmt: skip
    known = set(ev.RunStarted.__struct_fields__) | {"kind", "v"}
    event |= {key: value for key, value in fields.items() if key not in known}
    payload = ev.encode_plain([event])
    row = TurnRow(5, 1, 1, 9, False, 0, payload)
    document = transfer.export(row_of([row]), [row], {}, with_seed=True)
    [found] = transfer.read(through_a_file(document)).rows
    assert found.payload == payload


@given(programs, schedules, st.data())
def test_a_copy_cut_anywhere_replays_to_the_commands_it_shares(program, schedule, data):
    story = Story(program).follow(schedule)
    story.instance.evict()
    rows = rows_of(story)
    turns = copying.read(rows)
    event = data.draw(st.integers(0, turns[-1].last))
    copied = copying.cut(turns, event)
    end = copied[-1].first + copied[-1].count - 1
    assert end <= max(event, 1)
    whole = [row for row in copied if row.applied]
    assert whole == rows[: len(whole)]
    mark = ev.Forked(seed=b"f" * 16, origin="order-7", workflow_id="f", run_id="fork")
    instance = Instance(interpret)
    stored = [StoredTurn(ev.decode_turn(r.payload), r.time, r.applied, 0) for r in copied]
    blind = instance.replay([*stored, StoredTurn([mark], copied[-1].time, False, 0)])
    turn = instance.apply([*blind, ev.RunTaken()], copied[-1].time)
    assert instance.started is not None
    assert instance.started.run_id == "fork"
    assert turn.first_id == end + 3
    instance.evict()


@given(programs, schedules)
def test_a_retry_keeps_every_success_of_what_it_shares(program, schedule):
    story = Story(program).follow(schedule)
    story.instance.evict()
    rows = rows_of(story)
    turns = copying.read(rows)
    try:
        kept = copying.repair(turns, None)
    except errors.Invalid:
        assert isinstance(turns[-1].events[-1], (ev.RunCompleted, ev.RunContinued))
        return
    events = [event for row in kept for event in ev.decode_turn(row.payload)]
    ids = [1, *(row.first + row.count for row in kept)]
    assert [row.first for row in kept] == ids[:-1]
    assert not any(type(event) in ev.CLOSING for event in events)
    scheduled = {n for t in copying.read(kept) for n, e in t.numbered()
                 if isinstance(e, ev.ActivityScheduled)}  # fmt: skip
    done = {e.activity for t in turns for e in t.events if isinstance(e, ev.ActivityCompleted)}
    assert done & scheduled <= {e.activity for e in events if isinstance(e, ev.ActivityCompleted)}
    messages = [e for t in turns for e in t.events if isinstance(e, ev.MessageReceived)]
    assert [e for e in events if isinstance(e, ev.MessageReceived)] == messages
