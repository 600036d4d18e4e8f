"""The queries that run all the time use their indexes, and none scans a table that grows."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.values.test_people import TASK

from perdure.store.port import Filter, Place
from perdure.store.sql.audit import audit_query
from perdure.store.sql.listing import count_query, list_query
from perdure.store.sql.worklists import tasks_query
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.sql import SQL
from perdure.store.sqlite.store import SqliteStore
from perdure.values.audit import AuditFilter, AuditPlace
from perdure.values.people import HumanTaskFilter, HumanTaskStatus
from perdure.values.states import Status

GROWING = (
    "run",
    "r",
    "state",
    "s",
    "history",
    "h",
    "inbox",
    "i",
    "attr",
    "a",
    "c",
    "x",
    "memo",
    "slot",
    "perdure_slot",
    "t",
    "perdure_human_log",
    "perdure_human_task",
    "perdure_blob",
    "perdure_task",
    "n",
    "perdure_tag",
    "perdure_audit",
    "perdure_record",
    "p",
    "perdure_place",
    "b",
    "perdure_budget",
    "perdure_hold",
    "kept",
    "m",
    "perdure_meter",
    "perdure_schedule",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    store = SqliteStore(Settings(f"{tmp_path_factory.mktemp('plans')}/a.db"))
    store.migrate(1)
    yield store
    store.close()


def plan(store: SqliteStore, sql: str) -> list[str]:
    parameters = {str(n): None for n in range(1, 30)}
    positional: Any = [None] * sql.count("?") if "?1" not in sql else parameters
    rows = store.database.execute(f"EXPLAIN QUERY PLAN {sql}", positional).fetchall()
    return [row[3] for row in rows]


def scans(lines: list[str]) -> list[str]:
    return [
        line
        for line in lines
        if line.startswith("SCAN") and line.split()[1] in GROWING and "USING" not in line
    ]


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("due", "USING INDEX perdure_state_due (wake_at>? AND wake_at<?)"),
        ("claimable", "USING INDEX perdure_state_claimable"),
        ("unserved", "USING INDEX perdure_state_claimable"),
        ("unserved", "USING INDEX perdure_state_due (wake_at>? AND wake_at<?)"),
        ("parked", "USING INDEX perdure_state_by_status (status=? AND run>?)"),
        ("open_runs", "x USING COVERING INDEX perdure_state_by_status (status=? AND run>?)"),
        ("release_runs", "USING INDEX perdure_state_by_owner (owner=?)"),
        ("ties", "i USING COVERING INDEX perdure_inbox_by_execution (execution=?)"),
        ("children", "c USING INDEX perdure_run_by_parent (parent_execution=?)"),
        (
            "latest",
            "x USING COVERING INDEX perdure_run_by_workflow_id (namespace=? AND workflow_id=?)",
        ),
        ("targets", "x USING COVERING INDEX perdure_run_by_execution (execution=?)"),
        ("targets", "i USING COVERING INDEX perdure_inbox_by_execution (execution=?)"),
        ("history", "perdure_history USING INDEX perdure_history_by_run (run=? AND first>?)"),
        ("journal", "h USING INTEGER PRIMARY KEY (rowid>?)"),
        ("journal_of", "h USING INDEX perdure_history_by_run (run=?)"),
        ("last_turn", "perdure_history USING INDEX perdure_history_by_run (run=?)"),
        ("histories", "perdure_history USING INDEX perdure_history_by_run (run=?)"),
        ("inboxes", "i USING INDEX perdure_inbox_by_execution (execution=?)"),
        ("attributes", "perdure_attr USING INDEX perdure_attr_by_run (run=?)"),
        ("inherit_tags", "t USING COVERING INDEX perdure_tag_by_run (run=?)"),
        ("inherit_tags", "o USING COVERING INDEX perdure_tag_by_run (run=?)"),
        ("workflows_seen", "r USING COVERING INDEX perdure_run_by_workflow (workflow>?)"),
        ("workflows_seen", "COVERING INDEX perdure_run_by_workflow (workflow=? AND namespace=?)"),
        ("delete_attrs", "perdure_attr USING COVERING INDEX perdure_attr_by_run (run=?)"),
        ("latest_of_workflow_ids", "run_by_workflow_id (namespace=? AND workflow_id=?)"),
        ("prefix_of_workflow_id", "run_by_workflow_id (namespace=? AND workflow_id>?"),
        ("update_states", "state USING INTEGER PRIMARY KEY (rowid=?)"),
        ("touch_states", "state USING INTEGER PRIMARY KEY (rowid=?)"),
        ("lost_claims", "s USING INTEGER PRIMARY KEY (rowid=?)"),
        ("consume", "inbox USING INTEGER PRIMARY KEY (rowid=?)"),
        ("delete_open_tx_of_runs", "open_tx USING PRIMARY KEY (run=?)"),
        ("ready", "perdure_slot USING INDEX perdure_slot_ready (workflow=?)"),
        ("of_key", "USING INDEX perdure_slot_of_key (workflow=? AND key=? AND place=?)"),
        ("ranks", "s USING INDEX perdure_slot_ready (workflow=? AND priority=?)"),
        ("ranks", "perdure_slot_of_lane (workflow=? AND priority=? AND lane=?)"),
        ("turns", "s USING INDEX perdure_slot_ready (workflow=? AND priority=? AND rank=?)"),
        ("queued", "s USING INDEX perdure_slot_ready (workflow=?)"),
        ("queued", "perdure_slot_of_key (workflow=? AND key=? AND place=?)"),
        ("rates", "t USING PRIMARY KEY (workflow=? AND key=?)"),
        ("delete_rates", "t USING INDEX perdure_rate_over (paid_until<?)"),
        ("held_no_longer", "perdure_rate USING COVERING INDEX perdure_rate_held (held_until<?)"),
        ("news", "perdure_rate USING COVERING INDEX perdure_rate_held"),
        (
            "before_of_key",
            "s USING COVERING INDEX perdure_slot_of_key (workflow=? AND key=? AND place=?)",
        ),
        ("before", "s USING INDEX perdure_slot_ready (workflow=?)"),
        ("claimable_priority", "USING INDEX perdure_state_claimable (priority<?)"),
        ("claimable", "s USING INDEX perdure_state_claimable (priority=? AND lane>?)"),
        ("claimable", "state USING INDEX perdure_state_claimable (priority=? AND lane=?)"),
        ("served_again", "USING INDEX perdure_state_unserved"),
        ("taken", "s USING COVERING INDEX perdure_slot_by_workflow (workflow=? AND place=?)"),
        ("taken_of_keys", "perdure_slot_by_workflow (workflow=? AND place=? AND key=?)"),
        ("ended", "state USING INDEX perdure_state_ended (closed_at>? AND closed_at<?)"),
        ("ended", "x USING COVERING INDEX perdure_run_by_execution (execution=?)"),
        ("ended", "kept USING INTEGER PRIMARY KEY (rowid=?)"),
        ("due_keeps", "kept USING INDEX perdure_keep_due (due>? AND due<?)"),
        ("due_keeps", "r USING COVERING INDEX perdure_run_by_execution (execution=?)"),
        ("being_erased", "perdure_state_erasing"),
        ("kept_for", "perdure_keep USING INTEGER PRIMARY KEY (rowid=?)"),
        ("kept_for", "perdure_sweep USING PRIMARY KEY (workflow=? AND scope=?)"),
        ("move_keeps", "kept USING INTEGER PRIMARY KEY (rowid=?)"),
        ("family", "r USING COVERING INDEX perdure_run_by_execution (execution=?)"),
        ("histories_to_delete", "USING COVERING INDEX perdure_history_by_run (run=?)"),
        ("runs_to_erase", "r USING INDEX perdure_run_by_execution (execution=?)"),
        ("rows_to_erase", "perdure_history USING INDEX perdure_history_by_run (run=? AND first>?)"),
        ("erase_row", "perdure_history USING INTEGER PRIMARY KEY (rowid=?)"),
        ("erase_attrs", "perdure_attr_by_run (run=?)"),
        ("erase_offers", "perdure_task USING INDEX perdure_task_by_run (run=?)"),
        ("erase_logs", "perdure_log USING INDEX perdure_log_by_run (run=?)"),
        ("erase_human_tasks", "INDEX perdure_human_task_by_run (run=?)"),
        ("erase_human_logs", "INDEX perdure_human_log_by_run (run=?)"),
        ("erase_details", "a USING COVERING INDEX perdure_audit_by_run (namespace=? AND run_id=?)"),
        ("erase_inbox", "perdure_inbox USING INDEX perdure_inbox_by_execution (execution=?)"),
        ("senders_after", "perdure_sender USING PRIMARY KEY (sender>?)"),
        ("meters", "m USING PRIMARY KEY (key=?)"),
        ("delete_meters", "m USING COVERING INDEX perdure_meter_over (paid_until<?)"),
        ("places_taken", "p USING COVERING INDEX perdure_place_of_key (key=?)"),
        ("places_of", "p USING PRIMARY KEY (execution=?)"),
        ("delete_places", "perdure_place USING PRIMARY KEY (execution=?)"),
        ("hold_budgets", "b USING PRIMARY KEY (key=? AND unit=?)"),
        ("change_budgets", "b USING PRIMARY KEY (key=? AND unit=?)"),
        ("budgets", "perdure_budget USING PRIMARY KEY (key=?)"),
        ("take_hold", "perdure_hold USING PRIMARY KEY (id=?)"),
        (
            "take_holds_of",
            "USING COVERING INDEX perdure_hold_by_execution (execution=?)",
        ),
        ("delayed", "perdure_slot USING INDEX perdure_slot_delayed (since<?)"),
        ("delete_slots", "perdure_slot USING INTEGER PRIMARY KEY (rowid=?)"),
        ("admit_states", "state USING INTEGER PRIMARY KEY (rowid=?)"),
        ("record", "perdure_record USING PRIMARY KEY (namespace=? AND kind=? AND id=?)"),
        ("records", "perdure_record USING PRIMARY KEY (namespace=? AND kind=? AND id>?)"),
        ("drop_record", "perdure_record USING PRIMARY KEY (namespace=? AND kind=? AND id=?)"),
        ("audit_chain", "perdure_audit USING INTEGER PRIMARY KEY (rowid>?)"),
        (
            "erase_audit",
            "INDEX perdure_audit_by_target (namespace=? AND target=?)",
        ),
        ("delete_audit", "perdure_audit USING INTEGER PRIMARY KEY (rowid=?)"),
        ("human_task", "t USING INDEX sqlite_autoindex_perdure_human_task_1 (id=?)"),
        ("human_tasks_of_ids", "t USING INDEX sqlite_autoindex_perdure_human_task_1 (id=?)"),
        ("change_human_tasks", "sqlite_autoindex_perdure_human_task_1 (id=?)"),
        ("move_human_tasks", "sqlite_autoindex_perdure_human_task_1 (id=?)"),
        ("due_human_tasks", "USING INDEX perdure_human_task_next (next_at>? AND next_at<?)"),
        ("news", "USING INDEX perdure_human_task_next (next_at>?)"),
        ("old_human_tasks", "USING INDEX perdure_human_task_alone (closed_at<?)"),
        ("human_log", "USING INDEX perdure_human_log_by_task (task=? AND id>?)"),
        ("delete_human_log", "perdure_human_log_by_task (task=?)"),
        ("give_up_human_tasks", "sqlite_autoindex_perdure_human_task_1 (id=?)"),
        ("already_decided", "t USING INDEX sqlite_autoindex_perdure_human_task_1 (id=?)"),
        ("close_human_tasks_of_runs", "INDEX perdure_human_task_by_run (run=?)"),
        ("schedule", "p USING INDEX sqlite_autoindex_perdure_schedule_1 (namespace=? AND id=?)"),
        ("change_schedule", "sqlite_autoindex_perdure_schedule_1 (namespace=? AND id=?)"),
        ("moved_schedules", "sqlite_autoindex_perdure_schedule_1 (namespace=? AND id=?)"),
        ("due_schedules", "p USING INDEX perdure_schedule_due (next_at>? AND next_at<?)"),
        ("waiting_schedules", "p USING INDEX perdure_schedule_waiting"),
        ("waiting_schedules", "r USING COVERING INDEX perdure_run_by_execution (execution=?)"),
        ("next_look", "perdure_schedule USING COVERING INDEX perdure_schedule_due"),
        ("next_look", "p USING COVERING INDEX perdure_schedule_waiting"),
        ("news", "perdure_schedule USING COVERING INDEX perdure_schedule_due"),
        ("open_executions", "r USING COVERING INDEX perdure_run_by_execution (execution=?)"),
        ("unused_blobs", "b USING PRIMARY KEY (name=?)"),
        ("unused_blobs", "h USING COVERING INDEX perdure_history_by_run (run=? AND first=?)"),
        ("forget_blobs", "perdure_blob USING PRIMARY KEY (name=?)"),
        ("payload_of", "perdure_history USING INDEX perdure_history_by_run (run=? AND first=?)"),
        ("delete_tasks", "perdure_task USING INDEX perdure_task_by_run (run=? AND activity=?)"),
        ("delete_tasks_of_runs", "perdure_task USING INDEX perdure_task_by_run (run=?)"),
        ("close_tasks", "perdure_task USING INDEX perdure_task_by_run (run=? AND activity=?)"),
        ("redo_tasks", "perdure_task USING INDEX perdure_task_by_run (run=? AND activity=?)"),
        ("hand_back_tasks", "perdure_task USING INDEX perdure_task_by_run (run=? AND activity=?)"),
        ("ripen_tasks", "perdure_task_delayed (not_before<?)"),
        ("claimed_of_lanes", "perdure_task USING INDEX perdure_task_claimed (queue=?)"),
        ("task_level", "perdure_task_ready (queue=? AND rank>?)"),
        ("task_groups", "t USING INDEX perdure_task_ready (queue=? AND rank=? AND lane>?)"),
        ("task_groups", "perdure_task_ready (queue=? AND rank=? AND lane=? AND name>?)"),
        ("task_groups", "y USING INDEX perdure_task_ready (queue=? AND rank=? AND lane>?)"),
        ("task_heads", "perdure_task_ready (queue=? AND rank=? AND lane=? AND name=?)"),
        ("release_tasks", "perdure_task_by_owner (owner=?)"),
        ("lose_tasks", "perdure_task_by_owner (owner=?)"),
        ("carried_by", "perdure_task_by_owner (owner=?)"),
        ("offers_of_runs", "perdure_task USING INDEX perdure_task_by_run (run=?)"),
        ("overdue_offers", "perdure_task_due (due>? AND due<?)"),
        ("offers", "t USING INDEX perdure_task_known (queue=? AND name=?)"),
    ],
)
def test_a_hot_query_uses_its_index(store: SqliteStore, name: str, uses: str):
    lines = plan(store, SQL[name])
    assert any(uses in line for line in lines), lines


def test_the_inbox_is_read_in_the_order_of_its_ids_and_nothing_is_sorted(store: SqliteStore):
    lines = plan(store, SQL["inbox"])
    assert not any("TEMP B-TREE" in line for line in lines), lines
    assert scans(lines) == ["SCAN i"]  # the inbox itself, which holds only what is unread


NOT_QUERIES = {
    "among",
    "for_each",
    "is_admissible",
    "is_claimable",
    "is_boolean",
    "is_mine",
    "is_number",
    "is_served",
    "is_unserved",
    "is_new_paused",
    "is_unbegun",
    "join_run",
    "join_state",
    "journal_columns",
    "json_value",
    "of_column",
    "of_namespace",
    "offer_columns",
    "of_inbox",
    "real_length",
    "row_columns",
    "schedule_columns",
    "schedules_at",
    "waits_no_more",
    "row_tables",
    "audit_columns",
    "task_columns",
    "task_tables",
    "turn_columns",
}
MANY_ROWS = {
    "insert_audit",
    "insert_beats",
    "insert_history",
    "insert_inbox",
    "insert_mail",
    "insert_tasks",
}


@pytest.mark.parametrize("name", sorted(set(SQL) - NOT_QUERIES - MANY_ROWS - {"inbox", "news"}))
def test_no_query_scans_a_table_that_grows(store: SqliteStore, name: str):
    lines = plan(store, SQL[name])
    assert scans(lines) == [], lines


@pytest.mark.parametrize(
    ("where", "uses"),
    [
        (Filter(search={"k": "v"}), "a USING PRIMARY KEY (namespace=? AND key=? AND value=?"),
        (
            Filter(workflow="w"),
            "r USING COVERING INDEX perdure_run_by_workflow (workflow=? AND namespace=? AND run<?)",
        ),
        (Filter(tags=("t",)), "t USING PRIMARY KEY (namespace=? AND tag=? AND run<?)"),
        (Filter(created_by="w"), "perdure_run_by_created_by (created_by=? AND namespace=? AND run"),
        (Filter(namespace="n"), "perdure_run_by_namespace (namespace=? AND run<?)"),
        (
            Filter(started_after=1),
            "perdure_run_by_created_at (namespace=? AND created_at>? AND created_at<?",
        ),
        (Filter(started_before=1), "perdure_run_by_created_at (namespace=? AND created_at<?"),
        (
            Filter(workflow_id="w"),
            "INDEX perdure_run_by_workflow_id (namespace=? AND workflow_id=? AND run<?)",
        ),
        (
            Filter(status=(Status.FAILED,)),
            "s USING COVERING INDEX perdure_state_by_status (status=?",
        ),
        (
            Filter(correlation_id="c"),
            "perdure_run_by_correlation_id (correlation_id=? AND namespace=? AND run<?)",
        ),
        (Filter(tenant="t"), "perdure_run_by_tenant (tenant=? AND namespace=? AND run<?)"),
    ],
)
def test_a_list_is_led_by_its_index_and_goes_on_from_a_run_without_sorting(
    store: SqliteStore, where: Filter, uses: str
):
    query = list_query(store.database, where, 10, Place(1_000, 1_000))
    rows = store.database.execute(f"EXPLAIN QUERY PLAN {query.text}", query.parameters).fetchall()
    lines = [row[3] for row in rows]
    inner = lines[: next(n for n, line in enumerate(lines) if line.startswith("SCAN k")) + 1]
    assert any(uses in line for line in inner), lines
    assert not any("TEMP B-TREE" in line for line in inner), lines
    assert scans(lines) == []


@pytest.mark.parametrize(
    ("where", "uses"),
    [
        (HumanTaskFilter(), "t USING INDEX perdure_human_task_open"),
        (HumanTaskFilter(role="r"), "t USING INDEX perdure_human_task_open_by_role (role=?"),
        (HumanTaskFilter(assignee="a"), "perdure_human_task_open_by_assignee (assignee=?"),
        (HumanTaskFilter(overdue=True), "perdure_human_task_open (<expr><?)"),
        (HumanTaskFilter(workflow_id="w"), "t USING INDEX perdure_human_task_by_run (run=?)"),
        (HumanTaskFilter(prefix="0"), "sqlite_autoindex_perdure_human_task_1 (id>? AND id<?)"),
        (
            HumanTaskFilter(workflow_id="w", workflow_prefix="of/w/"),
            "t USING INDEX perdure_human_task_by_run (run=?)",
        ),
        (
            HumanTaskFilter(roles=("r", "s")),
            "t USING INDEX perdure_human_task_open_by_role (role=?",
        ),
        (HumanTaskFilter(holder="a"), "perdure_human_task_open_by_assignee (assignee=?"),
        (HumanTaskFilter(holder="a"), "perdure_human_task_claimed (claimed_by=?"),
        (HumanTaskFilter(kind="w"), "t USING INDEX perdure_human_task_open"),
        (HumanTaskFilter(priority=1), "t USING INDEX perdure_human_task_open"),
    ],
)
def test_a_list_of_human_tasks_is_led_by_its_index(
    store: SqliteStore, where: HumanTaskFilter, uses: str
):
    sql, parameters = tasks_query(SQL, where, 5, 10, None)
    rows = store.database.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    lines = [row[3] for row in rows]
    assert any(uses in line for line in lines), lines
    assert scans(lines) == []
    if not (where.workflow_id or where.prefix or where.roles or where.holder):  # those are merged
        assert not any("TEMP B-TREE" in line for line in lines), lines


@pytest.mark.parametrize(
    ("rare", "uses"),
    [
        ("order", ["t USING INDEX perdure_human_task_by_run (run=?)", "a USING PRIMARY KEY"]),
        ("", ["t USING INDEX perdure_human_task_open", "x USING"]),
    ],
    ids=["rare", "common"],
)
def test_human_tasks_are_found_by_a_search_attribute_if_few_have_it(
    store: SqliteStore, rare: str, uses: list[str]
):
    where = HumanTaskFilter(search={"order": 7})
    sql, parameters = tasks_query(SQL, where, 5, 10, None, rare=rare)
    rows = store.database.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    lines = [row[3] for row in rows]
    assert all(any(one in line for line in lines) for one in uses), lines
    assert scans(lines) == []
    assert rare or not any("TEMP B-TREE" in line for line in lines), lines


@pytest.mark.parametrize(
    ("status", "uses"),
    [
        ((), "perdure_human_task_open (<expr>>?"),
        (tuple(HumanTaskStatus), "sqlite_autoindex_perdure_human_task_1 (id>? AND id<?)"),
    ],
    ids=["open", "all"],
)
def test_a_list_of_human_tasks_goes_on_from_one_of_them(
    store: SqliteStore, status: tuple[HumanTaskStatus, ...], uses: str
):
    sql, parameters = tasks_query(SQL, HumanTaskFilter(status=status), 5, 10, TASK)
    rows = store.database.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    lines = [row[3] for row in rows]
    assert any(uses in line for line in lines), lines
    assert not any("TEMP B-TREE" in line for line in lines), lines


@pytest.mark.parametrize("name", ["ready", "of_key"])
def test_the_next_of_a_queue_is_found_without_sorting_it(store: SqliteStore, name: str):
    assert not any("TEMP B-TREE" in line for line in plan(store, SQL[name]))


def test_several_statuses_are_merged_in_order(store: SqliteStore):
    where = Filter(status=(Status.FAILED, Status.PARKED))
    query = list_query(store.database, where, 10, None)
    rows = store.database.execute(f"EXPLAIN QUERY PLAN {query.text}", query.parameters).fetchall()
    lines = [row[3] for row in rows]
    assert "MERGE (UNION ALL)" in lines
    assert sum("state_by_status (status=?" in line for line in lines) == 2


def test_the_rarest_condition_leads(store: SqliteStore, tmp_path: Path):
    own = SqliteStore(Settings(str(tmp_path / "own.db")))
    own.migrate(1)
    connection: sqlite3.Connection = own.database.connection
    connection.execute(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 6000) "
        "INSERT INTO perdure_run SELECT x, 'r' || x, x, 'default', 'w' || x, "
        "CASE WHEN x < 10 THEN 'rare' ELSE 'common' END, '', 'q', 1, NULL, NULL, '', 1, "
        "NULL, NULL, NULL, NULL, NULL FROM n"
    )
    connection.execute(
        "INSERT INTO perdure_state (run, execution, status, length, since) "
        "SELECT run, run, CASE WHEN run % 1000 = 0 THEN 6 ELSE 5 END, 1, 1 FROM perdure_run"
    )

    def leads(condition: str, **where: Any) -> bool:
        text = list_query(own.database, Filter(**where), 5, None).text
        return f"WHERE {condition}" in text

    completed, failed = (Status.COMPLETED,), (Status.FAILED,)
    assert leads("r.namespace = ? AND r.workflow = ?", workflow="rare", status=completed)
    assert leads("s.status = ?", workflow="common", status=failed)
    assert leads("r.namespace = ? AND r.workflow = ?", workflow="common", status=completed)
    assert leads("r.namespace = ? AND +r", namespace="elsewhere", status=completed) is False
    assert leads("r.namespace = ? AND s.status", namespace="elsewhere", status=completed)
    # In the order of times only what is rare leads besides them.
    assert leads("r.namespace = ? AND r.workflow = ?", workflow="rare", started_after=0)
    assert leads("r.namespace = ? AND +r.workflow = ?", workflow="common", started_after=0)
    query = count_query(own.database, Filter(workflow="common"), 100)
    assert own.database.execute(query.text, query.parameters).fetchone() == (100,)
    own.close()


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (AuditFilter(), "perdure_audit_by_time"),
        (AuditFilter(since=5, until=9_000), "perdure_audit_by_time"),
        (AuditFilter(principal="p7"), "perdure_audit_by_principal"),
        (AuditFilter(action="rare"), "perdure_audit_by_action"),
        (AuditFilter(target="w7"), "perdure_audit_by_target"),
        (AuditFilter(run_id="r7"), "perdure_audit_by_run"),
    ],
)
@pytest.mark.parametrize("before", [None, AuditPlace(5_000, 5_000)], ids=["first", "next"])
def test_the_audit_is_listed_by_its_index_without_sorting(
    store: SqliteStore, where: AuditFilter, index: str, before: AuditPlace | None
):
    sql, parameters = audit_query(SQL["audit_columns"], where, 10, before)
    rows = store.database.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    lines = [row[3] for row in rows]
    assert any(f"USING INDEX {index} (" in line for line in lines), lines
    assert not any("TEMP B-TREE" in line for line in lines), lines
