"""Acting on many human tasks at once: a transaction for every hundred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from perdure import errors
from perdure.door import Host
from perdure.human.asking import names
from perdure.human.forms import check_entered
from perdure.store.port import Act, Acted, HumanTaskRow
from perdure.values import limits, payload
from perdure.values.duration import Duration, microseconds
from perdure.values.labels import check_name, check_text
from perdure.values.people import VERBS
from perdure.values.principals import Principal
from perdure.values.reach import readable, writable
from perdure.worklist import HumanTask, Skipped, shown

CLAIM = "30m"
AT_ONCE = 100
"""Human tasks in one transaction."""
Actor = str | Principal | None
"""Who acts: a name, which is believed; a principal, whose roles are asked; or the client's own."""


class Many(NamedTuple):
    """What came of acting on many: those it was done to, and the others with the reason."""

    done: list[HumanTask]
    skipped: list[Skipped]


class Acting:
    """What all of ``client.human_tasks`` shares, and the calls for many at once."""

    def __init__(self, client: Host) -> None:
        self._client = client

    async def claim_many(
        self, ids: Iterable[str], for_: Duration = CLAIM, *, by: Actor = None
    ) -> Many:
        """Claim several; those that somebody else holds, say, are skipped.

        A principal must be able to change all human tasks of their roles, here and in the calls
        below.

        Raises:
            TaskDenied: it may not; nothing was changed.
        """
        return await self._act_on_many(ids, "claim", by, until=self._until(for_))

    async def assign_many(self, ids: Iterable[str], to: str, *, by: Actor = None) -> Many:
        """Make several somebody's."""
        return await self._act_on_many(ids, "reassign", by, assignee=check_name(to, "to"))

    async def escalate_many(
        self, ids: Iterable[str], to: str | None = None, *, reason: str = "", by: Actor = None
    ) -> Many:
        """Give several to a role; without one, each to the next of its own."""
        role = None if to is None else check_name(to, "to")
        return await self._act_on_many(ids, "escalate", by, role=role, comment=comment_of(reason))

    async def cancel_many(self, ids: Iterable[str], reason: str = "", *, by: Actor = None) -> Many:
        """Take several back."""
        return await self._act_on_many(ids, "cancel", by, comment=comment_of(reason))

    async def complete_all(
        self,
        ids: Iterable[str] | Mapping[str, Any],
        value: Any = None,
        *,
        all_or_none: bool = True,
        comment: str = "",
        by: Actor = None,
    ) -> Many:
        """Complete several with one value, or each with its own: ``{id: value}``.

        Args:
            ids: which; at most 100 if all or none are to be done.
            value: what is entered; checked against the form of each.
            all_or_none: if one cannot be completed, nothing is changed; else that one is skipped.
            comment: goes to the runs with it.
            by: who does it.

        Raises:
            Conflict: one cannot be completed, and all or none were to be;
                ``details["failed"]`` has the id, the code and the reason of each.
        """
        own = dict(cast("Mapping[str, Any]", ids)) if isinstance(ids, Mapping) else {}
        wanted = _ids(list(own) if isinstance(ids, Mapping) else ids)
        if all_or_none and len(wanted) > AT_ONCE:
            raise errors.Invalid(
                f"ids: {len(wanted)} are over the limit of {AT_ONCE} of which all or none can be "
                "completed; take fewer, or all_or_none=False"
            )
        values = {id: self._encoded(own.get(id, value)) for id in wanted}
        return await self._act_on_many(
            wanted, "complete", by, values=values, all_or_none=all_or_none, comment=comment
        )

    async def check_many(self, ids: Iterable[str], verb: str, *, by: Actor = None) -> None:
        """See whether ``verb`` ("complete", say) may be done to several at once, and do nothing.

        Raises:
            TaskDenied: whoever acts cannot change all human tasks of their roles.
            Invalid: there is no such act.
        """
        check_verb(verb)
        who = self._who(verb, by)[1]
        if who is not None:
            _check_bulk((await self._rows(_ids(ids), who)).values(), who, verb)

    # -- inside ------------------------------------------------------------------------------

    async def _act_on_many(
        self,
        ids: Iterable[str],
        verb: str,
        by: Actor,
        *,
        values: Mapping[str, bytes] | None = None,
        all_or_none: bool = False,
        **more: Any,
    ) -> Many:
        found = Many([], [])
        name, who = self._who(verb, by)
        wanted = _ids(ids)
        rows = await self._rows(wanted, who) if values is not None or who is not None else {}
        if who is not None:
            _check_bulk(rows.values(), who, verb)
        for part in _parts(wanted):
            acts: list[Act] = []
            failed: list[Skipped] = []
            for id in part:
                act = Act(id, verb, name, self._client.namespace, who=who, **more)
                act.is_bulk = who is not None
                act.begins = self._client.granted.begins.get(id)
                try:
                    if values is not None:
                        act.value = values[id]
                        row = rows.get(id)
                        if row is not None and row.status.is_open:
                            check_entered(row.form, values[id])
                except errors.Invalid as error:
                    failed.append(Skipped(id, error.code, error.message))
                else:
                    acts.append(act)
            await self._do(acts, failed, found, all_or_none=all_or_none)
        return found

    async def _do(
        self, acts: list[Act], failed: list[Skipped], found: Many, *, all_or_none: bool
    ) -> None:
        if not (all_or_none and failed) and acts:
            answers = await self._client.door.act_all(acts, all_or_none=all_or_none)
            for act, answer in zip(acts, answers, strict=True):
                if isinstance(answer, Acted):
                    found.done.append(self._shown(answer.task))
                elif not (all_or_none and type(answer) is errors.Conflict):
                    failed.append(Skipped(act.id, answer.code, answer.message))
        if all_or_none and failed:
            told = "; ".join(one.reason for one in failed[:5])
            more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
            raise errors.Conflict(
                f"none was changed, because of {len(failed)}: {told}{more}",
                details={
                    "failed": [
                        {"id": one.id, "code": one.code, "reason": one.reason} for one in failed
                    ]
                },
            )
        found.skipped.extend(failed)

    async def _rows(self, ids: list[str], who: Principal | None) -> dict[str, HumanTaskRow]:
        """Return what there is of these, and ``who`` may read."""
        home, now = self._client.namespace, self._client.door.now()
        sight = None if who is None else readable(who)
        found: dict[str, HumanTaskRow] = {}
        for part in _parts(ids):
            rows = await self._client.door.read(
                lambda store, part=part: [store.human_task(id, namespace=home) for id in part]
            )
            seen = (row for row in rows if row and (sight is None or sight.sees(row, now)))
            found |= {row.id: row for row in seen}
        return found

    def _who(self, verb: str, by: Actor) -> tuple[str, Principal | None]:
        if isinstance(by, Principal):
            return by.id, by
        if by is None and self._client.principal is not None:
            return self._client.principal.id, self._client.principal
        who = self._client.identity if by is None else by
        if not who:
            raise errors.UsageError(
                f"{verb}: say who does it: Client(…, identity=…), Engine(…, identity=…) or by=…"
            )
        return check_name(who, "by"), None

    def _encoded(self, value: Any, what: str = "value") -> bytes:
        data = payload.encode(value, what=what)
        return payload.limit(data, self._client.max_payload, what=what)

    def _shown(self, row: HumanTaskRow) -> HumanTask:
        return shown(row, self._client.door.now())

    def _until(self, span: Duration) -> int:
        claimed = microseconds(span, what="for_")
        if not claimed:
            raise errors.Invalid("for_: a claim of no time at all is none")
        return self._client.door.now() + claimed


def comment_of(text: str, what: str = "comment") -> str:
    """Return what somebody wrote.

    Raises:
        Invalid: it is too long, or not text.
    """
    return check_text(text, what, limits.REASON)


def check_verb(verb: str) -> None:
    """Make sure that something can be done to human tasks.

    Raises:
        Invalid: there is no such act.
    """
    if payload.text(verb, what="verb") not in VERBS:
        raise errors.Invalid(f"verb: {verb!r} is none of {', '.join(sorted(VERBS))}")


def _ids(given: Iterable[str]) -> list[str]:
    return list(names(given, "ids"))


def _parts(ids: list[str]) -> Iterator[list[str]]:
    """Yield ids as they go into one transaction, or one read, each."""
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


def _check_bulk(rows: Iterable[HumanTaskRow], who: Principal, verb: str) -> None:
    """See that a principal may change all of the roles involved, as far as it knows of them."""
    changes = writable(who)
    closed = {row.role for row in rows if not changes.covers(row)}
    if closed:
        roles = ", ".join(repr(role) if role else "none" for role in sorted(closed, key=str))
        raise errors.TaskDenied(
            f"{who.id!r} may not {verb} many human tasks at once of these roles: {roles}"
        )
