"""Webhooks for runs that fail: signed, tried again, started with the commit that ends the run."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until

from perdure import ApplicationError, Engine, Retry, workflow
from perdure.engine.alerts import DELIVERY, SIGNATURE, Alert, alert
from perdure.errors import Invalid
from perdure.values.states import Status

SECRET = "s3cret"


class Receiver(ThreadingHTTPServer):
    """Takes webhooks; ``refuses`` so many first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.refuses = 0
        self.seen: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?x=1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.seen]


class _Answers(BaseHTTPRequestHandler):
    server: Receiver  # pyright: ignore[reportIncompatibleVariableOverride] - it is one

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((dict(self.headers.items()), body))
        is_refused = len(self.server.seen) <= self.server.refuses
        self.send_response(503 if is_refused else 204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@workflow.define(name="payment.charge")
async def charge(given: str) -> str:
    if given == "later":
        await workflow.sleep("1ms")
    if given != "fine":
        raise ApplicationError(f"no {given}", kind="Declined", retryable=given == "again")
    return given


@workflow.define(name="payment.wait")
async def wait(_: None) -> None:
    await workflow.listen("never").receive()


@workflow.define(name="shipping")
async def shipping(_: None) -> None:
    raise ApplicationError("lost")


def engine(folder: Path, receiver: Receiver, *alerts: Alert, **options: Any) -> Engine:
    given = alerts or (Alert("payment.*", receiver.url, SECRET),)
    return engine_on(folder, charge, wait, shipping, alerts=given, **options)


async def ended(running: Engine, name: Any, given: Any = None, **options: Any) -> Status:
    handle = await running.client.start(name, given, **options)

    async def has_ended() -> bool:
        return (await handle.status()).is_terminal

    await until(has_ended)
    return await handle.status()


@pytest.mark.parametrize("given", ["at once", "later"])
async def test_a_run_that_fails_posts_a_signed_webhook(
    tmp_path: Path, receiver: Receiver, given: str
):
    async with engine(tmp_path, receiver) as running:
        assert await ended(running, charge, given, id="c") is Status.FAILED
        await until(lambda: bool(receiver.seen))
        [(headers, body)] = receiver.seen
        told = json.loads(body)
        run = await running.client.get("c").describe()
        assert (told["type"], told["workflow"], told["workflow_id"], told["run_id"]) == (
            "run.failed",
            "payment.charge",
            "c",
            run.run_id,
        )
        assert (told["kind"], told["message"]) == ("Declined", f"no {given}")
        stamp, _, mac = headers[SIGNATURE].partition(",v1=")
        said = stamp.removeprefix("t=").encode() + b"." + body
        assert mac == hmac.new(SECRET.encode(), said, sha256).hexdigest()
        history = json.dumps(await (await alert_runs(running))[0].export(), default=str)
        assert SECRET not in history and receiver.url not in history


async def alert_runs(running: Engine) -> list[Any]:
    page = await running.client.list(workflow="perdure.alert")
    return [running.client.get(item.id) for item in page.items]


async def test_only_ends_that_match_post_one(tmp_path: Path, receiver: Receiver):
    alerts = [
        Alert("payment.*", receiver.url, SECRET, "timed out", on=("timed_out",)),
        Alert("*.charge", receiver.url, SECRET, "charge"),
        Alert("*", receiver.url, SECRET, "all"),
    ]
    async with engine(tmp_path, receiver, *alerts) as running:
        assert await ended(running, charge, "fine") is Status.COMPLETED
        assert await ended(running, shipping) is Status.FAILED
        assert await ended(running, charge, "x") is Status.FAILED
        assert await ended(running, wait, execution_timeout="5ms") is Status.TIMED_OUT
        await until(lambda: len(receiver.seen) >= 5)
        told = sorted((body["alert"], body["workflow"], body["type"]) for body in receiver.bodies)
        assert told == [
            ("all", "payment.charge", "run.failed"),
            ("all", "payment.wait", "run.timed_out"),
            ("all", "shipping", "run.failed"),
            ("charge", "payment.charge", "run.failed"),
            ("timed out", "payment.wait", "run.timed_out"),
        ]
        assert len(await alert_runs(running)) == 5


async def test_a_run_that_is_tried_again_posts_once_when_it_is_given_up(
    tmp_path: Path, receiver: Receiver
):
    async with engine(tmp_path, receiver) as running:
        handle = await running.client.start(
            charge, "again", retry=Retry(max_attempts=3, interval="1ms")
        )
        with pytest.raises(Exception, match="no again"):
            await handle.result()
        await until(lambda: bool(receiver.seen))
        assert [body["message"] for body in receiver.bodies] == ["no again"]
        assert len(await alert_runs(running)) == 1


async def test_what_is_refused_is_posted_again_with_the_same_number(
    tmp_path: Path, receiver: Receiver
):
    receiver.refuses = 1
    async with engine(tmp_path, receiver) as running:
        await ended(running, charge, "x")
        await until(lambda: len(receiver.seen) == 2)
        assert len({headers[DELIVERY] for headers, _ in receiver.seen}) == 1
        [run] = await alert_runs(running)
        assert await run.result() == 204


async def test_what_could_not_be_posted_is_posted_by_the_next_worker(
    tmp_path: Path, receiver: Receiver
):
    receiver.refuses = 1
    async with engine(tmp_path, receiver) as running:
        await ended(running, charge, "x")
        await until(lambda: bool(receiver.seen))
    async with engine(tmp_path, receiver):
        await until(lambda: len(receiver.seen) == 2)


async def test_limits_of_workflows_are_none_of_alerts(tmp_path: Path, receiver: Receiver):
    options = {"concurrent_workflows": 1, "concurrent_total": 1}
    async with engine(tmp_path, receiver, **options) as running:
        await running.client.start(wait, id="w", execution_timeout="20ms")
        await until(lambda: bool(receiver.seen))


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "ftp://x/"},
        {"url": "x"},
        {"secret": ""},
        {"pattern": ""},
        {"on": ("completed",)},
        {"on": ()},
        {"on": "failed"},
        {"on": 5},
        {"on": [5]},
        {"on": None},
        {"url": 5},
        {"url": "http://x.example:99999/"},
        {"url": "http://x.example:y/"},
        {"url": "http://[::1/"},
        {"url": "https://x.example/\xf6"},
        {"url": "https://x.example/a b"},
        {"url": "https://ada:secret@x.example/"},
        {"secret": 5},
        {"secret": b"s"},
        {"secret": "\ud800"},
        {"pattern": 5},
        {"name": 5},
        {"name": "a\0b"},
        {"name": "\ud800"},
        {"name": "n" * 141},
    ],
)
def test_an_alert_that_cannot_be_meant_is_refused(fields: dict[str, Any]):
    with pytest.raises(Invalid, match="alert"):
        Alert(**{"pattern": "*", "url": "https://x.example/", "secret": "s", **fields})
    assert Alert("*", "http://127.0.0.1:8080/a?b=%20", "s", on=("failed",)).name == "* 127.0.0.1"


def test_two_alerts_of_one_name_are_refused(receiver: Receiver):
    same = Alert("*", receiver.url, SECRET)
    with pytest.raises(Invalid, match="give them names"):
        Engine(alerts=[same, same])
    assert alert.name == "perdure.alert"
