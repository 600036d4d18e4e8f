"""Machines whose clocks are wrong, and one clock that all go by: the server's."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from perdure import Client, workflow
from perdure.engine.clock import SystemClock, told_by_store
from perdure.store.opening import open_store
from perdure.testing import checks
from perdure.testing.simulator import Simulation
from perdure.values import events as ev

MINUTE = 60_000_000
AHEAD = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 3600000000"


@workflow.define
async def hears_nothing() -> str:
    return "done"


@pytest.mark.parametrize(
    ("here", "found"),
    [(99, 100), (100, 100), (130, 130), (150, 150), (151, 100), (100 + 5 * MINUTE, 100)],
)
def test_a_clock_that_may_be_right_is_not_set_by_an_answer_that_took_long(here: int, found: int):
    assert told_by_store(100, 50, here) == found


def test_the_machines_clock_goes_by_the_store():
    clock = SystemClock()
    before = clock.now()
    clock.resync(before - 5 * MINUTE, within=1_000)
    assert before - 5 * MINUTE <= clock.now() < before - 4 * MINUTE
    again = clock.now()
    clock.resync(again - 2_000_000, within=10_000_000)
    assert clock.now() >= again


async def test_a_client_goes_by_the_servers_clock(postgres_url: str):
    store = open_store(postgres_url)
    store.migrate(0)
    store.close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION perdure.perdure_now() RETURNS bigint LANGUAGE sql VOLATILE"
            f" AS $$ {AHEAD} $$".encode()
        )
    async with Client(postgres_url) as client:
        handle = await client.start(hears_nothing, id="it", start_delay="5s", run_timeout="1m")
        found = await handle.describe()
    server = datetime.fromtimestamp(time.time(), UTC) + timedelta(hours=1)
    assert abs(found.created_at - server) < timedelta(minutes=5)


def test_messages_to_a_run_that_is_cancelled_before_it_begins_are_in_its_history():
    with Simulation(seed=1) as sim:

        async def main() -> None:
            worker = sim.worker("w", [hears_nothing])
            await worker.start()
            process, client = sim.foreign_client("c")

            async def use() -> None:
                handle = await client.start(hears_nothing, id="it", start_delay="1h")
                await handle.send("topic", "said")
                await handle.cancel("enough")

            await process.spawn(use())
            await sim.until(lambda: sim.store.find("it").status.is_terminal)
            await worker.stop()

        sim.run(main())
        [history] = checks.histories(sim.store)
        kinds = [type(event) for event in history.events]
        assert kinds == [ev.RunStarted, ev.MessageReceived, ev.CancelRequested, ev.RunCancelled]
