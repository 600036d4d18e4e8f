"""The conditions of policies: CEL over what is known of an operation.

An expression is compiled, and its types checked, when a policy is loaded. What it reads of the
operation is found in its text, so no more than this is handed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from perdure import expr
from perdure.errors import Invalid
from perdure.policy.globs import glob
from perdure.policy.verdict import Caution

MAX_LENGTH = 10_000
"""Characters of a condition."""
MEMBERS: dict[str, tuple[str, ...]] = {
    "workflow": ("id", "version", "namespace"),
    "service": ("name", "namespace"),
    "instance": (
        "id",
        "status",
        "workflowId",
        "version",
        "runId",
        "currentStep",
        "startTime",
        "endTime",
        "correlationId",
        "tags",
        "error",
        "createdBy",
        "tenant",
    ),
    "request": ("auth", "method", "metadata"),
    "env": (),
}
"""The variables of a condition, and what each has; ``env`` has what ``env=`` gives."""
_TEXTS = ("workflow", "service", "env")
_OPERAND = re.compile(r"([A-Za-z_][\w.]*(?:\[[^\]]*\])?)\s*$")
_PART_OF = re.compile(r"([A-Za-z_][\w.]*)\.(?:startsWith|endsWith|contains)\s*\($")
_LITERAL = re.compile(rf"(?P<over>//[^\n]*)|(?P<text>[rR]?{expr.TEXT})")


class Condition:
    """A compiled condition.

    Args:
        text: CEL that gives true or false.
        env: what ``env`` has.

    Raises:
        Invalid: it is too long, no CEL, reads what there is not, or gives something else.
    """

    def __init__(self, text: str, env: Mapping[str, str]) -> None:
        if len(text) > MAX_LENGTH:
            raise Invalid(f"{len(text):,} characters are too many for a condition ({MAX_LENGTH:,})")
        self.text = text
        self.claims: set[str] | None = set()
        """Names of the claims it reads; ``None`` is all."""
        self.metadata: set[str] | None = set()
        self.variables: set[str] = set()
        """Those that it reads."""
        self._missing: list[expr.Read] = []
        for variable in MEMBERS:
            for read in expr.find_reads(text, variable):
                self.variables.add(variable)
                self._check(variable, read, env)
        self._compiled = expr.compile_text(text, _environment())
        gives = self._compiled.return_type().name()
        if gives not in ("BOOL", "DYN"):
            raise Invalid(f"it gives {gives.lower()}, and a condition gives true or false")

    def holds(self, facts: Any) -> bool:
        """Evaluate it, given :func:`facts_of` an operation.

        Raises:
            Invalid: it cannot be evaluated: a claim is missing, say, or it took too long.
        """
        value = expr.evaluated(self._compiled, facts)
        if not isinstance(value, bool):
            raise Invalid(f"it gives {type(value).__name__}, which is neither true nor false")
        return value

    def warnings(self, key: str, where: str) -> Iterator[Caution]:
        """Yield what is hardly meant."""
        for read in self._missing:
            place = expr.place(self.text, read.at)
            yield Caution(
                key,
                *place,
                f"env has no {read.path[0]!r}, so this cannot be evaluated and denies",
                f"env={{{read.path[0]!r}: …}} where the policies are loaded",
                where,
            )
        yield from _literal_globs(self.text, key, where)

    def _check(self, variable: str, read: expr.Read, env: Mapping[str, str]) -> None:
        path, members = read.path, MEMBERS[variable]
        if variable == "env":
            if path and path[0] not in env:
                self._missing.append(read)
            return
        if path and path[0] not in members:
            raise self._has_no(variable, path[0], members, read.at)
        if variable != "request" or path[:1] == ("method",):
            return
        if path[:1] == ("metadata",):
            self.metadata = _more(self.metadata, path[1:])
        elif path[:1] == ("auth",):
            if path[1:] and path[1] != "claims":
                raise self._has_no("request.auth", path[1], ("claims",), read.at)
            self.claims = _more(self.claims, path[2:] if path[1:2] == ("claims",) else ())
        else:
            self.claims = self.metadata = None

    def _has_no(self, of: str, name: str, members: Sequence[str], at: int) -> Invalid:
        said = f"{of} has no {name!r} (it has: {', '.join(members)})"
        return Invalid(expr.pointed(self.text, said, *expr.place(self.text, at)))


def _more(known: set[str] | None, path: tuple[str, ...]) -> set[str] | None:
    return None if known is None or not path else known | {path[0]}


class Together:
    """Several conditions as one, which costs one evaluation: whether all of them hold, and nothing
    more. Who wants to know which does not asks them one by one.
    """

    def __init__(self, conditions: Sequence[Condition]) -> None:
        # On lines of their own: one may end with a comment.
        text = " && ".join(f"(\n{one.text}\n)" for one in conditions)
        self._compiled = expr.compile_text(text, _environment())

    def hold(self, facts: Any) -> bool:
        """Tell whether all hold; ``False``: one does not, or cannot be evaluated."""
        try:
            return expr.evaluated(self._compiled, facts) is True
        except Invalid:
            return False


def facts_of(data: Mapping[str, Any]) -> Any:
    """Hand over what conditions read, once for all of them.

    Raises:
        Invalid: a value of it is of a type that CEL does not know.
    """
    try:
        return _environment().Activation(data)
    except (RuntimeError, TypeError, ValueError, OverflowError) as exc:
        raise Invalid(f"a claim or a fact has no type of CEL: {exc}") from None


@lru_cache(maxsize=1)
def _environment() -> Any:
    def types(cel: Any) -> dict[str, Any]:
        kinds = cel.Type
        texts, any_ = kinds.Map(kinds.STRING, kinds.STRING), kinds.Map(kinds.STRING, kinds.DYN)
        return {name: texts if name in _TEXTS else any_ for name in MEMBERS}

    def functions(cel: Any) -> list[Any]:
        two, yes = [cel.Type.STRING, cel.Type.STRING], cel.Type.BOOL
        overload = cel.Overload("glob_text", yes, two, is_member=False, impl=glob)
        return [cel.FunctionDecl("glob", [overload])]

    return expr.environment(types, functions)


def _literal_globs(text: str, key: str, where: str) -> Iterator[Caution]:
    """Yield comparisons with a text that holds a star: it is compared letter by letter."""
    for found in _LITERAL.finditer(text):
        literal = found["text"]
        if literal is None or "*" not in literal:
            continue
        before, after = text[: found.start()].rstrip(), text[found.end() :].lstrip()
        negated = "!" if before.endswith("!=") or after.startswith("!=") else ""
        operand = "workflow.id"
        if before.endswith(("==", "!=")):
            left = _OPERAND.search(before[:-2])
            operand = left[1] if left is not None else operand
        elif after.startswith(("==", "!=")):
            right = re.match(r"[=!]=\s*([A-Za-z_][\w.]*)", after)
            operand = right[1] if right is not None else operand
        elif part := _PART_OF.search(before):
            operand = part[1]
        elif not re.search(r"\bin\s*\[[^\]]*$", before):
            continue
        line, column = expr.place(text, found.start())
        message = f"{literal} is compared letter by letter: the * matches nothing else"
        yield Caution(key, line, column, message, f"{negated}glob({operand}, {literal})", where)
