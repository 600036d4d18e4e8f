"""Which human tasks a principal may read and change: what its grants reach.

One value, :class:`Sight`, says it. A human task is held against it (:meth:`Sight.sees`), and the
stores turn the same value into the condition of their lists and counts, so that nobody finds in a
list what could not be opened, or the other way round.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from perdure.values.principals import Grant, Power, Principal, Reach

_ORDER = (Reach.NONE, Reach.SELF, Reach.ALL)


class Seen(Protocol):
    """What is asked of a human task."""

    role: str | None
    assignee: str | None
    claimed_by: str | None
    claimed_until: int | None
    closed_by: str | None
    tenant: str


class Sight(msgspec.Struct, frozen=True, gc=False):
    """What somebody reaches: of the roles in ``whole`` every human task, of those in ``closed``
    none, and otherwise their own: assigned to them, claimed by them, or decided by them.

    ``is_whole``: everything. ``tenant``: and only what is of that tenant; empty: of any.
    """

    me: str
    is_whole: bool = False
    whole: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    tenant: str = ""

    def sees(self, task: Seen, now: int) -> bool:
        """Tell whether a human task is within reach."""
        if self.tenant and task.tenant != self.tenant:
            return False
        if self.is_whole or task.role in self.whole:
            return True
        return task.role not in self.closed and self._is_own(task, now)

    def covers(self, task: Seen) -> bool:
        """Tell whether all human tasks of this one's role are within reach."""
        if self.tenant and task.tenant != self.tenant:
            return False
        return self.is_whole or task.role in self.whole

    def covers_role(self, role: str | None) -> bool:
        """Tell whether all human tasks of a role are within reach."""
        return self.is_whole or role in self.whole

    def _is_own(self, task: Seen, now: int) -> bool:
        is_held = task.claimed_until is not None and task.claimed_until > now
        return (
            task.assignee == self.me
            or (is_held and task.claimed_by == self.me)
            or task.closed_by == self.me
        )


def readable(who: Principal) -> Sight:
    """Return what a principal may read."""
    return _sight(who, _read)


def writable(who: Principal) -> Sight:
    """Return what a principal may change: never more than it may read."""
    return _sight(who, _write)


def _sight(who: Principal, reach_of: _ReachOf) -> Sight:
    reached: dict[str, Reach] = {}
    for grant in who.grants:
        known = reached.get(grant.role, Reach.NONE)
        reached[grant.role] = max(known, reach_of(grant), key=_ORDER.index)
    return Sight(
        me=who.id,
        is_whole=who.is_admin,
        whole=frozenset(role for role, reach in reached.items() if reach is Reach.ALL),
        closed=frozenset(role for role, reach in reached.items() if reach is Reach.NONE),
        tenant=who.tenant,
    )


class _ReachOf(Protocol):
    def __call__(self, grant: Grant, /) -> Reach: ...


def _read(grant: Grant) -> Reach:
    return Reach.ALL if grant.power is not Power.MEMBER else grant.read


def _write(grant: Grant) -> Reach:
    if grant.power is not Power.MEMBER:
        return Reach.ALL
    return min(grant.read, grant.write, key=_ORDER.index)
