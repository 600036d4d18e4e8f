"""The write token: one writer at a time, in the order they asked."""

import threading
from contextlib import closing

import pytest

from perdure.errors import Unavailable, UsageError
from perdure.store.opening import open_store
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.database import Database
from perdure.store.sqlite.token import WriteToken, token_for


def wait_until_wanted(token: WriteToken, threads: int) -> None:
    while len(token._waiting) < threads:
        threading.Event().wait(0.001)


def test_the_token_passes_in_the_order_it_was_asked_for():
    token, order = WriteToken(), []
    token.acquire(1)

    def take(name: int) -> None:
        assert token.acquire(30)
        order.append(name)
        token.release()

    threads = [threading.Thread(target=take, args=(name,)) for name in range(5)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        wait_until_wanted(token, number)
    assert token.is_wanted
    token.release()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert token.acquire(0)


def test_whoever_gives_up_leaves_the_queue():
    token = WriteToken()
    token.acquire(1)
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(token.acquire(0.01)))
    thread.start()
    thread.join()
    assert results == [False]
    token.release()
    assert not token.is_wanted
    assert token.acquire(0)


def test_a_thread_that_asks_twice_is_told():
    token = WriteToken()
    token.acquire(1)
    with pytest.raises(UsageError, match="wait for itself"):
        token.acquire(1)


def test_there_is_one_token_for_a_file_in_a_process(tmp_path):
    path = str(tmp_path / "a.db")
    with closing(Database(Settings(path))) as one, closing(Database(Settings(path))) as two:
        assert one.token is two.token is token_for(path)
    with closing(Database(Settings(None))) as one, closing(Database(Settings(None))) as two:
        assert one.token is not two.token


def test_a_verb_that_waits_too_long_for_another_thread_is_unavailable(tmp_path):
    from perdure.store.sqlite.store import SqliteStore

    store = SqliteStore(Settings(str(tmp_path / "a.db"), give_up_after=0.02))
    store.migrate(1)
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.database.token_held():
            taken.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(30)
    with pytest.raises(Unavailable, match="another thread"):
        store.post([], 1)
    done.set()
    thread.join()
    assert store.post([], 1) == []
    store.close()


def test_a_busy_committer_leaves_room_for_others(tmp_path, monkeypatch):
    import time

    from perdure.store.sqlite import database as module

    store = open_store(f"sqlite:///{tmp_path}/a.db")
    store.migrate(1)
    pauses: list[float] = []
    now = [time.monotonic() + 10]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

        @staticmethod
        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            now[0] += seconds

    monkeypatch.setattr(module, "time", Clock)
    for _ in range(100):
        store.post([], 1)
        now[0] += 0.0005
    assert pauses == [0.001, 0.001]
    now[0] += 1
    store.post([], 1)
    assert len(pauses) == 2
    monkeypatch.setattr(module, "time", time)
    store.close()
