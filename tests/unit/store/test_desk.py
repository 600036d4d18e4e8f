"""The desk: verbs from the event loop, carried out in threads, in order."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.store_contract import World, request, running, turn

from perdure.errors import Invalid, Unavailable, UsageError
from perdure.store.desk import ThreadDesk, open_desk
from perdure.store.opening import open_store
from perdure.store.port import Batch, Definition, StartRequest
from perdure.store.sqlite.store import SqliteStore


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db" if request.param == "file" else "memory://"


def with_desk(url: str, body: Callable[[ThreadDesk], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        desk = open_desk(url, **options)
        try:
            await desk.write(lambda store: store.migrate(1))
            await body(desk)
        finally:
            await desk.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_what_was_written_is_read_and_the_loops_thread_does_neither(url: str):
    async def body(desk: ThreadDesk) -> None:
        threads: set[str] = set()

        def start(store: Any) -> Any:
            threads.add(threading.current_thread().name)
            return store.start([request()], 1)

        def find(reader: Any) -> Any:
            threads.add(threading.current_thread().name)
            return reader.find("order-1")

        [started] = await desk.write(start)
        found = await desk.read(find)
        assert found.run == started.run
        expected = {"perdure-write"} if url == "memory://" else {"perdure-write", "perdure-read"}
        assert threads == expected

    with_desk(url, body)


def test_verbs_run_in_the_order_they_were_handed_in(url: str):
    async def body(desk: ThreadDesk) -> None:
        order: list[int] = []
        await asyncio.gather(*[desk.write(lambda _, n=n: order.append(n)) for n in range(50)])
        assert order == list(range(50))

    with_desk(url, body)


def test_an_error_reaches_whoever_handed_the_verb_in_and_nobody_else(url: str):
    async def body(desk: ThreadDesk) -> None:
        def fail(_: Any) -> None:
            raise Unavailable("mine")

        failing, fine = desk.write(fail), desk.write(lambda _: 5)
        with pytest.raises(Unavailable, match="mine"):
            await failing
        assert await fine == 5

    with_desk(url, body)


def test_a_verb_whose_caller_was_cancelled_is_carried_out_all_the_same(url: str):
    async def body(desk: ThreadDesk) -> None:
        done = threading.Event()
        future = desk.write(lambda _: done.set())
        future.cancel()
        await desk.write(lambda _: None)
        assert done.is_set()

    with_desk(url, body)


def test_closing_finishes_what_was_handed_in_and_refuses_the_rest(url: str):
    async def main() -> None:
        desk = open_desk(url)
        handed_in = [desk.write(lambda _, n=n: n) for n in range(20)]
        reads = [desk.read(lambda _, n=n: n) for n in range(20)]
        await desk.close()
        assert await asyncio.gather(*handed_in) == list(range(20))
        assert await asyncio.gather(*reads) == list(range(20))
        await desk.close()
        with pytest.raises(UsageError, match="closed"):
            await desk.write(lambda _: None)
        with pytest.raises(UsageError, match="closed"):
            await desk.read(lambda _: None)
        with pytest.raises(UsageError, match="closed"):
            desk.transact(1, 1, 1, lambda _: None, outcome=lambda _: b"", time_limit=1, now=1)

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("perdure-")]


def test_a_desk_that_cannot_open_leaves_no_thread_behind(tmp_path: Path):
    async def main() -> None:
        with pytest.raises(Invalid):
            open_desk(f"sqlite:///{tmp_path}/missing/a.db")

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("perdure-")]


def test_commits_of_others_are_reported_in_the_loops_thread(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/a.db"

    async def body(desk: ThreadDesk) -> None:
        heard: asyncio.Queue[int] = asyncio.Queue()
        desk.on_change = lambda: heard.put_nowait(threading.get_ident())
        other = World(open_store(url))
        assert await heard.get() == threading.get_ident()
        other.start()
        await heard.get()
        other.store.close()

    with_desk(url, body)


def test_commits_of_others_are_noticed_by_a_desk_that_is_never_idle(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/a.db"

    async def body(desk: ThreadDesk) -> None:
        heard = asyncio.Event()
        desk.on_change = heard.set
        other = World(open_store(url))
        while not heard.is_set():
            await desk.write(lambda _: None)
        other.store.close()

    with_desk(url, body)


def test_own_commits_are_not_reported(tmp_path: Path):
    async def body(desk: ThreadDesk) -> None:
        heard: list[int] = []
        desk.on_change = lambda: heard.append(1)
        for n in range(5):
            await desk.write(lambda store, n=n: store.start([request(f"order-{n}")], 1))
        await desk.write(lambda store: store.changed())
        assert heard == []

    with_desk(f"sqlite:///{tmp_path}/a.db", body)


def test_a_transactional_activity_runs_off_the_loop_and_its_commit_is_read(url: str):
    async def body(desk: ThreadDesk) -> None:
        worker = await desk.write(
            lambda store: store.join(
                "w",
                1,
                "h",
                now=1,
                lease_until=9,
                workflows=["order"],
                queues=["default"],
                definitions=[Definition("order", "1")],
            )
        )
        first = turn(0, first=1, state=running(1), opens=((3, 1),))
        start = StartRequest("order", "order-1", "r", b"", first=first)
        batch = Batch(worker.id, 1, 1, 1, 9, starts=[start])
        [started] = (await desk.write(lambda store: store.commit(batch))).started

        def job() -> Any:
            return desk.transact(
                started.run,
                3,
                1,
                lambda connection: connection.execute("SELECT 42").fetchone()[0],
                outcome=lambda value: str(value).encode(),
                time_limit=30,
                now=2,
            )

        result, posted = await asyncio.to_thread(job)
        assert (result, posted.event) == (42, b"42")
        [loaded] = await desk.read(lambda reader: reader.load([started.run]))
        assert [row.event for row in loaded.inbox] == [b"42"]
        with pytest.raises(Exception, match="decided elsewhere"):
            await asyncio.to_thread(job)

    with_desk(url, body)


def test_a_desk_whose_loop_is_gone_does_not_disturb_anybody(url: str):
    held = threading.Event()

    async def main() -> ThreadDesk:
        desk = open_desk(url)
        desk.write(lambda _: held.wait(30))
        return desk

    desk = asyncio.run(main())
    held.set()
    for queue in {desk._writes, desk._reads}:
        queue.put(None)
    for thread in desk._threads:
        assert thread.daemon
        thread.join()


def test_trouble_in_housekeeping_does_not_stop_the_writing_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(self: SqliteStore, **_: object) -> None:
        raise OSError("no space for a lock file")

    monkeypatch.setattr(SqliteStore, "tidy", fail)
    monkeypatch.setattr(SqliteStore, "changed", fail)

    async def body(desk: ThreadDesk) -> None:
        for n in range(3):
            assert await desk.write(lambda _, n=n: n) == n

    with_desk(f"sqlite:///{tmp_path}/a.db", body)
    assert "no space for a lock file" in caplog.text


def test_a_thread_that_comes_while_the_desk_is_closed_is_told(url: str):
    async def main() -> None:
        desk = open_desk(url)
        await desk.close()
        desk._is_closed = False  # as a thread sees it that has just passed the check
        with pytest.raises(UsageError, match="closed"):
            await asyncio.to_thread(desk.write_from_thread, lambda _: None)

    asyncio.run(main())


def test_a_reading_desk_never_writes(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/a.db"
    world = World(open_store(url))
    world.start()
    world.store.close()

    async def body(desk: ThreadDesk) -> None:
        found = await desk.read(lambda reader: reader.find("order-1"))
        assert found is not None
        with pytest.raises(Unavailable, match="readonly"):
            await desk.write(lambda store: store.start([request("new")], 1))

    with_desk(url, body, readonly=True)
