"""What holds on to runs that close: asked once, so that nothing is deleted that is not there.

Most runs end alone: without children, watchers, people or open transactions. One question for a
whole batch tells so, after what may add to them is held; its answer saves six statements.
"""

from __future__ import annotations

from typing import NamedTuple

from perdure.store.sql.plan import Plan


class Ties(NamedTuple):
    """Whether any run or execution of a batch that closes has such rows (query ``ties``)."""

    children: bool = True
    watchers: bool = True
    watches: bool = True
    people: bool = True
    transactions: bool = True
    beats: bool = True

    def with_rows_of(self, plan: Plan) -> Ties:
        """Add what the batch itself brings, which stood nowhere when the question was asked."""
        if plan.replaced:  # runs that end by another's start: nothing was asked of them
            return UNKNOWN
        watches = bool(plan.watches or plan.watching)
        return Ties(
            children=self.children or bool(plan.runs),
            watchers=self.watchers or watches,
            watches=self.watches or watches,
            people=self.people or bool(plan.asked),
            transactions=self.transactions or bool(plan.opened),
            beats=self.beats,
        )


UNKNOWN = Ties()
NONE = Ties(*[False] * len(Ties._fields))
