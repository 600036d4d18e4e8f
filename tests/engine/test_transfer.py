"""A run leaves a database as a document and is taken in by another, as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until_status
from tests.engine.test_forks import DEFINITIONS, broken, calls, keys_of, names, rows_of

from perdure import Client, Engine, errors
from perdure.values.states import Status


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    broken.clear()


def there(folder: Path, name: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def sent(document: dict[str, Any]) -> dict[str, Any]:
    """What arrives of a document that went through a file."""
    return json.loads(json.dumps(document))


async def ended(engine: Engine, **options: Any) -> dict[str, Any]:
    handle = await engine.client.start("order", "Ä", id="o", **options)
    await handle.result()
    return sent(await handle.export())


async def waiting(engine: Engine, *, with_seed: bool = True) -> dict[str, Any]:
    handle = await engine.client.start("patient", id="p")
    await until_status(handle, Status.WAITING)
    document = sent(await handle.export(with_seed=with_seed))
    await handle.terminate()
    return document


async def test_an_ended_run_is_told_of_as_it_was_where_it_came_from(tmp_path: Path):
    options = {
        "memo": {"a": [1, None]},
        "search": {"n": 1, "b": True, "l": ["x", "y"]},
        "tags": ["t"],
        "tenant": "acme",
        "created_by": "me",
        "correlation_id": "c",
    }
    async with engine_on(there(tmp_path, "a"), *DEFINITIONS) as engine:
        document = await ended(engine, **options)
        handle = engine.client.get("o")
        told = (await handle.describe(), await handle.history(), await handle.result())
        assert "seed" not in json.dumps(document)
    async with Client(f"sqlite:///{there(tmp_path, 'b') / 'test.db'}") as client:
        handle = await client.import_run(document)
        assert (await handle.describe(), await handle.history(), await handle.result()) == told
        assert [item.id for item in (await client.list(search={"n": 1})).items] == ["o"]
        assert await handle.export() == document
        with pytest.raises(errors.AlreadyExists):
            await client.import_run(document)


async def test_with_its_seed_an_ended_run_comes_back_byte_for_byte(tmp_path: Path):
    async with engine_on(there(tmp_path, "a"), *DEFINITIONS) as engine:
        handle = await engine.client.start("order", id="o")
        await handle.result()
        document = sent(await handle.export(with_seed=True))
        rows = await rows_of(handle)
    async with engine_on(there(tmp_path, "b"), *DEFINITIONS) as engine:
        assert await rows_of(await engine.client.import_run(document)) == rows


async def test_an_open_run_goes_on_with_the_key_and_the_draws_it_had(tmp_path: Path):
    async with engine_on(there(tmp_path, "a"), *DEFINITIONS) as engine:
        handle = await engine.client.start("order", "x", id="o")
        result = await handle.result()
        whole = sent(await handle.export(with_seed=True))
    document = cut_before_outcome(whole, "charge")
    keys = keys_of("charge")
    async with engine_on(there(tmp_path, "b"), *DEFINITIONS) as engine:
        handle = await engine.client.import_run(document)
        assert await handle.result() == result
        assert (handle.id, handle.run_id) == ("o", whole["run_id"])
        assert keys_of("charge") == keys * 2
        assert names().count("validate") == 1
        [event] = await events_of(handle, "forked")
        assert event.data["how"] == "import"


def cut_before_outcome(document: dict[str, Any], step: str) -> dict[str, Any]:
    """Return the document as an export would have been while the step was under way."""
    turns = document["turns"]
    last = next(n for n, turn in enumerate(turns)
                if any(e.get("name") == step for e in turn["events"]))  # fmt: skip
    return {**document, "status": "running", "closed_at": None, "turns": turns[: last + 1]}


async def test_an_open_run_under_another_id_is_a_copy_with_keys_of_its_own(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start("order", "x", id="o")
        result = await handle.result()
        document = cut_before_outcome(sent(await handle.export(with_seed=True)), "charge")
        with pytest.raises(errors.AlreadyExists):
            await engine.client.import_run(document)
        with pytest.raises(errors.AlreadyExists):
            await engine.client.import_run(document, id="o")
        copied = await engine.client.import_run(document, id="other")
        assert copied.run_id != handle.run_id
        assert (await copied.result())[:5] == result[:5]
        assert len(set(keys_of("charge"))) == 2


async def test_an_open_run_without_its_seed_is_refused(tmp_path: Path):
    async with engine_on(there(tmp_path, "a"), *DEFINITIONS) as engine:
        document = await waiting(engine, with_seed=False)
    async with engine_on(there(tmp_path, "b"), *DEFINITIONS) as engine:
        with pytest.raises(errors.Invalid, match="with_seed"):
            await engine.client.import_run(document)
        assert (await engine.client.list()).items == []


async def test_a_waiting_run_is_imported_by_a_client_and_picked_up_by_a_worker(tmp_path: Path):
    async with engine_on(there(tmp_path, "a"), *DEFINITIONS) as engine:
        document = await waiting(engine)
    async with Client(f"sqlite:///{there(tmp_path, 'b') / 'test.db'}") as client:
        handle = await client.import_run(document)
        await handle.send("go", 1)
    async with engine_on(there(tmp_path, "b"), *DEFINITIONS) as engine:
        result = await engine.client.get("p").result()
        assert result == ["somebody", "validate done", 1, "p"]
        assert names() == ["validate"]


async def test_a_paused_run_stays_paused_until_it_is_resumed(tmp_path: Path):
    async with engine_on(there(tmp_path, "a"), *DEFINITIONS) as engine:
        handle = await engine.client.start("patient", id="p")
        await until_status(handle, Status.WAITING)
        await handle.pause()
        await until_status(handle, Status.PAUSED)
        document = sent(await handle.export(with_seed=True))
    async with engine_on(there(tmp_path, "b"), *DEFINITIONS) as engine:
        handle = await engine.client.import_run(document)
        assert await handle.status() is Status.PAUSED
        await handle.send("go", 1)
        await handle.resume()
        assert (await handle.result())[2] == 1


async def test_a_delayed_run_begins_when_it_would_have(tmp_path: Path):
    async with engine_on(there(tmp_path, "a"), *DEFINITIONS) as engine:
        handle = await engine.client.start("order", id="o", start_delay="1h")
        document = sent(await handle.export(with_seed=True))
    async with engine_on(there(tmp_path, "b"), *DEFINITIONS) as engine:
        handle = await engine.client.import_run(document)
        assert await handle.status() is Status.PENDING
        assert "begins" in await handle.why()


DAMAGES: dict[str, tuple[Any, str]] = {
    "another file": (lambda d: d.clear(), "not the document"),
    "another format": (lambda d: d.update(perdure_export=99), "format"),
    "no turns": (lambda d: d.update(turns=[]), "turns"),
    "a bad id": (lambda d: d.update(workflow_id=""), "id"),
    "a bad status": (lambda d: d.update(status="gone"), r"\$\.status"),
    "an end that is not there": (lambda d: d.update(status="failed"), "status"),
    "an open run that has ended": (lambda d: d.update(status="waiting"), "status"),
    "another workflow": (lambda d: d.update(workflow="other"), "workflow"),
    "a turn lost": (lambda d: d["turns"].pop(1), r"turns\[1\]: it begins with event"),
    "an empty turn": (lambda d: d["turns"][1].update(events=[]), r"turns\[1\]"),
    "time going back": (lambda d: d["turns"][1].update(time=1), r"turns\[1\]: its time"),
    "an event changed": (
        lambda d: d["turns"][0]["events"][0].update(input="B"), r"turns\[0\].*checksum"),
    "no event 1": (lambda d: d["turns"][0].update(crc=None, events=[{"kind": "run_taken"}] * 2),
                   "run_started"),
    "an unknown kind": (lambda d: d["turns"][1].update(crc=None, events=[{"kind": "new"}] * 2),
                        r"turns\[1\].*newer"),
    "base64 that is none": (
        lambda d: d["turns"][0]["events"][0].update(input={"$base64": "?"}), r"events\[0\]\.input"),
    "a search attribute of no type": (lambda d: d.update(search={"a": {"b": 1}}), "search"),
    "a number beyond all bounds": (lambda d: d["turns"][0].update(worker=2**70), "import"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_document_is_refused_with_the_place(tmp_path: Path, damage: str):
    change, says = DAMAGES[damage]
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        document = copy.deepcopy(await ended(engine))
        document.update(workflow_id="new", run_id="new")
        change(document)
        with pytest.raises(errors.Invalid, match=says):
            await engine.client.import_run(document)
        assert len((await engine.client.list()).items) == 1
