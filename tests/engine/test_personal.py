"""Personal values: what is of a person can be erased, and the histories still replay."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status
from tests.support.seals import Raw

from perdure import Client, Engine, Status, activity, personal, workflow
from perdure.door import StoreDoor
from perdure.engine.checking import FITS, Checker
from perdure.engine.registry import Registry
from perdure.errors import ActivityFailed, Erased, Invalid, Sealed, UsageError
from perdure.personal import Personal
from perdure.store.desk import open_desk
from perdure.subjects import KEPT

ADDRESS = {"street": "Downing Street 10"}
letters: list[Any] = []


@activity.define
async def write_letter(to: Personal, text: str) -> str:
    letters.append((await to.open(dict[str, str]), text))
    return "sent"


@activity.define
def look_up(subject: str) -> Personal:
    return personal.seal_now(subject, ADDRESS)


@activity.define
def street_of(to: Personal) -> int:
    return len(to.open_now(dict[str, str])["street"])


@workflow.define
async def correspond(to: Personal) -> list[Any]:
    told: list[Any] = [await write_letter(to, "hello")]
    while (text := await workflow.listen("letter").receive()) != "enough":
        try:
            told.append(await write_letter(to, text))
        except ActivityFailed as failed:
            told.append(f"{type(failed.cause).__name__} {failed.kind}")
    return [*told, to]


@workflow.define
async def finds(subject: str) -> list[Any]:
    to = await look_up(subject)
    again = await look_up(subject)
    return [to == again, to, await street_of(to)]


@workflow.define
async def peeks(to: Personal) -> str:
    try:
        await to.open()
    except UsageError as error:
        return error.message
    return "it was opened"


@pytest.fixture(autouse=True)
def _no_letters() -> None:
    letters.clear()


def engine(folder: Path, *more: Any, **options: Any) -> Engine:
    return engine_on(folder, correspond, finds, peeks, look_up, write_letter, *more, **options)


async def test_what_is_sealed_is_opened_by_activities_and_clients(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        to = await client.personal.seal("u42", ADDRESS)
        assert "Downing" not in repr(to)
        assert to == Personal("u42", to.sealed)
        assert to != await client.personal.seal("u42", ADDRESS)
        handle = await client.start(correspond, to, id="c")
        await handle.send("letter", "enough")
        told, back = await handle.result()
        assert told == "sent" and letters == [(ADDRESS, "hello")]
        assert await client.personal.open(back, dict[str, str]) == ADDRESS
        text = str(await handle.export())
        assert "Downing" not in text and "u42" in text
        assert Raw(f"sqlite:///{tmp_path / 'test.db'}").holding(b"Downing") == set()


async def test_a_plain_function_seals_and_opens_without_await(tmp_path: Path):
    async with engine(tmp_path, street_of) as running:
        same, value, length = await running.client.execute(finds, "u1")
        assert (same, length) == (False, 17)
        assert await running.client.personal.open(value) == ADDRESS


async def test_a_run_goes_on_after_its_subject_was_erased_and_its_history_replays(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        to = await client.personal.seal("u42", ADDRESS)
        handle = await client.start(correspond, to, id="c")
        await handle.send("letter", "one")
        await until(lambda: len(letters) == 2)
        assert await client.personal.erase("u42") is True
        assert await client.personal.erase("u42") is False
        await handle.send("letter", "two")
        with pytest.raises(Erased, match="'u42' was erased at 20"):
            await client.personal.open(to)
        with pytest.raises(Erased, match="nothing more can be"):
            await client.personal.seal("u42", ADDRESS)

        async def failed() -> bool:
            return any(e.kind == "activity_failed" for e in await handle.history())

        await until(failed)
        await until_status(handle, Status.WAITING)
        before = await handle.export(with_seed=True)

    registry = Registry(())
    registry.register(correspond)
    door = StoreDoor(open_desk(f"sqlite:///{tmp_path}/test.db"), lambda: 1, lambda n: b"0" * n)
    verdicts = [it async for it in Checker(door, registry).verdicts()]
    assert [(it.id, it.verdict) for it in verdicts] == [("c", FITS)]
    await door.close()

    async with engine(tmp_path) as running:  # it is loaded by a replay
        handle = running.client.get("c")
        await handle.send("letter", "enough")
        told = await handle.result()
        assert told[:3] == ["sent", "sent", "Erased NotFound"]
        after = await handle.export(with_seed=True)
        assert after["turns"][: len(before["turns"])] == before["turns"]
        assert len(letters) == 2


async def test_erasing_one_subject_leaves_others_and_is_told_to_the_audit(tmp_path: Path):
    async with engine(tmp_path, identity="officer") as running:
        client = running.client
        one, other = [await client.personal.seal(name, 1) for name in ("u1", "u2")]
        await client.personal.erase("u1")
        assert await client.personal.open(other) == 1
        with pytest.raises(Erased):
            await client.personal.open(one)
        [line] = (await client.audit.list()).items
        told = (line.action, line.target, line.principal)
        assert told == ("subject.erase", "subject/u1", "officer")
        assert (await client.audit.verify()).holds


async def test_another_process_forgets_the_key_within_a_minute(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    now = 1_000_000_000
    async with engine(tmp_path) as running:
        to = await running.client.personal.seal("u42", ADDRESS)
        door = StoreDoor(open_desk(url), lambda: now, lambda n: b"0" * n)
        async with Client(door=door) as client:
            assert await client.personal.open(to) == ADDRESS
            await running.client.personal.erase("u42")
            now += KEPT - 1
            assert await client.personal.open(to) == ADDRESS
            now += 1
            with pytest.raises(Erased):
                await client.personal.open(to)
        await door.close()


async def test_a_key_that_is_read_while_it_is_erased_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with engine(tmp_path) as running:
        client = running.client
        value = await client.personal.seal("u1", ADDRESS)
        subjects: Any = client.door.subjects
        subjects._cached.clear()
        real = subjects._entry

        async def entry(home: str, subject: str) -> Any:
            found = await real(home, subject)
            monkeypatch.setattr(subjects, "_entry", real)
            await client.personal.erase("u1")  # by somebody else, between reading and opening
            return found

        monkeypatch.setattr(subjects, "_entry", entry)
        assert await client.personal.open(value) == ADDRESS
        with pytest.raises(Erased):
            await client.personal.open(value)


async def test_many_who_seal_first_make_one_key(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with Client(url) as one, Client(url) as other:
        sealed = await asyncio.gather(
            *[client.personal.seal("u", n) for n in range(5) for client in (one, other)]
        )
    async with Client(url) as third:
        assert [await third.personal.open(it) for it in sealed] == [n // 2 for n in range(10)]


async def test_workflow_code_cannot_open_it(tmp_path: Path):
    async with engine(tmp_path) as running:
        to = await running.client.personal.seal("u42", ADDRESS)
        assert "pass it on to an activity" in await running.client.execute(peeks, to)


async def test_keys_are_sealed_by_the_codec_and_can_be_sealed_anew(tmp_path: Path):
    from perdure.crypto import AesGcm
    from perdure.store.tending import reseal

    url = f"sqlite:///{tmp_path / 'test.db'}"
    keys = {"a": AesGcm.new_key(), "b": AesGcm.new_key()}
    async with Client(url, codec=AesGcm(keys, "a")) as client:
        to = await client.personal.seal("u42", ADDRESS)
    async with Client(url, codec=AesGcm(keys, "b")) as client:
        await reseal(client.door.write, lambda _page: None)
    async with Client(url, codec=AesGcm({"b": keys["b"]})) as client:
        assert await client.personal.open(to) == ADDRESS


async def test_what_was_changed_or_comes_from_elsewhere_is_refused(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        to = await client.personal.seal("u42", ADDRESS)
        await client.personal.seal("u43", ADDRESS)
        with pytest.raises(Invalid, match="does not fit the key"):
            await client.personal.open(Personal("u43", to.sealed))
        with pytest.raises(Sealed, match="no key of that subject in namespace 'default'"):
            await client.personal.open(Personal("u44", to.sealed))
        with pytest.raises(Invalid, match="no personal value"):
            await client.personal.open({"plain": 1})
        with pytest.raises(Invalid, match="Expected `int`"):
            await client.personal.open(to, dict[str, int])
        with pytest.raises(Invalid, match="subject"):
            await client.personal.seal("", 1)
        with pytest.raises(UsageError, match="in activities"):
            await to.open()


async def test_a_child_in_another_namespace_opens_it_too(tmp_path: Path):
    @workflow.define
    async def delegates(to: Personal) -> Any:
        child = await workflow.start(correspond, to, id="child", namespace="elsewhere")
        await child.send("letter", "enough")
        return (await child)[0]

    async with engine(tmp_path, delegates) as running:
        to = await running.client.personal.seal("u42", ADDRESS)
        assert await running.client.execute(delegates, to) == "sent"


@activity.define(transactional=True)
def seals_within(_: None) -> Personal:
    return personal.seal_now("u1", 1)


@activity.define(transactional=True)
def opens_within(to: Personal) -> Any:
    return to.open_now()


@workflow.define
async def within(to: Personal) -> Any:
    try:
        await seals_within(None)
    except ActivityFailed as failed:
        assert "transactional" in str(failed.cause)
        return await opens_within(to)


async def test_a_transactional_activity_opens_and_does_not_seal(tmp_path: Path):
    async with engine(tmp_path, within, seals_within, opens_within) as running:
        to = await running.client.personal.seal("u42", ADDRESS)
        assert await running.client.execute(within, to) == ADDRESS


async def test_in_memory_it_says_so_instead_of_waiting_for_itself():
    from perdure.errors import WorkflowFailed

    async with Engine("memory://", [within, seals_within, opens_within]) as running:
        to = await running.client.personal.seal("u42", ADDRESS)
        with pytest.raises(WorkflowFailed, match="in memory"):
            await running.client.execute(within, to)


@activity.define(isolation="process")
async def apart(to: Personal) -> Any:
    return await to.open()


@workflow.define
async def isolated(to: Personal) -> Any:
    try:
        return await apart(to)
    except ActivityFailed as failed:
        return str(failed.cause)


async def test_a_subprocess_says_that_it_has_no_keys(tmp_path: Path):
    async with engine(tmp_path, isolated, apart) as running:
        to = await running.client.personal.seal("u42", ADDRESS)
        assert "a subprocess has no keys" in await running.client.execute(isolated, to)
