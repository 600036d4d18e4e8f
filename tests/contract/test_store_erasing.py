"""Erasing what runs were given and gave: what goes, what stays, and how far it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from tests.contract.store_contract import (
    OPENERS,
    World,
    closed,
    request,
    running,
    turn,
    waiting,
)
from tests.contract.test_store_pruning import count

from perdure.errors import Conflict, NotFound
from perdure.store.blobs import FileBlobs
from perdure.store.lines import LogLine
from perdure.store.opening import open_store
from perdure.store.port import (
    Act,
    Erase,
    ErasedPart,
    HumanTaskWrite,
    Place,
    Prune,
    Started,
    Store,
)
from perdure.store.sealing import MARK, Seal
from perdure.store.sql import erasing
from perdure.values import events as ev
from perdure.values.audit import AuditFilter, AuditLine
from perdure.values.erasing import ERASED, ERASED_ARGS, ERASED_TEXT
from perdure.values.states import Status

SECRET = b'"Ada Lovelace"'
TEXT = SECRET.decode()
RESEAL = "UPDATE perdure_history SET crc = ?, payload = ? WHERE id = ?"
DONE = [AuditLine("erase", "ada", "order-1")]


def started(**rest: Any) -> ev.RunStarted:
    given: dict[str, Any] = {"workflow": "order", "version": "1", "seed": b"0" * 16}
    return ev.RunStarted(workflow_id="order-1", run_id="r", input=SECRET, **(given | rest))


def told(world: World, workflow_id: str = "order-1", **rest: Any) -> Started:
    """Start a run and leave users' data wherever a run has some; it is open."""
    first = turn(
        0,
        first=1,
        count=3,
        state=running(3),
        payload=ev.encode_turn(
            [
                started(context=b'{"who":"Ada Lovelace"}'),
                ev.RunTaken(worker="w"),
                ev.ActivityScheduled(name="charge", args=b"[" + SECRET + b"]"),
            ]
        ),
    )
    rest = {"memo": b'{"m":' + SECRET + b"}", "search": {"s": TEXT}, "tags": ("t",)} | rest
    line = AuditLine("start", "ada", workflow_id, data=b'{"input":' + SECRET + b"}")
    asked = request(workflow_id, first=first, event=ev.encode_turn([started()]), audit=line, **rest)
    run = world.commit(starts=[asked]).started[0]
    form = ev.HumanTaskOpened(
        id=f"task-of-{workflow_id}", title=TEXT, name="approve", description=TEXT, data=SECRET
    )
    world.commit(
        turn(
            run.run,
            first=4,
            count=2,
            execution=run.execution,
            payload=ev.encode_turn(
                [ev.ActivityCompleted(activity=3, result=SECRET, worker="w"), form]
            ),
            state=waiting(5),
            asks=[HumanTaskWrite(form.id, 5, form)],
            lines=[LogLine(run.run, 5, 20, TEXT, SECRET)],
            progress='{"done":1,"note":' + TEXT + "}",
        )
    )
    act = Act(form.id, "complete", by="grace", value=SECRET, comment=TEXT)
    world.store.act(act, world.now)
    return run


def end(world: World, run: Started) -> None:
    inbox = world.load(run.run).inbox
    done = [ev.decode_fact(row.event) for row in inbox]
    events = [*done, ev.RunCompleted(result=SECRET)]
    length = 5 + len(events)
    world.commit(
        turn(
            run.run,
            first=6,
            count=len(events),
            execution=run.execution,
            claim=5,
            payload=ev.encode_turn(events),
            closes=True,
            consumed=tuple(row.id for row in inbox),
            state=closed(length),
        )
    )


def ended(world: World, workflow_id: str = "order-1", **rest: Any) -> Started:
    run = told(world, workflow_id, **rest)
    end(world, run)
    return run


def erase(world: World, execution: int, run: int = 0, rows: int = 1) -> list[ErasedPart]:
    parts: list[ErasedPart] = []
    after: Place | None = None
    while True:
        wish = Erase(execution, run, after, rows, audit=DONE)
        parts.append(world.store.erase(wish, world.now))
        after = parts[-1].goes_on
        if after is None:
            return parts


def everything(world: World) -> bytes:
    """All that stands in any table, as text."""
    database: Any = world.store.database  # type: ignore[attr-defined]
    if hasattr(database, "schema"):
        text = "SELECT tablename FROM pg_tables WHERE schemaname = ?"
        tables = database.ask(text, [database.schema]).fetchall()
    else:
        tables = database.ask("SELECT name FROM sqlite_schema WHERE type = 'table'", []).fetchall()
    found: list[bytes] = []
    for (table,) in tables:
        for row in database.ask(f"SELECT * FROM {table}", []).fetchall():
            found += [it if isinstance(it, bytes) else str(it).encode() for it in row]
    return b"\n".join(bytes(it) for it in found)


def history(world: World, run: int) -> list[dict[str, Any]]:
    return [event for row in world.payloads(run) for event in ev.decode_plain(row)]


def test_nothing_of_users_is_left_and_what_happened_stays(world: World):
    run = ended(world)
    before, rows = history(world, run.run), world.store.history(run.run)
    assert b"Ada Lovelace" in everything(world)
    parts = erase(world, run.execution)
    assert sum(part.rows for part in parts) == 3
    assert b"Ada Lovelace" not in everything(world)
    after = history(world, run.run)
    assert [event["kind"] for event in after] == [event["kind"] for event in before]
    assert after[0] == {**before[0], "input": ERASED, "context": ERASED}
    assert after[2] == {**before[2], "args": ERASED_ARGS}
    assert after[4]["title"] == after[4]["description"] == ERASED_TEXT
    assert (after[5]["by"], after[5]["comment"], after[5]["value"]) == (
        "grace",
        ERASED_TEXT,
        ERASED,
    )
    assert after[-1]["result"] == ERASED
    same = [(row.first, row.count, row.time, row.applied, row.worker) for row in rows]
    assert same == [
        (row.first, row.count, row.time, row.applied, row.worker)
        for row in world.store.history(run.run)
    ]
    row = world.row(run.run)
    assert (row.status, row.reason, row.length) == (Status.COMPLETED, "erased", 7)
    assert row.memo is None and row.progress is None and row.tags == ("t",)
    assert world.store.attributes(run.run) == {}
    assert world.load(run.run).broken == ""


def test_what_people_did_stays_and_what_they_wrote_goes(world: World):
    run = ended(world)
    erase(world, run.execution)
    task = world.store.human_task("task-of-order-1")
    assert task is not None
    assert (task.name, task.title, task.closed_by) == ("approve", ERASED_TEXT, "grace")
    assert (task.value, task.comment, task.data) == (ERASED, ERASED_TEXT, ERASED)
    log = world.store.human_log("task-of-order-1", limit=9)
    assert [(entry.by, entry.verb) for entry in log if entry.by] == [("grace", "completed")]
    [line] = world.store.log(run.run)
    assert (line.level, line.message, line.data) == (20, ERASED_TEXT, None)


def test_the_audit_keeps_who_did_what_and_is_told_once(world: World):
    run = ended(world)
    erase(world, run.execution)
    rows = world.store.audit(AuditFilter(), limit=9)
    assert [(row.action, row.principal, row.data) for row in rows] == [
        ("erase", "ada", None),
        ("start", "ada", None),
    ]
    assert rows[1].digest


def test_others_are_left_as_they_are(world: World):
    other, run = ended(world, "other"), ended(world)
    before = history(world, other.run)
    erase(world, run.execution)
    assert history(world, other.run) == before
    row = world.row(other.run)
    assert (row.reason, row.memo) == (None, b'{"m":"Ada Lovelace"}')
    assert world.store.attributes(other.run) == {"s": TEXT}


def test_what_is_open_is_refused_and_not_changed(world: World):
    run = told(world)
    before = everything(world)
    with pytest.raises(Conflict, match="end it first"):
        world.store.erase(Erase(run.execution), world.now)
    with pytest.raises(Conflict):
        world.store.erase(Erase(run.execution, run.run), world.now)
    assert everything(world) == before
    with pytest.raises(NotFound):
        world.store.erase(Erase(run.execution, 4711), world.now)


def test_what_is_logged_when_it_is_erased_already_is_not_kept(world: World):
    run, other = ended(world), told(world, "order-2")
    late = [LogLine(it.run, 6, 20, TEXT, SECRET) for it in (run, other)]
    erase(world, run.execution)
    kept = len(world.store.log(run.run))
    world.commit(lines=late)
    assert len(world.store.log(run.run)) == kept
    assert [line.message for line in world.store.log(other.run)] == [TEXT, TEXT]


def test_until_it_is_done_it_is_found_by_its_search_attributes(world: World):
    run = ended(world)
    part = world.store.erase(Erase(run.execution, rows=1), world.now)
    assert part.goes_on is not None
    assert world.store.attributes(run.run) == {"s": TEXT}
    erase(world, run.execution)
    assert world.store.attributes(run.run) == {}


def test_what_is_being_erased_is_listed_page_by_page(world: World):
    runs = [ended(world, f"order-{n}") for n in range(3)]
    for run in runs:
        world.store.erase(Erase(run.execution, rows=1), world.now)
    first = world.store.being_erased(limit=2)
    rest = world.store.being_erased(limit=2, after=first[-1].run)
    assert [one.run for one in [*first, *rest]] == [run.run for run in runs]


def test_it_goes_on_where_it_was_cut_off_and_says_so_meanwhile(world: World):
    run = ended(world)
    first = world.store.erase(Erase(run.execution, rows=1, audit=DONE), world.now)
    assert first == ErasedPart(1, Place(run.run, 1))
    assert world.row(run.run).reason == "erasing"
    assert world.store.audit(AuditFilter(action="erase"), limit=9) == []
    parts = erase(world, run.execution, rows=2)
    assert [part.rows for part in parts] == [1, 1, 0]
    assert world.row(run.run).reason == "erased"
    assert sum(part.rows for part in erase(world, run.execution)) == 0


def chain(world: World) -> tuple[Started, int]:
    """An execution of two runs, of which the first has ended and the second is open."""
    first = told(world)
    state = closed(6, Status.CONTINUED_AS_NEW)
    after = request(run_id="second", execution=first.execution, event=ev.encode_turn([started()]))
    end = ev.RunContinued(run_id="second", workflow="order", input=SECRET)
    world.commit(
        turn(
            first.run,
            first=6,
            execution=first.execution,
            claim=5,
            payload=ev.encode_turn([end]),
            closes=True,
            force_close=True,
            state=state,
            continued=after,
        )
    )
    found = world.store.find("order-1", run_id="second")
    assert found is not None
    return first, found.run


def test_a_run_of_an_open_execution_is_erased_alone(world: World):
    first, second = chain(world)
    with pytest.raises(Conflict):
        world.store.erase(Erase(first.execution), world.now)
    erase(world, first.execution, first.run)
    assert world.row(first.run).reason == "erased"
    assert history(world, second)[0]["input"] == SECRET
    assert world.row(second).memo == b'{"m":"Ada Lovelace"}'


def test_all_runs_of_an_execution_that_has_ended_are_erased(world: World):
    first, second = chain(world)
    world.commit(
        turn(
            second,
            first=2,
            execution=first.execution,
            claim=1,
            payload=ev.encode_turn([ev.RunFailed(failure=failure())]),
            closes=True,
            force_close=True,
            state=closed(2, Status.FAILED),
        )
    )
    erase(world, first.execution)
    assert b"Ada Lovelace" not in everything(world)
    assert [world.row(run).reason for run in (first.run, second)] == ["erased"] * 2
    assert history(world, second)[-1]["failure"] == {
        "message": ERASED_TEXT,
        "kind": "NotFound",
        "details": ERASED,
        "cause": {"message": ERASED_TEXT},
        "trace": "",
    }


def failure() -> Any:
    from perdure.values.failures import FailureInfo

    cause = FailureInfo(TEXT)
    return FailureInfo(TEXT, "NotFound", details=SECRET, trace=f"line of {TEXT}", cause=cause)


@pytest.mark.parametrize("rows", [1, 9], ids=["while it is erased", "after it was"])
def test_a_retry_is_refused_also_if_it_was_read_before(world: World, rows: int):
    run = ended(world)
    copied = world.store.history(run.run)
    world.store.erase(Erase(run.execution, rows=rows), world.now)
    asked = request(
        run_id="again",
        execution=run.execution,
        retries=run.run,
        copied=copied,
        state=waiting(7),
    )
    answer = world.store.start([asked], world.now)[0]
    assert answer.refused == "erased"
    assert world.store.find("order-1", run_id="again") is None


def test_a_watch_of_one_that_was_erased_is_told_that_it_was(world: World):
    from perdure.store.port import Watch

    run = ended(world)
    erase(world, run.execution)
    watcher = world.owned("watcher")
    watch = Watch("await", "order-1", ref=3, asked_by="x")
    world.commit(turn(watcher.run, watches=[watch]))
    [event] = world.inbox(watcher.run)
    fact = ev.decode_fact(event)
    assert isinstance(fact, ev.ExecutionEnded)
    assert (fact.status, fact.result) == ("completed", None)
    assert fact.failure is not None and fact.failure.type == "Erased"


def test_an_erased_run_can_be_deleted(world: World):
    run = ended(world)
    erase(world, run.execution)
    world.start("newest")
    assert world.store.prune(Prune(before=1_000)).runs == 1
    assert count(world, "perdure_history", f"run = {run.run}") == 0


@pytest.fixture(params=[*OPENERS, "postgres"])
def offloading(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store that puts all history rows into a folder, and the folder."""
    blobs = FileBlobs(tmp_path / "blobs")
    url = {
        "file": f"sqlite:///{tmp_path}/perdure.db",
        "memory": "memory://",
    }.get(request.param) or request.getfixturevalue("postgres_url")
    store: Store = open_store(url, seal=Seal(blobs=blobs, offload_above=100))
    yield store, blobs
    store.close()  # type: ignore[attr-defined]


def test_blobs_go_with_what_was_in_them(offloading: tuple[Store, FileBlobs]):
    store, blobs = offloading
    world = World(store)
    run = ended(world)
    assert len(blobs.list("", 9)) == 3
    assert sum(part.rows for part in erase(world, run.execution)) == 3
    assert blobs.list("", 9) == []
    assert count(world, "perdure_blob", "1 = 1") == 0
    assert world.load(run.run).broken == ""


def test_a_row_that_was_sealed_anew_meanwhile_is_erased_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    run, read = ended(world), erasing._read

    def stale(database: Any, *args: Any) -> Any:
        rows = read(database, *args)
        for row in rows:
            sealed = MARK + bytes((0,)) + row.payload  # the same, in another form
            place = (crc32(sealed), sealed, row.id)
            database.write(lambda place=place: database.ask(RESEAL, place))
        return rows

    monkeypatch.setattr(erasing, "_read", stale)
    assert [part.rows for part in erase(world, run.execution, rows=200)] == [3, 0]
    assert b"Ada Lovelace" not in everything(world)
