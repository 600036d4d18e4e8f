"""Perdure's own tables, as far as the models read them. Its migrations make them; this only says
what is there, and a test compares it with a migrated database.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()
"""Apart from the application's: nothing here is to be created or migrated by it."""

runs = Table(
    "perdure_run",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("execution", Integer, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("tenant", Text),
)
states = Table(
    "perdure_state",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("status", Integer, nullable=False),
    Column("closed_at", BigInteger),
    Column("since", BigInteger, nullable=False),
)
turns = Table(
    "perdure_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Integer, nullable=False),
    Column("first", Integer, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
definitions = Table(
    "perdure_definition",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("is_active", Integer, nullable=False),
    Column("registered_at", BigInteger, nullable=False),
    Column("id", Text),
)
human_tasks = Table(
    "perdure_human_task",
    metadata,
    Column("id", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("execution", Integer),
    Column("event", Integer),
    Column("status", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("role", Text),
    Column("assignee", Text),
    Column("form", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("remind_at", BigInteger),
    Column("claimed_at", BigInteger),
    Column("closed_at", BigInteger),
    Column("closed_by", Text),
)
