"""Workflow definitions: what ``workflow.define`` makes of a function."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from perdure import errors
from perdure.values import payload
from perdure.values.defining import check_options, defined_name, is_name, warn_of_namesake

In = TypeVar("In")
In_contra = TypeVar("In_contra", contravariant=True)
Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)
_NAME = re.compile(r"[^\x00-\x20\x7f]{1,200}")
_OPTIONS = ("name", "version", "task_queue", "triggers", "description")
_VERSION = re.compile(r"\d+(\.\d+){0,2}([-+][0-9A-Za-z.-]+)?")


class Workflow(Generic[In_contra, Out]):
    """A defined workflow; start it with a client, or from another workflow.

    ``fn`` is the bare coroutine function; ``code`` a fingerprint of its source that comments,
    docstrings and layout do not change.
    """

    def __init__(
        self,
        fn: Callable[..., Coroutine[Any, Any, Out]],
        *,
        name: str | None = None,
        version: str = "1.0.0",
        task_queue: str = "default",
        triggers: tuple[str, ...] = (),
        description: str = "",
    ) -> None:
        self.fn = fn
        self.name = defined_name(fn, name, "workflow")
        self.version = version
        self.task_queue = task_queue
        self.triggers = tuple(triggers)
        self.description = description or inspect.getdoc(fn) or ""
        self.source = _source(fn)
        self.code = fingerprint(self.source, fn)
        self.max_payload: int | None = None
        self.timeout = 0
        """How long a run may take from when it begins, in microseconds; 0: as long as it likes."""
        self.isolated: bool | None = False
        """Whether its steps run in subprocesses; ``None`` if the engine says so. A function has no
        steps: its activities say for themselves.
        """
        self.parts: tuple[object, ...] = ()
        """What the workflow's code calls or goes by and its function does not name (see
        engine/reach.py): functions, and texts.
        """
        self.__doc__ = fn.__doc__
        self.__name__ = self.name
        self.__module__ = fn.__module__
        self.__wrapped__ = fn
        self._check()
        hints = payload.hints_of(fn)
        payload.warn_of_unresolved(fn, hints, f"workflow {self.name!r}")
        warn_of_namesake(fn, Workflow, "workflow")
        parameters = list(inspect.signature(fn).parameters.values())
        self._takes_input = bool(parameters)
        self._default = parameters[0].default if parameters else inspect.Parameter.empty
        hint = hints.get(parameters[0].name, Any) if parameters else Any
        name_ = parameters[0].name if parameters else "input"
        self._fields = payload.fields_of(hint)
        self._read_input = payload.decoder(hint, what=f"{self.name}({name_})")
        self.read_result = payload.decoder(hints.get("return", Any), what=f"{self.name} -> result")

    def check_input(self, data: bytes, given: object = None) -> None:
        """Check encoded input against the annotation.

        ``given``: what was encoded. A mapping must not hold names that the annotated class has no
        field for: decoding would drop them in silence.

        Raises:
            Invalid: it does not fit; the message has the path of the field.
        """
        if self._fields and isinstance(given, Mapping):
            for name in cast("Mapping[Any, Any]", given):
                if name not in self._fields:
                    near = difflib.get_close_matches(str(name), self._fields, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    known = ", ".join(self._fields)
                    raise errors.Invalid(f"{self.name}: no field {name!r}{hint} (it has: {known})")
        if not self._takes_input:
            if data != payload.NULL:
                raise errors.Invalid(f"{self.name}: takes no input")
        elif data != payload.NULL or self._default is inspect.Parameter.empty:
            self._read_input(data)

    def check(self) -> None:
        """Make sure that it can run; engines ask when it is registered.

        Raises:
            DefinitionError: it cannot; the message has every mistake.
        """

    def check_place(self) -> None:
        """Make sure that a subprocess finds the definition, for what it runs of it.

        Raises:
            DefinitionError: it would not.
        """

    def begin(self, input_: bytes) -> Coroutine[Any, Any, Out]:
        """Decode the input and make the coroutine (the kernel's ``Program``)."""
        if not self._takes_input:
            return self.fn()
        if input_ == payload.NULL and self._default is not inspect.Parameter.empty:
            return self.fn()
        return self.fn(self._read_input(input_))

    def finish(self, result: Any) -> bytes:
        """Encode the result."""
        return payload.encode(result, what=f"result of {self.name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Out]:
        """Call the function itself (in tests, or as a part of another workflow)."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<workflow {self.name!r} {self.version}>"

    def _check(self) -> None:
        # A graph's function is ours, and tells its users nothing.
        made = (self.fn.__module__ or "").startswith("perdure.")
        place = "" if made else f" ({self.fn.__module__}.{self.fn.__qualname__})"
        where = f"workflow {self.name!r}{place}"
        if not inspect.iscoroutinefunction(self.fn):
            raise errors.DefinitionError(f"{where}: a workflow is an async function")
        if not is_name(self.name) or not _NAME.fullmatch(self.name):
            raise errors.DefinitionError(f"{where}: the name must be 1 to 200 visible characters")
        if not is_name(self.version) or not _VERSION.fullmatch(self.version):
            raise errors.DefinitionError(f"{where}: version {self.version!r} is not like '1.2.0'")
        parameters = list(inspect.signature(self.fn).parameters.values())
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if len(parameters) > 1 or any(p.kind not in plain for p in parameters):
            raise errors.DefinitionError(
                f"{where}: a workflow takes one input or none; put several values in a dataclass"
            )


def version_key(version: str) -> tuple[int, int, int, bool, str]:
    """Return a key that sorts versions semantically; a pre-release comes before its release."""
    core, _, rest = version.partition("-")
    numbers = [int(part) for part in core.partition("+")[0].split(".")]
    major, minor, patch = [*numbers, 0, 0][:3]
    return major, minor, patch, not rest, rest


def highest_active(
    name: str, versions: Iterable[str], inactive: Container[tuple[str, str]]
) -> str | None:
    """Return the highest of a workflow's versions that is not inactive; ``None``: there is none.

    ``inactive``: names and versions.
    """
    active = (version for version in versions if (name, version) not in inactive)
    return max(active, key=version_key, default=None)


class _WithDefault(Protocol[In_contra, Out_co]):
    """A function whose one input may be left out."""

    def __call__(self, input_: In_contra = ..., /) -> Coroutine[Any, Any, Out_co]: ...


@overload
def define(fn: _WithDefault[In, Out], /) -> Workflow[In | None, Out]: ...
@overload
def define(fn: Callable[[In], Coroutine[Any, Any, Out]], /) -> Workflow[In, Out]: ...
@overload
def define(fn: Callable[[], Coroutine[Any, Any, Out]], /) -> Workflow[None, Out]: ...
@overload
def define(
    *,
    name: str | None = None,
    version: str = "1.0.0",
    task_queue: str = "default",
    triggers: tuple[str, ...] = (),
    description: str = "",
) -> _Decorator: ...
def define(fn: Any = None, /, **options: Any) -> Any:
    """Define a workflow; use as ``@workflow.define`` or with options.

    Args:
        fn: an ``async`` function of one input or none.
        **options: ``name`` (default: the function's), ``version`` (semantic), ``task_queue``,
            ``triggers``, ``description``.

    Raises:
        DefinitionError: not an async function, too many parameters, a bad name or version.
    """
    decorator = _Decorator(**options)
    return decorator if fn is None else decorator(fn)


class _Decorator:
    def __init__(self, **options: Any) -> None:
        check_options(options, _OPTIONS, "workflow")
        self._options = options

    @overload
    def __call__(self, fn: _WithDefault[In, Out]) -> Workflow[In | None, Out]: ...
    @overload
    def __call__(self, fn: Callable[[In], Coroutine[Any, Any, Out]]) -> Workflow[In, Out]: ...
    @overload
    def __call__(self, fn: Callable[[], Coroutine[Any, Any, Out]]) -> Workflow[None, Out]: ...
    def __call__(self, fn: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
        made: Workflow[Any, Any] = Workflow(fn, **self._options)
        return made


def fingerprint(source: str, fn: Callable[..., Any]) -> str:
    """Return a short hash of what the function does: comments, layout and docstrings left out."""
    try:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    node.body = node.body[1:] or [ast.Pass()]
                node.decorator_list = []
        text = ast.unparse(tree).encode()
    except (SyntaxError, ValueError, IndexError):
        text = fn.__code__.co_code
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _source(fn: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(fn))
    except (OSError, TypeError):
        return ""
