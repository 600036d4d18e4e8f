"""Definitions as documents: JSON types that can be written to a file and read again.

What is read are names: of the modules that have the handlers, and of step classes. Reading imports
those modules and makes those steps, and does nothing else; so a file is as trusted as the code it
names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from perdure import errors
from perdure.graph import codecs
from perdure.graph.codecs import UNREAD, Place
from perdure.graph.forms import CLASS, KINDS, Form
from perdure.graph.outline import Edge, Outline
from perdure.graph.steps import STEP_DEFAULT, BaseStep
from perdure.references import reference, resolve
from perdure.values.duration import to_text
from perdure.values.retry import Retry, RetryPolicy

VERSION = 1
"""Of the format; it stands under ``perdure``."""
_HEAD: dict[str, codecs.Codec] = {
    "name": codecs.TEXT,
    "version": codecs.TEXT,
    "description": codecs.TEXT,
    "input": codecs.KIND,
    "timeout": codecs.DURATION,
    "isolated": codecs.JSON,
    "default_retry": codecs.RETRY,
    "task_queue": codecs.TEXT,
    "triggers": codecs.NAMES,
}
_GRAPH = ("start_at", "steps")
_WAYS = ("next", "end")
_CLASS = ("class", "with")
_FORM_OF_CLASSES = Form(CLASS)


def write(definition: Any) -> dict[str, Any]:
    """Return a definition as JSON types.

    Raises:
        DefinitionError: something in it has no name to write; the message has all such places.
    """
    place = Place(_Graphs())
    head = {
        "name": definition.name,
        "version": definition.version,
        "description": definition.description,
        "input": definition.kind.given,
        "timeout": to_text(definition.timeout) if definition.timeout else None,
        "isolated": definition.isolated,
        "default_retry": _differences(definition.default_retry),
        "task_queue": definition.task_queue,
        "triggers": definition.triggers,
    }
    data: dict[str, Any] = {"perdure": VERSION}
    for key, value in head.items():
        if value not in (None, "", ()) and not (key == "task_queue" and value == "default"):
            data[key] = _HEAD[key].write(value, place.at(key))
    data.update(place.graphs.write_graph(definition.outline, place))
    if place.mistakes:
        raise _refused(f"workflow {definition.name!r} cannot be written to a file", place)
    return data


def place_in(lines: Mapping[tuple[str | int, ...], int], source: str) -> Place:
    """Return the place of a whole definition, in a text."""
    return Place(_Graphs(), lines=lines, source=source)


def read(data: Any, place: Place) -> tuple[dict[str, Any], Outline]:
    """Return a definition's options and its graph.

    Raises:
        DefinitionError: the message has every mistake, with its place.
    """
    if not isinstance(data, Mapping):
        raise errors.DefinitionError(f"{place or 'definition'}: this is no definition: no object")
    given = dict(cast("Mapping[str, Any]", data))
    version = given.pop("perdure", None)
    if version is True or version != VERSION:
        what = "is missing" if version is None else f"is {version!r}"
        raise errors.DefinitionError(
            f"{place.at('perdure')}: the version of the format {what}; write `perdure: {VERSION}`"
        )
    head = {key: _HEAD[key].read(given.pop(key), place.at(key)) for key in _HEAD if key in given}
    if not head.get("name"):
        place.wrong("'name' is missing")
    for key in [key for key in given if key not in _GRAPH]:
        codecs.unknown(key, ("perdure", *_HEAD, *_GRAPH), place)
        del given[key]
    outline = place.graphs.read_graph(str(head.get("name", "")), given, place)
    if place.mistakes:
        raise _refused("the definition cannot be read", place)
    retry = head.pop("default_retry", None)
    if retry is not None:
        head["default_retry"] = retry.resolve(STEP_DEFAULT)
    return head, outline


class _Graphs:
    """Graphs and steps; see :class:`perdure.graph.codecs.Graphs`."""

    def write_graph(self, outline: Outline, place: Place) -> dict[str, Any]:
        """Return a graph as JSON types."""
        first = next(iter(outline.steps), "")
        data: dict[str, Any] = {}
        if outline.initial_step != first:
            data["start_at"] = outline.initial_step
        steps: dict[str, Any] = {}
        for name, step in outline.steps.items():
            there = place.at("steps", name)
            steps[name] = {
                **self.write_step(step, there),
                **_ways(outline, name, there),
            }
            if step.name != name:
                there.wrong(f"its own name is {step.name!r}")
        for edge in outline.edges:
            if edge.source not in steps:
                place.wrong(f"{edge!r} leaves a step that is not there")
        return {**data, "steps": steps}

    def read_graph(self, name: str, data: Any, place: Place) -> Outline:
        """Return the outline of a graph."""
        given = codecs.object_of(data)
        for key in given:
            if key not in _GRAPH:
                codecs.unknown(key, _GRAPH, place)
        found = given.get("steps")
        if not isinstance(found, Mapping):
            place.at("steps").wrong("steps are an object: each by its name")
            found = {}
        start = given.get("start_at", "")
        if "start_at" in given:
            start = codecs.TEXT.read(start, place.at("start_at"))
        steps: dict[str, BaseStep] = {}
        edges: list[Edge] = []
        ends: list[str] = []
        for key, one in cast("Mapping[str, Any]", found).items():
            there = place.at("steps", key)
            if not isinstance(one, Mapping):
                there.wrong("a step is an object that has a kind")
                continue
            fields = dict(cast("Mapping[str, Any]", one))
            edges += _read_ways(key, fields, ends, there)
            step = self.read_step(key, fields, there)
            if step is not UNREAD:
                steps[key] = step
        return Outline(name, steps, edges, "" if start is UNREAD else start, ends)

    def write_step(self, step: BaseStep, place: Place) -> dict[str, Any]:
        """Return a step as JSON types."""
        form = vars(type(step)).get("form")
        if isinstance(form, Form) and KINDS.get(form.kind) is type(step):
            return {"kind": form.kind, **form.write(step, place)}
        given = _FORM_OF_CLASSES.write(step, place.at("with"))
        data: dict[str, Any] = {"kind": CLASS}
        try:
            data["class"] = reference(type(step))
        except errors.DefinitionError as exc:
            place.wrong(exc.message)
        return {**data, "with": given} if given else data

    def read_step(self, name: str, data: Any, place: Place) -> Any:
        """Return a step."""
        given = dict(cast("Mapping[str, Any]", data))
        kind = given.pop("kind", None)
        known_mistakes = len(place.mistakes)
        if kind == CLASS:
            return _read_class(name, given, place)
        cls = KINDS.get(kind) if isinstance(kind, str) else None
        if cls is None:
            known = [*KINDS, CLASS]
            if isinstance(kind, str):
                near = codecs.nearest(kind, known)
                return place.at("kind").wrong(f"{kind!r} is no kind of step{near}")
            return place.wrong(f"'kind' is missing{codecs.nearest('', known)}")
        assert isinstance(cls.form, Form)
        arguments = cls.form.read(cls, given, place)
        if len(place.mistakes) > known_mistakes:
            return UNREAD
        return _made(cls, {"name": name, **arguments}, place)


def _ways(outline: Outline, name: str, place: Place) -> dict[str, Any]:
    """Return where a step leads, as it stands in the step."""
    ways: list[Any] = []
    for edge in outline.edges:
        if edge.source != name:
            continue
        if edge.condition is None:
            ways.append(edge.target)
        else:
            there = place.at("next", len(ways), "when")
            ways.append({"to": edge.target, "when": codecs.CONDITION.write(edge.condition, there)})
    data: dict[str, Any] = {}
    if ways:
        data["next"] = ways[0] if len(ways) == 1 and isinstance(ways[0], str) else ways
    if name in outline.terminal_steps:
        data["end"] = True
    return data


def _read_ways(name: str, fields: dict[str, Any], ends: list[str], place: Place) -> list[Edge]:
    """Take where a step leads out of its fields."""
    end = fields.pop("end", False)
    if not isinstance(end, bool):
        place.at("end").wrong(f"{end!r} is neither true nor false")
    elif end:
        ends.append(name)
    given = fields.pop("next", [])
    ways = cast("list[Any]", given if isinstance(given, list) else [given])
    edges: list[Edge] = []
    for number, way in enumerate(ways):
        there = place.at("next", number) if isinstance(given, list) else place.at("next")
        if isinstance(way, str):
            edges.append(Edge(name, way))
            continue
        one = codecs.object_of(way)
        for key in one:
            if key not in ("to", "when"):
                codecs.unknown(key, ("to", "when"), there)
        target, when = one.get("to"), one.get("when")
        if not isinstance(target, str) or not isinstance(when, (str, type(None))):
            there.wrong("where to go on is the name of a step, or {to: step, when: condition}")
        else:
            edges.append(Edge(name, target, when))
    return edges


def _read_class(name: str, given: dict[str, Any], place: Place) -> Any:
    for key in given:
        if key not in _CLASS:
            codecs.unknown(key, (*_CLASS, *_WAYS), place)
    text = given.get("class")
    if not isinstance(text, str):
        return place.wrong("'class' is missing: 'module:Class'")
    try:
        cls = resolve(text)
    except errors.DefinitionError as exc:
        return place.at("class").wrong(exc.message)
    # Before it is called: a file makes steps, and nothing else.
    if not (inspect.isclass(cls) and issubclass(cls, BaseStep)):
        return place.at("class").wrong(f"{text!r} is no class of steps")
    fields = given.get("with", {})
    there = place.at("with")
    if not isinstance(fields, Mapping):
        return there.wrong("the arguments of a step class are an object")
    known_mistakes = len(place.mistakes)
    arguments = _FORM_OF_CLASSES.read(cls, cast("Mapping[str, Any]", fields), there)
    if len(place.mistakes) > known_mistakes:
        return UNREAD
    if getattr(cls, "name", "") != name and _takes_name(cls):
        arguments = {"name": name, **arguments}
    made = _made(cls, arguments, place)
    if made is not UNREAD and made.name != name:
        return place.wrong(
            f"{cls.__name__} names itself {made.name!r}; the step's key must be that"
        )
    return made


def _takes_name(cls: type[BaseStep]) -> bool:
    parameters = inspect.signature(cls.__init__).parameters.values()
    return any(it.name == "name" or it.kind is it.VAR_KEYWORD for it in parameters)


def _made(cls: type[BaseStep], arguments: dict[str, Any], place: Place) -> Any:
    """Make a step; say what its constructor says."""
    rest: list[Any] = []
    for parameter in inspect.signature(cls.__init__).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = arguments.pop(parameter.name, [])
    try:
        return cls(*rest, **arguments)
    except errors.PerdureError as exc:
        return place.wrong(exc.message)
    except Exception as exc:  # noqa: BLE001 - a constructor of the user's may raise anything
        return place.wrong(f"{cls.__name__} cannot be made: {type(exc).__name__}: {exc}")


def _differences(policy: RetryPolicy) -> Retry | None:
    """Return what of a policy is not the default of steps."""
    found = {
        name: getattr(policy, name)
        for name in codecs.OF_RETRY
        if getattr(policy, name) != getattr(STEP_DEFAULT, name)
    }
    for name in ("interval", "max_interval"):
        if name in found:
            found[name] = to_text(found[name])
    return Retry(**found) if found else None


def _refused(what: str, place: Place) -> errors.DefinitionError:
    listed = "".join(f"\n  - {mistake}" for mistake in place.mistakes)
    return errors.DefinitionError(f"{what}:{listed}")
