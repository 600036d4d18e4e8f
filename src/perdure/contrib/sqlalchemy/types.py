"""How the models read Perdure's columns: microseconds as times, codes as words, rows as stories."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast
from uuid import UUID

import msgspec
from sqlalchemy import BigInteger, Boolean, Integer, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from perdure import errors
from perdure.contrib.sqlalchemy.opening import opened_text
from perdure.contrib.sqlalchemy.story import Story
from perdure.graph.states import WorkflowStatus
from perdure.views import from_datetime, to_datetime


class Time(TypeDecorator[datetime]):
    """Microseconds since 1970, as aware UTC datetimes."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else from_datetime(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else to_datetime(value)


class Uuid(TypeDecorator[UUID]):
    """A UUID's text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> str | None:
        return None if value is None else str(UUID(str(value)))

    def process_result_value(self, value: Any | None, dialect: Dialect) -> UUID | None:
        return None if value is None else UUID(value)


class Word(TypeDecorator[WorkflowStatus]):
    """Seed 4's word for a status."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: WorkflowStatus | None, dialect: Dialect) -> str | None:
        return None if value is None else str(WorkflowStatus(value))

    def process_result_value(self, value: Any | None, dialect: Dialect) -> WorkflowStatus | None:
        return None if value is None else WorkflowStatus(value)


class Flag(TypeDecorator[bool]):
    """0 or 1."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> bool | None:
        return None if value is None else bool(value)

    @property
    def python_type(self) -> type[Any]:
        return Boolean().python_type


class Shape(TypeDecorator[dict[str, Any]]):
    """What a graph's definition consists of; of a function there is nothing to say."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str | None:
        raise errors.UsageError("a definition cannot be looked for by its parts")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> dict[str, Any] | None:
        return shape_of(value)


class Json(TypeDecorator[Any]):
    """What a JSON text says."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        raise errors.UsageError("a human task cannot be looked for by its form")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        text = opened_text(value)
        return None if text is None else msgspec.json.decode(text)


class Said(TypeDecorator[str]):
    """A text of a user's."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        raise errors.UsageError("a human task cannot be looked for by its description")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        return opened_text(value)


class Told(TypeDecorator[Story]):
    """The rows of a history, in one text: see :class:`Story`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Story | None, dialect: Dialect) -> str | None:
        raise errors.UsageError("an instance cannot be looked for by its history")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Story:
        return Story(value or "")


def shape_of(source: str | None) -> dict[str, Any]:
    """Return what a definition's source says of a graph; empty for a function's text."""
    try:
        found = msgspec.json.decode(source or "null")
    except msgspec.DecodeError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
