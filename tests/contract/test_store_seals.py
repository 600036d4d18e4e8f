"""What every store does with users' data: sealed on its way in, opened on its way out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.contract.store_contract import World, closed, request, running, turn, waiting
from tests.contract.test_store_journal import payloads, read
from tests.support.seals import Backwards

from perdure import FileBlobs
from perdure.errors import Corrupt, Sealed, StoreRefused, Unavailable
from perdure.store import sealing, tending
from perdure.store.lines import LogLine
from perdure.store.port import Beat, Filter, HumanTaskWrite, Post, Question, Store, Watch
from perdure.store.rows import Resealed
from perdure.store.sealing import Seal
from perdure.values import events as ev
from perdure.values import people

DONE = ev.encode_turn([ev.RunCompleted(result=b'"' + b"r" * 1000 + b'"')])


def use(store: Any, seal: Seal) -> Seal:
    """Go on as a process with another seal."""
    store.database.seal = seal
    store.migrate(1)
    return seal


@pytest.fixture(params=["coded", "compressed", "plain"])
def sealed(request: pytest.FixtureRequest, world: World) -> World:
    seals: dict[str, Callable[[], Seal]] = {
        "coded": lambda: Seal(Backwards()),
        "compressed": lambda: Seal(compress_above=1),
        "plain": Seal,
    }
    use(world.store, seals[request.param]())
    return world


def test_everything_comes_back_as_it_went_in(sealed: World):
    store = sealed.store
    long = "long " * 50
    started = sealed.owned(memo=f'{{"a":"{long}"}}'.encode())
    run = started.run
    asked = ev.HumanTaskOpened("ask", title="T", description=long, form=b'{"f":1}', data=b'{"d":2}')
    state = running(3, detail=long)
    lines = [LogLine(run, 5, 20, long, data=b'{"l":1}')]
    write = turn(
        run,
        state=state,
        payload=b"payload " * 100,
        progress='{"note":"n"}',
        memo={"b": 2},
        lines=lines,
        asks=[HumanTaskWrite("t1", 3, asked)],
    )
    sealed.commit(write)
    sealed.post(event=b"posted " * 50)
    worker = sealed.worker
    beats = [Beat(run, 7, b'"beat"')]
    until = sealed.now + 10_000
    store.extend(worker.id, worker.epoch, now=sealed.now, lease_until=until, beats=beats)
    store.ask(Question("q", started.execution, "query:x", b'["args"]', 9_999), sealed.now)
    store.keep_mailboxes(["@box"], 9_999)
    store.post([Post(b"mail " * 50, "@box")], sealed.now)

    assert sealed.payloads(run) == [b"first", b"payload " * 100]
    assert payloads(read(sealed)) == sealed.payloads(run)
    last = store.last_turn(run)
    assert last is not None
    assert last.payload == b"payload " * 100
    loaded = sealed.load(run)
    assert [one.payload for one in loaded.turns] == sealed.payloads(run)
    assert loaded.inbox[0].event == b"posted " * 50
    assert loaded.beats == beats
    assert not loaded.broken
    row = sealed.row(run)
    assert (row.detail, row.progress) == (long, '{"note":"n"}')
    assert row.memo == f'{{"a":"{long}","b":2}}'.encode()
    assert store.list(Filter(), limit=5).rows[0].memo == row.memo
    (line,) = store.log(run)
    assert (line.message, line.data) == (long, b'{"l":1}')
    task = store.human_task("t1")
    assert task is not None
    assert (task.description, task.form, task.data) == (long, b'{"f":1}', b'{"d":2}')
    assert store.questions(1, ["order"], limit=9)[0].args == b'["args"]'
    store.answer("q", b'"answer"', sealed.now)
    assert store.reply("q") == b'"answer"'
    assert store.mail(["@box"], limit=9)[0][2] == b"mail " * 50
    act = people.Act("t1", "complete", "ada", value=b'"v"', comment=long)
    done = store.act(act, sealed.now)
    again = store.human_task("t1")
    assert again is not None
    assert again == done.task
    assert (again.value, again.comment) == (b'"v"', long)
    assert done.posted is not None
    assert sealed.inbox(run)[1] == done.posted.event


def test_the_end_of_an_execution_is_told_in_plain_words_to_whoever_watches(sealed: World):
    one, other = sealed.owned("watched"), sealed.asleep("watcher")
    watch = Watch("monitor", workflow_id="watched", ref=3)
    sealed.commit(turn(other.run, claim=2, state=waiting(3), watches=[watch]))
    end = closed(3)
    committed = sealed.commit(turn(one.run, payload=DONE, closes=True, state=end))
    (told,) = committed.fed
    assert ev.decode_fact(told.event).result == b'"' + b"r" * 1000 + b'"'  # pyright: ignore[reportAttributeAccessIssue] - ExecutionEnded
    assert sealed.inbox(other.run) == [told.event]


def test_a_start_that_ends_another_run_opens_what_that_had_not_read(sealed: World):
    sealed.asleep("order-1")
    message = ev.MessageReceived(message=ev.Message("go", b'"m"', "", "m1", 1))
    sealed.post("order-1", event=ev.encode_turn([message]))
    start = request("order-1", run_id="second", conflict="terminate_existing")
    (answer,) = sealed.store.start([start], sealed.now)
    facts = ev.decode_turn(sealed.payloads(answer.replaced)[-1])
    assert [fact.kind for fact in facts] == ["message_received", "run_terminated"]


def test_rows_of_all_kinds_lie_side_by_side(world: World):
    run = world.owned().run
    for number, seal in enumerate((Seal(), Seal(Backwards()), Seal(Backwards(), compress_above=1))):
        use(world.store, seal)
        payload = f"row {number} ".encode() * 20
        world.commit(turn(run, first=3 + number, payload=payload, state=running(3 + number)))
    assert world.payloads(run)[1:] == [f"row {number} ".encode() * 20 for number in range(3)]
    world.store.unlock()


# -- without the codec ---------------------------------------------------------------------------


@pytest.fixture
def locked(world: World) -> World:
    """A database with a sealed run, seen by a process without the codec."""
    use(world.store, Seal(Backwards()))
    world.asleep("sealed", memo=b'{"a":1}')
    use(world.store, Seal())
    return world


def test_a_process_without_the_codec_is_told_which_it_is(locked: World):
    with pytest.raises(Sealed, match=r"cannot be opened here: .*codec 'backwards'.*Engine, Client"):
        locked.store.unlock()


def test_a_process_with_another_key_is_told_so(locked: World):
    use(locked.store, Seal(Backwards("k2")))
    with pytest.raises(Sealed, match="key 'k1' is not here"):
        locked.store.unlock()
    use(locked.store, Seal(Backwards("k2", "k1")))
    locked.store.unlock()


def test_a_process_that_only_reads_leaves_no_sample(world: World):
    store: Any = world.store
    store.database.seal = Seal(Backwards())
    store._meet_codecs(is_new=False)
    use(store, Seal())
    store.unlock()


def test_without_the_codec_lists_and_states_can_be_read_and_payloads_say_why_not(locked: World):
    (row,) = locked.store.list(Filter(), limit=5).rows
    assert (row.workflow_id, row.status, row.memo) == ("sealed", "waiting", None)
    assert "codec 'backwards'" in row.sealed
    assert not row.fault
    assert locked.store.count(Filter()).number == 1
    with pytest.raises(Sealed, match=r"history of run \d+ .*event 1: it was sealed by codec"):
        locked.store.history(row.run)
    with pytest.raises(Sealed, match="event 1"):
        locked.store.last_turn(row.run)
    loaded = locked.load(row.run)
    assert loaded.is_sealed
    assert "codec 'backwards'" in loaded.broken
    (told,) = read(locked)
    assert "codec 'backwards'" in told.fault


def test_without_the_codec_nothing_of_users_is_written_but_runs_can_be_stopped(locked: World):
    with pytest.raises(Sealed, match="nothing was written"):
        locked.start("another")
    with pytest.raises(Sealed, match="nothing was written"):
        locked.post("sealed")
    assert locked.post("sealed", event=b"cancel", is_control=True).outcome == "delivered"
    use(locked.store, Seal(Backwards()))
    (row,) = locked.store.list(Filter(), limit=5).rows
    assert locked.inbox(row.run) == [b"cancel"]


def test_a_running_process_that_meets_another_codec_can_still_write_what_it_has_begun(world: World):
    run = world.owned().run
    store: Any = world.store
    mine, other = store.database.seal, Seal(Backwards())
    use(store, other)
    store.database.seal = mine
    with pytest.raises(Sealed):
        store.unlock()
    world.commit(turn(run, state=running(3)))
    assert world.payloads(run) == [b"first", b"turn at 3"]


# -- sealing anew --------------------------------------------------------------------------------


def reseal(store: Store, *, limit: int = 2) -> tuple[int, list[Resealed]]:
    pages: list[Resealed] = []

    async def write(verb: Callable[[Store], Any]) -> Any:
        return verb(store)

    return asyncio.run(tending.reseal(write, pages.append, limit=limit)), pages


def filled(world: World) -> int:
    started = world.owned(memo=b'{"a":1}')
    for first in range(3, 8):
        lines = [LogLine(started.run, 5, 20, f"line {first}")]
        state = running(first, detail="why")
        world.commit(turn(started.run, first=first, state=state, lines=lines))
    for number in range(3):
        world.post(event=b"posted %d" % number)
    return started.run


def test_an_old_key_can_go_when_all_is_sealed_anew(world: World):
    use(world.store, Seal(Backwards("k1")))
    run = filled(world)
    before = world.payloads(run)
    use(world.store, Seal(Backwards("k2", "k1")))
    changed, pages = reseal(world.store)
    assert changed == 6 + 3 + 1 + 1 + 5  # rows of history, inbox, state, memo, log
    assert all(page.seen <= 2 for page in pages)
    assert reseal(world.store)[0] == 0
    use(world.store, Seal(Backwards("k2")))
    world.store.unlock()
    assert world.payloads(run) == before
    assert world.inbox(run) == [b"posted 0", b"posted 1", b"posted 2"]
    assert world.row(run).detail == "why"
    assert [line.message for line in world.store.log(run)] == [f"line {n}" for n in range(3, 8)]


def test_what_was_stored_before_there_was_a_codec_can_be_sealed(world: World):
    run = filled(world)
    use(world.store, Seal(Backwards()))
    assert reseal(world.store)[0] == 16
    use(world.store, Seal())
    with pytest.raises(Sealed):
        world.store.history(run)


def test_it_goes_on_where_it_was_stopped(world: World):
    filled(world)
    use(world.store, Seal(Backwards()))
    first = world.store.reseal("", limit=4)
    second = world.store.reseal(first.after, limit=4)
    assert (first.changed, second.changed) == (4, 2)


def test_while_others_seal_with_the_old_key_it_is_not_forgotten(world: World):
    use(world.store, Seal(Backwards("k1")))
    run = filled(world)
    old, new = world.store.database.seal, Seal(Backwards("k2", "k1"))  # pyright: ignore[reportAttributeAccessIssue] - of every store
    use(world.store, new)
    first = [8]

    async def write(verb: Callable[[Store], Any]) -> Any:
        return verb(world.store)

    def told(page: Resealed) -> None:
        if not page.after:  # between two passes, a worker that was not started anew commits
            world.store.database.seal = old  # pyright: ignore[reportAttributeAccessIssue] - as above
            world.commit(turn(run, first=first[0], state=running(first[0])))
            world.store.database.seal = new  # pyright: ignore[reportAttributeAccessIssue] - as above
            first[0] += 1

    asyncio.run(tending.reseal(write, told))
    use(world.store, Seal(Backwards("k2")))
    with pytest.raises(Sealed, match="key 'k1' is not here"):
        world.store.unlock()


def test_a_row_that_changes_meanwhile_is_left_as_it_is(world: World):
    use(world.store, Seal(Backwards("k1")))
    run = filled(world)
    old = world.store.database.seal  # pyright: ignore[reportAttributeAccessIssue] - of every store

    class Slow(Backwards):
        """While the state row is sealed anew, its worker writes it."""

        def encode(self, data: bytes) -> bytes:
            if data == b"why" and self.known:
                self.known.clear()
                world.store.database.seal = old  # pyright: ignore[reportAttributeAccessIssue] - as above
                world.commit(turn(run, first=8, state=running(8, detail="later")))
                world.store.database.seal = new  # pyright: ignore[reportAttributeAccessIssue] - as above
                self.known.update(("k1", "k2"))
            return super().encode(data)

    new = Seal(Slow("k2", "k1"))
    use(world.store, new)
    after = ""
    while True:
        page = world.store.reseal(after, limit=100)
        after = page.after
        if page.table == "perdure_state":
            assert page.changed == 0
        if not after:
            break
    assert world.row(run).detail == "later"


# -- blobs ---------------------------------------------------------------------------------------


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture(params=["coded", "plain"])
def offloading(request: pytest.FixtureRequest, world: World, blobs: FileBlobs) -> World:
    codec = Backwards() if request.param == "coded" else None
    use(world.store, Seal(codec, blobs=blobs, offload_above=100))
    return world


def all_blobs(blobs: FileBlobs) -> list[str]:
    return [blob.name for blob in blobs.list("", 1000)]


def sweep(store: Any, blobs: Any, *, days: float = 2) -> tending.Swept:
    seal: Seal = store.database.seal
    seal.blobs = blobs

    async def write(verb: Callable[[Store], Any]) -> Any:
        return verb(store)

    now = datetime.now(UTC) + timedelta(days=days)
    return asyncio.run(tending.sweep_blobs(write, seal, now))


def test_large_rows_lie_in_blobs_and_are_read_by_every_verb(offloading: World, blobs: FileBlobs):
    run, large = offloading.owned().run, b"large " * 100
    offloading.commit(turn(run, payload=large, state=running(3)))
    assert len(all_blobs(blobs)) == 1
    assert offloading.payloads(run) == [b"first", large]
    assert offloading.load(run).turns[1].payload == large
    assert payloads(read(offloading))[1] == large
    last = offloading.store.last_turn(run)
    assert last is not None
    assert last.payload == large
    assert offloading.store.start([request("s", event=large)], offloading.now)[0].created
    assert len(all_blobs(blobs)) == 2


def test_a_watched_end_in_a_blob_is_told(offloading: World, blobs: FileBlobs):
    one, other = offloading.owned("watched"), offloading.asleep("watcher")
    watch = Watch("monitor", workflow_id="watched", ref=3)
    offloading.commit(turn(other.run, claim=2, state=waiting(3), watches=[watch]))
    committed = offloading.commit(turn(one.run, payload=DONE, closes=True, state=closed(3)))
    assert len(committed.fed) == 1
    for name in all_blobs(blobs):
        blobs.delete(name)
    late = turn(other.run, first=4, claim=3, state=waiting(4), watches=[watch])
    with pytest.raises(StoreRefused, match=r"end of execution 'watched'.*blob .* is missing"):
        offloading.commit(late)


def test_a_missing_blob_breaks_its_run_alone(offloading: World, blobs: FileBlobs):
    runs = [offloading.owned(f"order-{number}").run for number in range(2)]
    for run in runs:
        offloading.commit(turn(run, payload=b"%d" % run * 500, state=running(3)))
    gone = all_blobs(blobs)[0]
    blobs.delete(gone)
    broken = [one for one in offloading.store.load(runs) if one.broken]
    assert len(broken) == 1
    assert f"blob '{gone}' is missing" in broken[0].broken
    assert "event 3" in broken[0].broken
    assert not broken[0].is_sealed
    with pytest.raises(Corrupt, match="event 3.*is missing"):
        offloading.store.history(broken[0].row.run)


def test_a_blob_store_that_does_not_answer_leaves_the_run_for_later(
    offloading: World, blobs: FileBlobs
):
    run = offloading.owned().run
    offloading.commit(turn(run, payload=b"large " * 100, state=running(3)))
    blobs.path.rename(blobs.path.with_name("unmounted"))
    loaded = offloading.load(run)
    assert loaded.is_unavailable
    with pytest.raises(Unavailable):
        offloading.store.history(run)
    blobs.path.write_text("")  # nor can anything be put
    with pytest.raises(Unavailable, match="could not be written"):
        offloading.commit(turn(run, first=4, payload=b"large " * 100, state=running(4)))


def test_a_process_without_the_blob_store_is_told_so_at_the_start(offloading: World):
    run = offloading.owned().run
    seal: Any = offloading.store.database.seal  # pyright: ignore[reportAttributeAccessIssue] - of every store
    offloading.commit(turn(run, payload=b"large " * 100, state=running(3)))
    use(offloading.store, Seal(seal.codec))
    with pytest.raises(Sealed, match="large payloads of .* lie in a blob store"):
        offloading.store.unlock()
    assert offloading.load(run).is_sealed


def test_what_a_dropped_turn_has_put_is_swept_and_what_is_referred_to_stays(
    offloading: World, blobs: FileBlobs
):
    run, large = offloading.asleep().run, b"large " * 100
    offloading.commit(turn(run, claim=2, payload=large, state=waiting(3)))
    lost = offloading.commit(turn(run, claim=2, payload=large[::-1], state=waiting(3))).lost
    assert lost == {run}
    assert len(all_blobs(blobs)) == 2
    assert sweep(offloading.store, blobs, days=0) == (2, 0)  # its commit may be under way
    assert sweep(offloading.store, blobs) == (2, 1)
    assert offloading.payloads(run)[-1] == large


def test_blobs_of_deleted_histories_are_swept(offloading: World, blobs: FileBlobs):
    run = offloading.owned().run
    offloading.commit(turn(run, payload=b"large " * 100, state=running(3)))
    database: Any = offloading.store.database  # pyright: ignore[reportAttributeAccessIssue] - of every store
    database.write(lambda: database.ask("DELETE FROM perdure_history WHERE run = ?", [run]))
    assert sweep(offloading.store, blobs) == (1, 1)
    assert sweep(offloading.store, blobs) == (0, 0)
    assert database.read(lambda: database.ask("SELECT * FROM perdure_blob", []).fetchall()) == []


def test_a_sweep_goes_page_by_page_and_leaves_other_databases_alone(
    offloading: World, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
):
    folder = offloading.store.database.seal.folder  # pyright: ignore[reportAttributeAccessIssue] - of every store
    names = [f"{folder}/{os.urandom(20).hex()}" for _ in range(7)]
    others = ["0/" + "a" * 40, "z/" + "a" * 40]
    for name in (*names, *others):
        blobs.put(name, b"data")

    monkeypatch.setattr(tending, "_PAGE", 3)
    assert sweep(offloading.store, blobs) == (7, 7)
    assert all_blobs(blobs) == others


def test_a_commit_that_stood_still_after_it_had_put_refers_to_nothing(
    offloading: World, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
):
    run = offloading.owned().run
    now = [0.0]

    def later() -> float:
        now[0] += 4_000
        return now[0]

    monkeypatch.setattr(sealing, "_elapsed", later)
    with pytest.raises(Unavailable, match="stood still"):
        offloading.commit(turn(run, payload=b"large " * 100, state=running(3)))
    assert offloading.payloads(run) == [b"first"]


def test_a_row_in_a_blob_is_sealed_anew_and_its_old_blob_is_swept(world: World, blobs: FileBlobs):
    use(world.store, Seal(Backwards("k1"), blobs=blobs, offload_above=100))
    run, large = world.owned().run, b"large " * 100
    world.commit(turn(run, payload=large, state=running(3)))
    (old,) = all_blobs(blobs)
    use(world.store, Seal(Backwards("k2", "k1"), blobs=blobs, offload_above=100))
    assert reseal(world.store)[0] == 2
    assert len(all_blobs(blobs)) == 2
    assert sweep(world.store, blobs) == (2, 1)
    assert old not in all_blobs(blobs)
    use(world.store, Seal(Backwards("k2"), blobs=blobs, offload_above=100))
    assert world.payloads(run)[-1] == large


def test_a_reader_that_had_seen_the_old_reference_finds_the_new_blob(
    world: World, blobs: FileBlobs
):
    use(world.store, Seal(Backwards("k1"), blobs=blobs, offload_above=100))
    run, large = world.owned().run, b"large " * 100
    world.commit(turn(run, payload=large, state=running(3)))

    class Late(FileBlobs):
        """Before the first blob is read, all is sealed anew and swept."""

        def get(self, name: str) -> bytes:
            if not done:
                done.append(name)
                use(world.store, Seal(Backwards("k2", "k1"), blobs=blobs, offload_above=100))
                reseal(world.store)
                sweep(world.store, blobs)
            return super().get(name)

    done: list[str] = []
    late = Late(blobs.path)
    use(world.store, Seal(Backwards("k1", "k2"), blobs=late, offload_above=100))
    assert world.payloads(run)[-1] == large
    assert done
