"""What every store must do, said once: how a test talks to a store, and which stores there are.

A new store joins in conftest.py; no test may ask which store it has. OPENERS: those without a
server.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from perdure.store.opening import open_store
from perdure.store.port import (
    Batch,
    Committed,
    Definition,
    Loaded,
    Post,
    RunRow,
    Started,
    StartRequest,
    StateWrite,
    Store,
    TurnWrite,
    Worker,
)
from perdure.values import events
from perdure.values.states import Status

OPENERS: dict[str, Callable[[Path], Store]] = {
    "file": lambda folder: open_store(f"sqlite:///{folder}/perdure.db"),
    "memory": lambda _folder: open_store("memory://"),
}
QUEUES = ("default",)
WORKFLOWS = ("order",)


class World:
    """A migrated store with one worker, and short ways to say what a test is about."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 1_000
        self.numbers: dict[int, int] = {}
        store.migrate(self.now)
        self.worker = self.join()

    def join(self, name: str = "worker", *definitions: Definition) -> Worker:
        known = definitions or (Definition("order", "1"),)
        worker = self.store.join(
            name,
            4711,
            "host",
            now=self.now,
            lease_until=self.now + 10_000,
            workflows=[definition.name for definition in known],
            queues=QUEUES,
            definitions=known,
        )
        self.numbers[worker.id] = 0
        return worker

    def batch(self, *turns: TurnWrite, worker: Worker | None = None, **rest: Any) -> Batch:
        worker = worker or self.worker
        self.now += 1
        self.numbers[worker.id] += 1
        return Batch(
            worker=worker.id,
            epoch=worker.epoch,
            number=self.numbers[worker.id],
            now=self.now,
            lease_until=self.now + 10_000,
            turns=turns,
            **rest,
        )

    def commit(self, *turns: TurnWrite, worker: Worker | None = None, **rest: Any) -> Committed:
        return self.store.commit(self.batch(*turns, worker=worker, **rest))

    def start(self, workflow_id: str = "order-1", **rest: Any) -> Started:
        return self.store.start([request(workflow_id, **rest)], self.now)[0]

    def owned(self, workflow_id: str = "order-1", **rest: Any) -> Started:
        """Start a run whose first turn left work in flight: two events, owned by the worker."""
        first = turn(0, first=1, count=2, state=running(2), payload=b"first")
        return self.commit(starts=[request(workflow_id, first=first, **rest)]).started[0]

    def asleep(
        self, workflow_id: str = "order-1", wake_at: int | None = None, **rest: Any
    ) -> Started:
        """Start a run whose first turn left it waiting: two events, nobody's."""
        first = turn(0, first=1, count=2, state=waiting(2, wake_at), payload=b"first")
        return self.commit(starts=[request(workflow_id, first=first, **rest)]).started[0]

    def post(self, workflow_id: str = "order-1", event: bytes = b"hello", **rest: Any) -> Any:
        return self.store.post([Post(event, workflow_id, **rest)], self.now)[0]

    def load(self, run: int) -> Loaded:
        return self.store.load([run])[0]

    def row(self, run: int) -> RunRow:
        return self.store.rows([run])[0]

    def payloads(self, run: int) -> list[bytes]:
        return [row.payload for row in self.store.history(run)]

    def inbox(self, run: int) -> list[bytes]:
        return [row.event for row in self.load(run).inbox]


def request(workflow_id: str = "order-1", **rest: Any) -> StartRequest:
    rest.setdefault("run_id", f"run-of-{workflow_id}")
    rest.setdefault("workflow", "order")
    rest.setdefault("conflict", "fail")
    rest.setdefault("event", b"started")
    return StartRequest(workflow_id=workflow_id, **rest)


def turn(run: int, *, first: int = 3, count: int = 1, execution: int = 0, **rest: Any) -> TurnWrite:
    rest.setdefault("payload", f"turn at {first}".encode())
    rest.setdefault("time", 5)
    return TurnWrite(run=run, execution=execution or run, first=first, count=count, **rest)


def running(length: int, **rest: Any) -> StateWrite:
    return StateWrite(status=Status.RUNNING, owned=True, length=length, **rest)


def waiting(length: int, wake_at: int | None = None, **rest: Any) -> StateWrite:
    return StateWrite(status=Status.WAITING, owned=False, length=length, wake_at=wake_at, **rest)


def parked(length: int, reason: str = "nondeterminism", **rest: Any) -> StateWrite:
    return StateWrite(status=Status.PARKED, owned=False, length=length, reason=reason, **rest)


def closed(length: int, status: Status = Status.COMPLETED) -> StateWrite:
    return StateWrite(status=status, owned=False, length=length, closed_at=9)


def closing(
    run: int, *, first: int = 3, status: Status = Status.COMPLETED, **rest: Any
) -> TurnWrite:
    return turn(run, first=first, closes=True, state=closed(first, status), **rest)


def kinds(payload: bytes) -> list[str]:
    return [event["kind"] for event in events.decode_plain(payload)]


def snapshot(store: Store, runs: list[int]) -> bytes:
    """Return everything a reader can see of these runs, to compare before and after."""
    loaded = sorted(store.load(runs), key=lambda found: found.row.run)
    return msgspec.msgpack.encode([loaded, [store.attributes(run) for run in runs]])
