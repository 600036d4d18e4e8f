"""``perdure events``."""

from __future__ import annotations

import json
import subprocess

from tests.cli.conftest import PROGRAMS
from tests.cli.shell import PERDURE, Shell


def test_events_of_all_runs_come_in_the_order_of_their_recording(filled: Shell):
    done = filled.ok("events", "-o", "jsonl")
    events = [json.loads(line) for line in done.lines]
    started = [it["data"]["instance_id"] for it in events if it["name"] == "workflow.started"]
    assert started[:3] == ["hello-1", "hello-2", "boom-1"]
    ends = {
        it["data"]["instance_id"]: it["name"].removeprefix("workflow.")
        for it in events
        if it["name"] in ("workflow.completed", "workflow.failed", "workflow.cancelled")
    }
    assert ends["hello-1"] == "completed"
    assert ends["boom-1"] == "failed"
    assert ends["stop-1"] == ends["kill-1"] == "cancelled"
    assert filled.ok("events", "-o", "json").json == events
    assert filled.ok("events", "-o", "ids").lines == [it["id"] for it in events]


def test_one_execution_a_pattern_and_an_id_to_go_on_from_pick_events_out(filled: Shell):
    whole = filled.ok("events", "hello-1", "-o", "json").json
    assert {it["data"]["instance_id"] for it in whole} == {"hello-1"}
    ends = filled.ok("events", "hello-1", "--pattern", "*.completed", "-o", "json").json
    assert ends == [it for it in whole if it["name"].endswith(".completed")]
    rest = filled.ok("events", "hello-1", "--after", whole[0]["id"], "-o", "json").json
    assert rest == whole[1:]


def test_for_people_a_line_has_time_name_execution_and_the_rest(filled: Shell):
    done = filled.ok("events", "stop-1")
    assert [line.split()[2:4] for line in done.lines] == [
        ["started", "stop-1"],
        ["cancelled", "stop-1"],
    ]
    assert "to go on from here: " in done.err
    assert "events --after" in done.err


def test_mistakes_are_told(filled: Shell):
    done = filled("events", "--after", "nonsense")
    assert done.code == 2
    assert "'nonsense' is not the id of an event" in done.err
    assert filled("events", "nobody").code == 3
    assert "use -o jsonl" in filled("events", "--follow", "-o", "json").err


def test_following_prints_events_as_they_are_recorded(shell: Shell):
    with shell.worker(PROGRAMS):
        command = [*PERDURE, "events", "--follow", "-o", "jsonl"]
        shell.ok("start", "hello", "Ada", "--id", "one")
        with subprocess.Popen(
            command, cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                first = json.loads(process.stdout.readline())
                assert first["data"]["instance_id"] == "one"
                shell.ok("start", "hello", "Grace", "--id", "two")
                for line in process.stdout:
                    event = json.loads(line)
                    if event["data"]["instance_id"] == "two":
                        break
                assert event["name"] == "workflow.started"
            finally:
                process.terminate()
