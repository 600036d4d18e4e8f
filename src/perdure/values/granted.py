"""What a door that has judged an operation lets it have, and be counted under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.values.audit import Level
from perdure.values.bounds import Bounds
from perdure.values.context import ROLE_KEY
from perdure.values.meters import Meter


class Granted(Bounds, frozen=True):
    """Given by the door, never by who asks: what bounds an execution, and what else it has.

    ``meters``: spent by each execution that a schedule begins. ``audit``: how much is told, at
    least, as ``told``: who asked, and what for. ``default_role``: whose human tasks are that name
    no role. ``begins``: by the ids of human tasks, what bounds the execution that begins with the
    answer.
    """

    meters: tuple[Meter, ...] = ()
    audit: Level = Level.NONE
    service: str = ""
    told: Mapping[str, Any] = {}
    default_role: str = ""
    begins: Mapping[str, Bounds] = {}

    @property
    def bounds(self) -> Bounds:
        """What is recorded of it."""
        return Bounds(**{name: getattr(self, name) for name in Bounds.__struct_fields__})

    def within(self, context: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a context that carries what of this travels with the run."""
        carried = super().within(context)
        return {**carried, ROLE_KEY: self.default_role} if self.default_role else carried


NOTHING = Granted()
