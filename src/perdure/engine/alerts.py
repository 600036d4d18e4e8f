"""Webhooks for runs that fail: each is a run of a workflow of Perdure's own.

It is started in the commit that ends the failing run, so none is lost whatever crashes when, and it
is retried as activities are. The receiver gets it at least once.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from perdure import activity, workflow
from perdure.engine import beside
from perdure.engine.clock import SystemClock
from perdure.engine.limits import SYSTEM
from perdure.errors import ApplicationError, Invalid, Kind
from perdure.store.port import StartRequest, TurnWrite
from perdure.values import endings, ids, payload
from perdure.values import events as ev
from perdure.values.duration import SECOND
from perdure.values.labels import listed
from perdure.values.retry import Retry
from perdure.values.states import Status

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.runs import Run

_log = logging.getLogger("perdure.runs")
SIGNATURE: Final = "Perdure-Signature"
DELIVERY: Final = "Perdure-Delivery"
_POST: Final = f"{ids.ALERT}.post"
_TIMEOUT_SECONDS: Final = 15
_SENT: Final = re.compile("[!-~]*")
_LONGEST_NAME: Final = 140
_ATTEMPTS: Final = 300
"""With the pauses below, a day."""
_STATUSES: Final = (Status.FAILED, Status.TIMED_OUT)


class Alert(msgspec.Struct, frozen=True):
    """Post a webhook when a run fails.

    ``pattern``: of the workflow's name; ``*`` matches anything, dots included. ``url``: where to.
    ``secret``: signs each post. ``name``: what the alert's run has instead of url and secret;
    others of the fleet know it by that. ``on``: ``failed``, ``timed_out``, or both. ``on_policy``:
    also for runs of which a policy wants alerts (``alertOnFailure``), whatever the pattern, which
    may be empty then.

    Raises:
        Invalid: one of these cannot be meant.
    """

    pattern: str
    url: str
    secret: str
    name: str = ""
    on: tuple[str, ...] = tuple(map(str, _STATUSES))
    on_policy: bool = False

    def __post_init__(self) -> None:
        for field in ("pattern", "url", "secret", "name"):
            payload.text(getattr(self, field), what=f"alert: {field}")
        host = _host_of(self.url)
        if not self.secret or not (self.pattern or self.on_policy):
            raise Invalid("alert: a pattern and a secret are needed")
        on = tuple(listed(self.on, "alert: on"))
        if not on or any(one not in _STATUSES for one in on):
            raise Invalid(f"alert: on: {self.on!r} is no list of failed and timed_out")
        name = self.name or f"{self.pattern or 'policy'} {host}"
        if len(name) > _LONGEST_NAME or not name.isprintable():  # it is in an id
            raise Invalid(
                f"alert: name: {name[:80]!r} is not of at most {_LONGEST_NAME} letters that can be "
                "printed: give it another one"
            )
        msgspec.structs.force_setattr(self, "on", on)
        msgspec.structs.force_setattr(self, "name", name)

    def concerns(self, name: str, status: str, *, is_wanted: bool = False) -> bool:
        """Tell whether it is for such an end of workflow ``name``; ``is_wanted``: by a policy."""
        if is_wanted and self.on_policy:
            return status in self.on
        text = ".*".join(map(re.escape, self.pattern.split("*")))
        return status in self.on and re.fullmatch(text, name, re.DOTALL) is not None


def _host_of(url: str) -> str:
    """Return the host of a URL that can be posted to.

    Raises:
        Invalid: it cannot.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as exc:
        raise Invalid(f"alert: url: {url!r}: {exc}") from None
    if not known:
        raise Invalid(f"alert: url: {url!r} is not an http or https URL")
    if "@" in parts.netloc:
        raise Invalid("alert: url: a user or password in it would not be sent: leave it out")
    if not _SENT.fullmatch(f"{parts.path}?{parts.query}"):
        raise Invalid(f"alert: url: {url!r} has letters that must be percent-encoded")
    return parts.hostname or ""


@workflow.define(name=ids.ALERT)
async def alert(given: dict[str, Any]) -> int:
    """Post one webhook; the result is the answer's status."""
    status: int = await workflow.call(_POST, given)
    return status


def by_name(alerts: Sequence[Alert]) -> Mapping[str, Alert]:
    """Return alerts by their names.

    Raises:
        Invalid: two have the same.
    """
    names = [each.name for each in alerts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Invalid(f"alerts: two are called {twice[0]!r}; give them names")
    return dict(zip(names, alerts, strict=True))


def definitions_for(alerts: Mapping[str, Alert]) -> Sequence[Any]:
    """Return what an engine with alerts defines: the workflow, and the activity that has its urls
    and secrets.
    """

    def post(given: dict[str, Any]) -> int:
        wanted = alerts.get(given["alert"])
        if wanted is None:
            raise ApplicationError(
                f"this engine has no alert {given['alert']!r}; it has {', '.join(alerts)}",
                kind=Kind.UNAVAILABLE,
            )
        body = msgspec.json.encode(given["body"])
        seconds = SystemClock().now() // SECOND
        headers = {
            "Content-Type": "application/json",
            DELIVERY: activity.info().run_id,
            SIGNATURE: signature(wanted.secret, seconds, body),
        }
        return _send(wanted.url, body, headers)

    retry = Retry(max_attempts=_ATTEMPTS, interval="1s", max_interval="5m")
    return (alert, activity.define(name=_POST, retry=retry)(post)) if alerts else ()


def signature(secret: str, seconds: int, body: bytes) -> str:
    """Return the header that proves who sent ``body``, and when: docs/audit.md says how to check
    it.
    """
    said = f"{seconds}.".encode() + body
    return f"t={seconds},v1={hmac.new(secret.encode(), said, sha256).hexdigest()}"


def _send(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    from http.client import HTTPConnection, HTTPException, HTTPSConnection  # for those who alert

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body, dict(headers))
        status = connection.getresponse().status
    except (OSError, HTTPException) as exc:
        said = f"{parts.hostname} cannot be reached: {exc}"
        raise ApplicationError(said, kind=Kind.UNAVAILABLE) from exc
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise ApplicationError(f"{parts.hostname} answered {status}", kind=Kind.UNAVAILABLE)
    return status


def add(core: Core, run: Run, closing: ev.Event, write: TurnWrite) -> None:
    """Let the commit that ends a run start the alerts for it; not if it is tried again."""
    if not core.settings.alerts or run.workflow.startswith(SYSTEM) or endings.followed_by(closing):
        return
    status = endings.status_of(closing)
    for each in core.settings.alerts.values():
        if each.concerns(run.workflow, status, is_wanted=_wants(run)):
            write.children = [*write.children, _start(core, run, closing, each, write.time)]


def tell_unheard(core: Core, run: Run, closing: ev.Event) -> None:
    """Say of a run that ended badly if a policy wants an alert of it, and nobody is to get one."""
    if not _wants(run) or run.status not in _STATUSES or endings.followed_by(closing):
        return
    if not any(each.on_policy for each in core.settings.alerts.values()):
        _log.error(
            "[%s] a policy wants an alert of this (alertOnFailure), and no alert of this engine is "
            "for policies: Engine(alerts=[Alert(…, on_policy=True)])",
            run.workflow_id,
        )


def _wants(run: Run) -> bool:
    return run.started is not None and run.started.terms.alerts


def _start(core: Core, run: Run, closing: ev.Event, wanted: Alert, now: int) -> StartRequest:
    failure = endings.failure_of(closing)
    body = {
        "type": f"run.{endings.status_of(closing)}",
        "alert": wanted.name,
        "workflow": run.workflow,
        "workflow_id": run.workflow_id,
        "run_id": run.run_id,
        "namespace": run.namespace,
        "at": now,
        "kind": failure.kind if failure is not None else "",
        "message": failure.message if failure is not None else "",
    }
    workflow_id = f"{ids.alerts_of(run.run_id)}{wanted.name}"
    given = msgspec.json.encode({"alert": wanted.name, "body": body})
    return beside.begin(core, run, alert, workflow_id, given, now)
