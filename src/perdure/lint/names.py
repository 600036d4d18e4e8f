"""What names in a function stand for: scopes, and from names to objects and their full names."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from functools import lru_cache
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, NamedTuple, cast

from perdure.lint.rules import ALIASES, EXACT, TASK_MAKERS, rule_for

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
MISSING: Any = object()
_CONTAINERS = (MutableMapping, MutableSequence, MutableSet, deque)
_CALLABLES = (type, FunctionType, MethodDescriptorType, ClassMethodDescriptorType)


class Ref(NamedTuple):
    """What an expression stands for: a full name, and the object if it is at hand."""

    name: str = ""
    value: Any = MISSING

    def is_a(self, *kinds: type) -> bool:
        """Tell whether the object is of one of these classes, without asking it (proxies lie)."""
        return issubclass(type(self.value), kinds)

    @property
    def is_shared_container(self) -> bool:
        """Whether it is a list, dict or the like that lives outside of the function."""
        return self.is_a(*_CONTAINERS) and not self.name.startswith("os.environ")

    @property
    def is_set(self) -> bool:
        """Whether it is a set; integers hash alike everywhere."""
        if not self.is_a(set, frozenset):
            return False
        return not all(type(item) is int for item in cast("Iterable[object]", self.value))


NOTHING = Ref()


class Scope:
    """The names that one function binds."""

    def __init__(self, node: FunctionNode) -> None:
        self.globals: set[str] = set()
        self.added: dict[str, list[ast.expr]] = {}
        """Name -> what is put into it by ``add``."""
        self.imports: dict[str, str] = {}
        self.values: dict[str, list[ast.expr | None]] = {}
        """Name -> what is bound to it, ``None`` where that is not an expression."""
        for arg in _arguments(node.args):
            self._bind(arg.arg, None)
            if arg.annotation is not None and _names_a_set(arg.annotation):
                self.values[arg.arg] = [ast.Set([arg.annotation])]
        body = node.body if isinstance(node.body, list) else [node.body]
        for statement in body:
            self._collect(statement)
        for name in self.globals:
            self.values.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def holds_tasks(self, name: str) -> bool:
        """Tell whether tasks are added to the set ``name``: they hash by their creation."""
        return any(self.is_task(item) for item in self.added.get(name, ()))

    def is_task(self, node: ast.expr | None) -> bool:
        """Tell whether an expression makes a task, or is a name bound to nothing else."""
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
                return name in TASK_MAKERS
            case ast.Name(id=name):
                made = [value for value in self.values.get(name, ()) if value is not node]
                return bool(made) and all(
                    isinstance(value, ast.Call) and self.is_task(value) for value in made
                )
            case _:
                return False

    def _bind(self, name: str, value: ast.expr | None) -> None:
        self.values.setdefault(name, []).append(value)

    def _collect(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                self._bind(name, None)
                for inner in ast.walk(node):
                    for changed in inner.names if isinstance(inner, ast.Nonlocal) else ():
                        self._bind(changed, None)
                return
            case ast.Lambda():
                return
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                self._bind(name, None)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                self._bind(name, None)
            case ast.MatchMapping(rest=str(name)):
                self._bind(name, None)
            case ast.Global(names=names):
                self.globals.update(names)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="add"), args=[item]):
                self.added.setdefault(name, []).append(item)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
                return
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._bind(name, value)
                self._collect(value)
                return
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                is_set = _names_a_set(annotation)
                self._bind(name, ast.Set([annotation]) if is_set else value)
                if value is not None:
                    self._collect(value)
                return
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                self._bind(name, value)
                self._collect(value)
                return
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                self.values.setdefault(name, [])
                self._collect(value)
                return
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                self._bind(name, None)
            case _:
                pass
        for child in ast.iter_child_nodes(node):
            self._collect(child)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self._bind(name, None)
            if isinstance(node, ast.Import):
                self.imports[name] = alias.name if alias.asname else name
            elif not node.level:
                self.imports[name] = f"{node.module}.{alias.name}"


class Names:
    """Looks names up from within a function, as Python would."""

    def __init__(self, fn: FunctionType) -> None:
        self.scopes: list[Scope] = []
        self._globals = fn.__globals__
        self._free: dict[str, Any] = {}
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                self._free[name] = cell.cell_contents
            except ValueError:  # not bound yet
                self._free[name] = MISSING

    def scope_with(self, name: str) -> Scope | None:
        """Return the innermost function that binds ``name``."""
        return next((scope for scope in reversed(self.scopes) if name in scope), None)

    def is_global_here(self, name: str) -> bool:
        """Tell whether the function being looked at declares ``name`` as global."""
        return name in self.scopes[-1].globals

    def look_up(self, node: ast.expr) -> Ref:
        """Return what an expression stands for: a name, or attributes of one."""
        if isinstance(node, ast.Attribute):
            return _attribute(self.look_up(node.value), node.attr)
        if not isinstance(node, ast.Name):
            return NOTHING
        scope = self.scope_with(node.id)
        if scope is not None:
            dotted = scope.imports.get(node.id)
            is_only_that = dotted is not None and len(scope.values[node.id]) == 1
            return _imported(dotted) if dotted is not None and is_only_that else NOTHING
        for place in (self._free, self._globals, vars(builtins)):
            if node.id in place:
                value = place[node.id]
                return NOTHING if value is MISSING else ref_to(value)
        return NOTHING


def ref_to(value: Any) -> Ref:
    """Return an object with the full name it is known by."""
    known = _known(len(sys.modules)).get(id(value))
    if known is not None:
        return Ref(known[0], value)
    ref = Ref("", value)
    if ref.is_a(ModuleType):
        name = str(value.__name__)
        return Ref(ALIASES.get(name, name), value)
    if ref.is_a(BuiltinFunctionType, MethodType):
        owner = value.__self__
        if owner is not None and not issubclass(type(owner), ModuleType):
            return Ref(f"{ref_to(owner).name}.{value.__name__}", value)
    if ref.is_a(*_CALLABLES, BuiltinFunctionType):
        return Ref(_full_name(value), value)
    return Ref(f"{_full_name(type(value))}()", value)


def _full_name(thing: Any) -> str:
    module = str(getattr(thing, "__module__", None) or "")
    return f"{ALIASES.get(module, module)}.{thing.__qualname__}"


def _attribute(ref: Ref, name: str) -> Ref:
    dotted = f"{ref.name}.{name}" if ref.name else ""
    if ref.is_a(ModuleType):
        contents = cast("dict[str, Any]", ref.value.__dict__)
        found = contents.get(name, MISSING)
        if found is MISSING:
            found = sys.modules.get(f"{ref.value.__name__}.{name}", MISSING)
        if found is not MISSING:
            return Ref(dotted, found) if rule_for(dotted) else ref_to(found)
    elif ref.is_a(type):
        classes: tuple[type, ...] = ref.value.__mro__
        owner = next((cls for cls in classes if name in vars(cls)), None)
        return Ref(dotted, MISSING if owner is None else vars(owner)[name])
    return Ref(dotted)


def _imported(dotted: str) -> Ref:
    """Return what an import within a function binds; the module may not be loaded yet."""
    if dotted in sys.modules:
        return ref_to(sys.modules[dotted])
    parent, _, name = dotted.rpartition(".")
    return _attribute(ref_to(sys.modules[parent]), name) if parent in sys.modules else Ref(dotted)


@lru_cache(maxsize=1)
def _known(_modules: int) -> dict[int, tuple[str, Any]]:
    """Return the objects that rules name, under whatever name a function knows them."""
    found: dict[int, tuple[str, Any]] = {}
    for dotted in EXACT:
        parent, _, name = dotted.rpartition(".")
        value = vars(sys.modules[parent]).get(name) if parent in sys.modules else None
        if value is not None:
            found.setdefault(id(value), (dotted, value))
    return found


def _arguments(args: ast.arguments) -> Iterator[ast.arg]:
    yield from (*args.posonlyargs, *args.args, *args.kwonlyargs)
    for rest in (args.vararg, args.kwarg):
        if rest is not None:
            yield rest


def _names_a_set(annotation: ast.expr) -> bool:
    """Tell whether an annotation is a set whose order differs between processes."""
    match annotation:
        case ast.Subscript(value=ast.Name(id="set" | "frozenset"), slice=item):
            return not re.search(r"\b(Task|Future|int)\b", ast.unparse(item))
        case ast.Name(id="set" | "frozenset"):
            return True
        case _:
            return False
