"""Policies in force: loaded, asked, changed while they are asked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from perdure.errors import Invalid, UsageError
from perdure.policy import checks
from perdure.policy.counted import counted_by
from perdure.policy.globs import glob
from perdure.policy.kinds import Given, check_key, fingerprint, read_values
from perdure.policy.reading import read_file, read_value
from perdure.policy.rules import LISTING, OF_ALL, OF_ONE, Compiled, Facts, Rule, S, W
from perdure.policy.verdict import (
    DENIED,
    ERROR,
    OPERATIONS,
    Caution,
    Finding,
    Limits,
    Request,
    Verdict,
)
from perdure.values.meters import Meter, window_rate
from perdure.values.rates import Rate
from perdure.values.sizes import parse_size

_log = logging.getLogger("perdure.policy")
_KNOWN = 10_000
_RATES = {
    "run": W + "run.rateLimit",
    "signal": W + "signal.rateLimit",
    "query": W + "query.rateLimit",
    "trigger": S + "create.rateLimit",
}


class _InForce(NamedTuple):
    """``fast``: the rules of each operation that are no conditions; ``known``: limits of services
    and workflows that were asked for lately.
    """

    values: Mapping[str, tuple[Given, ...]]
    compiled: Compiled
    fast: Mapping[str, tuple[Rule, ...]]
    rates: Mapping[str, tuple[Rate, ...]]
    limits: Limits
    counter: int
    version: str
    known: dict[tuple[str, str, str], Limits]


class Policies:
    """What services may do, as keys of a policy say (docs/policies.md has them all).

    A check sees one policy from its beginning to its end, also if it is changed meanwhile. Nothing
    that a check meets makes it raise: what cannot be judged is denied.

    Args:
        mapping: keys and their values, with dots in the keys or one mapping within another.
        env: what conditions see as ``env``; nothing else of the environment is visible to them.
        max_input_size: of any input; never more than 1 MB.

    Raises:
        Invalid: an unknown key, a wrong type, or a condition that is no CEL.
    """

    def __init__(
        self,
        mapping: Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        max_input_size: int | str = checks.MAX_INPUT,
    ) -> None:
        self._env = _texts(env or {})
        self._input_most = min(parse_size(max_input_size), checks.MAX_INPUT)
        self._path: Path | None = None
        self._changing = threading.Lock()
        self._logged = ""
        self._now = self._made(read_values(read_value(mapping or {})), 1)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        env: Mapping[str, str] | None = None,
        max_input_size: int | str = checks.MAX_INPUT,
    ) -> Policies:
        """Load a file: ``.json``, or YAML (extra ``yaml``).

        Raises:
            Invalid: it cannot be read, or says what a policy cannot; the message has the place.
        """
        policies = cls(env=env, max_input_size=max_input_size)
        policies._path = Path(path)
        policies._now = policies._made(read_values(read_file(policies._path)), 1)
        return policies

    def update(self, mapping: Mapping[str, Any]) -> str:
        """Replace the values of these keys, all at once; ``None`` takes a key away. Return the
        version.

        Raises:
            Invalid: see the class; the policy in force stays.
        """
        if not isinstance(cast("object", mapping), Mapping):
            raise Invalid(f"update: {mapping!r} is no mapping of keys")
        gone = [key for key, value in mapping.items() if value is None]
        fresh = read_values(read_value({k: v for k, v in mapping.items() if v is not None}))
        for key in gone:
            check_key(key)
        with self._changing:
            kept = {k: v for k, v in self._now.values.items() if k not in gone}
            self._now = self._made({**kept, **fresh}, self._now.counter + 1)
        self.log_warnings()
        return self._now.version

    def reload(self) -> str:
        """Read the file again, and let what it says be in force at once. Return the version.

        Raises:
            Invalid: it says what a policy cannot; the one in force stays.
            UsageError: they were not loaded from a file.
        """
        if self._path is None:
            raise UsageError("reload: these policies were not loaded from a file; use update()")
        with self._changing:
            fresh = read_values(read_file(self._path))
            self._now = self._made(fresh, self._now.counter + 1)
        self.log_warnings()
        return self._now.version

    @property
    def version(self) -> str:
        """The hash of what is in force, and how often it was changed here: ``"9f2c…-3"``."""
        return self._now.version

    @property
    def warnings(self) -> Sequence[Caution]:
        """What is allowed in a policy and hardly meant."""
        return tuple(self._now.compiled.warnings)

    def log_warnings(self) -> None:
        """Log the warnings, once for a version: a door does that which asks these policies."""
        now = self._now
        if self._logged != now.version:
            self._logged = now.version
            for caution in now.compiled.warnings:
                _log.warning("%s", caution)

    def check(self, operation: str, request: Request) -> Verdict:
        """Judge an operation: the first rule that refuses it decides.

        Rates and places are not judged here: they are in ``limits``, for who has the database.
        """
        now, key = self._now, "request"
        try:
            asked = _asked_as(operation, request)
            rules = now.compiled.of.get(asked)
            if rules is None:
                return _unknown(operation, now)
            facts = Facts(now.compiled, operation, request)
        except Exception as exc:  # noqa: BLE001 - as below
            return Verdict(False, ERROR, _said(exc), key, now.version, now.limits)
        key = "limits"
        try:
            for rule in now.fast[asked]:
                key = rule.key
                if reason := rule.test(facts):
                    return Verdict(False, rule.code, reason, key, now.version, now.limits)
            together = now.compiled.together[asked]
            if together is not None:
                key = "conditions"
                if not together.hold(facts.activation):
                    return _first_refusal(rules, facts, now)
            return Verdict(True, version=now.version, limits=_limits(now, facts))
        except Exception as exc:  # noqa: BLE001 - whatever cannot be judged is denied
            if key == "conditions":
                return _first_refusal(rules, facts, now)
            return Verdict(False, ERROR, _said(exc), key, now.version, now.limits)

    def explain(self, operation: str, request: Request) -> list[Finding]:
        """Return what every rule says, in the order in which they are asked; behind them what is
        counted when it is done, of which no request tells whether it refuses.
        """
        now = self._now
        try:
            rules = now.compiled.of.get(_asked_as(operation, request))
            if rules is None:
                told = _unknown(operation, now)
                return [Finding(told.rule, False, "", told.code, told.reason)]
            facts = Facts(now.compiled, operation, request)
        except Exception as exc:  # noqa: BLE001 - as in a check
            return [Finding("request", False, "", ERROR, _said(exc))]
        found: list[Finding] = []
        for rule in rules:
            code, reason = _asked(rule, facts) or ("", "")
            found.append(Finding(rule.key, not code, rule.value, code, reason))
        return found + counted_by(_known_limits(now, facts))

    def _made(self, values: Mapping[str, tuple[Given, ...]], counter: int) -> _InForce:
        compiled = Compiled(values, self._env, self._input_most)
        rates = {
            operation: tuple(window_rate(one.value) for one in values.get(key, ()))
            for operation, key in _RATES.items()
        }
        actions = values.get(W + "timeoutAction", ())
        limits = Limits(
            max_duration=compiled.least(W + "maxDurationMinutes") * 60,
            step_timeout=compiled.least(W + "defaultTimeoutMs") / 1_000,
            timeout_action=actions[0].value if actions else "",
            audit=compiled.audit,
        )
        fast = {
            operation: tuple(rule for rule in rules if not rule.key.endswith(".condition"))
            for operation, rules in compiled.of.items()
        }
        version = f"{fingerprint(values)}-{counter}"
        return _InForce(values, compiled, fast, rates, limits, counter, version, {})


def _known_limits(now: _InForce, facts: Facts) -> Limits:
    """Return what bounds an operation of this service with this workflow, whatever is asked."""
    operation, service, name = facts.operation, facts.request.service, facts.name.name
    place = operation, service, name
    found = now.known.get(place)
    if found is None:
        found = msgspec.structs.replace(
            now.limits,
            meters=_meters(operation, service, now),
            later=_meters("run", service, now) if operation == "trigger" else (),
            places=_places(now, service, name) if operation in ("run", "trigger") else (),
            alerts=name in now.compiled.alerts,
        )
        if len(now.known) >= _KNOWN:
            now.known.clear()
        now.known[place] = found
    return found


def _limits(now: _InForce, facts: Facts) -> Limits:
    """Return what an allowed operation is bound by."""
    found, operation = _known_limits(now, facts), facts.operation
    request, compiled = facts.request, now.compiled
    if operation == "list":
        return msgspec.structs.replace(
            found, by_row=_asked_as(operation, request) in compiled.by_row
        )
    if operation != "query":
        return found
    return msgspec.structs.replace(
        found,
        max_results=checks.clamp_limit(request.limit, compiled.max_results),
        statuses=tuple(request.statuses) or compiled.statuses,
        by_row=_asked_as(operation, request) in compiled.by_row,
    )


def _meters(operation: str, service: str, now: _InForce) -> tuple[Meter, ...]:
    # By the rate, too: what was paid by a slower one says nothing of one that has taken its place.
    rates = {(rate.interval, rate.burst): rate for rate in now.rates.get(operation, ())}
    return tuple(
        Meter(f"{operation}:{service}:{interval}:{burst}", rate)
        for (interval, burst), rate in rates.items()
    )


def _asked_as(operation: str, request: Request) -> str:
    """Return under which name an operation has its rules."""
    if operation == "query" and not request.instance_id:
        return OF_ONE if request.workflow_id or request.name else OF_ALL
    if operation == "list" and not (request.workflow_id or request.name):
        return LISTING
    return operation


def _places(now: _InForce, service: str, name: str) -> tuple[tuple[str, int], ...]:
    places: list[tuple[str, int]] = []
    if W + "maxConcurrentInstances" in now.values:
        places.append((f"service:{service}", now.compiled.least(W + "maxConcurrentInstances")))
    found: list[int] = []
    for given in now.values.get(W + "maxInstancesPerWorkflow", ()):
        counts: dict[str, int] = given.value
        if name in counts:
            found.append(counts[name])
        else:
            found += [most for pattern, most in counts.items() if glob(name, pattern)]
    if found:
        places.append((f"workflow:{name}", min(found)))
    return tuple(places)


def _first_refusal(rules: Sequence[Rule], facts: Facts, now: _InForce) -> Verdict:
    """Return the verdict of the first rule that refuses, one by one."""
    for rule in rules:
        refusal = _asked(rule, facts)
        if refusal is not None:
            return Verdict(False, *refusal, rule.key, now.version, now.limits)
    said = "the conditions hold one by one, and not together"
    return Verdict(False, ERROR, said, "conditions", now.version, now.limits)


def _asked(rule: Rule, facts: Facts) -> tuple[str, str] | None:
    """Return code and reason of a refusal; ``None``: the rule has nothing against it."""
    try:
        reason = rule.test(facts)
    except Exception as exc:  # noqa: BLE001 - whatever cannot be judged is denied
        return ERROR, _said(exc)
    return (rule.code, reason) if reason else None


def _said(exc: Exception) -> str:
    return exc.message if isinstance(exc, Invalid) else f"{type(exc).__name__}: {exc}"


def _unknown(operation: str, now: _InForce) -> Verdict:
    reason = f"there is no operation {operation!r}; it is one of {', '.join(OPERATIONS)}"
    return Verdict(False, DENIED, reason, "operation", now.version, now.limits)


def _texts(env: Mapping[str, Any]) -> dict[str, str]:
    for name, value in env.items():
        if not isinstance(value, str):
            raise Invalid(f"env: {name} is {value!r}, and what conditions see is text")
    return dict(env)
