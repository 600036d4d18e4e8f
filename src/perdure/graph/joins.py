"""Where tokens wait for each other: when a step begins that several branches lead to.

What a step's ``join`` may be:

* ``"active"``: once, as soon as no token elsewhere can still arrive (the default);
* ``"each"``: for every arrival;
* ``"first"``, a number or ``"all"``: in *rounds*. A round begins the step when tokens from so many
  of the steps before it are there, swallows one from each of the others, and is over when each has
  sent one, or none can any more. A further token from a step that had sent one waits for the next
  round;
* ``Threads(n)``: for every ``n`` arrivals, wherever they come from.

Nothing here waits or asks for the time: who has arrived decides, and a replay decides alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from perdure import errors
from perdure.graph.outline import Outline


class Token(NamedTuple):
    """Where a branch of the run stands, and the last output on its way. ``source``: from where."""

    step: str
    prev: Any
    source: str = ""


class Threads(msgspec.Struct, frozen=True):
    """A join of so many tokens, whichever way they come: a number, or what makes it of the context.

    The step gets the list of their outputs, in the order in which they came.
    """

    count: int | Callable[[Any], int]


Join = Literal["active", "each", "first", "all"] | int | Threads


class Joins:
    """The tokens of one graph that wait for others. ``waiting``: by step, first come, first."""

    def __init__(self, outline: Outline) -> None:
        self._outline = outline
        self.waiting: dict[str, list[Token]] = {}
        self._sent: dict[str, set[str]] = {}
        """By step, while a round that has begun it lasts: which steps have sent a token in it."""

    def gathers(self, step: str, *, is_alone: bool) -> bool:
        """Tell whether a token that comes to a meeting waits; ``is_alone``: it is the only one."""
        join = self._outline.steps[step].join
        return not is_alone if join == "active" else join != "each"

    def admit(
        self, is_awaited: Callable[[str], bool], context: Callable[[Token], Any]
    ) -> Iterator[Token]:
        """Yield the tokens that begin their steps now; take each before you ask for the next.

        ``is_awaited(step)`` tells whether a token elsewhere may still arrive at a step,
        ``context(token)`` makes what a thread merge asks for its number.
        """
        for step in list(self.waiting):
            join = self._outline.steps[step].join
            if isinstance(join, Threads):
                yield from self._by_number(step, join, context)
            elif join == "active":
                if not is_awaited(step):
                    yield joined(self.waiting.pop(step))
            else:
                yield from self._by_round(step, is_awaited)

    def break_up(self) -> list[Token]:
        """Return the tokens that go on when nothing else moves: joins wait for each other.

        Raises:
            ApplicationError: none may go on; a join waits for more tokens than there are.
        """
        for step in list(self.waiting):
            if self._outline.steps[step].join == "active":
                return [joined(self.waiting.pop(step))]
            if self._sent.pop(step, None) is not None and (
                found := self._by_round(step, lambda _: True)
            ):
                return found
        step, tokens = next(iter(self.waiting.items()))
        join = self._outline.steps[step].join
        wanted = "more threads" if isinstance(join, Threads) else f"{self._enough(step)} branches"
        came = ", ".join(dict.fromkeys(f'"{token.source}"' for token in tokens))
        raise errors.ApplicationError(
            f'Step "{step}" waits for {wanted}: tokens came from {came}, and no other can come',
            kind="Deadlock",
            retryable=False,
        )

    def drop(self, steps: Iterable[str]) -> None:
        """Take the waiting tokens of these steps away, and end their rounds."""
        for step in steps:
            self.waiting.pop(step, None)
            self._sent.pop(step, None)

    def _enough(self, step: str) -> int:
        join = self._outline.steps[step].join
        if isinstance(join, int):
            return join
        return self._outline.ways_to(step) if join == "all" else 1

    def _by_number(
        self, step: str, join: Threads, context: Callable[[Token], Any]
    ) -> Iterator[Token]:
        tokens = self.waiting[step]
        enough = join.count if isinstance(join.count, int) else join.count(context(tokens[-1]))
        while len(tokens) >= max(enough, 1):
            yield Token(step, [token.prev for token in tokens[:enough]])
            tokens[:enough] = []
        if not tokens:
            del self.waiting[step]

    def _by_round(self, step: str, is_awaited: Callable[[str], bool]) -> list[Token]:
        begun: list[Token] = []
        tokens, ways, enough = self.waiting[step], self._outline.ways_to(step), self._enough(step)
        while True:
            first = _one_of_each(tokens)
            if step not in self._sent:
                if len(first) < enough:
                    break
                self._sent[step] = {token.source for token in first[:enough]}
                begun.append(joined(first[:enough]))
                taken = first  # the others are swallowed
            else:
                taken = [token for token in first if token.source not in self._sent[step]]
            self._sent[step].update(token.source for token in taken)
            tokens = self.waiting[step] = [it for it in tokens if not any(it is t for t in taken)]
            if len(self._sent[step]) < ways and is_awaited(step):
                break
            del self._sent[step]
        if not tokens:
            del self.waiting[step]
        return begun


def joined(tokens: list[Token]) -> Token:
    """Make one token of those that were waited for; ``prev`` is then by the step before."""
    if len(tokens) == 1:
        return tokens[0]
    return Token(tokens[0].step, {token.source: token.prev for token in tokens})


def _one_of_each(tokens: list[Token]) -> list[Token]:
    """Return the first token from each source, in the order of their arrival."""
    first: dict[str, Token] = {}
    for token in tokens:
        first.setdefault(token.source, token)
    return list(first.values())
