"""A batch costs the same number of SQLite calls whatever its size.

Every call gives up the interpreter's lock and may wait 5 ms to get it back, so calls per row would
cost more than the rows. The exception, by rule: rows with bytes go in by the hundred.
"""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.contract.store_contract import (
    OPENERS,
    World,
    closing,
    request,
    running,
    turn,
    waiting,
)

import perdure.store.sqlite
from perdure.store.port import Batch, HumanTaskWrite, Post
from perdure.store.sqlite.sql import CHUNK, SQL, ManyRows
from perdure.store.sqlite.store import SqliteStore
from perdure.values.commands import HumanTaskOpened
from perdure.values.people import HumanTaskStatus
from perdure.values.states import CODES, OPEN, TERMINAL, Status

STORES = Path(perdure.store.sqlite.__file__).parents[1]
SOURCES = sorted([*STORES.glob("sql/*.py"), *STORES.glob("sqlite/*.py")])
QUERIES = STORES / "sqlite" / "queries.sql"


@pytest.fixture(params=list(OPENERS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(OPENERS[request.param](tmp_path))
    yield world
    world.store.close()


@contextmanager
def calls(world: World) -> Iterator[list[str]]:
    assert isinstance(world.store, SqliteStore)
    seen: list[str] = []
    connection = world.store.database.connection
    connection.set_trace_callback(lambda sql: seen.append(sql.split("(")[0][:40]))
    yield seen
    connection.set_trace_callback(None)


def count(world: World, batch: Batch) -> int:
    with calls(world) as seen:
        world.store.commit(batch)
    return len(seen)


def plain_turns(world: World, prefix: str, size: int) -> Batch:
    runs = [world.owned(f"{prefix}{n}").run for n in range(size)]
    return world.batch(*[turn(run) for run in runs])


def claims_with_states(world: World, prefix: str, size: int) -> Batch:
    runs = [world.asleep(f"{prefix}{n}").run for n in range(size)]
    return world.batch(
        *[turn(run, claim=2, state=waiting(3, wake_at=9), search={"a": run}) for run in runs]
    )


def messages(world: World, prefix: str, size: int) -> Batch:
    runs = [world.owned(f"{prefix}{n}").run for n in range(size)]
    return world.batch(
        *[
            turn(run, posts=[Post(b"x", f"{prefix}{n - 1}", refusal=b"no", sender=f"{prefix}{n}")])
            for n, run in enumerate(runs)
        ]
    )


def endings(world: World, prefix: str, size: int) -> Batch:
    runs = [world.owned(f"{prefix}{n}").run for n in range(size)]
    for n, run in enumerate(runs):
        world.owned(f"{prefix}-child{n}", parent=(run, 2))
    return world.batch(*[closing(run, memo={"a": 1}) for run in runs])


def beginnings(world: World, prefix: str, size: int) -> Batch:
    first = turn(0, first=1, state=running(1))
    return world.batch(
        starts=[
            request(f"{prefix}{n}", first=first, memo=b"{}", tags=("a", f"{n}"))
            for n in range(size)
        ]
    )


def drops(world: World, prefix: str, size: int) -> Batch:
    runs = [world.asleep(f"{prefix}{n}").run for n in range(size)]
    children = [
        turn(run, claim=1 if n % 2 else 2, children=[request(f"{prefix}-child{n}")])
        for n, run in enumerate(runs)
    ]
    return world.batch(*children, posts=[Post(b"x", f"{prefix}1") for _ in runs])


def people(world: World, prefix: str, size: int) -> Batch:
    """Half of the turns ask somebody, the other half give up what they had asked."""
    runs = [world.owned(f"{prefix}{n}").run for n in range(size)]
    asked = [
        [HumanTaskWrite(f"{prefix}{n}", 3, HumanTaskOpened(id=f"{prefix}{n}", title="t"))]
        for n in range(size)
    ]
    half = size // 2
    world.commit(*[turn(run, asks=asks) for run, asks in zip(runs[:half], asked, strict=False)])
    gives_up = [
        turn(run, first=4, gives_up=((f"{prefix}{n}", HumanTaskStatus.EXPIRED),))
        for n, run in enumerate(runs[:half])
    ]
    asks = [turn(run, asks=asked[half + n]) for n, run in enumerate(runs[half:])]
    return world.batch(*gives_up, *asks)


@pytest.mark.parametrize(
    "make", [plain_turns, claims_with_states, messages, endings, beginnings, drops, people]
)
def test_ten_rows_and_a_hundred_cost_the_same_calls(
    world: World, make: Callable[[World, str, int], Batch]
):
    small, large = make(world, "small", 10), make(world, "large", CHUNK)
    assert count(world, small) == count(world, large)


def test_a_turn_alone_costs_a_fence_a_row_and_the_transaction(world: World):
    batch = plain_turns(world, "one", 1)
    with calls(world) as seen:
        world.store.commit(batch)
    assert [sql.split()[0] for sql in seen] == ["BEGIN", "UPDATE", "INSERT", "COMMIT"]


def test_a_run_that_ends_alone_is_asked_once_what_holds_on_to_it(world: World):
    batch = world.batch(closing(world.owned("alone").run))
    with calls(world) as seen:
        world.store.commit(batch)
    begin, fence, *rest, commit = [sql.split()[0] for sql in seen]
    assert (begin, fence, commit) == ("BEGIN", "UPDATE", "COMMIT")
    # Whether it is still its worker's, and its ties; then its row and its state.
    assert rest == ["SELECT", "SELECT", "INSERT", "UPDATE"]


def test_rows_with_bytes_go_in_by_the_hundred(world: World):
    base = count(world, plain_turns(world, "a", CHUNK))
    assert count(world, plain_turns(world, "b", CHUNK + 1)) == base + 1
    assert count(world, plain_turns(world, "c", 3 * CHUNK)) == base + 2


def test_chunks_hold_all_rows_in_order():
    many = ManyRows("insert_inbox", 5)
    flat = list(range(5 * (2 * CHUNK + 3)))
    parts = list(many.statements(flat))
    assert [value for _, part in parts for value in part] == flat
    assert [text.count("?") for text, _ in parts] == [5 * CHUNK, 5 * CHUNK, 15]
    assert list(many.statements([])) == []


def test_nothing_uses_executemany():
    for path in SOURCES:
        if path.name == "transaction.py":
            continue  # it offers the user's connection, which has one
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        assert not names & {"executemany", "executescript"}, path.name


def test_every_query_is_used_and_every_used_query_exists():
    said: set[str] = set()
    run: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Constant(str(text)):
                    said.add(text)
                case ast.Call(
                    func=ast.Attribute(attr="run" | "insert"), args=[ast.Constant(str(name)), *_]
                ):
                    run.add(name)
                case ast.Call(func=ast.Name("one"), args=[_, ast.Constant(str(name)), *_]):
                    run.add(name)
                case _:
                    pass
    text = QUERIES.read_text()
    blocks = {name for name in SQL if f"{{{name}}}" in text}
    assert set(SQL) <= said | blocks
    assert run <= set(SQL)


def test_the_codes_in_the_sql_are_those_of_the_states():
    assert {CODES[status] for status in OPEN} == {0, 1, 2, 3, 4}
    assert min(CODES[status] for status in TERMINAL) == 5
    named = [Status.PENDING, Status.RUNNING, Status.WAITING, Status.PAUSED, Status.PARKED]
    assert [CODES[status] for status in named] == [0, 1, 2, 3, 4]


def test_nothing_is_encoded_while_the_lock_is_held(world: World, monkeypatch: pytest.MonkeyPatch):
    from perdure.store.sql import commit as module

    assert isinstance(world.store, SqliteStore)
    batch = claims_with_states(world, "a", 3)
    planned: list[bool] = []
    make_plan = module.make_plan  # pyright: ignore[reportPrivateImportUsage]

    def watched(*args: object) -> object:
        planned.append(world.store.database.connection.in_transaction)  # type: ignore[attr-defined]
        return make_plan(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "make_plan", watched)
    world.store.commit(batch)
    world.store.commit(beginnings(world, "b", 3))
    assert planned == [False, False]


def test_delivery_asks_about_each_address_once(world: World):
    world.owned("target")
    with calls(world) as seen:
        world.store.post([Post(b"x", "target") for _ in range(50)], 1)
    assert len(seen) == 4
