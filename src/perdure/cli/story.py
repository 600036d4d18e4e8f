"""What events mean, in a few words: for the history table and the live line.

A :class:`Story` reads the events of one run in order. It remembers what each id began, so that
``activity_completed`` can say which activity, and what is still open, which is the current step.
"""

from __future__ import annotations

from typing import Any

from perdure.cli.out import short
from perdure.errors import Kind
from perdure.values.duration import to_text
from perdure.values.failures import one_line
from perdure.views import HistoryEvent, to_datetime

_OPENS = {
    "activity_scheduled": "name",
    "child_scheduled": "workflow",
    "human_task_opened": "title",
    "timer_started": "",
}
_CLOSES = {
    "activity_completed": "activity",
    "activity_failed": "activity",
    "activity_cancelled": "activity",
    "timer_fired": "timer",
    "timer_cancelled": "timer",
    "child_closed": "child",
    "human_task_decided": "opened",
    "human_task_closed": "opened",
}
_ABOUT = {**_CLOSES, "attempt_failed": "activity", "attempt_lost": "activity"}
_TOLD = {
    "activity",
    "timer",
    "child",
    "opened",
    "name",
    "title",
    "workflow",
    "failure",
    "message",
    "v",
}
_DULL = {
    "worker",
    "code",
    "sender",
    "id",
    "retry",
    "queue",
    "flavour",
    "namespace",
    "run_id",
    "form",
    "asked_by",
}
_TIMES = frozenset({"at", "remind", "deadline", "run_deadline", "execution_deadline", "not_before"})


class Story:
    """Reads events; see the module's text."""

    def __init__(self) -> None:
        self.length = 0
        self._names: dict[int, str] = {}
        self._open: dict[int, str] = {}
        self._attempts: dict[int, int] = {}

    def take(self, event: HistoryEvent) -> str:
        """Read one event and return what it says."""
        self.length = event.id
        data, kind = event.data, event.kind
        if kind in _OPENS:
            name = str(data.get(_OPENS[kind], "")) or f"timer #{event.id}"
            self._names[event.id] = self._open[event.id] = name
        about = data.get(_ABOUT.get(kind, ""))
        if kind in _CLOSES:
            self._open.pop(about or 0, None)
        elif kind in ("attempt_failed", "attempt_lost") and about in self._open:
            self._open[about] = f"{self._names[about]} (attempt {data['attempt'] + 1})"
        return self._words(event, about)

    @property
    def current(self) -> str:
        """What is open now; timers only if nothing else is."""
        steps = [name for name in self._open.values() if not name.startswith("timer #")]
        if not steps and self._open:
            return "timer"
        more = f" and {len(steps) - 2} more" if len(steps) > 2 else ""
        return ", ".join(steps[:2]) + more

    def _words(self, event: HistoryEvent, about: Any) -> str:
        data = event.data
        parts: list[str] = []
        if event.id in self._names:
            due = data.get("due")
            if event.kind != "timer_started":
                parts.append(self._names[event.id])
            if due is not None:
                parts.append(f"due {_time(due)}")
        if about is not None:
            name = self._names.get(about, "?")
            parts.append(name if name == f"timer #{about}" else f"{name} (#{about})")
        message: dict[str, Any] | None = data.get("message")
        if message is not None:
            parts.append(f"{message['topic']} {short(message.get('payload'))}")
        failure: dict[str, Any] | None = data.get("failure")
        if failure is not None:
            parts.append(_failure(failure))
        if event.kind == "run_started":
            parts += [str(data["workflow"]), short(data.get("input"))]
        elif event.kind == "emitted":
            parts += _mark(data)
        elif event.kind == "version_marked":
            # What `patched` records; `version` says so too, for the same answer.
            change, version = data["change"], data["version"]
            parts.append(f"patched {change!r}" if version == 2 else f"{change!r} = {version}")
        else:
            parts += _rest(data)
        return " ".join(parts)


def _mark(data: dict[str, Any]) -> list[str]:
    """Say what was emitted, and of which step: user code's own name, or the graph's."""
    said = [data.get("event") or data.get("name", "event"), data.get("step")]
    rest = {key: value for key, value in data.items() if key not in ("event", "step")}
    return [str(it) for it in said if it] + _rest(rest)


def _failure(failure: dict[str, Any]) -> str:
    name, kind = failure.get("type", ""), failure.get("kind", Kind.INTERNAL)
    text = one_line(name, failure["message"], failure.get("trace", ""))
    return text if kind in (Kind.INTERNAL, name) else f"{kind}: {text}"


def _rest(data: dict[str, Any]) -> list[str]:
    shown: list[str] = []
    for key, value in data.items():
        if key in _TOLD or key in _DULL or key == "due":
            continue
        if key in ("result", "args"):
            shown.append(f"{'→ ' if key == 'result' else ''}{short(value)}")
        elif isinstance(value, int) and (key in _TIMES or key.endswith("_at")):
            if value:  # 0 is none
                shown.append(f"{key}={_time(value)}")
        elif isinstance(value, int) and (key == "timeout" or key.endswith("_timeout")):
            shown.append(f"{key}={to_text(value)}")
        elif not (key == "attempt" and value == 1):
            shown.append(f"{key}={value if isinstance(value, str) else short(value)}")
    return shown


def _time(microseconds: int) -> str:
    return f"{to_datetime(microseconds):%Y-%m-%d %H:%M:%S}Z"
