"""The limits of an engine: which one holds for each of its workflows.

They are registered in the database when the engine joins, and judged there (``store/port.py``), so
they bind every process that starts these workflows. Where engines differ, the one that joined last
decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from perdure import errors
from perdure.values.concurrency import NO_LIMIT, ON_LIMIT, REJECT, Limit
from perdure.values.options import one_of
from perdure.values.rates import parse_rate

SYSTEM = "perdure."
"""The names of Perdure's own workflows begin so."""


class Limits:
    """What an engine was told about limits; 0 is none.

    Of the limits on a workflow the one given to ``register`` wins, then the one by name, then the
    default.
    """

    def __init__(
        self, default: int = 0, by_name: Mapping[str, int] | None = None, total: int = 0
    ) -> None:
        self._default = _number("concurrent_workflows", default)
        self._by_name = {
            name: _number(f"concurrent_workflows_by_name: {name}", count)
            for name, count in (by_name or {}).items()
        }
        self._total = _number("concurrent_total", total)
        self._registered: dict[str, tuple[int | None, Limit]] = {}

    def register(
        self,
        name: str,
        max_concurrent: int | None,
        per_key: int | None,
        on_limit: str | None,
        *,
        rate: str | None = None,
        rate_per_key: str | None = None,
    ) -> None:
        """Keep what was said about one workflow.

        Raises:
            Invalid: a number or a rate that is none, or an unknown way.
        """
        if max_concurrent is not None:
            _number("max_concurrent", max_concurrent)
        of_key = _number("max_concurrent_per_key", 0 if per_key is None else per_key)
        way = REJECT if on_limit is None else one_of("on_limit", on_limit, ON_LIMIT)
        said = Limit(max_per_key=of_key, on_limit=way)
        said = msgspec.structs.replace(
            said, rate=_rate("rate", rate), rate_per_key=_rate("rate_per_key", rate_per_key)
        )
        self._registered[name] = max_concurrent, said

    def check(self, names: Iterable[str]) -> None:
        """Refuse limits of workflows that this engine does not define.

        Raises:
            UsageError: with the names there are.
        """
        names = set(names)
        if unknown := sorted(set(self._by_name) - names):
            raise errors.UsageError(
                f"concurrent_workflows_by_name: {', '.join(map(repr, unknown))} is not among this "
                f"engine's workflows ({', '.join(sorted(names)) or 'it has none'})"
            )

    def of(self, name: str, names: Iterable[str]) -> Limit:
        """Return what holds for workflow ``name``; ``names``: all workflows of the engine.

        Nothing limits Perdure's own.
        """
        if name.startswith(SYSTEM):
            return NO_LIMIT
        most, said = self._registered.get(name, (None, NO_LIMIT))
        if most is None:
            most = self._by_name.get(name, self._default)
        limit = msgspec.structs.replace(said, max_open=most)
        if self._total:
            pool = ",".join(sorted(one for one in names if not one.startswith(SYSTEM)))
            limit = msgspec.structs.replace(limit, pool=pool, pool_max=self._total)
        return limit if limit.limits else NO_LIMIT


def _rate(what: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise errors.Invalid(f"{what}: {value!r} is no text such as '100/minute'")
    return parse_rate(value, what=what).text


def _number(what: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise errors.Invalid(f"{what}: {value!r} is no number of executions; 0 is no limit")
    return value
