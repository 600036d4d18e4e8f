"""The queries that run all the time use their indexes, and none scans a table that grows.

The plans are those of prepared statements, with the settings of the store's own connections; before
the server has analyzed the tables (a new database) and after. PERDURE_TEST_ROWS says how many rows
the tables have (10,000).
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.support.postgres import Server
from tests.unit.values.test_people import TASK

from perdure.store.opening import open_store
from perdure.store.port import Filter, Place
from perdure.store.postgres.store import PostgresStore
from perdure.store.sql.audit import audit_query
from perdure.store.sql.listing import Query, count_query, list_query
from perdure.store.sql.worklists import tasks_query
from perdure.values.audit import AuditFilter, AuditPlace
from perdure.values.people import HumanTaskFilter, HumanTaskStatus
from perdure.values.states import Status

GROWING = {
    f"perdure_{name}"
    for name in (
        "attr",
        "audit",
        "beat",
        "blob",
        "budget",
        "copy",
        "fork",
        "history",
        "hold",
        "human_log",
        "human_task",
        "keep",
        "log",
        "mail",
        "memo",
        "meter",
        "open_tx",
        "place",
        "rate",
        "record",
        "run",
        "schedule",
        "sender",
        "slot",
        "state",
        "task",
        "tag",
        "watch",
    )
}
PLACE = Place(9_000, 9_000)
ORDERED = {
    "perdure_history_pkey",
    "perdure_human_task_next",
    "perdure_human_task_open",
    "perdure_human_task_pkey",
    "perdure_inbox_pkey",
    "perdure_meter_over",
    "perdure_rate_held",
    "perdure_run_pkey",
    "perdure_schedule_due",
    "perdure_schedule_waiting",
    "perdure_slot_delayed",
    "perdure_slot_ready",
    "perdure_state_claimable",
    "perdure_state_erasing",
    "perdure_state_unserved",
    "perdure_task_delayed",
    "perdure_task_due",
}
"""Read in their order up to a limit, or partial indexes whose rows are all wanted."""
ROWS = int(os.environ.get("PERDURE_TEST_ROWS", "10000"))
FILL = f"""
INSERT INTO perdure_run SELECT n, 'r' || n, n, 'default', 'w' || n,
    CASE WHEN n < 10 THEN 'rare' ELSE 'common' END, '', 'default', 1,
    CASE WHEN n % 10 = 0 THEN n - 1 END, 3, 'terminate', n, NULL,
    CASE WHEN n % 10 = 0 THEN 'p' || n END,
    CASE WHEN n % 10 = 0 THEN 'c' || n END, CASE WHEN n % 10 = 0 THEN 't' || n END,
    CASE WHEN n % 10 = 0 THEN '["g' || n || '"]' END
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_tag SELECT 'default', 'g' || n, n FROM generate_series(10, {ROWS}, 10) n;
INSERT INTO perdure_state (run, execution, status, owner, wake_at, length, since, closed_at)
SELECT n, n, CASE WHEN n % 1000 = 0 THEN 6 WHEN n % 7 = 0 THEN 1 WHEN n % 3 = 0 THEN 2 ELSE 5 END,
    CASE WHEN n % 500 = 0 THEN 1 END, CASE WHEN n % 3 = 0 THEN n END, 2, n,
    CASE WHEN n % 1000 = 0 OR (n % 7 > 0 AND n % 3 > 0) THEN n END
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_history SELECT (7 << 20) + n, n, 1, 2, 1, 1, 1, 1, 'x'
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_inbox (execution, sender, seq, event, is_control, created_at)
SELECT n, '', 0, 'x', 0, 1 FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_attr SELECT 'default', 'k', to_jsonb(n), n FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_memo SELECT n, '{{}}' FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_slot SELECT n, 'common', 'k' || n % 50, 0, n, NULL, n % 3, 'k' || n % 50, n, 0
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_rate SELECT 'common', 'k' || n, n, CASE WHEN n % 2 = 0 THEN n END
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_meter SELECT 'm' || n, n FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_place SELECT n, 'k' || n % 50 FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_budget SELECT 'r' || n, 'tokens', n, 9, 1, 1 FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_hold SELECT 'h' || n, 'r' || n, 'tokens', n, 1
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_keep SELECT n, n, CASE WHEN n % 3 > 0 THEN n END
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_log (run, number, at, level, message, step, attempt)
SELECT n, 1, 1, 1, '', '', 1 FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_human_task (id, namespace, run, execution, event, status, name, title,
    description, role, assignee, priority, created_at, closed_at, next_at)
SELECT 'h' || n, 'default', CASE WHEN n % 2 = 0 THEN n END, CASE WHEN n % 2 = 0 THEN n END, 3,
    n % 3, '', '', '', 'r' || n % 100, 'a' || n % 100, 1, 1, CASE WHEN n % 3 = 2 THEN n END,
    CASE WHEN n % 4 = 0 THEN n END
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_human_log (task, run, at, who, verb)
SELECT 'h' || n, n, 1, '', '' FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_watch (target, watcher, way, ref, asked_by)
SELECT n, n + 1, 'watch', 1, '' FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_mail (mailbox, event) SELECT 'm' || n % 100, 'x'
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_sender SELECT 's' || n, 1, 1 FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_open_tx SELECT n, 1, 1 FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_beat SELECT n, 1, 'x' FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_fork SELECT n, n + 1, 1, 'fork' FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_copy SELECT n, 1 FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_record SELECT 'default', 'k' || n % 5, 'i' || n, 1, 1, 'x'
FROM generate_series(1, {ROWS}) n;
UPDATE perdure_audit_head SET cut = 10;
INSERT INTO perdure_audit SELECT n, n, 'default', CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'do' END,
    'p' || n % 500, '', 'w' || n, 'r' || n, '', '', '', '', NULL
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_blob SELECT 'b/' || n, n, 1 FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_schedule SELECT 'default', 's' || n, 'w' || n % 100, '{{}}', 'x', NULL, '{{}}',
    0, CASE WHEN n % 10 > 0 THEN n END, CASE WHEN n % 10 = 0 THEN n END, 1, 1, 1
FROM generate_series(1, {ROWS}) n;
INSERT INTO perdure_task (run, execution, activity, attempt, queue, name, lane, rank, stage,
    created_at, not_before, due, lost, owner, call)
SELECT n, n, 2, 1, 'q' || n % 3, 'a' || n % 2, 't' || n % 100, 0, n % 4, n, n, n % 10, 0,
    CASE WHEN n % 4 = 2 THEN n % 7 END, 'x'
FROM generate_series(1, {ROWS}) n;
"""


@pytest.fixture(scope="module", params=["new", "never analyzed", "analyzed"])
def store(postgres_server: Server, request: pytest.FixtureRequest) -> Iterator[PostgresStore]:
    name = f"plans_{request.param.replace(' ', '_')}"
    url = postgres_server.create_database(f"{name}_{id(request)}")
    # Filling may take long; what is tested does not run.
    store = open_store(f"{url}{'&' if '?' in url else '?'}statement_timeout=10m")
    assert isinstance(store, PostgresStore)
    store.migrate(1)
    if request.param != "new":
        script = f"BEGIN; SET LOCAL search_path = perdure; {FILL} COMMIT"
        tables = ", ".join(f"perdure.{name}" for name in sorted(GROWING | {"perdure_inbox"}))
        run = store.database.connection.cursor().execute
        for table in tables.split(", "):
            run(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
        run(script.encode(), prepare=False)
        if request.param == "analyzed":
            run(f"ANALYZE {tables}".encode())
    yield store
    store.close()


def explain(store: PostgresStore, sql: str) -> list[Any]:
    """Return all nodes of the generic plan."""
    run = store.database.execute
    count = max(map(int, re.findall(r"\$(\d+)", sql)), default=0)
    run(f"PREPARE plan AS {sql}")
    values = f"({', '.join(['NULL'] * count)})" if count else ""
    try:
        return nodes_of(run(f"EXPLAIN (FORMAT json, COSTS off) EXECUTE plan{values}"))
    finally:
        run("DEALLOCATE plan")


def made(store: PostgresStore, text: str, parameters: Sequence[Any]) -> list[Any]:
    """Return all nodes of the plan of a statement whose text was made."""
    return nodes_of(store.database.ask(f"EXPLAIN (FORMAT json, COSTS off) {text}", parameters))


def nodes_of(cursor: Any) -> list[Any]:
    found = cursor.fetchone()[0]
    plan = found if isinstance(found, list) else json.loads(found)
    nodes: list[Any] = []

    def visit(node: dict[str, Any]) -> None:
        nodes.append(node)
        for child in node.get("Plans", ()):
            visit(child)

    visit(plan[0]["Plan"])
    return nodes


def listed(store: PostgresStore, query: Query) -> list[Any]:
    return made(store, query.text, query.parameters)


def scans(nodes: list[Any]) -> list[str]:
    """Return the tables that are read from end to end."""
    return [
        node["Relation Name"]
        for node in nodes
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in GROWING
    ] + [
        f"{node['Index Name']}, whole"
        for node in nodes
        if "Index Name" in node
        and "Index Cond" not in node
        and node["Index Name"] not in ORDERED
        and node.get("Relation Name", "perdure_run") in GROWING
    ]


def indexes(nodes: list[Any]) -> set[str]:
    return {node["Index Name"] for node in nodes if "Index Name" in node}


def told(nodes: list[Any]) -> str:
    keys = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter")
    return "\n".join(str({key: node[key] for key in keys if key in node}) for node in nodes)


PARTS = {
    "among",
    "audit_columns",
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
    "numbers",
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
    "settled",
    "task_columns",
    "task_tables",
    "texts",
    "turn_columns",
}


AT_REGISTRATION = {"adoptable", "delete_rates_of", "mark_unqueued", "unmark_delayed"}
"""They go through all open or pending runs, when a worker registers limits that are new."""


def names() -> list[str]:
    from perdure.store.postgres.sql import QUERIES

    return sorted(set(QUERIES) - PARTS - AT_REGISTRATION)


@pytest.mark.parametrize("name", names())
def test_no_query_scans_a_table_that_grows(store: PostgresStore, name: str):
    nodes = explain(store, store.database.sql[name])
    assert scans(nodes) == [], told(nodes)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("due", "perdure_state_due"),
        ("beginning", "perdure_state_pending"),
        ("claimable", "perdure_state_claimable"),
        ("served_again", "perdure_state_unserved"),
        ("unserved", "perdure_state_claimable"),
        ("unserved", "perdure_state_due"),
        ("parked", "perdure_state_by_status"),
        ("open_runs", "perdure_state_by_status"),
        ("release_runs", "perdure_state_by_owner"),
        ("ties", "perdure_inbox_by_execution"),
        ("children", "perdure_run_by_parent"),
        ("relations", "perdure_run_by_parent"),
        ("relations", "perdure_watch_by_target"),
        ("latest", "perdure_run_by_workflow_id"),
        ("executions_of_ids", "perdure_run_by_workflow_id"),
        ("targets", "perdure_run_by_execution"),
        ("targets", "perdure_inbox_by_execution"),
        ("history", "perdure_history_by_run"),
        ("journal", "perdure_history_pkey"),
        ("journal_of", "perdure_history_by_run"),
        ("last_turn", "perdure_history_by_run"),
        ("histories", "perdure_history_by_run"),
        ("inboxes", "perdure_inbox_by_execution"),
        ("attributes", "perdure_attr_by_run"),
        ("delete_attrs", "perdure_attr_by_run"),
        ("latest_of_workflow_ids", "perdure_run_by_workflow_id"),
        ("prefix_of_workflow_id", "perdure_run_by_workflow_id"),
        ("prefix_of_run_id", "perdure_run_run_id_key"),
        ("update_states", "perdure_state_pkey"),
        ("touch_states", "perdure_state_pkey"),
        ("lost_claims", "perdure_state_pkey"),
        ("consume", "perdure_inbox_pkey"),
        ("delete_open_tx_of_runs", "perdure_open_tx_pkey"),
        ("ready", "perdure_slot_ready"),
        ("ranks", "perdure_slot_ready"),
        ("ranks", "perdure_slot_of_lane"),
        ("turns", "perdure_slot_ready"),
        ("queued", "perdure_slot_of_key"),
        ("before_of_key", "perdure_slot_of_key"),
        ("rates", "perdure_rate_pkey"),
        ("delete_rates", "perdure_rate_over"),
        ("held_no_longer", "perdure_rate_held"),
        ("news", "perdure_state_claimable"),
        ("claimable_priority", "perdure_state_claimable"),
        ("of_key", "perdure_slot_of_key"),
        ("taken", "perdure_slot_by_workflow"),
        ("taken_of_keys", "perdure_slot_by_workflow"),
        ("delete_meters", "perdure_meter_over"),
        ("places_taken", "perdure_place_of_key"),
        ("places_of", "perdure_place_pkey"),
        ("delete_places", "perdure_place_pkey"),
        ("hold_budgets", "perdure_budget_pkey"),
        ("change_budgets", "perdure_budget_pkey"),
        ("budgets", "perdure_budget_pkey"),
        ("take_hold", "perdure_hold_pkey"),
        ("take_holds_of", "perdure_hold_by_execution"),
        ("delayed", "perdure_slot_delayed"),
        ("human_task", "perdure_human_task_pkey"),
        ("close_human_tasks_of_runs", "perdure_human_task_by_run"),
        ("human_tasks_of_ids", "perdure_human_task_pkey"),
        ("change_human_tasks", "perdure_human_task_pkey"),
        ("move_human_tasks", "perdure_human_task_pkey"),
        ("hold_human_tasks", "perdure_human_task_pkey"),
        ("executions_of_human_tasks", "perdure_human_task_pkey"),
        ("due_human_tasks", "perdure_human_task_next"),
        ("old_human_tasks", "perdure_human_task_alone"),
        ("human_log", "perdure_human_log_by_task"),
        ("delete_human_log", "perdure_human_log_by_task"),
        ("news", "perdure_human_task_next"),
        ("log", "perdure_log_by_run"),
        ("record", "perdure_record_pkey"),
        ("records", "perdure_record_pkey"),
        ("drop_record", "perdure_record_pkey"),
        ("audit_chain", "perdure_audit_pkey"),
        ("audit_hash", "perdure_audit_pkey"),
        ("delete_audit", "perdure_audit_pkey"),
        ("ended", "perdure_state_ended"),
        ("ended", "perdure_run_by_execution"),
        ("ended", "perdure_keep_pkey"),
        ("due_keeps", "perdure_keep_due"),
        ("due_keeps", "perdure_run_by_execution"),
        ("kept_for", "perdure_keep_pkey"),
        ("move_keeps", "perdure_keep_pkey"),
        ("family", "perdure_run_by_execution"),
        ("histories_to_delete", "perdure_history_by_run"),
        ("senders_after", "perdure_sender_pkey"),
        ("forks", "perdure_fork_by_origin"),
        ("delete_tasks", "perdure_task_by_run"),
        ("close_tasks", "perdure_task_by_run"),
        ("ripen_tasks", "perdure_task_delayed"),
        ("claimed_of_lanes", "perdure_task_claimed"),
        ("task_level", "perdure_task_ready"),
        ("task_groups", "perdure_task_ready"),
        ("lose_tasks", "perdure_task_by_owner"),
        ("carried_by", "perdure_task_by_owner"),
        ("offers_of_runs", "perdure_task_by_run"),
        ("overdue_offers", "perdure_task_due"),
        ("offers", "perdure_task_known"),
        ("schedule", "perdure_schedule_pkey"),
        ("moved_schedules", "perdure_schedule_pkey"),
        ("due_schedules", "perdure_schedule_due"),
        ("waiting_schedules", "perdure_schedule_waiting"),
        ("next_look", "perdure_schedule_due"),
        ("news", "perdure_schedule_due"),
        ("open_executions", "perdure_run_by_execution"),
    ],
)
def test_a_hot_query_uses_its_index(store: PostgresStore, name: str, index: str):
    nodes = explain(store, store.database.sql[name])
    assert index in indexes(nodes), told(nodes)


@pytest.mark.parametrize(
    "name",
    ["ready", "claimable", "of_key", "due", "beginning", "delayed", "journal", "task_heads"],
)
def test_the_next_of_a_queue_is_found_without_sorting_it(store: PostgresStore, name: str):
    nodes = explain(store, store.database.sql[name])
    assert not any("Sort" in node["Node Type"] for node in nodes), told(nodes)


def test_only_runs_of_the_executions_that_are_looked_at_are_sorted(store: PostgresStore):
    nodes = explain(store, store.database.sql["due_keeps"])
    places = [n for n, node in enumerate(nodes) if "Sort" in node["Node Type"]]
    looked_at = next(n for n, node in enumerate(nodes) if "perdure_keep_due" in indexes([node]))
    assert len(places) == 1, told(nodes)
    assert places[0] < looked_at, told(nodes)
    limits = [n for n, node in enumerate(nodes) if node["Node Type"] == "Limit"]
    assert any(places[0] < n < looked_at for n in limits), told(nodes)


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (Filter(search={"k": 77}), "perdure_attr_pkey"),
        (Filter(workflow="rare"), "perdure_run_by_workflow"),
        (Filter(workflow_id="w7"), "perdure_run_by_workflow_id"),
        (Filter(status=(Status.FAILED,)), "perdure_state_by_status"),
        (Filter(status=(Status.FAILED, Status.PARKED)), "perdure_state_by_status"),
        (Filter(correlation_id="c70"), "perdure_run_by_correlation_id"),
        (Filter(tenant="t70"), "perdure_run_by_tenant"),
        (Filter(created_by="p70"), "perdure_run_by_created_by"),
        (Filter(tags=("g70",)), "perdure_tag_pkey"),
        (Filter(tags=("g70", "none"), search={"k": 70}), "perdure_tag_pkey"),
        (Filter(started_after=100, started_before=5_000), "perdure_run_by_created_at"),
    ],
)
@pytest.mark.parametrize("kind", ["list", "count"])
def test_a_list_and_a_count_are_led_by_their_index(
    store: PostgresStore, where: Filter, index: str, kind: str
):
    database = store.database
    query = (
        list_query(database, where, 10, PLACE)
        if kind == "list"
        else count_query(database, where, 100)
    )
    nodes = listed(store, query)
    assert index in indexes(nodes), told(nodes)
    assert scans(nodes) == [], told(nodes)


@pytest.mark.parametrize(
    "where", [Filter(), Filter(workflow="common"), Filter(status=(Status.COMPLETED,))]
)
def test_a_long_list_goes_on_from_a_run_without_sorting_what_is_before(
    store: PostgresStore, where: Filter
):
    if store.count(Filter()).number == 0:
        pytest.skip("nothing is before")
    nodes = listed(store, list_query(store.database, where, 10, PLACE))
    assert scans(nodes) == [], told(nodes)
    inner = nodes[next(n for n, node in enumerate(nodes) if node["Node Type"] == "Limit") :]
    assert not any("Sort" in node["Node Type"] for node in inner), told(nodes)


def test_what_is_planned_with_its_values_has_no_parameters(store: PostgresStore):
    # A statement with parameters has a generic plan here, though nobody prepared it.
    value = "it's 100% \\ of ? and $1"
    sent, came = store.database.ask("SELECT current_query(), ?::text", [value]).fetchone()
    assert came == value
    assert "it''s 100%" in sent


@pytest.fixture(scope="module")
def moved(postgres_server: Server, request: pytest.FixtureRequest) -> Iterator[PostgresStore]:
    """A database whose older half of runs is in one namespace, and the newer one in another."""
    store = open_store(postgres_server.create_database(f"plans_moved_{id(request)}"))
    assert isinstance(store, PostgresStore)
    store.migrate(1)
    runs = """
    INSERT INTO perdure.perdure_run SELECT n, 'r' || n, n,
        CASE WHEN n <= 10000 THEN 'old' ELSE 'new' END, 'w' || n,
        CASE WHEN n <= 10000 THEN 'retired' ELSE 'common' END, '', 'default', 1, NULL, NULL,
        'terminate', n, NULL, 'p' || n % 2 FROM generate_series(1, 20000) n;
    INSERT INTO perdure.perdure_state (run, execution, status, length, since)
    SELECT n, n, 5, 2, n FROM generate_series(1, 20000) n;
    ANALYZE perdure.perdure_run, perdure.perdure_state
    """
    store.database.connection.cursor().execute(runs.encode(), prepare=False)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (Filter(namespace="old"), "perdure_run_by_namespace"),
        (Filter(namespace="old", workflow="retired"), "perdure_run_by_workflow"),
        (Filter(namespace="old", workflow="retired", created_by="p1"), "perdure_run_by_created_by"),
        (Filter(namespace="old", started_before=9_000), "perdure_run_by_created_at"),
        (Filter(namespace="new", started_after=19_000), "perdure_run_by_created_at"),
    ],
)
@pytest.mark.parametrize("kind", ["list", "count"])
def test_runs_are_not_filtered_in_the_order_in_which_they_lie(
    moved: PostgresStore, where: Filter, index: str, kind: str
):
    if kind == "list":
        nodes = listed(moved, list_query(moved.database, where, 100, None))
    else:
        nodes = listed(moved, count_query(moved.database, where, 10_000))
    leading = next(node for node in nodes if node.get("Relation Name") == "perdure_run")
    same = {"perdure_run_by_namespace", "perdure_run_by_created_at"}  # where no order is asked for
    allowed = same if kind == "count" and index in same else {index}
    assert leading["Index Name"] in allowed, told(nodes)
    if where.started_after or where.started_before:
        assert "created_at" in leading["Index Cond"], told(nodes)


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (HumanTaskFilter(), "perdure_human_task_open"),
        (HumanTaskFilter(role="r7"), "perdure_human_task_open_by_role"),
        (HumanTaskFilter(assignee="a7"), "perdure_human_task_open_by_assignee"),
        (HumanTaskFilter(overdue=True), "perdure_human_task_open"),
        (HumanTaskFilter(workflow_id="w7"), "perdure_human_task_by_run"),
        (HumanTaskFilter(prefix="h12"), "perdure_human_task_pkey"),
        (
            HumanTaskFilter(workflow_id="w7", workflow_prefix="of/w7/"),
            "perdure_human_task_by_run",
        ),
        (HumanTaskFilter(roles=("r7", "r8")), "perdure_human_task_open_by_role"),
        (HumanTaskFilter(holder="a7"), "perdure_human_task_open_by_assignee"),
        (HumanTaskFilter(kind="w7"), "perdure_human_task_open"),
        (HumanTaskFilter(priority=1), "perdure_human_task_open"),
        (HumanTaskFilter(status=tuple(HumanTaskStatus)), "perdure_human_task_pkey"),
    ],
)
@pytest.mark.parametrize("after", [None, TASK], ids=["from the first", "from one on"])
def test_a_list_of_human_tasks_is_led_by_its_index(
    store: PostgresStore, where: HumanTaskFilter, index: str, after: Any
):
    nodes = made(store, *tasks_query(store.database.sql, where, 5, 10, after))
    assert index in indexes(nodes), told(nodes)
    assert scans(nodes) == [], told(nodes)


@pytest.mark.parametrize(
    ("rare", "index"),
    [("k", "perdure_human_task_by_run"), ("", "perdure_human_task_open")],
    ids=["rare", "common"],
)
def test_human_tasks_are_found_by_a_search_attribute_if_few_have_it(
    store: PostgresStore, rare: str, index: str
):
    where = HumanTaskFilter(search={"k": 77})
    nodes = made(store, *tasks_query(store.database.sql, where, 5, 10, None, rare=rare))
    assert index in indexes(nodes), told(nodes)
    assert scans(nodes) == [], told(nodes)


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
    store: PostgresStore, where: AuditFilter, index: str, before: AuditPlace | None
):
    columns = store.database.sql["audit_columns"]
    nodes = made(store, *audit_query(columns, where, 10, before))
    assert index in indexes(nodes), told(nodes)
    assert scans(nodes) == [], told(nodes)
