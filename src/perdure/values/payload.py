"""Payloads: Python values to JSON bytes and back by annotation.

Everything that crosses the kernel's edge is bytes, encoded once; the live instance decodes the very
bytes a replay will decode. JSON, because people and other tools read histories; msgspec, because it
decodes straight into dataclasses, Structs, attrs classes, enums, datetimes, UUIDs and Decimals.
Pydantic models are served by duck typing, so that pydantic is never imported here.

JSON has no NaN and no infinity: they are written as ``null``, and a ``float`` will not read that
back. Annotate ``float | None``, or use a Decimal.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
import warnings
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.errors import Invalid

NULL = b"null"


def _encode_hook(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    raise NotImplementedError(f"objects of type {type(value).__qualname__} cannot be encoded")


def _decode_hook(kind: type, value: Any) -> Any:
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    if isinstance(value, kind):
        return value
    raise NotImplementedError(f"values of type {kind.__qualname__} cannot be decoded")


_encode = msgspec.json.Encoder(enc_hook=_encode_hook).encode
_decode_any = msgspec.json.Decoder().decode

_ANY: frozenset[Any] = frozenset({Any, object, inspect.Parameter.empty, None, type(None)})
"""Annotations that check nothing: the value is plain JSON."""

Decode = Callable[[bytes], Any]


def encode(value: Any, *, what: str = "value") -> bytes:
    """Encode ``value`` as JSON bytes.

    Raises:
        Invalid: the value, or something inside it, has no JSON form.
    """
    if value is None:
        return NULL
    try:
        return _encode(value)
    except MemoryError:
        raise
    except Exception as exc:  # a model's own code may raise anything
        raise Invalid(f"{what}: cannot be encoded as JSON: {_reason(exc)}") from exc


def text(value: object, *, what: str, maximum: int | None = None) -> str:
    """Return ``value`` if it is text that a history can hold, of at most ``maximum`` characters.

    Raises:
        Invalid: not text, text with lone surrogates, or too long.
    """
    if not isinstance(value, str):
        raise Invalid(f"{what}: {value!r} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{what}: {value[:80]!r} cannot be encoded as UTF-8") from None
    if maximum is not None and len(value) > maximum:
        raise Invalid(f"{what}: {len(value):,} characters are over the limit of {maximum:,}")
    return value


def decode(data: bytes) -> Any:
    """Decode to plain JSON types."""
    return _decode_any(data)


def limit(data: bytes, maximum: int, *, what: str) -> bytes:
    """Return ``data`` if it has at most ``maximum`` bytes.

    Raises:
        Invalid: larger; the message names the sizes and the setting.
    """
    if len(data) > maximum:
        raise Invalid(
            f"{what}: {len(data):,} bytes are over the limit of {maximum:,}; "
            "store large data elsewhere and pass a reference, or raise max_payload"
        )
    return data


@functools.lru_cache(maxsize=4096)
def _decoder_for(kind: Any) -> Decode:
    try:
        return msgspec.json.Decoder(kind, dec_hook=_decode_hook).decode
    except TypeError:
        # A union msgspec cannot tell apart, or a class it cannot build: plain types are honest.
        return _decode_any


def checks(kind: Any) -> bool:
    """Tell whether a decoder for ``kind`` gives anything but plain JSON."""
    return decoder(kind) is not _decode_any


def decoder(kind: Any, *, what: str = "value") -> Decode:
    """Return a function from JSON bytes to ``kind``.

    The returned function raises:
        Invalid: the data does not fit; the message has the path of the field.
    """
    try:
        if kind in _ANY:
            return _decode_any
        raw = _decoder_for(kind)
    except TypeError:  # unhashable annotation
        return _decode_any

    def read(data: bytes) -> Any:
        try:
            return raw(data)
        except msgspec.DecodeError as exc:
            raise Invalid(f"{what}: {_with_path(str(exc), what)}") from exc
        except (MemoryError, RecursionError):
            raise
        except Exception as exc:  # a model's own code may raise anything
            raise Invalid(f"{what}: {_reason(exc)}") from exc

    return read


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotations of ``fn``; unresolvable ones count as missing."""
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation is an expression, which may raise anything
        # Names under TYPE_CHECKING, local classes: resolve one by one what can be.
        given: dict[str, Any] = getattr(fn, "__annotations__", {})
        resolved = {name: _resolved(fn, hint) for name, hint in given.items()}
        return {
            name: hint for name, hint in resolved.items() if hint is not inspect.Parameter.empty
        }


def _resolved(fn: Callable[..., Any], hint: Any) -> Any:
    alone = types.SimpleNamespace(__annotations__={"it": hint})
    names: dict[str, Any] = getattr(inspect.unwrap(fn), "__globals__", {})
    try:
        return typing.get_type_hints(alone, names, include_extras=True)["it"]
    except Exception:  # noqa: BLE001 - see above
        return inspect.Parameter.empty


def fields_of(kind: Any) -> tuple[str, ...]:
    """Return the names an object decoded as ``kind`` may have; empty where anything goes."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind.__struct_encode_fields__
    return ()


def warn_of_unresolved(fn: Callable[..., Any], hints: dict[str, Any], what: str) -> None:
    """Warn of inputs whose annotation names something that is not there: they stay plain JSON."""
    given: dict[str, Any] = getattr(fn, "__annotations__", {})
    for name, hint in given.items():
        if name != "return" and name not in hints:
            code = inspect.unwrap(fn).__code__
            warnings.warn_explicit(
                f"{what}: the annotation {hint!r} of {name!r} cannot be resolved; it is taken as "
                "plain JSON, unchecked",
                RuntimeWarning,
                code.co_filename,
                code.co_firstlineno,
            )


class Arguments:
    """Encodes a call's arguments as a JSON array; decodes them by the parameters' annotations."""

    __slots__ = ("_decoders", "_names", "_required", "_rest", "_signature", "_whole", "name")

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.name = name
        self._signature = inspect.signature(fn)
        hints = hints_of(fn)
        self._names: list[str] = []
        self._decoders: list[Decode] = []
        self._required = 0
        self._rest: Decode | None = None
        for parameter in self._signature.parameters.values():
            read = decoder(hints.get(parameter.name, Any), what=f"{name}({parameter.name})")
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = read
            elif parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
                is_named = parameter.kind is parameter.KEYWORD_ONLY
                if is_named and parameter.default is parameter.empty:
                    raise Invalid(f"{name}: keyword-only {parameter.name!r} needs a default")
            else:
                self._names.append(parameter.name)
                self._decoders.append(read)
                if parameter.default is parameter.empty:
                    self._required += 1
        self._whole = self._decoder_of_all(hints)

    def _decoder_of_all(self, hints: dict[str, Any]) -> Decode | None:
        """Return a decoder of all arguments at once, if each of them must be there."""
        if self._rest is not None or self._required < len(self._names):
            return None
        kinds = [hints.get(name, Any) for name in self._names]
        try:
            if any(_decoder_for(kind) is _decode_any for kind in kinds if kind not in _ANY):
                return None
            plain = tuple(Any if kind in _ANY else kind for kind in kinds)
            whole = msgspec.json.Decoder(tuple.__class_getitem__(plain), dec_hook=_decode_hook)
        except TypeError:
            return None
        return whole.decode

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the positional parameters."""
        return tuple(self._names)

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Encode a call. Keyword arguments are bound to their positions first.

        Raises:
            Invalid: the call does not fit the signature, or a value has no JSON form.
        """
        if kwargs or not self._required <= len(args) <= len(self._names):
            args = self._bind(args, kwargs)
        try:
            return _encode(args)
        except MemoryError:
            raise
        except Exception as exc:
            raise Invalid(
                f"{self.name}: arguments cannot be encoded as JSON: {_reason(exc)}"
            ) from exc

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Decode a recorded call into positional arguments.

        Raises:
            Invalid: too few or too many arguments, or one does not fit its annotation.
        """
        if self._whole is not None:
            try:
                return self._whole(data)
            except Exception:  # noqa: BLE001, S110 - below, it is found again and told by its name
                pass
        raws: list[msgspec.Raw] = _decode_raws(data)
        if not self._required <= len(raws):
            missing = ", ".join(self._names[len(raws) : self._required])
            raise Invalid(f"{self.name}: missing argument {missing}")
        if len(raws) > len(self._decoders) and self._rest is None:
            raise Invalid(
                f"{self.name}: takes {len(self._decoders)} arguments, {len(raws)} were given"
            )
        values = [read(bytes(raw)) for read, raw in zip(self._decoders, raws, strict=False)]
        if self._rest is not None:
            values += [self._rest(bytes(raw)) for raw in raws[len(self._decoders) :]]
        return tuple(values)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise Invalid(f"{self.name}: {exc}") from exc
        if bound.kwargs:
            names = ", ".join(bound.kwargs)
            raise Invalid(f"{self.name}: keyword-only arguments cannot be recorded ({names})")
        bound.apply_defaults()
        return bound.args


_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def _with_path(message: str, what: str) -> str:
    """Turn msgspec's ``at `$.a[0]` `` into the path a reader of the call expects."""
    inner = what[what.find("(") + 1 : -1] if what.endswith(")") else "value"
    return message.replace("`$", f"`{inner}")
