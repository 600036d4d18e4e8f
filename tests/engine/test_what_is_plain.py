"""What stands in the database in the clear: a secret is planted wherever users can put data, and
all columns of all tables are searched for it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import until, until_status
from tests.support.seals import Backwards, Raw

from perdure import ApplicationError, Engine, Retry, Status, activity, human, workflow
from perdure.store.sql.seals import TABLES
from perdure.values.records import Amend, Put

SECRET = "Xyzzy-4711-geheim"
SEALED = {(table.name, column) for table in TABLES for column in table.columns}
PLAIN = {
    ("perdure_attr", "key"),
    ("perdure_attr", "namespace"),
    ("perdure_attr", "value"),
    ("perdure_audit", "action"),
    ("perdure_audit", "decision"),
    ("perdure_audit", "digest"),
    ("perdure_audit", "hash"),
    ("perdure_audit", "initiated_by"),
    ("perdure_audit", "namespace"),
    ("perdure_audit", "principal"),
    ("perdure_audit", "rule"),
    ("perdure_audit", "run_id"),
    ("perdure_audit", "target"),
    ("perdure_audit_head", "cut_hash"),
    ("perdure_audit_head", "hash"),
    ("perdure_blob", "name"),
    ("perdure_budget", "key"),
    ("perdure_budget", "unit"),
    ("perdure_codec", "codec"),
    ("perdure_codec", "sample"),
    ("perdure_definition", "code"),
    ("perdure_definition", "id"),
    ("perdure_definition", "name"),
    ("perdure_definition", "queue"),
    ("perdure_definition", "source"),
    ("perdure_definition", "triggers"),
    ("perdure_definition", "version"),
    ("perdure_fork", "how"),
    ("perdure_hold", "id"),
    ("perdure_hold", "key"),
    ("perdure_hold", "unit"),
    ("perdure_human_log", "task"),
    ("perdure_human_log", "verb"),
    ("perdure_human_log", "who"),
    ("perdure_human_task", "assignee"),
    ("perdure_human_task", "chain"),
    ("perdure_human_task", "claimed_by"),
    ("perdure_human_task", "closed_by"),
    ("perdure_human_task", "created_by"),
    ("perdure_human_task", "id"),
    ("perdure_human_task", "name"),
    ("perdure_human_task", "namespace"),
    ("perdure_human_task", "not_by"),
    ("perdure_human_task", "role"),
    ("perdure_human_task", "tenant"),
    ("perdure_human_task", "title"),
    ("perdure_human_task", "type"),
    ("perdure_identity", "id"),
    ("perdure_inbox", "sender"),
    ("perdure_limit", "on_limit"),
    ("perdure_limit", "pool"),
    ("perdure_limit", "rate"),
    ("perdure_limit", "rate_per_key"),
    ("perdure_limit", "workflow"),
    ("perdure_log", "step"),
    ("perdure_mail", "mailbox"),
    ("perdure_mailbox", "mailbox"),
    ("perdure_meter", "key"),
    ("perdure_migration", "checksum"),
    ("perdure_migration", "name"),
    ("perdure_migration", "version"),
    ("perdure_place", "key"),
    ("perdure_question", "id"),
    ("perdure_question", "name"),
    ("perdure_question", "update_id"),
    ("perdure_queue", "queue"),
    ("perdure_rate", "key"),
    ("perdure_rate", "workflow"),
    ("perdure_record", "id"),
    ("perdure_record", "kind"),
    ("perdure_record", "namespace"),
    ("perdure_run", "correlation_id"),
    ("perdure_run", "created_by"),
    ("perdure_run", "namespace"),
    ("perdure_run", "parent_close"),
    ("perdure_run", "queue"),
    ("perdure_run", "run_id"),
    ("perdure_run", "tags"),
    ("perdure_run", "tenant"),
    ("perdure_run", "version"),
    ("perdure_run", "workflow"),
    ("perdure_run", "workflow_id"),
    ("perdure_schedule", "id"),
    ("perdure_schedule", "namespace"),
    ("perdure_schedule", "spec"),
    ("perdure_schedule", "state"),
    ("perdure_schedule", "workflow"),
    ("perdure_sender", "sender"),
    ("perdure_slot", "key"),
    ("perdure_slot", "lane"),
    ("perdure_slot", "workflow"),
    ("perdure_state", "lane"),
    ("perdure_state", "reason"),
    ("perdure_state", "unblock"),
    ("perdure_state", "waits"),
    ("perdure_sweep", "code"),
    ("perdure_sweep", "scope"),
    ("perdure_sweep", "workflow"),
    ("perdure_tag", "namespace"),
    ("perdure_tag", "tag"),
    ("perdure_task", "lane"),
    ("perdure_task", "name"),
    ("perdure_task", "queue"),
    ("perdure_watch", "asked_by"),
    ("perdure_watch", "mailbox"),
    ("perdure_watch", "way"),
    ("perdure_worker", "activities"),
    ("perdure_worker", "host"),
    ("perdure_worker", "name"),
    ("perdure_worker", "queues"),
    ("perdure_worker", "state"),
    ("perdure_worker", "workflows"),
}
"""Columns of text or bytes that hold no user's data but what is searched or listed; a new column
goes into this list, and into docs/encryption.md, or into TABLES."""


@activity.define(retry=Retry(max_attempts=2, interval="1ms"))
async def talk(text: str) -> str:
    activity.logger.info("log line: %s", text, extra={"data": {"text": text}})
    if activity.info().attempt == 1:
        raise ApplicationError(f"attempt: {text}", details={"text": text})
    return text


@activity.define
async def hang(text: str) -> None:
    activity.heartbeat({"text": text})
    await asyncio.Event().wait()


@activity.define(transactional=True)
def write(text: str) -> str:
    return text


@workflow.define
async def chatty(text: str) -> str:
    @workflow.query("said")
    def said(more: str) -> str:
        return f"{text} {more}"

    await workflow.progress(1, 2, text)
    await workflow.attrs(memo={"more": text})
    await workflow.emit("told", {"text": text})
    workflow.logger.info("in the workflow: %s", text)
    given = await workflow.listen("go").receive()
    workflow.spawn(hang(text))
    workflow.spawn(hang.options(task_queue="elsewhere")(text))
    await write(await talk(given))
    decision: Any = await human.request(
        "Shall we?", description=text, data={"text": text}, form={"const": text}, approvers=2
    )
    await workflow.listen("end").receive()
    return f"{text} {decision.value}"


@workflow.define
async def breaks(text: str) -> None:
    raise ValueError(text)


@workflow.define
async def peeks(text: str) -> None:
    Path(text).read_text()  # noqa: ASYNC240 - it is refused, and the run parked with the name


async def plant(url: str, **options: Any) -> None:
    """Leave the secret everywhere, without a worker that would take it away."""
    async with Engine(
        url, [chatty, breaks, peeks, talk, hang, write], lease="300ms", **options
    ) as engine:
        client = engine.client
        handle = await client.start(chatty, SECRET, id="open", memo={"first": SECRET})
        await handle.send("go", SECRET)

        async def asked() -> bool:
            return bool((await client.human_tasks.list()).items)

        await until(asked)
        raw = Raw(url)
        if options.get("codec") is None:
            beats = raw.values
            await until(
                lambda: any(SECRET.encode() in it for it in beats("perdure_beat", "details"))
            )
        else:
            await until(lambda: bool(raw.ask("SELECT 1 FROM perdure_beat")))
        (task,) = (await client.human_tasks.list()).items
        await client.human_tasks.comment(task.id, SECRET, by="ada")
        for by in ("ada", "grace"):
            await client.human_tasks.complete(task.id, SECRET, by=by, comment=SECRET)
        with pytest.raises(Exception, match=SECRET):
            await (await client.start(breaks, SECRET, id="broken")).result("10s")
        await until_status(await client.start(peeks, SECRET, id="parked"), Status.PARKED)
        said = {"description": SECRET, "note": SECRET, "memo": {"first": SECRET}}
        await client.schedules.create("yearly", chatty, SECRET, cron="@yearly", **said)
        async with client.mailbox() as box:
            stopped = await client.start(chatty, SECRET, id="stopped")
            await stopped.pause()
            await until_status(stopped, Status.PAUSED)
            await stopped.send("go", SECRET)
            await client.door.write(_ask_by_hand)
            await client.audit.note("looked", facts={"text": SECRET})
            await client.door.write(_put_by_hand)
            await client.send_mail(box.id, _mail_to())
            assert raw.ask("SELECT 1 FROM perdure_mail")
            check(raw, **options)
        await engine.stop(grace=0)


def _ask_by_hand(store: Any) -> None:
    from perdure.store.port import Question

    far = 2**60
    store.ask(Question("q", 1, "update:none", SECRET.encode(), far), 1)
    store.answer("q", SECRET.encode(), 1)


def _put_by_hand(store: Any) -> None:
    store.amend(Amend([Put("note", "n", f'"{SECRET}"'.encode())]), 1)


def _mail_to() -> Any:
    from perdure.values import events

    return events.MessageReceived(message=events.Message("topic", SECRET.encode(), "", "m", 1))


def check(raw: Raw, **options: Any) -> None:
    found = raw.holding(SECRET.encode())
    if options.get("codec") is None:
        assert found == SEALED
    else:
        assert found == set()
        assert raw.holding(SECRET.encode()[::-1])  # it is there, the codec's way


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'test.db'}"


async def test_without_a_codec_the_secret_stands_in_every_column_that_is_to_be_sealed(url: str):
    await plant(url, compress_above=0)


async def test_with_a_codec_no_column_holds_the_secret(url: str):
    await plant(url, compress_above=0, codec=Backwards())


async def test_every_column_of_text_or_bytes_is_either_sealed_or_listed_as_plain(url: str):
    async with Engine(url):
        pass
    columns = {(table, name) for table, names in Raw(url).columns().items() for name in names}
    assert columns == SEALED | PLAIN
