"""What all events share, and the parts they are made of."""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from perdure.values.failures import FailureInfo


class Event(msgspec.Struct, omit_defaults=True, gc=False, tag_field="kind", kw_only=True):
    """Base of all events. ``v`` is the schema version of the event's kind."""

    v: int = 1
    rank: ClassVar[int] = 0
    """Order among the facts of one turn: outcomes, messages, child ends, updates, cancel (R3)."""

    @property
    def kind(self) -> str:
        """The stored name of this event's class."""
        return str(self.__struct_config__.tag)

    def same_as(self, recorded: Event) -> bool:
        """Tell whether ``recorded``, of the same class, is what code asks for again in a replay."""
        return True

    def brief(self) -> str:
        """Describe the event in a few words for an error or a listing."""
        return self.kind

    def identity(self) -> str:
        """Describe it with what :meth:`same_as` compares, to tell it from another."""
        return self.brief()


class Message(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """A message as it stands in a history. ``sent_at`` in microseconds since 1970."""

    topic: str
    payload: bytes
    sender: str = ""
    id: str = ""
    sent_at: int = 0


class Parent(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """Who started a child: the parent's execution, and the event there that scheduled it."""

    execution: int
    workflow_id: str
    run_id: str
    child: int


class OpenChild(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """A child whose end a later run is told: the run that started it, and the event there."""

    workflow_id: str
    run_id: str
    child: int


class UnreadNotice(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """A notice that goes along with a continuation. ``notice`` is its kind; ``at`` as above."""

    notice: str
    sender: str
    at: int
    result: bytes | None = None
    failure: FailureInfo | None = None
    reason: str = ""


class Approval(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """What one of several people entered who had to complete a human task. ``value``: as JSON;
    ``at`` in microseconds since 1970; ``person``: for whom ``by`` acted, if for another.
    """

    by: str
    at: int
    value: bytes | None = None
    comment: str = ""
    person: str = ""


class Handling(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """How a human task is dealt with, if not in the plainest way. ``type``: what kind it is, in
    words of the user's. ``escalate``: which role it goes to, and when (microseconds since 1970).
    ``approvers``: how many people must complete it; ``not_by``: who must not. ``form_version``: the
    number of its form, 0 if it has none. ``expires``: when it ends if nobody has decided it; 0 for
    never, ``None`` for the time when it is due.
    """

    type: str = ""
    escalate: tuple[tuple[str, int], ...] = ()
    approvers: int = 1
    not_by: tuple[str, ...] = ()
    form_version: int = 0
    expires: int | None = None


PLAIN: Final = Handling()
"""The plainest way: left out of a history."""
