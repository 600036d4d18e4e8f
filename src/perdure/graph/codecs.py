"""How values are written to definition files, and read from them.

Mistakes are gathered with their places, so that a reader of a file hears of all at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol, cast

from perdure import errors
from perdure.human.asking import NEVER
from perdure.references import named, reference, resolve
from perdure.values.duration import microseconds, to_text
from perdure.values.retry import Retry

UNREAD: Any = object()
"""What a value is that could not be read; the mistake is told."""


class Graphs(Protocol):
    """Writes and reads what is inside a step."""

    def write_graph(self, outline: Any, place: Place) -> Any:
        """Return a graph as JSON types."""
        ...

    def read_graph(self, name: str, data: Any, place: Place) -> Any:
        """Return the outline of a graph."""
        ...

    def write_step(self, step: Any, place: Place) -> Any:
        """Return a step as JSON types."""
        ...

    def read_step(self, name: str, data: Any, place: Place) -> Any:
        """Return a step."""
        ...


class Place:
    """Where in a definition something stands; takes the mistakes that are found there.

    ``lines``: the lines of a text, by path. ``source``: its file.
    """

    def __init__(
        self,
        graphs: Graphs,
        *,
        lines: Mapping[tuple[str | int, ...], int] | None = None,
        source: str = "",
    ) -> None:
        self.graphs = graphs
        self.mistakes: list[str] = []
        self._lines = lines or {}
        self._source = source
        self._path: tuple[str | int, ...] = ()

    def at(self, *path: str | int) -> Place:
        """Return a place within this one."""
        other = Place(self.graphs, lines=self._lines, source=self._source)
        other.mistakes, other._path = self.mistakes, (*self._path, *path)
        return other

    def wrong(self, text: str) -> Any:
        """Note a mistake."""
        self.mistakes.append(f"{self}: {text}" if str(self) else text)
        return UNREAD

    def __str__(self) -> str:
        path = "".join(f"[{it}]" if isinstance(it, int) else f".{it}" for it in self._path)[1:]
        line = self._lines.get(self._path)
        where = self._source
        if line is not None:
            where = f"{where}, line {line}" if where else f"line {line}"
        return ": ".join(filter(None, (where, path)))


class Codec(NamedTuple):
    """How a value is written and read. Both get its place, and note there what is wrong."""

    write: Callable[[Any, Place], Any]
    read: Callable[[Any, Place], Any]


def unknown(name: str, known: Iterable[str], place: Place) -> None:
    """Note a key that nothing has."""
    place.at(name).wrong(f"unknown key{nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the nearest of the known names, or all of them."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(sorted(names))})"


def _write_json(value: Any, place: Place) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, float):
        is_finite = value - value == 0
        return value if is_finite else place.wrong(f"{value} is no JSON number")
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        if not all(isinstance(key, str) for key, _ in items):
            return place.wrong("the keys of a JSON object are text")
        return {key: _write_json(inner, place.at(key)) for key, inner in items}
    if isinstance(value, (list, tuple)):
        items = enumerate(cast("Sequence[Any]", value))
        return [_write_json(inner, place.at(number)) for number, inner in items]
    return place.wrong(f"{_described(value)} is no JSON value")


def _write_text(value: Any, place: Place) -> Any:
    return value if isinstance(value, str) else place.wrong(f"{_described(value)} is no text")


def _read_text(value: Any, place: Place) -> Any:
    if isinstance(value, (bool, int, float)):
        return place.wrong(f"{value!r} is no text; write it in quotes")
    return _write_text(value, place)


def _write_function(value: Any, place: Place) -> Any:
    try:
        return reference(value)
    except errors.DefinitionError as exc:
        return place.wrong(exc.message)


def _read_function(value: Any, place: Place) -> Any:
    found = _resolved(value, place)
    if found is not UNREAD and not callable(found):
        return place.wrong(f"{value!r} is {_described(found)}, no function")
    return found


def _read_class(value: Any, place: Place) -> Any:
    found = _resolved(value, place)
    if found is not UNREAD and not isinstance(found, type):
        return place.wrong(f"{value!r} is {_described(found)}, no class")
    return cast("Any", found)


def _resolved(value: Any, place: Place) -> Any:
    if not isinstance(value, str):
        return place.wrong(f"{_described(value)} is no name; write 'module:name'")
    try:
        return resolve(value)
    except errors.DefinitionError as exc:
        return place.wrong(exc.message)


def _write_kind(value: Any, place: Place) -> Any:
    return (
        _write_json(value, place) if isinstance(value, Mapping) else _write_function(value, place)
    )


def _read_kind(value: Any, place: Place) -> Any:
    return _write_json(value, place) if isinstance(value, Mapping) else _read_class(value, place)


def _read_input(value: Any, place: Place) -> Any:
    return _write_json(value, place) if isinstance(value, Mapping) else _read_function(value, place)


def _write_duration(value: Any, place: Place) -> Any:
    return (
        to_text(microseconds(value))
        if isinstance(value, timedelta)
        else _read_duration(value, place)
    )


def _read_duration(value: Any, place: Place) -> Any:
    try:
        microseconds(value)
    except errors.Invalid as exc:
        return place.wrong(exc.message)
    return value


def _write_end(value: Any, place: Place) -> Any:
    return value if value == NEVER else _write_duration(value, place)


def _read_end(value: Any, place: Place) -> Any:
    return value if value == NEVER else _read_duration(value, place)


def _write_condition(value: Any, place: Place) -> Any:
    if isinstance(value, str):
        return value
    return place.wrong(
        f"{_described(value)} cannot be written; write the condition as CEL, "
        'like "context.steps.check.total > 100"'
    )


OF_RETRY = ("max_attempts", "interval", "backoff", "max_interval", "retry_on", "non_retryable")
"""What a retry policy has."""


def _write_retry(value: Any, place: Place) -> Any:
    if not isinstance(value, Retry):
        return place.wrong(f"{_described(value)} is no Retry(…)")
    written: dict[str, Any] = {}
    for name, it in value.given.items():
        is_span = name in ("interval", "max_interval")
        written[name] = to_text(it) if is_span else _write_json(it, place.at(name))
    return written


def _read_retry(value: Any, place: Place) -> Any:
    if not isinstance(value, Mapping):
        return place.wrong(f"{_described(value)} is no retry policy; it has {', '.join(OF_RETRY)}")
    given = cast("Mapping[str, Any]", value)
    strange = [name for name in given if name not in OF_RETRY]
    for name in strange:
        unknown(name, OF_RETRY, place)
    try:
        return UNREAD if strange else Retry(**given)
    except (errors.Invalid, TypeError) as exc:
        return place.wrong(str(exc))


def _write_choices(value: Any, place: Place) -> Any:
    written: list[Any] = []
    for number, (condition, target) in enumerate(value):
        when = _write_condition(condition, place.at(number, "when"))
        written.append({"when": when, "next": target})
    return written


def _read_choices(value: Any, place: Place) -> Any:
    if not isinstance(value, list):
        return place.wrong("choices are a list of {when: condition, next: step}")
    return [_read_choice(it, place.at(n)) for n, it in enumerate(cast("list[Any]", value))]


def _read_choice(value: Any, place: Place) -> Any:
    if not isinstance(value, Mapping):
        return place.wrong("a choice is {when: condition, next: step}")
    given = cast("Mapping[str, Any]", value)
    for name in given:
        if name not in ("when", "next"):
            unknown(name, ("when", "next"), place)
    when, target = given.get("when"), given.get("next")
    if not isinstance(when, str) or not isinstance(target, str):
        return place.wrong("a choice is {when: condition, next: step}, both of them text")
    return when, target


def _write_workflow(value: Any, place: Place) -> Any:
    return _write_text(getattr(value, "name", value), place)


def _write_names(value: Any, place: Place) -> Any:
    return [getattr(it, "name", "") or it.__name__ if isinstance(it, type) else it for it in value]


def _read_names(value: Any, place: Place) -> Any:
    if not isinstance(value, list):
        return place.wrong("a list of names is needed")
    return [_read_text(it, place.at(number)) for number, it in enumerate(cast("list[Any]", value))]


def _write_graph(value: Any, place: Place) -> Any:
    return {"name": value.name, **place.graphs.write_graph(value, place)}


def _read_graph(value: Any, place: Place) -> Any:
    if not isinstance(value, Mapping):
        return place.wrong("a branch has a name and steps")
    given = dict(cast("Mapping[str, Any]", value))
    name = _read_text(given.pop("name", ""), place.at("name"))
    return place.graphs.read_graph(name, given, place)


def _write_graphs(value: Any, place: Place) -> Any:
    written: dict[str, Any] = {}
    for outline in value:
        if outline.name in written:
            place.wrong(f"two branches are named {outline.name!r}")
        written[outline.name] = place.graphs.write_graph(outline, place.at(outline.name))
    return written


def _read_graphs(value: Any, place: Place) -> Any:
    if not isinstance(value, Mapping):
        return place.wrong("branches are an object: each by its name")
    graphs = cast("Mapping[str, Any]", value).items()
    return [place.graphs.read_graph(name, it, place.at(name)) for name, it in graphs]


def _write_step(value: Any, place: Place) -> Any:
    return {"name": value.name, **place.graphs.write_step(value, place)}


def _read_step(value: Any, place: Place) -> Any:
    if not isinstance(value, Mapping) or "name" not in value:
        return place.wrong("a step within another has a name and a kind")
    given = dict(cast("Mapping[str, Any]", value))
    return place.graphs.read_step(_read_text(given.pop("name"), place.at("name")), given, place)


def _write_steps(value: Any, place: Place) -> Any:
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _write_step(step, place.at(key)) for key, step in items}
    return [_write_step(step, place.at(number)) for number, step in enumerate(value)]


def _read_steps(value: Any, place: Place) -> Any:
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _read_step(step, place.at(key)) for key, step in items}
    if not isinstance(value, list):
        return place.wrong("steps are needed: a list, or an object")
    return [_read_step(it, place.at(number)) for number, it in enumerate(cast("list[Any]", value))]


def object_of(value: Any) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _or_function(codec: Codec) -> Codec:
    """Return how a value is written that may also be a function: as ``module:function``."""

    def write(value: Any, place: Place) -> Any:
        if named(value):
            return place.wrong(f"{value!r} would be read as the name of a function")
        return (_write_function if callable(value) else codec.write)(value, place)

    def read(value: Any, place: Place) -> Any:
        return (_read_function if named(value) else codec.read)(value, place)

    return Codec(write, read)


def _described(value: object) -> str:
    if inspect.isfunction(value):
        return f"the function {value.__qualname__!r}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


JSON = Codec(_write_json, _write_json)
TEXT = Codec(_write_text, _read_text)
FUNCTION = Codec(_write_function, _read_function)
KIND = Codec(_write_kind, _read_kind)
"""A class, or a JSON Schema."""
INPUT = Codec(_write_kind, _read_input)
"""A class, a JSON Schema, or a mapper."""
DURATION = Codec(_write_duration, _read_duration)
DURATION_OR_FUNCTION = _or_function(DURATION)
END_OR_FUNCTION = _or_function(Codec(_write_end, _read_end))
"""A duration, or "never"."""
JSON_OR_FUNCTION = _or_function(JSON)
CONDITION = Codec(_write_condition, _read_text)
CONDITION_OR_FUNCTION = _or_function(CONDITION)
CHOICES = Codec(_write_choices, _read_choices)
RETRY = Codec(_write_retry, _read_retry)
WORKFLOW = Codec(_write_workflow, _read_text)
NAMES = Codec(_write_names, _read_names)
"""Names of steps."""
GRAPH = Codec(_write_graph, _read_graph)
GRAPHS = Codec(_write_graphs, _read_graphs)
STEP = Codec(_write_step, _read_step)
STEPS = Codec(_write_steps, _read_steps)
