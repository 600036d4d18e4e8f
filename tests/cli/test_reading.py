"""Commands that read: they need no worker, and change nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import PROGRAMS
from tests.cli.shell import Shell

from perdure.views import Execution, HistoryEvent, WorkerView

IDS = ["echo-1", "kill-1", "stop-1", "wait-1", "bug-1", "boom-1", "hello-2", "hello-1"]
LISTED = {f.name for f in msgspec.structs.fields(Execution)} - {
    "input",
    "output",
    "error",
    "step_results",
    "metadata",
    "search",
    "origin",
    "forks",
    "retention_seconds",
    "deleted_at",
    "budgets",
}
READS = [
    ["list"],
    ["show", "hello-1"],
    ["history", "hello-1"],
    ["logs", "hello-1"],
    ["why", "hello-1"],
    ["export", "hello-1"],
    ["result", "hello-1"],
    ["workers"],
]
JSON_READS = [
    *(["list", "-o", "json", *more] for more in ([], ["--all"], ["--workflow", "none"])),
    ["show", "hello-1", "-o", "json"],
    ["show", "boom-1", "-o", "json"],
    ["history", "wait-1", "-o", "json"],
    ["logs", "wait-1", "-o", "json"],
    ["why", "wait-1", "-o", "json"],
    ["workers", "-o", "json"],
    ["export", "boom-1"],
    ["result", "hello-1"],
]


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_a_read_without_a_database_says_so_and_creates_none(shell: Shell, command: list[str]):
    done = shell(*command)
    assert done.code == 6
    assert done.out == ""
    assert "there is no database at perdure.db" in done.err
    assert "perdure dev" in done.err
    assert files_in(shell.folder) == set()


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_a_read_works_while_no_worker_runs(filled: Shell, command: list[str]):
    filled.ok(*command)


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_a_read_leaves_the_database_as_it_was(filled: Shell, command: list[str]):
    database = filled.folder / "perdure.db"
    before = database.read_bytes()
    filled.ok(*command)
    assert database.read_bytes() == before


@pytest.mark.parametrize("command", JSON_READS, ids=" ".join)
def test_json_is_one_document(filled: Shell, command: list[str]):
    assert filled.ok(*command).json is not None


def test_reads_work_while_a_worker_runs(shell: Shell):
    with shell.worker(PROGRAMS):
        shell.ok("start", "wait", "--id", "w")
        shell.until(lambda: shell.status("w") == "waiting")
        assert shell.ok("list", "-o", "ids").out == "w\n"
        assert "waits" in shell.ok("why", "w").out or "waiting" in shell.ok("why", "w").out
        workers = shell.ok("workers", "-o", "json").json
        assert [worker["state"] for worker in workers] == ["live"]
        assert set(workers[0]) == {f.name for f in msgspec.structs.fields(WorkerView)}


# -- list ----------------------------------------------------------------------------------------


def test_list_shows_newest_first(filled: Shell):
    assert filled.ok("list", "-o", "ids").lines == IDS


def test_list_as_json_has_the_fields_of_the_python_api(filled: Shell):
    page = filled.ok("list", "-o", "json").json
    assert set(page) == {"items", "cursor"}
    assert page["cursor"] is None
    assert all(set(item) == LISTED for item in page["items"])


def test_jsonl_is_one_document_per_line(filled: Shell):
    items = [json.loads(line) for line in filled.ok("list", "-o", "jsonl").lines]
    assert [item["id"] for item in items] == IDS
    assert set(items[0]) == LISTED


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--workflow", "hello"], ["hello-2", "hello-1"]),
        (["--status", "completed"], ["echo-1", "hello-2", "hello-1"]),
        (["--status", "failed,waiting"], ["wait-1", "bug-1", "boom-1"]),
        (["--status", "failed", "--status", "terminated"], ["kill-1", "bug-1", "boom-1"]),
        (["--status", "canceled"], ["stop-1"]),
        (["--search", "n=1"], ["hello-1"]),
        (["--tag", "nice"], ["hello-1"]),
        (["--tenant", "acme"], ["hello-2"]),
        (["--correlation-id", "c-1"], ["boom-1"]),
        (["--created-by", "me"], ["echo-1"]),
        (["--id", "kill-1"], ["kill-1"]),
        (["--started-after", "1h"], IDS),
        (["--started-before", "1h"], []),
        (["--started-before", "2001-01-01T00:00:00Z"], []),
        (["--workflow", "hello", "--tag", "nice"], ["hello-1"]),
        (["--workflow", "nobody"], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_list_filters(filled: Shell, filters: list[str], expected: list[str]):
    assert filled.ok("list", "-o", "ids", *filters).lines == expected


def test_pages_follow_one_another_without_gap(filled: Shell):
    seen: list[str] = []
    cursor: list[str] = []
    while True:
        page = filled.ok("list", "-o", "json", "--limit", "3", *cursor).json
        seen += [item["id"] for item in page["items"]]
        if page["cursor"] is None:
            break
        cursor = ["--cursor", page["cursor"]]
    assert seen == IDS


def test_a_page_that_is_not_the_last_says_how_to_go_on(filled: Shell):
    done = filled.ok("list", "--limit", "2")
    assert len(done.lines) == 3
    assert "--all" in done.err
    assert "--cursor" in done.err


def test_all_reads_every_page(filled: Shell):
    assert filled.ok("list", "--all", "--limit", "2", "-o", "ids").lines == IDS


def test_an_empty_list_is_a_hint_and_not_data(filled: Shell):
    done = filled.ok("list", "--workflow", "nobody")
    assert done.out == ""
    assert "no executions" in done.err


def test_a_piped_table_is_not_cut_and_has_no_colours(filled: Shell):
    done = filled.ok("list", "-o", "wide", COLUMNS="20")
    assert "\x1b" not in done.out
    assert "…" not in done.out
    run_id = filled.ok("show", "hello-1", "-o", "json").json["run_id"]
    assert run_id in done.out


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["--status", "done"], "done"),
        (["--started-after", "yesterday"], "--started-after"),
        (["--started-after", "2026-01-01T00:00:00"], "time zone"),
        (["--search", "n"], "key=value"),
        (["--cursor", "zzz"], "cursor"),
        (["--limit", "0"], "--limit"),
        (["-o", "yaml"], "yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_bad_filter_is_bad_usage(filled: Shell, args: list[str], what: str):
    done = filled("list", *args)
    assert done.code == 2
    assert what in done.err
    assert len(done.err.splitlines()) == 1


# -- one execution -------------------------------------------------------------------------------


def test_show_as_json_is_the_execution(filled: Shell):
    shown = filled.ok("show", "hello-1", "-o", "json").json
    assert set(shown) == {f.name for f in msgspec.structs.fields(Execution)}
    assert (shown["input"], shown["output"], shown["status"]) == ("Ada", "Hello, Ada!", "completed")
    assert shown["search"] == {"n": 1}
    assert shown["tags"] == ["nice"]


def test_show_for_people_has_what_matters(filled: Shell):
    text = filled.ok("show", "boom-1").out
    for part in ("boom boom-1", "failed", "no card", "CardDeclined", "c-1"):
        assert part in text


def test_an_exception_is_told_by_class_message_and_line(filled: Shell):
    line = Path(PROGRAMS).read_text().splitlines().index('    return {"a": "b"}["boom"]') + 1
    told = f"KeyError: 'boom' (programs.py:{line})"
    assert f"error       {told}\n" in filled.ok("show", "bug-1").out
    assert filled("result", "bug-1").err == f"error: workflow 'bug-1' failed: {told}\n"
    assert filled.ok("why", "bug-1").out.endswith(f"as failed: {told}.\n")
    assert told in filled.ok("history", "bug-1").out
    listed = filled.ok("list", "--workflow", "bug", "-o", "json").json
    assert listed["items"][0]["detail"] == told


def test_show_of_an_open_run_says_why_it_waits(filled: Shell):
    text = filled.ok("show", "wait-1").out
    assert "no worker" in text
    assert '{"a":[1,"ü"]}' in text


def test_history_is_in_order_and_complete(filled: Shell):
    events = filled.ok("history", "hello-1", "-o", "json").json
    assert set(events[0]) == {f.name for f in msgspec.structs.fields(HistoryEvent)}
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["kind"] == "run_started"
    assert events[-1]["kind"] == "run_completed"
    lines = filled.ok("history", "hello-1", "-o", "jsonl").lines
    assert [json.loads(line) for line in lines] == events


def test_history_never_shows_the_seed(filled: Shell):
    for output in ("table", "wide", "json", "jsonl"):
        assert "seed" not in filled.ok("history", "hello-1", "-o", output).out


def test_history_for_people_names_the_activity_that_completed(filled: Shell):
    text = filled.ok("history", "hello-1").out
    line = next(line for line in text.splitlines() if "activity_completed" in line)
    assert "greet" in line
    assert "Hello, Ada!" in line


def test_history_names_the_worker_that_has_left(filled: Shell):
    lines = filled.ok("history", "hello-1").lines
    assert re.search(r"  worker 1 \(.+-\d+\)$", lines[-1])


READABLE = """
from perdure import activity, workflow

@activity.define(timeout="5s", heartbeat_timeout="90s")
async def look(text: str) -> str:
    return text

@workflow.define
async def child(text: str) -> str:
    return text

@workflow.define
async def readable() -> str:
    workflow.patched("x")
    workflow.version("y", 1, 3)
    await workflow.execute(child, "c")
    return await look("long " * 100)
"""


def test_history_for_people_has_durations_times_and_changes_to_read(shell: Shell):
    (shell.folder / "readable.py").write_text(READABLE)
    shell.ok("run", "readable.py:readable", "--id", "r")
    text = shell.ok("history", "r").out
    for part in ("timeout=5s", "heartbeat_timeout=1m30s", "patched 'x'", "'y' = 3"):
        assert part in text
    assert re.search(r"child_closed .* at=\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", text)
    assert not re.search(r"=\d{7}", text)  # ids may hold such numbers


MARKS = """
from perdure import workflow
from perdure.graph import flow

def price(total: int) -> int:
    return total * 2

@workflow.define
async def telling() -> None:
    await workflow.emit("half.way", {"at": 5})

priced = flow("priced").task("price", price).end("done").build()
"""


def test_history_for_people_says_what_was_emitted_and_of_which_step(shell: Shell):
    (shell.folder / "marks.py").write_text(MARKS)
    shell.ok("run", "marks.py:priced", "2", "--id", "p")
    marks = [line.split() for line in shell.ok("history", "p").lines if " emitted " in line]
    told = [" ".join(line[line.index("emitted") + 1 :]).partition("}")[0] for line in marks]
    assert [it.split()[:2] for it in told] == [
        ["step.started", "price"],
        ["step.completed", "price"],
        ["step.started", "done"],
        ["step.completed", "done"],
    ]
    shell.ok("run", "marks.py:telling", "--id", "t")
    assert 'emitted half.way data={"at":5}' in " ".join(shell.ok("history", "t").out.split())


def test_one_wide_row_pads_no_other(shell: Shell):
    (shell.folder / "readable.py").write_text(READABLE)
    shell.ok("run", "readable.py:readable", "--id", "r")
    lines = shell.ok("history", "r").lines
    lengths = sorted(len(line) for line in lines)
    assert lengths[-1] > 500
    assert lengths[len(lengths) // 2] < 180


def test_why_is_one_sentence(filled: Shell):
    done = filled.ok("why", "wait-1")
    assert len(done.lines) == 1
    assert "no worker" in done.out


def test_export_leaves_the_seed_out_unless_asked(filled: Shell):
    exported = filled.ok("export", "hello-1").json
    assert exported["workflow_id"] == "hello-1"
    assert "seed" not in json.dumps(exported)
    assert "seed" in json.dumps(filled.ok("export", "hello-1", "--with-seed").json)


# -- the result ----------------------------------------------------------------------------------


def test_the_result_goes_to_stdout_as_json(filled: Shell):
    assert filled.ok("result", "hello-1").json == "Hello, Ada!"


@pytest.mark.parametrize(
    ("id", "code", "says"),
    [("boom-1", 1, "no card"), ("stop-1", 5, "cancelled"), ("kill-1", 5, "terminated")],
)
def test_the_exit_code_of_result_is_the_outcome(filled: Shell, id: str, code: int, says: str):
    done = filled("result", id)
    assert (done.code, done.out) == (code, "")
    assert says in done.err


def test_waiting_too_long_for_a_result_is_124_and_says_why(filled: Shell):
    done = filled("result", "wait-1", "--timeout", "50ms")
    assert (done.code, done.out) == (124, "")
    assert "no worker" in done.err


def test_ctrl_c_ends_the_wait_quietly(filled: Shell):
    with filled.spawn("result", "wait-1") as waiting:
        waiting.until_says("waiting:")
        assert waiting.interrupt() == 130
        assert "Traceback" not in waiting.said
        assert waiting.out == ""


# -- ids -----------------------------------------------------------------------------------------


def test_a_unique_beginning_of_an_id_is_enough(filled: Shell):
    assert filled.ok("show", "boo", "-o", "ids").out == "boom-1\n"


def test_an_exact_id_wins_over_longer_ones(shell: Shell):
    with shell.worker(PROGRAMS):
        for id in ("a", "ab", "abc"):
            shell.ok("start", "echo", "--id", id)
        assert shell.ok("show", "ab", "-o", "ids").out == "ab\n"


def test_a_run_id_and_a_beginning_of_it_name_the_run(filled: Shell):
    run_id = filled.ok("show", "hello-1", "-o", "json").json["run_id"]
    for text in (run_id, run_id[:-1]):
        assert filled.ok("show", text, "-o", "ids").out == "hello-1\n"


def test_an_ambiguous_beginning_lists_the_candidates(filled: Shell):
    done = filled("show", "hello")
    assert done.code == 2
    assert "hello-1" in done.err
    assert "hello-2" in done.err
    *_, last, see = done.err.splitlines()
    assert (last[-1], see) == (")", "(see `perdure show --help`)")
    assert "help" not in last
    assert done.out == ""


def test_a_database_without_tables_says_what_makes_them(shell: Shell):
    (shell.folder / "empty.db").touch()
    done = shell("--db", "empty.db", "list")
    assert done.code == 6
    assert "a worker makes them when it starts (`perdure dev MODULE`)" in done.err


def test_last_is_the_newest_execution(filled: Shell):
    assert filled.ok("show", "@last", "-o", "ids").out == "echo-1\n"
    assert filled.ok("show", "@last:hello", "-o", "ids").out == "hello-2\n"


@pytest.mark.parametrize("id", ["nobody", "@last:nobody"])
def test_an_unknown_id_is_not_found(filled: Shell, id: str):
    done = filled("show", id)
    assert done.code == 3
    assert "perdure list" in done.err


def test_an_unknown_at_word_is_bad_usage(filled: Shell):
    assert filled("show", "@first").code == 2


# -- which database ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after", "variable", "url"])
def test_the_database_is_named_by_option_or_variable(filled: Shell, tmp_path: Path, place: str):
    file = str(filled.folder / "perdure.db")
    shell = Shell(tmp_path, PERDURE_DB=file) if place == "variable" else Shell(tmp_path)
    commands = {
        "before": ["--db", file, "list"],
        "after": ["list", "--db", file],
        "variable": ["list"],
        "url": ["list", "--db", f"sqlite:///{file}"],
    }
    assert shell.ok(*commands[place], "-o", "ids").lines == IDS


def test_the_option_wins_over_the_variable(filled: Shell, tmp_path: Path):
    shell = Shell(tmp_path, PERDURE_DB=str(filled.folder / "perdure.db"))
    assert shell("list", "--db", "other.db").code == 6
    assert shell("--db", "other.db", "list").code == 6


def test_a_file_that_is_no_database_is_refused(shell: Shell):
    (shell.folder / "perdure.db").write_text("not a database, but a text of some length")
    done = shell("list")
    assert done.code == 2
    assert "not a SQLite database" in done.err


def test_a_database_without_perdures_tables_is_refused_and_left_alone(shell: Shell):
    (shell.folder / "perdure.db").touch()
    done = shell("list")
    assert done.code == 6
    assert "no tables" in done.err


@pytest.mark.parametrize("url", ["memory://", "mysql://host/db", "sqlite://host/x.db"])
def test_a_url_that_cannot_be_read_is_bad_usage(shell: Shell, url: str):
    assert shell("list", "--db", url).code == 2
