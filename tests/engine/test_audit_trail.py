"""The audit: who did what to which run, in the transaction of what it tells of."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from tests.engine.support import engine_on, until_status
from tests.support.seals import Backwards

from perdure import Client, Engine, human, workflow
from perdure.audit import CUT, read_archived
from perdure.errors import AlreadyExists, Conflict, Invalid, ScheduleNotFound, Sealed, TaskClosed
from perdure.values.audit import AuditHead, fault_of, line_by
from perdure.values.principals import Kind, Principal
from perdure.values.states import Status

ADA = Principal("ada")
ROBOT = Principal("robot", Kind.SERVICE, roles=["admin"], initiated_by="ada")


@workflow.define
async def order(given: Any) -> Any:
    seen: list[Any] = []

    @workflow.update("change")
    def change(text: str) -> str:
        seen.append(text)
        return text

    message = await workflow.listen("go").receive()
    return [given, message, *seen]


@workflow.define
async def asks(_: None) -> Any:
    decision: Any = await human.request("Shall we?", role="finance")
    return decision.value


def engine(folder: Path, audit: str = "full", **options: Any) -> Engine:
    return engine_on(folder, order, asks, audit=audit, **options)


async def actions(client: Client, **filters: Any) -> list[str]:
    page = await client.audit.list(**filters)
    return [entry.action for entry in reversed(page.items)]


async def act(client: Client) -> None:
    handle = await client.start(order, {"n": 1}, id="o", memo={"m": 2}, tags=["t"])
    await until_status(handle, Status.WAITING)
    await handle.pause()
    await handle.resume()
    await until_status(handle, Status.WAITING)
    await handle.update("change", "x")
    await handle.send("go", {"to": "it"})
    assert await handle.result() == [{"n": 1}, {"to": "it"}, "x"]
    other = await client.start(order, id="p")
    await until_status(other, Status.WAITING)
    await other.terminate("no more")
    await until_status(other, Status.TERMINATED)
    third = await client.start(order, id="q")
    await until_status(third, Status.WAITING)
    await third.cancel("late")
    await (await third.fork(after_event=1, id="r")).terminate()


ACTS_ON_O = ["start", "pause", "resume", "update", "send"]
ACTS = [*ACTS_ON_O, "start", "terminate", "start", "cancel", "fork", "terminate"]


@pytest.mark.parametrize("own_client", [True, False])
async def test_what_a_client_does_is_told_line_by_line(tmp_path: Path, *, own_client: bool):
    async with engine(tmp_path, identity=ROBOT) as running:
        if own_client:
            url = f"sqlite:///{tmp_path / 'test.db'}"
            async with Client(url, identity=ROBOT, audit="full") as client:
                await act(client)
        else:
            await act(running.client)
        client = running.client
        assert await actions(client) == ACTS
        page = await client.audit.list()
        assert {(entry.principal, entry.initiated_by) for entry in page.items} == {("robot", "ada")}
        run = await client.get("o").describe()
        assert await actions(client, run_id=run.run_id) == ACTS_ON_O
        assert await actions(client, workflow_id="p") == ["start", "terminate"]
        assert (await client.audit.verify()).rows == len(ACTS)


async def test_full_lines_say_what_was_before_and_after(tmp_path: Path):
    async with engine(tmp_path, identity=ADA) as running:
        await act(running.client)
        page = await running.client.audit.list(target="o")
        start, pause, _, update, send = [entry.detail or {} for entry in reversed(page.items)]
        assert start["after"]["input"] == {"n": 1}
        assert (start["after"]["memo"], start["after"]["tags"]) == ({"m": 2}, ["t"])
        assert pause == {"before": {"status": "waiting"}, "after": {}}
        assert update == {"name": "change", "args": ["x"]}
        assert send["after"] == {"topic": "go", "payload": {"to": "it"}}
        [ended] = (await running.client.audit.list(target="p", action="terminate")).items
        assert ended.detail == {"before": {"status": "waiting"}, "after": {"reason": "no more"}}


@pytest.mark.parametrize("place", ["file", "postgres"])
async def test_what_a_start_does_to_the_run_that_is_there_is_told(
    request: pytest.FixtureRequest, tmp_path: Path, place: str
):
    url = request.getfixturevalue("postgres_url") if place == "postgres" else ""
    async with Engine(
        url or f"sqlite:///{tmp_path / 'test.db'}", order, audit="full", identity=ADA
    ) as running:
        client = running.client
        old = await (await client.start(order, 1, id="o")).describe()
        new = await client.start(order, 2, id="o", id_conflict_policy="terminate_existing")
        await client.start(order, 3, id="o", messages=[("go", "there")])
        assert await new.result() == [2, "there"]
        told = list(reversed((await client.audit.list(target="o")).items))
        run_id = (await new.describe()).run_id
        assert [(it.action, it.principal, it.run_id) for it in told] == [
            ("start", "ada", old.run_id),
            ("terminate", "ada", old.run_id),
            ("start", "ada", run_id),
            ("start", "ada", run_id),
        ]
        assert told[1].detail is None
        assert told[3].detail is not None
        assert told[3].detail["after"]["messages"] == [{"topic": "go", "payload": "there"}]


async def test_lines_of_a_summary_say_what_was_copied_and_no_level_has_no_lines(tmp_path: Path):
    async with engine(tmp_path, audit="summary", identity=ADA) as running:
        await act(running.client)
        page = await running.client.audit.list()
        assert len(page.items) == len(ACTS)
        details = {entry.action: entry.detail for entry in page.items if entry.detail is not None}
        assert {action: [*detail] for action, detail in details.items()} == {
            "fork": ["origin", "origin_run"]
        }
        assert not any(entry.is_erased for entry in page.items)
    async with engine(tmp_path, audit="none") as running:
        await running.client.start(order, id="more")
        assert len((await running.client.audit.list()).items) == len(ACTS)
        with pytest.raises(Invalid, match="none, summary, full"):
            Engine(audit="all")


async def test_what_is_refused_is_not_told(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        handle = await client.start(order, id="o")
        with pytest.raises(AlreadyExists):
            await client.start(order, id="o", id_conflict_policy="fail")
        await handle.send("go")
        await handle.result()
        with pytest.raises(Exception, match="has ended"):
            await handle.send("go")
        assert await actions(client) == ["start", "send"]


async def test_what_people_do_is_told_with_their_decision(tmp_path: Path):
    async with engine(tmp_path, identity=ROBOT) as running:
        client = running.client
        handle = await client.start(asks, id="a")
        await until_status(handle, Status.WAITING)
        [task] = (await client.human_tasks.list()).items
        await client.human_tasks.claim(task.id, by="bob")
        await client.human_tasks.complete(task.id, {"ok": True}, by="bob", comment="fine")
        with pytest.raises(TaskClosed):
            await client.human_tasks.complete(task.id, by="bob")
        assert await handle.result() == {"ok": True}
        found = (await client.audit.list(principal="bob", action="people.*")).items
        complete, claim = found
        assert (claim.action, complete.action) == ("people.claim", "people.complete")
        assert (claim.target, claim.run_id) == (task.id, handle.run_id)
        assert (claim.initiated_by, complete.initiated_by) == ("ada", "ada")  # who said it was bob
        assert complete.detail is not None
        assert complete.detail["before"] == {
            "status": "claimed",
            "assignee": None,
            "role": "finance",
            "claimed_by": "bob",
        }
        assert complete.detail["after"] == {"comment": "fine", "value": {"ok": True}}
        await client.start(asks, id="b")
        [task] = (await client.human_tasks.list()).items
        await client.human_tasks.reject(task.id)
        [reject] = (await client.audit.list(target=task.id)).items
        assert (reject.principal, reject.initiated_by) == ("robot", "ada")


async def test_a_decision_can_be_noted_with_its_rule(tmp_path: Path):
    async with engine(tmp_path, identity=ADA) as running:
        audit = running.client.audit
        await audit.note(
            "policy.run", "order", decision="denied", rule="blockedWorkflows[2]", facts={"code": 7}
        )
        await audit.note("policy.run", by=ROBOT)
        [second, first] = (await audit.list(action="policy.*")).items
        assert (first.principal, first.decision, first.rule) == (
            "ada",
            "denied",
            "blockedWorkflows[2]",
        )
        assert first.detail == {"code": 7}
        assert (second.principal, second.initiated_by) == ("robot", "ada")


async def test_lists_go_on_page_by_page_and_have_filters_of_time(tmp_path: Path):
    async with engine(tmp_path) as running:
        audit = running.client.audit
        for n in range(5):
            await audit.note(f"n{n}")
        first = await audit.list(limit=2)
        second = await audit.list(limit=2, cursor=first.cursor)
        third = await audit.list(limit=2, cursor=second.cursor)
        told = [entry.action for page in (first, second, third) for entry in page.items]
        assert (told, third.cursor) == (["n4", "n3", "n2", "n1", "n0"], None)
        now = datetime.now(UTC)
        assert (await audit.list(since=now + timedelta(hours=1))).items == []
        assert len((await audit.list(since=now - timedelta(hours=1), until=now)).items) == 5
        wrongs: list[Any] = [{"colour": 1}, {"since": "yesterday"}, {"cursor": "x"}, {"limit": 0}]
        for wrong in wrongs:
            with pytest.raises(Invalid):
                await audit.list(**wrong)


# -- whether it was changed ----------------------------------------------------------------------


def change(folder: Path, *statements: str) -> None:
    """Do what somebody can do who owns the file: also without the triggers."""
    connection = sqlite3.connect(folder / "test.db", isolation_level=None)
    for trigger in ("stays", "is_kept", "goes_on"):
        connection.execute(f"DROP TRIGGER IF EXISTS perdure_audit_{trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "broken", "said"),
    [
        ("UPDATE perdure_audit SET principal = 'eve' WHERE number = 3", 3, "was changed"),
        ("UPDATE perdure_audit SET data = CAST('{}' AS BLOB) WHERE number = 3", 3, "detail"),
        ("DELETE FROM perdure_audit WHERE number = 3", 4, "row 3 is missing"),
        ("DELETE FROM perdure_audit WHERE number = 5", 5, "missing at the end"),
        ("UPDATE perdure_audit SET number = number + 1 WHERE number > 4", 6, "row 5 is missing"),
        ("UPDATE perdure_audit SET hash = 'x' WHERE number = 5", 5, "was changed"),
        ("UPDATE perdure_audit_head SET hash = 'x'", 5, "not the row"),
        ("UPDATE perdure_audit_head SET cut = 2", 3, "was changed"),
    ],
)
async def test_the_first_broken_row_is_named(
    tmp_path: Path, statement: str, broken: int, said: str
):
    async with engine(tmp_path) as running:
        audit = running.client.audit
        for n in range(5):
            await audit.note(f"n{n}", facts={"n": n})
        assert (await audit.verify()).holds
        change(tmp_path, statement)
        found = await audit.verify()
        assert (found.holds, found.broken) == (False, broken), found
        assert said in found.fault


async def test_a_chain_that_was_made_anew_is_found_by_a_hash_that_was_noted(tmp_path: Path):
    async with engine(tmp_path) as running:
        audit = running.client.audit
        await audit.note("true")
        noted = await audit.verify()
        change(
            tmp_path,
            "DELETE FROM perdure_audit",
            "UPDATE perdure_audit_head SET number = 0, hash = ''",
        )
        await audit.note("false")
        assert (await audit.verify()).holds
        found = await audit.verify(number=noted.head, hash=noted.hash)
        assert (found.broken, "noted" in found.fault) == (1, True)
        found = await audit.verify(number=2, hash=noted.hash)
        assert (found.broken, "no such row" in found.fault) == (2, True)


async def test_details_that_cannot_be_opened_do_not_break_the_chain(tmp_path: Path):
    async with engine(tmp_path, codec=Backwards()) as running:
        await running.client.audit.note("n", facts={"n": 1})
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        found = await client.audit.verify()
        assert (found.holds, found.unopened) == (True, 1)
        [entry] = (await client.audit.list()).items
        assert entry.detail is None and entry.sealed and not entry.is_erased


async def test_old_lines_are_archived_and_cut_off_and_the_rest_is_still_checked(tmp_path: Path):
    async with engine(tmp_path, identity=ADA) as running:
        audit = running.client.audit
        for n in range(5):
            await audit.note(f"n{n}", facts={"n": n})
        lines: list[bytes] = []
        last = await audit.archive(datetime.now(UTC) + timedelta(hours=1), lines.append)
        assert last == 5
        before = AuditHead()
        for line in lines:
            row = read_archived(line)
            assert fault_of(row, before) == ""
            before = AuditHead(row.number, row.hash)
        assert await audit.cut(4) == 4
        assert [entry.action for entry in (await audit.list()).items] == [CUT, "n4"]
        found = await audit.verify()
        assert (found.holds, found.cut, found.rows) == (True, 4, 2)
        with pytest.raises(Conflict, match="no row 4"):
            await audit.cut(4)
        change(tmp_path, f"UPDATE perdure_audit SET action = 'x' WHERE action = '{CUT}'")
        assert (await audit.verify()).broken == 6
        with pytest.raises(Invalid, match="no"):
            read_archived(b"{")


async def test_what_was_said_of_a_target_can_be_erased(tmp_path: Path):
    async with engine(tmp_path, identity=ADA) as running:
        client = running.client
        await client.start(order, "secret", id="o")
        await client.start(order, "other", id="p")
        assert await client.audit.erase("o") == 1
        told, _, erased = (await client.audit.list()).items
        assert (told.action, told.target, told.principal) == ("audit.erase", "o", "ada")
        assert (erased.detail, erased.is_erased, erased.target) == (None, True, "o")
        assert (await client.audit.verify()).holds


async def test_a_cut_that_no_line_tells_of_is_found(tmp_path: Path):
    async with engine(tmp_path) as running:
        audit = running.client.audit
        for n in range(3):
            await audit.note(f"n{n}")
        change(
            tmp_path,
            "UPDATE perdure_audit_head SET cut = 2, "
            "cut_hash = (SELECT hash FROM perdure_audit WHERE number = 2)",
            "DELETE FROM perdure_audit WHERE number <= 2",
        )
        found = await audit.verify()
        assert (found.broken, "no line tells" in found.fault) == (2, True)


async def test_rows_that_are_cut_off_while_it_is_checked_are_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with engine(tmp_path) as running:
        audit: Any = running.client.audit
        for n in range(3):
            await audit.note(f"n{n}")
        real, late = audit._verified, list[int]()

        async def slow(*args: Any) -> Any:
            if not late:
                late.append(await audit.cut(2))
            return await real(*args)

        monkeypatch.setattr(audit, "_verified", slow)
        found = await audit.verify()
        assert (late, found.holds, found.cut, found.head) == ([2], True, 2, 4)


async def test_an_archive_that_is_empty_has_not_what_was_cut_off(tmp_path: Path):
    async with engine(tmp_path) as running:
        audit = running.client.audit
        await audit.note("n")
        assert (await audit.verify(archived=[])).holds
        await audit.cut(1)
        assert (await audit.verify(archived=[])).broken == 1
        with pytest.raises(Invalid, match="no number"):
            await audit.verify(hash="00")


async def test_what_cannot_be_noted_is_refused(tmp_path: Path):
    async with engine(tmp_path) as running:
        audit = running.client.audit
        with pytest.raises(Invalid, match="action"):
            await audit.note("")
        with pytest.raises(Invalid, match="facts"):
            await audit.note("n", facts={"n": object()})
        wrong: list[dict[str, Any]] = [
            {"target": 5},
            {"target": None},
            {"target": "x" * 1001},
            {"run_id": 5},
            {"decision": None},
            {"rule": 5},
            {"by": "ada"},
            {"facts": 5},
            {"facts": {"salt": "mine"}},
        ]
        for fields in wrong:
            with pytest.raises(Invalid, match=next(iter(fields))):
                await audit.note("n", **fields)
        for target in (5, None, ""):
            with pytest.raises(Invalid, match="target"):
                await audit.erase(cast("Any", target))
        for number in ("1", 1.0, True, None, 0, 10**30):
            with pytest.raises(Invalid, match="no number of a row"):
                await audit.cut(cast("Any", number))
        for cursor in ("².1", "9" * 30 + ".1", "9" * 5000 + ".1", 5):
            with pytest.raises(Invalid, match="cursor"):
                await audit.list(cursor=cast("Any", cursor))
        verify: list[dict[str, Any]] = [{"number": "1"}, {"number": None}, {"hash": 5, "number": 1}]
        for fields in [*verify, {"archived": [5]}, {"archived": [b"\xff"]}]:
            with pytest.raises(Invalid):
                await audit.verify(**fields)
        assert (await audit.list()).items == []
        assert (await audit.verify()).holds


def test_a_line_is_text_since_a_database_would_keep_it_as_such():
    with pytest.raises(Invalid, match="target: 5 is not text"):
        line_by(ADA, "n", target=5)


async def test_an_archive_leaves_out_no_detail(tmp_path: Path):
    async with engine(tmp_path, codec=Backwards()) as running:
        await running.client.audit.note("n", facts={"n": 1})
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        with pytest.raises(Sealed, match="row 1 would be in no archive"):
            await client.audit.archive(datetime.now(UTC), lambda line: None)


async def test_an_archive_ends_before_the_time_that_was_said(tmp_path: Path):
    async with engine(tmp_path) as running:
        audit = running.client.audit
        await audit.note("n")
        written: list[bytes] = []
        assert await audit.archive(datetime.now(UTC) - timedelta(hours=1), written.append) == 0
        assert written == []


EVERY_HOUR = {"every": "1h", "memo": {"m": 1}}


async def steer(client: Client) -> None:
    """All that a client does to a schedule; each line is one act."""
    schedules = client.schedules
    await schedules.create("s", order, {"n": 1}, **EVERY_HOUR)
    await schedules.create("s", order, {"n": 1}, **EVERY_HOUR)  # as it is: nothing is changed
    await schedules.update("s", order, {"n": 2}, every="2h", note="less")
    await schedules.pause("s", "wait")
    await schedules.resume("s")
    await schedules.trigger("s")
    day = timedelta(days=1)
    now = datetime.now(UTC)
    await schedules.backfill("s", now - 3 * day, now - 2 * day, overlap="skip")
    await schedules.delete("s")


STEERED = [
    f"schedule.{it}"
    for it in ("create", "update", "pause", "resume", "trigger", "backfill", "delete")
]


@pytest.mark.parametrize("level", ["full", "summary", "none"])
async def test_what_is_done_to_schedules_is_told(tmp_path: Path, level: str):
    async with engine(tmp_path, level, identity=ADA) as running:
        await steer(running.client)
        with pytest.raises(ScheduleNotFound):
            await running.client.schedules.pause("s")
        lines = (await running.client.audit.list(target="schedule/s")).items[::-1]
        assert [line.action for line in lines] == ([] if level == "none" else STEERED)
        assert {line.principal for line in lines} <= {"ada"}
        assert all((line.detail is None) is (level == "summary") for line in lines)
        if level == "full":
            created, updated, paused = lines[:3]
            assert created.detail is not None and updated.detail is not None
            assert created.detail["before"] is None
            assert created.detail["after"]["starts"]["input"] == {"n": 1}
            assert updated.detail["before"]["starts"]["memo"] == {"m": 1}
            assert updated.detail["after"]["note"] == "less"
            assert paused.detail is not None
            assert (paused.detail["before"]["paused"], paused.detail["after"]) == (
                False,
                {"note": "wait"},
            )
        if level != "none":
            assert lines[4].run_id in {it.run_id for it in (await running.client.list()).items}
        assert (await running.client.audit.verify()).holds
