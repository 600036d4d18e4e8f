"""The envelope: what workflows that are invoked get as their input."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.values.principals import Kind, Power, Principal


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody as workflows see them. ``type``: "user" or "bot"; ``role_type``: the highest one."""

    id: str
    type: str = "user"
    display_name: str = ""
    roles: tuple[str, ...] = ()
    role_type: str = "member"


class Provider(msgspec.Struct, frozen=True):
    """The latest output of a workflow whose data another consumes. ``completed_at``: ISO 8601."""

    data: Any
    workflow_type: str
    completed_at: str


class Invocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """For whom the workflow runs, and whence.

    ``initiated_by`` and ``initiating_principal``: the person, where a service account acts, or
    somebody in another's place.
    ``origin_id``: what executions that belong together share. ``escalation_*``: what a resolver was
    asked, in a run that goes on with the answer.
    """

    user_id: str = ""
    principal: Actor | None = None
    initiated_by: str = ""
    initiating_principal: Actor | None = None
    scopes: tuple[str, ...] = ()
    origin_id: str = ""
    parent_id: str = ""
    escalation_id: str = ""
    escalation_status: str = ""
    escalation_metadata: dict[str, Any] = {}
    providers: dict[str, Provider] = {}


class Envelope(msgspec.Struct):
    """What a workflow is invoked with. ``resolver``: what a person answered to its escalation."""

    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    lt: Invocation = Invocation()
    resolver: Any = None


def actor(principal: Principal) -> Actor:
    """Return a principal as workflows see it."""
    powers = [grant.power for grant in principal.grants]
    highest = max(powers, key=[*Power].index, default=Power.MEMBER)
    return Actor(
        id=principal.id,
        type="bot" if principal.kind is Kind.SERVICE else "user",
        display_name=principal.name or principal.id,
        roles=tuple(grant.role for grant in principal.grants),
        role_type=str(highest),
    )


def invocation(
    acts: Principal,
    caller: Principal,
    *,
    origin: str,
    scopes: tuple[str, ...],
    providers: dict[str, Provider],
) -> Invocation:
    """Return who a run is for: ``acts`` is whom it acts as, ``caller`` who asked for it. By a
    delegation that is a third one, of whom only the id is known.
    """
    person = acts.initiated_by
    return Invocation(
        user_id=acts.id,
        principal=actor(acts),
        initiated_by=person,
        initiating_principal=actor(caller if person == caller.id else Principal(person))
        if person
        else None,
        scopes=scopes,
        origin_id=origin,
        providers=providers,
    )
