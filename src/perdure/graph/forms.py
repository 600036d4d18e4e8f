"""How steps are written to and read from definition files.

Each kind of step declares its *form*: the word for it, and for each argument of its constructor
that is no plain JSON value, how that is written. What stands in a file are the arguments that the
step was made with. A new kind joins by one declaration::

    form = Form("poll", check=FUNCTION, interval=DURATION, input=INPUT)
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.graph.codecs import DURATION, JSON, RETRY, TEXT, UNREAD, Codec, Place, unknown

KINDS: dict[str, type[Any]] = {}
"""The kinds of steps that have a form, by their words in files."""
CLASS = "step"
"""The word for a step class of the user's: ``class`` names it, ``with`` has its arguments."""


class Form:
    """How a kind of step is written.

    Args:
        kind: its word in files.
        **fields: how arguments are written; under another name: ``(argument, how)``.
    """

    def __init__(self, kind: str, **fields: Codec | tuple[str, Codec]) -> None:
        self.kind = kind
        self._codecs: dict[str, Codec] = dict(_OF_ALL)
        self._names: dict[str, str] = {}
        for name, field in fields.items():
            argument, codec = (name, field) if isinstance(field, Codec) else field
            self._names[argument] = name
            self._codecs[argument] = codec

    def write(self, step: Any, place: Place) -> dict[str, Any]:
        """Return the arguments that a step was made with, but for its name."""
        cls: type[Any] = step.__class__
        defaults = _defaults(cls)
        data: dict[str, Any] = {}
        for argument, value in step.given.items():
            default = defaults.get(argument, getattr(cls, argument, UNREAD))
            if argument == "name" or value is default or _equal(value, default):
                continue
            name = self._name(argument)
            data[name] = self._codecs.get(argument, JSON).write(value, place.at(name))
        return data

    def read(self, cls: type[Any], data: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Return the arguments for the constructor."""
        known = {self._name(argument): argument for argument in _arguments(cls)}
        found: dict[str, Any] = {}
        for name, value in data.items():
            argument = known.get(name)
            if argument is None:
                unknown(name, known, place)
            else:
                found[argument] = self._codecs.get(argument, JSON).read(value, place.at(name))
        for name, argument in known.items():
            if argument not in found and _is_needed(cls, argument):
                place.wrong(f"{name!r} is missing")
                found[argument] = UNREAD
        return found

    def _name(self, argument: str) -> str:
        """Return what an argument is called in files."""
        return self._names.get(argument, argument)


def given_to(step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what a step's constructor was given, by the names of its arguments."""
    signature = inspect.signature(type(step).__init__)
    try:
        bound = signature.bind(step, *args, **kwargs).arguments
    except TypeError:
        return {}  # the constructor will say so
    found: dict[str, Any] = {}
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.name in bound:
            value = bound[parameter.name]
            found.update(
                value if parameter.kind is parameter.VAR_KEYWORD else {parameter.name: value}
            )
    return found


def settings_of(step: Any) -> str:
    """Return what a step was made with and what its class says, as a text that is the same in each
    process; functions and objects are in it by their names.
    """
    cls: type[Any] = step.__class__
    names = {it for base in cls.__mro__ for it in vars(base) if _is_attribute(cls, it)}
    said = {name: getattr(step, name) for name in sorted(names)} | step.given
    return f"{step.name} {[(name, _text(value)) for name, value in sorted(said.items())]}"


def _text(value: Any) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=_called, order="deterministic").decode()
    except (TypeError, ValueError, RecursionError):  # no JSON has its keys, or it holds itself
        return _called(value)


def _called(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__)


def _arguments(cls: type[Any]) -> list[str]:
    """Return what a constructor takes: its parameters, and attributes of the class."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    names = [it.name for it in parameters if it.kind is not it.VAR_KEYWORD]
    if any(it.kind is it.VAR_KEYWORD for it in parameters):
        names += [it for base in cls.__mro__ for it in vars(base) if _is_attribute(cls, it)]
    return list(dict.fromkeys(name for name in names if name != "name"))


def _is_attribute(cls: type[Any], name: str) -> bool:
    value = inspect.getattr_static(cls, name)
    is_own = name.startswith("_") or name in ("form", "given", "step_type", "heeds", "name")
    return not is_own and not callable(value) and not isinstance(value, _DESCRIPTORS)


def _defaults(cls: type[Any]) -> dict[str, Any]:
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {it.name: it.default for it in parameters if it.default is not it.empty}


def _is_needed(cls: type[Any], argument: str) -> bool:
    parameter = inspect.signature(cls.__init__).parameters.get(argument)
    if parameter is None:
        return False
    is_plain = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return is_plain and parameter.default is parameter.empty


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


_DESCRIPTORS = (property, classmethod, staticmethod)
_OF_ALL = {"description": TEXT, "retry": RETRY, "timeout": DURATION}
"""How what all kinds of steps have is written."""
