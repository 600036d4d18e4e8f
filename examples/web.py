"""Starting a workflow from a web server: 202 if it was started, 409 if the order is there already.

    perdure dev examples/web.py --db web.db
    python examples/web.py web.db 8000
    curl -i -d '{"id": 7, "item": "book"}' -H 'X-Request-ID: r-1' localhost:8000
    perdure send order-7 ship --db web.db

The server runs no workflows: a worker does, in this process or another. `start` has written the
order to the database when it returns, so 202 is a promise that is kept.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from perdure import Client, workflow
from perdure.errors import AlreadyExists, Invalid


@dataclass
class Order:
    id: int
    item: str


@workflow.define
async def order(given: Order) -> dict[str, Any]:
    await workflow.listen("ship").receive()
    return {"shipped": given.item, "request": workflow.context["request_id"]}


async def accept(url: str, body: bytes, request_id: str) -> tuple[int, dict[str, Any]]:
    """Start what was ordered; return a status and a body."""
    # A client is opened per request: this server's threads have no event loop to share. A server
    # that has one (Litestar, Starlette, aiohttp) opens its client once, at startup.
    async with Client(url) as client:
        try:
            given = json.loads(body)
            handle = await client.start(
                order,
                given,
                id=f"order-{given['id']}",
                id_conflict_policy="fail",
                context={"request_id": request_id},
            )
        except AlreadyExists as exc:
            return 409, {"error": str(exc)}
        except (Invalid, KeyError, TypeError, ValueError) as exc:
            return 400, {"error": str(exc)}
    return 202, {"workflow_id": handle.id, "status": "started"}


class Orders(BaseHTTPRequestHandler):
    url = ""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request_id = self.headers.get("X-Request-ID", "")
        status, answer = asyncio.run(accept(self.url, body, request_id))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main(database: str, port: str) -> None:
    Orders.url = f"sqlite:///{database}"
    with ThreadingHTTPServer(("127.0.0.1", int(port)), Orders) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
