"""Walks the code of one function and notes what a replay may not repeat."""

from __future__ import annotations

import ast
import re
from pathlib import PurePath
from types import FunctionType, ModuleType
from typing import Any

from perdure.lint import rules
from perdure.lint.finding import Finding
from perdure.lint.names import FunctionNode, Names, Ref, Scope

_ALLOW = re.compile(r"#\s*perdure:\s*allow\b[\s:(\[]*([a-z]+(?:\s*,\s*[a-z]+)*)?")
_SHOWN = 60
_OF_A_SET = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)


class Visit(ast.NodeVisitor):
    """One pass over one function; ``used`` are the functions it names."""

    def __init__(self, function: FunctionType, lines: list[str], offset: int) -> None:
        self.found: list[Finding] = []
        self.used: list[FunctionType] = []
        self._names = Names(function)
        self._file = function.__code__.co_filename
        self._lines = lines
        self._offset = offset
        self._order_free: set[ast.expr] = set()

    def run(self, node: FunctionNode) -> None:
        """Look at the function's body; its decorators and defaults ran when it was defined."""
        self._within(node)

    # -- scopes ------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Look at an inner function: it is workflow code like the rest."""
        self._inner(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """The same for an async one."""
        self._inner(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """The same for a lambda."""
        self._within(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Look at target and value: an annotation runs nothing."""
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def _inner(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        defaults = [default for default in node.args.kw_defaults if default is not None]
        for expression in (*node.decorator_list, *node.args.defaults, *defaults):
            self.visit(expression)
        self._within(node)

    def _within(self, node: FunctionNode) -> None:
        self._names.scopes.append(Scope(node))
        for part in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(part)
        self._names.scopes.pop()

    # -- names and calls ---------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        """See the environment, functions to follow, and assignments to globals."""
        if isinstance(node.ctx, ast.Load):
            self._loaded(node)
        elif self._names.is_global_here(node.id):
            self._report(node, "global", f"the global {node.id}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """See the same behind dots, and attributes set on modules and classes."""
        if isinstance(node.ctx, ast.Load):
            self._loaded(node)
        elif self._names.look_up(node.value).is_a(ModuleType, type):
            self._report(node, "global", ast.unparse(node))
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """See items set or deleted in what all runs share."""
        if (
            not isinstance(node.ctx, ast.Load)
            and self._names.look_up(node.value).is_shared_container
        ):
            self._report(node, "global", ast.unparse(node.value))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """See calls that rules are about, and what is given to them."""
        called = self._names.look_up(node.func)
        self._check_call(node, called)
        if called.name in rules.ORDER_FREE:
            self._order_free.update(node.args)
        elif self._goes_in_order(node, called):
            for argument in node.args:
                self._check_order(argument)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            given = self._names.look_up(argument)
            # A class may stand in a check of types; a function is given away to be called.
            if not given.is_a(type, ModuleType):
                self._check_rule(argument, given)
        if node in self._order_free:
            self._order_free.update(node.args)
        self.generic_visit(node)

    def _check_call(self, node: ast.Call, called: Ref) -> None:
        has_arguments = bool(node.args or node.keywords)
        if called.name in rules.CLOCK_WITHOUT_ARGUMENTS and not has_arguments:
            self._report(node, "clock", f"{ast.unparse(node.func)}()")
        elif not (called.name in rules.SEEDED and has_arguments):
            self._check_rule(node.func, called)
        if not isinstance(node.func, ast.Attribute):
            return
        owner, method = node.func.value, node.func.attr
        if method == "run_in_executor":
            self._report(node, "thread", "run_in_executor()")
        elif method in rules.PATH_METHODS and self._is_path(owner):
            self._report(node, "io", f"{ast.unparse(node.func)}()")
        elif method == "pop" and not has_arguments and self._is_set(owner):
            self._report(node, "order", ast.unparse(owner))
        if method in rules.MUTATORS and self._names.look_up(owner).is_shared_container:
            self._report(node, "global", ast.unparse(owner))

    def _check_rule(self, node: ast.expr, ref: Ref) -> None:
        code = rules.rule_for(ref.name) if ref.name else None
        if code is not None and code != "environment":  # which is seen wherever it is named
            self._report(node, code, f"{ast.unparse(node)}()")
        elif ref.name in ("os.getenv", "os.getenvb"):
            self._report(node, "environment", f"{ast.unparse(node)}()")

    def _loaded(self, node: ast.Name | ast.Attribute) -> None:
        ref = self._names.look_up(node)
        if ref.name in ("os.environ", "os.environb"):
            self._report(node, "environment", ast.unparse(node))
        if ref.is_a(FunctionType):
            self.used.append(ref.value)

    def _is_path(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Call):
            return self._names.look_up(node.func).name.startswith("pathlib.")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return self._is_path(node.left)
        if isinstance(node, ast.Attribute) and node.attr == "parent":
            return self._is_path(node.value)
        return self._names.look_up(node).is_a(PurePath)

    # -- the order of sets -------------------------------------------------------------------

    def visit_For(self, node: ast.For) -> None:
        """See loops over a set."""
        self._check_order(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        """See sets unpacked into arguments or lists."""
        if isinstance(node.ctx, ast.Load) and node not in self._order_free:
            self._check_order(node.value)
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        """Let sets be unpacked into a set."""
        self._order_free.update(node.elts)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        """See comprehensions over a set."""
        self._comprehension(node, node.generators)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        """The same for a generator."""
        self._comprehension(node, node.generators)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        """The same for a dict, which keeps the order."""
        self._comprehension(node, node.generators)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        """A set made of a set has no order to lose, unless its elements are awaited."""
        if not any(isinstance(part, ast.Await) for part in ast.walk(node.elt)):
            self._order_free.add(node)
        self._comprehension(node, node.generators)

    def _comprehension(self, node: ast.expr, generators: list[ast.comprehension]) -> None:
        if node not in self._order_free:
            for generator in generators:
                self._check_order(generator.iter)
        self.generic_visit(node)

    def _goes_in_order(self, node: ast.Call, called: Ref) -> bool:
        if node in self._order_free:
            return False
        is_joined = isinstance(node.func, ast.Attribute) and node.func.attr in ("join", "extend")
        return called.name in rules.ORDERED or (is_joined and not called.name)

    def _check_order(self, node: ast.expr) -> None:
        if self._is_set(node):
            self._report(node, "order", ast.unparse(node))

    def _is_set(self, node: ast.expr, within: tuple[str, ...] = ()) -> bool:
        match node:
            case ast.Set(elts=elements):
                return not all(self._is_ordered(element) for element in elements)
            case ast.SetComp(elt=element):
                return not self._is_ordered(element)
            case ast.Call(func=ast.Attribute(value=owner, attr=method)) if (
                method in rules.SET_METHODS
            ):
                return self._is_set(owner, within)
            case ast.Call(func=func):
                return self._names.look_up(func).name in ("builtins.set", "builtins.frozenset")
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _OF_A_SET):
                sides = (left, right)
                return any(self._is_set(side, within) or _is_keys(side) for side in sides)
            case ast.IfExp(body=body, orelse=otherwise):
                return self._is_set(body, within) or self._is_set(otherwise, within)
            case ast.NamedExpr(value=value):
                return self._is_set(value, within)
            case ast.Name(id=name):
                return name in within or self._is_named_set(node, (*within, name))
            case ast.Attribute():
                return self._names.look_up(node).is_set
            case _:
                return False

    def _is_named_set(self, node: ast.Name, within: tuple[str, ...]) -> bool:
        scope = self._names.scope_with(node.id)
        if scope is None:
            return self._names.look_up(node).is_set
        bound = scope.values[node.id]
        if not bound or scope.holds_tasks(node.id):
            return False
        return all(value is not None and self._is_set(value, within) for value in bound)

    def _is_ordered(self, element: ast.expr) -> bool:
        """Tell whether elements like this one hash alike everywhere: integers, and tasks."""
        if isinstance(element, ast.Constant):
            return type(element.value) is int
        return self._names.scopes[-1].is_task(element)

    # -- findings ----------------------------------------------------------------------------

    def _report(self, node: ast.expr, code: str, what: str) -> None:
        lines = self._lines[node.lineno - 1 : node.end_lineno]
        if any(_allows(line, code) for line in lines):
            return
        if len(what) > _SHOWN:
            what = what[: _SHOWN - 1] + "…"
        message = f"{what} {rules.ADVICE[code]}"
        self.found.append(Finding(self._file, node.lineno + self._offset, code, message))


def _is_keys(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr="keys" | "items"), args=[], keywords=[]):
            return True
        case _:
            return False


def _allows(line: str, code: str) -> bool:
    """Tell whether a comment of the line lets this kind of finding be."""
    allowed: Any = _ALLOW.search(line)
    if allowed is None:
        return False
    words = re.split(r"[\s,]+", allowed[1] or "")
    codes = [word for word in words if word in rules.ADVICE]
    return code in codes if codes else True
