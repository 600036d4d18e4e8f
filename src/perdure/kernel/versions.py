"""By which version of each change in its code a run goes: ``workflow.version`` and ``patched``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure import errors
from perdure.kernel import match
from perdure.values import events as ev

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance


class Versions:
    """The answers of one run. ``marked``: those that its history holds, filled by the scripts."""

    __slots__ = ("_answers", "marked")

    def __init__(self) -> None:
        self._answers: dict[str, int] = {}
        self.marked: dict[str, int] = {}

    def of(self, instance: Instance, change: str, low: int, high: int) -> int:
        """Return the run's version of ``change``, the same at every call.

        Raises:
            NondeterminismError: it is not among those that the code supports; the run is parked.
        """
        answer = self._answers.get(change)
        if answer is None:
            answer = self._answers[change] = self._decide(instance, change, high)
        if not low <= answer <= high:
            where = match.place()
            error = errors.NondeterminismError(
                f"change {change!r}: this run goes by version {answer}, the code at {where} "
                f"supports {low} to {high}. Keep the old branch until such runs have ended.",
                details={
                    "expected": f"version {answer} of change {change!r}",
                    "actual": f"versions {low} to {high} of it",
                    "where": where,
                },
            )
            if not instance.is_read_only:
                instance.diverged(error)
            raise error
        return answer

    def _decide(self, instance: Instance, change: str, high: int) -> int:
        script = instance.writing("decide a version")
        if script is not None:
            marked = script.mark(change)
            # Passed before the call existed, unless the mark was made elsewhere before.
            return self.marked.get(change, 1) if marked is None else marked
        marked = self.marked.get(change)
        if marked is None:
            instance.command(ev.VersionMarked(change=change, version=high))
            return high
        return marked
