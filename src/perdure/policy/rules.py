"""A policy made ready: for each operation the rules that it meets, in their order.

A rule says why it refuses, or ``""``. All that does not depend on a request is computed here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from perdure.errors import Invalid
from perdure.policy import cel, checks
from perdure.policy.cautions import cautions
from perdure.policy.globs import Name, Names, glob, namespace_of, read_name
from perdure.policy.keys import AUDIT_LEVELS, STATUSES
from perdure.policy.kinds import Given, Values
from perdure.policy.verdict import MAX_RESULTS, OPERATIONS, Caution, Request
from perdure.values.cron import ALIASES

W, S = "policy.workflow.", "policy.schedule."
OF_ALL, OF_ONE = "query of all", "query of one"
"""A query that names no workflow, or one; what it finds is judged by the rules of a query."""
LISTING = "list of all"
"""A look at what there is; each workflow of it is judged by the rules of a list."""
_UNKNOWN: dict[str, frozenset[str]] = {
    OF_ALL: frozenset({"workflow", "instance"}),
    OF_ONE: frozenset({"instance"}),
    LISTING: frozenset({"workflow"}),
}
"""What conditions read that is not known before something was found."""
_JUDGED_AS = {OF_ALL: "query", OF_ONE: "query", LISTING: "list"}
"""By which rules each thing that was found is judged."""
_CONDITIONS = {
    "run": (W + "condition", W + "run.condition"),
    "signal": (W + "condition", W + "signal.condition"),
    "query": (W + "condition", W + "query.condition"),
    OF_ALL: (W + "condition", W + "query.condition"),
    OF_ONE: (W + "condition", W + "query.condition"),
    "cancel": (W + "condition", W + "cancel.condition"),
    "trigger": (W + "condition", W + "run.condition", S + "condition"),
}
_NOTHING: frozenset[str] = frozenset()
_NO_NAME = Name("", "")
_QUERIES = ("query", OF_ALL, OF_ONE)
_KB = 1_024


class Facts:
    """What is known of one request; what few rules ask for is found out when it is asked for."""

    __slots__ = (
        "_activation",
        "_input_size",
        "compiled",
        "name",
        "operation",
        "request",
        "service_namespace",
    )

    def __init__(self, compiled: Compiled, operation: str, request: Request) -> None:
        self.compiled = compiled
        self.operation = operation
        self.request = request
        self.name = _name_of(request)
        self.service_namespace = namespace_of(request.service)
        self._input_size = request.input_size
        self._activation: Any = None

    @property
    def input_size(self) -> int:
        """Bytes of the input."""
        if self._input_size < 0:
            self._input_size = checks.input_size(self.request)
        return self._input_size

    @property
    def activation(self) -> Any:
        """What the conditions read."""
        if self._activation is None:
            self._activation = self._made()
        return self._activation

    def _made(self) -> Any:
        request, compiled, name = self.request, self.compiled, self.name
        claims, metadata = request.claims, request.metadata
        if compiled.claims is None:
            claims = dict(claims)
        else:
            claims = {key: claims[key] for key in compiled.claims if key in claims}
        if compiled.metadata is None:
            metadata = dict(metadata)
        else:
            metadata = {key: metadata[key] for key in compiled.metadata if key in metadata}
        told = {
            "workflow": {"id": name.name, "version": name.version, "namespace": name.namespace},
            "service": {"name": request.service, "namespace": self.service_namespace},
            "instance": dict(request.instance),
            "request": {
                "auth": {"claims": claims},
                "method": f"workflow.{self.operation}",
                "metadata": metadata,
            },
            "env": compiled.env,
        }
        # Each value is copied: no more than what is read.
        return cel.facts_of({name: told[name] for name in compiled.variables})


class Rule(NamedTuple):
    """``key``: of the policy, or the name of a check; ``value``: what it holds, for people;
    ``code``: of a refusal. The test returns why it refuses, or ``""``, and raises ``Invalid`` if it
    cannot tell.
    """

    key: str
    value: str
    test: Callable[[Facts], str]
    code: str


class Compiled:
    """A policy's rules. ``input_most``: bytes of an input at most.

    Raises:
        Invalid: a condition is no CEL, or does not fit; the message has key, line and column.
    """

    def __init__(self, values: Values, env: Mapping[str, str], input_most: int) -> None:
        self.values = values
        self.env = dict(env)
        self.warnings: list[Caution] = [*cautions(values)]
        self.variables: set[str] = set()
        self.claims: set[str] | None = set()
        self.metadata: set[str] | None = set()
        self._conditions = {
            key: [self._condition(key, one) for one in values[key]]
            for key in values
            if key.endswith(".condition")
        }
        self.input_most = input_most
        self.max_results = min([MAX_RESULTS, *self._all(W + "query.maxResults")])
        statuses = [set(one) for one in self._all(W + "query.allowedStatuses")]
        self.statuses = tuple(one for one in STATUSES if all(one in few for few in statuses))
        self.audit = self._audit_level()
        self.alerts = Names(name for names in self._all(W + "alertOnFailure") for name in names)
        self.of: dict[str, tuple[Rule, ...]] = {
            operation: (*self._checks(operation), *self._keys(operation))
            for operation in (*OPERATIONS, *_UNKNOWN)
        }
        self.by_row = {
            asked for asked, one in _JUDGED_AS.items() if len(self.of[asked]) < len(self.of[one])
        }
        """Queries and lists of which some rule is about each thing that they find."""
        self.together = {operation: self._together(operation) for operation in self.of}
        """The conditions of each operation as one; ``None``: there are none."""

    def _together(self, operation: str) -> cel.Together | None:
        conditions = [condition for _, condition in self._conditions_of(operation)]
        return cel.Together(conditions) if conditions else None

    def _conditions_of(self, operation: str) -> Iterator[tuple[str, cel.Condition]]:
        for key in _CONDITIONS.get(operation, (W + "condition",)):
            for condition in self._conditions.get(key, ()):
                if not condition.variables & _UNKNOWN.get(operation, _NOTHING):
                    yield key, condition

    def _all(self, key: str) -> list[Any]:
        return [one.value for one in self.values.get(key, ())]

    def least(self, key: str) -> int:
        """Return the least value of a number; 0 if it is not given."""
        return min(self._all(key), default=0)

    def _audit_level(self) -> str:
        flags, levels = self._all(W + "audit"), self._all(W + "auditLevel")
        if flags and not any(flags):
            return "none"
        fullest = max((AUDIT_LEVELS.index(level) for level in levels), default=1)
        return AUDIT_LEVELS[fullest]

    def _condition(self, key: str, given: Given) -> cel.Condition:
        try:
            condition = cel.Condition(given.value, self.env)
        except Invalid as exc:
            raise Invalid(f"{given.where}{key}: {exc.message}") from None
        self.warnings += condition.warnings(key, given.where)
        self.variables |= condition.variables
        self.claims = _joined(self.claims, condition.claims)
        self.metadata = _joined(self.metadata, condition.metadata)
        return condition

    # -- what is always checked --------------------------------------------------------------

    def _checks(self, operation: str) -> Iterator[Rule]:
        most, check = self.input_most, _check
        if operation in ("run", "trigger"):
            versioned = operation == "run"
            yield check(
                "workflow_id",
                lambda facts: (
                    ""
                    if facts.request.name
                    else checks.check_workflow_id(
                        facts.request.workflow_id, needs_version=versioned
                    )
                ),
            )
            yield check(
                "self_run",
                lambda facts: checks.check_self_run(facts.request.caller, facts.name.name),
            )
            yield check("input_size", lambda facts: checks.check_input_size(facts.input_size, most))
            yield check(
                "input_schema",
                lambda facts: checks.check_input(facts.request.input, facts.request.validate),
            )
        if operation in ("signal", "cancel", "get_status"):
            yield check(
                "instance_id", lambda facts: checks.check_instance_id(facts.request.instance_id)
            )
        if operation == "signal":
            yield check("signal_name", lambda facts: checks.check_signal_name(facts.request.signal))
            yield check("input_size", lambda facts: checks.check_input_size(facts.input_size, most))
        if operation in _QUERIES:
            yield check("query_limit", lambda facts: checks.check_limit(facts.request.limit))
            yield check(
                "workflow_id",
                lambda facts: (
                    checks.check_workflow_id(facts.request.workflow_id, needs_version=False)
                    if facts.request.workflow_id
                    else ""
                ),
            )

    # -- what the keys say -------------------------------------------------------------------

    def _keys(self, operation: str) -> Iterator[Rule]:
        if operation in ("run", "trigger"):
            yield from self._runs()
        if operation == "trigger":
            yield from self._schedules()
        if operation == "signal":
            yield from self._flags(W + "signal.allowed", "signals are not allowed")
            for names in self._names(W + "signal.allowedSignals"):
                yield _rule(
                    W + "signal.allowedSignals",
                    names,
                    lambda facts, names=names: (
                        ""
                        if facts.request.signal in names
                        else f"signal {facts.request.signal!r} is not among those allowed"
                    ),
                )
        if operation in _QUERIES:
            yield from self._asked_statuses()
        if operation in ("query", OF_ONE, "get_status", "signal", "cancel", "list"):
            yield from self._namespaces(only_within=True)
        if operation == "cancel":
            yield from self._flags(W + "cancel.allowed", "cancelling is not allowed")
            if any(self._all(W + "cancel.requireReason")):
                yield _rule(
                    W + "cancel.requireReason",
                    True,
                    lambda facts: "" if facts.request.reason.strip() else "a cancel needs a reason",
                )
        for key, condition in self._conditions_of(operation):
            yield _rule(key, condition.text, _holds(condition))

    def _names(self, key: str) -> Iterator[Names]:
        for names in self._all(key):
            yield Names(names)

    def _flags(self, key: str, reason: str) -> Iterator[Rule]:
        if not all(self._all(key)):
            yield _rule(key, False, lambda _facts: reason)

    def _runs(self) -> Iterator[Rule]:
        for names in self._names(W + "run.blocked"):
            yield _rule(
                W + "run.blocked",
                names,
                lambda facts, names=names: (
                    f"workflow {facts.name.name!r} is blocked" if facts.name.name in names else ""
                ),
            )
        yield from self._only(W + "run.allowed")
        yield from self._namespaces()
        if self.values.get(W + "run.maxInputSizeKb"):
            yield self._size(W + "run.maxInputSizeKb")
        for wanted in self._all(W + "run.requiredInputFields"):
            yield _rule(
                W + "run.requiredInputFields",
                wanted,
                lambda facts, wanted=wanted: _lacking(facts, wanted),
            )

    def _only(self, key: str) -> Iterator[Rule]:
        for names in self._names(key):
            yield _rule(
                key,
                names,
                lambda facts, names=names: (
                    ""
                    if facts.name.name in names
                    else f"workflow {facts.name.name!r} is not among those allowed"
                ),
            )

    def _size(self, key: str) -> Rule:
        kilobytes = self.least(key)
        most = min(kilobytes * _KB, self.input_most)
        return _rule(key, kilobytes, lambda facts: checks.check_input_size(facts.input_size, most))

    def _namespaces(self, *, only_within: bool = False) -> Iterator[Rule]:
        """Yield the rule on namespaces; ``only_within``: if services are kept within theirs."""
        cross, lists = W + "run.crossNamespace", W + "run.allowedNamespaces"
        given = list(self._names(lists))
        stays = not all(self._all(cross))
        if not stays and (only_within or not given):
            return
        key = cross if stays else lists

        def test(facts: Facts) -> str:
            namespace, own = facts.name.namespace, facts.service_namespace
            if namespace and (namespace == own or (given and all(namespace in of for of in given))):
                return ""
            return (
                f"workflow {facts.name.name!r} is of namespace {namespace!r}, which is neither the "
                f"own one of service {facts.request.service!r} ({own!r}) nor among those allowed"
            )

        yield _rule(key, False if stays else given[0], test)

    def _asked_statuses(self) -> Iterator[Rule]:
        key, allowed = W + "query.allowedStatuses", frozenset(self.statuses)
        if key not in self.values:
            return

        def test(facts: Facts) -> str:
            others = [one for one in facts.request.statuses if one not in allowed]
            if others:
                return f"instances that are {' or '.join(others)} may not be asked for"
            return "" if allowed else "no instances may be asked for"

        yield _rule(key, list(self.statuses), test)

    def _schedules(self) -> Iterator[Rule]:
        yield from self._flags(S + "allowed", "schedules are not allowed")
        yield from self._flags(S + "workflow.allowed", "schedules may not start workflows")
        yield from self._only(S + "workflow.allowedWorkflows")
        for patterns in self._all(S + "allowedCronPatterns"):
            yield _rule(
                S + "allowedCronPatterns",
                patterns,
                lambda facts, patterns=patterns: _cron_fits(facts.request.schedule.cron, patterns),
            )
        if self.values.get(S + "maxInputSizeKb"):
            yield self._size(S + "maxInputSizeKb")
        for least in self._all(S + "maxFrequencySeconds"):
            yield _rule(
                S + "maxFrequencySeconds",
                least,
                lambda facts, least=least: (
                    f"every {facts.request.schedule.every} s is more often than every {least} s"
                    if 0 < facts.request.schedule.every < least
                    else ""
                ),
            )
        for most in self._all(S + "maxExecutions"):
            yield _rule(
                S + "maxExecutions",
                most,
                lambda facts, most=most: _at_most(
                    facts.request.schedule.executions, most, "executions"
                ),
            )
        for most in self._all(S + "maxDurationDays"):
            yield _rule(
                S + "maxDurationDays",
                most,
                lambda facts, most=most: _at_most(facts.request.schedule.days, most, "days"),
            )
        if any(self._all(S + "requiredEndTime")):
            yield _rule(
                S + "requiredEndTime",
                True,
                lambda facts: "" if facts.request.schedule.has_end else "it has no end",
            )


def _name_of(request: Request) -> Name:
    if not isinstance(cast("object", request.name), str):
        raise Invalid(f"name: {request.name!r} is not text")
    if request.name:
        return Name(request.name, request.version)
    # What is no name is taken as it is: a list of names must not let it pass as nameless.
    text = request.workflow_id
    return (read_name(text) or Name(text, "")) if text else _NO_NAME


def _check(name: str, test: Callable[[Facts], str]) -> Rule:
    return Rule(name, "always", test, checks.CODES[name])


def _rule(key: str, value: object, test: Callable[[Facts], str]) -> Rule:
    return Rule(key, value if isinstance(value, str) else repr(value), test, "POLICY_DENIED")


def _holds(condition: cel.Condition) -> Callable[[Facts], str]:
    def test(facts: Facts) -> str:
        return "" if condition.holds(facts.activation) else f"{condition.text} does not hold"

    return test


def _joined(known: set[str] | None, more: set[str] | None) -> set[str] | None:
    return None if known is None or more is None else known | more


def _lacking(facts: Facts, wanted: Mapping[str, list[str]]) -> str:
    needed = [
        field
        for pattern, fields in wanted.items()
        if pattern == facts.name.name or glob(facts.name.name, pattern)
        for field in fields
    ]
    given = checks.input_fields(facts.request.input) if needed else ()
    missing = [field for field in needed if field not in given]
    if not missing:
        return ""
    return f"the input of {facts.name.name!r} lacks {', '.join(dict.fromkeys(missing))}"


def _cron_fits(cron: str, patterns: list[str]) -> str:
    if not cron:
        return ""
    # A star is a word of cron's own language: here only two of them are a pattern.
    text = " ".join(_plain(cron).split()).replace("*", "\0")
    for pattern in map(_plain, patterns):
        words = pattern.replace("**", "\1").replace("*", "\0").replace("\1", "*")
        if glob(text, " ".join(words.split())):
            return ""
    return f"{cron!r} is not among the cron texts allowed"


def _plain(cron: str) -> str:
    return ALIASES.get(cron.strip().lower(), cron)


def _at_most(asked: float, most: int, what: str) -> str:
    if asked and asked <= most:
        return ""
    count = f"{asked:,.2f}".removesuffix(".00") if asked else "no end of"
    return f"it asks for {count} {what}, and {most:,} is the most"
