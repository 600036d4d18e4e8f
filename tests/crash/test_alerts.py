"""A worker that is killed between the end of a run and its webhook: the next one posts it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.crash.processes import Place, kill

WORKER = """
import asyncio, sys
from perdure import ApplicationError, Engine, workflow
from perdure.engine.alerts import Alert

@workflow.define(name="payment.charge")
async def charge(_: None) -> None:
    raise ApplicationError("declined")

async def main():
    url, hook, runs = sys.argv[1:]
    alerts = [Alert("payment.*", hook, "secret", "payments")]
    async with Engine(url, [charge], alerts=alerts) as engine:
        for n in range(int(runs)):
            await engine.client.start(charge, id=f"c-{n}")
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Receiver(ThreadingHTTPServer):
    """Keeps webhooks; while it holds, it gives no answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.came = threading.Event()
        self.answers = threading.Event()
        self.answered: set[str] = set()
        self.all = threading.Event()


class _Answers(BaseHTTPRequestHandler):
    server: Receiver  # pyright: ignore[reportIncompatibleVariableOverride] - it is one

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.came.set()
        server.answers.wait()
        try:
            self.send_response(204)
            self.end_headers()
        except OSError:
            return
        server.answered.add(body["workflow_id"])
        if len(server.answered) == RUNS:
            server.all.set()

    def log_message(self, format: str, *args: Any) -> None:
        pass


RUNS = 8


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.answers.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("where", ["file", "postgres"])
def test_a_killed_worker_leaves_no_failed_run_without_its_webhook(
    request: pytest.FixtureRequest, tmp_path: Path, receiver: Receiver, where: str
):
    url = request.getfixturevalue("postgres_url") if where == "postgres" else ""
    place = Place(tmp_path, url)
    hook = f"http://127.0.0.1:{receiver.server_port}/"
    first = place.start(WORKER, hook, RUNS)
    try:
        assert receiver.came.wait(30)  # at least one is on its way, and nobody has answered it
    finally:
        kill(first)
    receiver.answers.set()
    second = place.start(WORKER, hook, 0)
    try:
        assert receiver.all.wait(60), receiver.answered
    finally:
        kill(second)
    assert receiver.answered == {f"c-{n}" for n in range(RUNS)}
