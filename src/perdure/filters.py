"""Filters of lists and counts, as users write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure import errors
from perdure.store.port import Filter
from perdure.timetable import read_time
from perdure.values.labels import check_tags
from perdure.values.principals import Principal
from perdure.values.states import Status
from perdure.workflow import check_search


def read_filter(given: Mapping[str, Any], namespace: str) -> Filter:
    """Read the filters of ``Client.list``; ``namespace`` if they name none.

    Raises:
        Invalid: an unknown filter, or a value that fits none.
    """
    allowed = set(Filter.__struct_fields__)
    if unknown := set(given) - allowed:
        raise errors.Invalid(f"list: unknown filter {', '.join(sorted(unknown))}")
    values = {key: value for key, value in given.items() if value is not None}
    if "search" in values:
        values["search"] = check_search(values["search"])
    status: str | Sequence[str] = values.get("status", ())
    several = [status] if isinstance(status, str) else status
    try:
        values["status"] = tuple(Status(one) for one in several)
    except ValueError as exc:
        names = ", ".join(Status)
        raise errors.Invalid(f"status: {exc}; use {names}") from exc
    values["workflow"] = getattr(values.get("workflow", ""), "name", values.get("workflow", ""))
    for key in ("started_after", "started_before"):
        if not isinstance(values.get(key, 0), int):
            values[key] = read_time(key, values[key])
    tags = values.get("tags", ())
    values["tags"] = (tags,) if isinstance(tags, str) else check_tags(tags)
    try:
        return msgspec.convert({"namespace": namespace, **values}, Filter)
    except msgspec.ValidationError as exc:
        raise errors.Invalid(f"list: {exc}") from exc


def narrowed(where: Filter, principal: Principal | None) -> Filter | None:
    """Return what of a list a principal sees: its tenant's, if it has one; ``None``: nothing."""
    own = principal.tenant if principal is not None else ""
    if not own:
        return where
    if where.tenant not in ("", own):
        return None
    return msgspec.structs.replace(where, tenant=own)
