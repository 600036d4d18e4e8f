"""Options of a start, as clients and workflows write them: names, aliases, and what they mean.

The longer names of the table are those of Wippy's start options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from perdure.errors import Invalid, Unavailable
from perdure.values import limits, payload
from perdure.values.cron import check_cron
from perdure.values.duration import Duration, microseconds
from perdure.values.retry import Retry
from perdure.values.terms import NO_TERMS, Terms

CONFLICT = ("use_existing", "fail", "terminate_existing")
_MAX_KEY = 256
_MAX_PRIORITY = 1_000_000_000
REUSE = ("allow_duplicate", "allow_duplicate_failed_only", "reject_duplicate")
PARENT_CLOSE = ("terminate", "abandon", "request_cancel")

ALIASES = {
    "name": "id",
    "search_attributes": "search",
    "retry_policy": "retry",
    "cron_schedule": "cron",
    "enable_eager_start": "eager",
    "execution_error_when_already_started": "error_when_already_started",
}
SHARED = frozenset(
    {
        "id",
        "version",
        "task_queue",
        "execution_timeout",
        "run_timeout",
        "task_timeout",
        "activity_timeout",
        "id_conflict_policy",
        "id_reuse_policy",
        "error_when_already_started",
        "retry",
        "cron",
        "concurrency_key",
        "priority",
        "memo",
        "search",
        "start_delay",
        "parent_close_policy",
        "wait_for_cancellation",
        "namespace",
        "messages",
        "context",
        "budget",
        "retention",
    }
)
"""What both a client and a workflow may ask of a start."""
_FLAGS = (
    "eager",
    "error_when_already_started",
    "link",
    "monitor",
    "paused",
    "wait_for_cancellation",
)


def canonical(given: Mapping[str, Any], allowed: frozenset[str], *, what: str) -> dict[str, Any]:
    """Return options under their own names; those given as ``None`` are left out.

    Raises:
        Invalid: an unknown option, one given under both of its names, or a value that is none of
            those the option may have.
        Unavailable: no inbox has room for so many messages.
    """
    options: dict[str, Any] = {}
    if not given:
        return options
    for name, value in given.items():
        own = ALIASES.get(name, name)
        if own not in allowed:
            raise Invalid(f"{what}: unknown option {name!r}; it takes {', '.join(sorted(allowed))}")
        if own in options:
            raise Invalid(f"{what}: {own!r} is given under two names")
        if value is not None:
            options[own] = value
    for name in _FLAGS:
        if not isinstance(options.get(name, False), bool):
            raise Invalid(f"{name}: {options[name]!r} is neither True nor False")
    if not payload.text(options.get("task_queue", "default"), what="task_queue"):
        raise Invalid("task_queue: '' names no queue; leave it out for the definition's own")
    check_texts(options)
    one_of("parent_close_policy", options.get("parent_close_policy"), PARENT_CLOSE)
    messages = options.get("messages")
    if isinstance(messages, Sequence):
        _check_count(len(cast("Sequence[Any]", messages)))
    return options


def check_texts(options: Mapping[str, Any]) -> None:
    """Refuse names by which the store is asked and that are no text.

    Raises:
        Invalid: one is none.
    """
    for name in ("namespace", "version"):
        payload.text(options.get(name, ""), what=name)


def read_terms(options: Mapping[str, Any]) -> Terms:
    """Return the terms among canonical options.

    Raises:
        Invalid: a bad duration, retry policy, cron text, key or priority.
    """
    times = (
        "execution_timeout",
        "run_timeout",
        "task_timeout",
        "activity_timeout",
        "start_delay",
    )
    given: dict[str, Any] = {name: _time(name, options[name]) for name in times if name in options}
    retry = options.get("retry")
    if retry is not None and not isinstance(retry, Retry):
        raise Invalid(f"retry: {retry!r} is not a Retry(…)")
    cron = options.get("cron")
    key = _key(options.get("concurrency_key", ""))
    priority = _priority(options.get("priority", 0))
    if "retention" in options:
        given["retention"] = microseconds(options["retention"], what="retention")
    if not given and retry is None and cron is None and not key and not priority:
        return NO_TERMS
    return Terms(
        **given,
        retry=None if retry is None else retry.resolve(),
        cron="" if cron is None else check_cron(cron),
        key=key,
        priority=priority,
    )


def read_resume_by(options: Mapping[str, Any], now: int) -> int | None:
    """Return by when a start that is ``paused`` must be resumed, 0: at any time; ``None``: it is
    not paused.

    Raises:
        Invalid: a bad duration, or one for a start that is not paused.
    """
    within = options.get("resume_within")
    if not options.get("paused"):
        if within is not None:
            raise Invalid("resume_within: only what is started with paused=True is to be resumed")
        return None
    return 0 if within is None else now + _time("resume_within", within)


def conflict_policy(options: Mapping[str, Any], *, is_explicit: bool) -> str:
    """Return what to do about an open execution of the id; ``none``: the id is new for sure.

    An explicit policy wins over ``error_when_already_started``.
    """
    policy = options.get("id_conflict_policy")
    if policy is not None:
        return one_of("id_conflict_policy", policy, CONFLICT)
    if options.get("error_when_already_started"):
        return "fail"
    return "use_existing" if is_explicit else "none"


def one_of(what: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return the option's value; ``None`` is the first, case and ``-`` do not matter.

    Raises:
        Invalid: it is none of them.
    """
    if value is None:
        return allowed[0]
    text = str(value).lower().replace("-", "_")
    if text not in allowed:
        raise Invalid(f"{what}: {value!r}; use one of {', '.join(allowed)}")
    return text


def _check_count(messages: int) -> None:
    if messages > limits.INBOX_PER_EXECUTION:
        raise Unavailable(
            f"messages: the inbox would be more than full: {messages} are more than it takes "
            f"({limits.INBOX_PER_EXECUTION})",
            retryable=False,
        )


def _key(value: Any) -> str:
    text = payload.text(value, what="concurrency_key")
    if len(text) > _MAX_KEY:
        raise Invalid(f"concurrency_key: {len(text)} characters are too many ({_MAX_KEY})")
    return text


def _priority(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _MAX_PRIORITY:
        raise Invalid(f"priority: {value!r} is no whole number up to {_MAX_PRIORITY}")
    return value


def _time(name: str, value: Duration) -> int:
    time = microseconds(value, what=name)
    if time == 0 and name != "start_delay":
        raise Invalid(f"{name}: {value!r} leaves no time; leave it out for no limit")
    return time
