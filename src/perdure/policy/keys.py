"""The keys of a policy: one table, which says what each may hold and what it means.

A key may be given several times: twice in one file, or, where it is a condition, as a list. All of
them hold, so several are never looser than one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

STATUSES = ("pending", "running", "waiting", "completed", "failed", "cancelled")
"""What an instance may be, in the words that policies and the host API use."""
AUDIT_LEVELS = ("none", "summary", "full")
TIMEOUT_ACTIONS = ("fail", "cancel", "continue")


class Kind(StrEnum):
    """What a key holds."""

    FLAG = "true or false"
    COUNT = "a whole number, 0 or more"
    MINUTES = "a whole number of minutes, 1 or more"
    MILLISECONDS = "a whole number of milliseconds, 1 or more"
    NAMES = "a list of names; `*` matches the rest, dots included"
    CONDITION = "a CEL condition, or a list of them"
    RATE = "a rate, like '100/minute'"
    STATUSES = "a list of statuses"
    FIELDS = "a mapping of workflows to lists of fields"
    COUNTS = "a mapping of workflows to whole numbers"
    LEVEL = "none, summary or full"
    ACTION = "fail, cancel or continue"
    CRONS = "a list of cron patterns; `*` is a star, `**` matches anything"


class Several(StrEnum):
    """What a key means that is given more than once."""

    ALL = "all hold"
    LEAST = "the least"
    FULLEST = "the fullest"
    SAME = "must be the same"


class Key(NamedTuple):
    """A key of the table. ``default``: what its absence means; ``group``: of the list of keys."""

    name: str
    kind: Kind
    group: str
    meaning: str
    default: str
    several: Several = Several.ALL


_W, _S = "policy.workflow.", "policy.schedule."
_MAY, _WHEN = "Workflow execution permissions", "Conditional execution"
_SIGNALS, _QUERIES, _RATES = "Signal permissions", "Query restrictions", "Rate limiting"
_OPEN, _EVERY, _INPUT = "Instance limits", "Environment-specific policies", "Input validation"
_CANCELS, _AUDIT = "Cancellation policies", "Audit and monitoring"
_CROSS, _TIMES, _SCHEDULES = "Cross-service restrictions", "Timeout policies", "Schedules"

_ALL = (
    Key(_W + "run.allowed", Kind.NAMES, _MAY, "workflows that may be started", "all; [] is none"),
    Key(_W + "run.blocked", Kind.NAMES, _MAY, "workflows that may not; it beats allowed", "none"),
    Key(_W + "run.condition", Kind.CONDITION, _WHEN, "must be true for a start", "none"),
    Key(_W + "signal.allowed", Kind.FLAG, _SIGNALS, "whether signals may be sent", "true"),
    Key(_W + "signal.allowedSignals", Kind.NAMES, _SIGNALS, "signals that may be sent", "all"),
    Key(_W + "signal.condition", Kind.CONDITION, _SIGNALS, "must be true for a signal", "none"),
    Key(
        _W + "query.maxResults",
        Kind.COUNT,
        _QUERIES,
        "instances that a query gives at most",
        "1000, which is also the most",
        Several.LEAST,
    ),
    Key(
        _W + "query.allowedStatuses",
        Kind.STATUSES,
        _QUERIES,
        "statuses that may be asked for; a query that names none gets these",
        "all",
    ),
    Key(_W + "query.condition", Kind.CONDITION, _QUERIES, "must be true for a query", "none"),
    Key(_W + "run.rateLimit", Kind.RATE, _RATES, "starts of a service in a time", "none"),
    Key(_W + "signal.rateLimit", Kind.RATE, _RATES, "signals of a service in a time", "none"),
    Key(_W + "query.rateLimit", Kind.RATE, _RATES, "queries of a service in a time", "none"),
    Key(
        _W + "maxConcurrentInstances",
        Kind.COUNT,
        _OPEN,
        "open instances that a service has started",
        "no limit",
        Several.LEAST,
    ),
    Key(
        _W + "maxInstancesPerWorkflow",
        Kind.COUNTS,
        _OPEN,
        "open instances of a workflow, whoever has started them; a name may be a pattern",
        "no limit",
        Several.LEAST,
    ),
    Key(_W + "condition", Kind.CONDITION, _EVERY, "must be true for every operation", "none"),
    Key(
        _W + "run.maxInputSizeKb",
        Kind.COUNT,
        _INPUT,
        "the largest input of a start, in units of 1,024 bytes",
        "1 MB, which is also the most",
        Several.LEAST,
    ),
    Key(
        _W + "run.requiredInputFields",
        Kind.FIELDS,
        _INPUT,
        "fields that the input of a workflow must have; a name may be a pattern",
        "none",
    ),
    Key(_W + "cancel.allowed", Kind.FLAG, _CANCELS, "whether instances may be cancelled", "true"),
    Key(_W + "cancel.condition", Kind.CONDITION, _CANCELS, "must be true for a cancel", "none"),
    Key(_W + "cancel.requireReason", Kind.FLAG, _CANCELS, "whether it needs a reason", "false"),
    Key(
        _W + "audit",
        Kind.FLAG,
        _AUDIT,
        "whether operations are audited",
        "true",
        Several.FULLEST,
    ),
    Key(
        _W + "auditLevel",
        Kind.LEVEL,
        _AUDIT,
        "how much of an operation is recorded",
        "summary",
        Several.FULLEST,
    ),
    Key(_W + "alertOnFailure", Kind.NAMES, _AUDIT, "workflows whose failures raise alerts", "none"),
    Key(
        _W + "run.crossNamespace",
        Kind.FLAG,
        _CROSS,
        "whether a service may start workflows outside its own namespace, and see and touch theirs",
        "true",
    ),
    Key(
        _W + "run.allowedNamespaces",
        Kind.NAMES,
        _CROSS,
        "namespaces that it may start workflows of, beside its own",
        "all; with crossNamespace: false none",
    ),
    Key(
        _W + "maxDurationMinutes",
        Kind.MINUTES,
        _TIMES,
        "minutes that an instance may take",
        "no limit",
        Several.LEAST,
    ),
    Key(
        _W + "defaultTimeoutMs",
        Kind.MILLISECONDS,
        _TIMES,
        "milliseconds that a step may take which says nothing itself",
        "no limit",
        Several.LEAST,
    ),
    Key(
        _W + "timeoutAction",
        Kind.ACTION,
        _TIMES,
        "what happens when a time is over",
        "fail",
        Several.SAME,
    ),
    Key(_S + "allowed", Kind.FLAG, _SCHEDULES, "whether schedules may be made", "true"),
    Key(_S + "condition", Kind.CONDITION, _SCHEDULES, "must be true for a schedule", "none"),
    Key(_S + "create.rateLimit", Kind.RATE, _SCHEDULES, "new schedules of a service", "none"),
    Key(
        _S + "allowedCronPatterns",
        Kind.CRONS,
        _SCHEDULES,
        "cron texts that may be used",
        "all",
    ),
    Key(
        _S + "maxFrequencySeconds",
        Kind.COUNT,
        _SCHEDULES,
        "seconds that must lie between two ticks",
        "none",
    ),
    Key(_S + "maxExecutions", Kind.COUNT, _SCHEDULES, "runs that it may ask for", "no limit"),
    Key(_S + "maxDurationDays", Kind.COUNT, _SCHEDULES, "days that it may last", "no limit"),
    Key(_S + "requiredEndTime", Kind.FLAG, _SCHEDULES, "whether it must have an end", "false"),
    Key(
        _S + "maxInputSizeKb",
        Kind.COUNT,
        _SCHEDULES,
        "the largest input, in units of 1,024 bytes",
        "1 MB, which is also the most",
    ),
    Key(_S + "workflow.allowed", Kind.FLAG, _SCHEDULES, "whether it may start workflows", "true"),
    Key(
        _S + "workflow.allowedWorkflows",
        Kind.NAMES,
        _SCHEDULES,
        "workflows that it may start",
        "all; [] is none",
    ),
)
KEYS = {key.name: key for key in _ALL}
"""Every key that a policy may have, by its name, in the order of the groups."""


def as_table() -> str:
    """Return the keys as tables in Markdown, a section for each group."""
    lines: list[str] = []
    group = ""
    for key in KEYS.values():
        if key.group != group:
            group = key.group
            lines += ["", f"### {group}", "", "| key | holds | meaning | default | given twice |"]
            lines.append("|---|---|---|---|---|")
        cells = (f"`{key.name}`", key.kind, key.meaning, key.default, key.several)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).strip() + "\n"
