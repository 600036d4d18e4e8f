"""What is of persons: ``client.personal`` seals it so that it can be erased, and erases it
(docs/personal-data.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from perdure import errors
from perdure.door import Host
from perdure.filters import read_filter
from perdure.human import escalation
from perdure.personal import Personal, decoded, encoded
from perdure.store.port import Erase, ErasedPart, Filter, Place, Reader, RunRow
from perdure.values import ids, limits
from perdure.values.audit import line_by
from perdure.values.erasing import Erasure
from perdure.values.states import TERMINAL

ERASE = "erase"
ERASE_SUBJECT = "subject.erase"
_OWN = frozenset({ids.ALERT, escalation.companion.name})
"""What Perdure begins with the end of a run."""
_SHARE = 0.5
"""Of the time: others write meanwhile."""


def _open_beside(row: RunRow, beside: Sequence[RunRow]) -> errors.Conflict | None:
    """Return why a run is not erased: something that began with its end is open."""
    id = next((it.workflow_id for it in beside if not it.status.is_terminal), None)
    if id is None:
        return None
    return errors.Conflict(
        f"{id!r} began with the end of {row.workflow_id!r}, is open, and needs what that was "
        "given: end it first",
        details={"workflow_id": id},
    )


class _Left(NamedTuple):
    """What is not erased, and why. ``workflow_id``: what is to be ended, or is damaged."""

    workflow_id: str
    why: str


def _conflict(left: Sequence[_Left], done: int) -> errors.Conflict:
    told = "; ".join(one.why for one in left[:3])
    more = f"; and {len(left) - 3} more" if len(left) > 3 else ""
    ids = [one.workflow_id for one in left]
    return errors.Conflict(
        f"erased {done}, and left {len(left)} that have ended: {told}{more}",
        details={"workflow_ids": ids},
    )


class PersonalData:
    """See the module's text."""

    def __init__(self, client: Host) -> None:
        self._client = client

    async def seal(self, subject: str, value: Any) -> Personal:
        """Seal a value of a person, to be given to workflows.

        The subject's key is made when it is first needed, and kept in the client's namespace.

        Args:
            subject: whose it is: text of at most 1,000 characters, which is not encrypted.
            value: any payload.

        Raises:
            Erased: the subject was erased; who comes back is another subject.
            Invalid: the value cannot be encoded, or the subject is no id.
        """
        data = encoded(subject, value)
        return await self._client.door.subjects.seal(subject, data, self._client.namespace)

    async def open(self, value: Personal | dict[str, Any], kind: Any = Any) -> Any:
        """Return what is in a personal value, as ``kind``; plain JSON of one will do, as results
        that were read without a type have it.

        Raises:
            Erased: the subject was erased, by another process up to a minute ago or longer.
            Sealed: the subject's key is not in this database.
            Invalid: it is no personal value, was changed, or is no ``kind``.
        """
        try:
            found = msgspec.convert(value, Personal)
        except msgspec.ValidationError as exc:
            raise errors.Invalid(f"this is no personal value: {exc}") from exc
        return decoded(found, await self._client.door.subjects.open(found), kind)

    async def erase(self, subject: str) -> bool:
        """Destroy the key of a subject: nobody can open what was sealed for them any more, wherever
        it stands. Histories stay as they are, and runs go on; their activities get ``Erased``.

        It is done, and told to the audit, when this returns; other processes may keep the key in
        memory for up to a minute. ``False``: the subject was erased before. Somebody who had no key
        gets none any more: :meth:`has_key` tells a subject from one that was misspelt.

        Raises:
            Invalid: the subject is no id.
        """
        home = self._client.namespace
        target = f"subject/{subject}"
        line = line_by(self._client.acts_for, ERASE_SUBJECT, target=target, namespace=home)
        return await self._client.door.subjects.erase(subject, home, [line])

    async def has_key(self, subject: str) -> bool:
        """Tell whether something was sealed for a subject in this namespace, who was not erased."""
        return await self._client.door.subjects.has_key(subject, self._client.namespace)

    async def erase_payloads(
        self, workflow_id: str, run_id: str = "", *, namespace: str | None = None
    ) -> int:
        """Erase all that users have put into an execution that has ended; return how many rows of
        its history were changed.

        What happened when, by whom and under which names and ids stays. It is done in small
        transactions; if it was cut off, the same call goes on, and until then the run says so. What
        Perdure began with its end, alerts and the asking of an escalation, is erased first. Its
        children, and copies that were made of it before, are executions of their own.

        Args:
            workflow_id: of the execution, all of whose runs are meant.
            run_id: this run alone, which may be an earlier one of an execution that is open.
            namespace: if it is not the client's.

        Raises:
            Conflict: it is open, or what Perdure began with its end is. End that first; what
                personal values hold can be erased at any time.
            NotFound: there is no such execution.
        """
        door, home = self._client.door, namespace or self._client.namespace
        row = await door.read(lambda store: store.find(workflow_id, namespace=home, run_id=run_id))
        if row is None:
            raise errors.NotFound(f"there is no workflow {workflow_id!r}")
        return await self._erase(row, row.run if run_id else 0, await self._beside(row, run_id))

    async def erase_payloads_of(self, **filters: Any) -> int:
        """Do so to all executions that have ended of those that a list with these ``filters`` has;
        return how many. If it was cut off, the same call does the rest.

        Raises:
            Invalid: no filter, an unknown one, or ``status``, which is any end.
            Conflict: of some that have ended, what Perdure began with the end is open, and they are
                as they were; or a row of their history is damaged. The message names what to do.
                All others are erased.
        """
        if not filters or "status" in filters:
            raise errors.Invalid("erase_payloads_of: give filters of a list, other than status")
        wanted = {**filters, "status": [str(one) for one in sorted(TERMINAL)]}
        where = read_filter(wanted, self._client.namespace)
        before: Place | None = None
        seen: set[int] = set()
        left: list[_Left] = []
        done = 0
        while True:
            page = await self._client.door.read(
                lambda store, before=before: store.list(where, limit=limits.LIST_MAX, before=before)
            )
            for row in page.rows:
                known = row.execution in seen or row.reason == Erasure.DONE
                if known or not await self._is_erasable(row):
                    continue
                seen.add(row.execution)
                beside = await self._beside(row)
                if (still := _open_beside(row, beside)) is not None:
                    left.append(_Left(still.details["workflow_id"], still.message))
                    continue
                try:
                    await self._erase(row, 0, beside)
                except errors.NotFound:
                    continue  # it was deleted meanwhile
                except (errors.Conflict, errors.Corrupt) as exc:
                    if await self._is_erasable(row):  # else it was begun again meanwhile
                        left.append(_Left(row.workflow_id, f"{row.workflow_id!r}: {exc.message}"))
                else:
                    done += 1
            before = page.goes_on
            if before is None:
                break
        if left:
            raise _conflict(left, done)
        return done

    async def _is_erasable(self, row: RunRow) -> bool:
        """Tell whether the whole execution has ended: one with a cron text may be open."""
        door, name, home = self._client.door, row.workflow_id, row.namespace
        latest = await door.find(name, home)
        return latest is None or latest.execution != row.execution or latest.status.is_terminal

    async def _beside(self, row: RunRow, run_id: str = "") -> list[RunRow]:
        """Return the runs of Perdure's own that began with the end of a run, or of any of its
        execution: they were given what that had. None, if it is open and so is not erased.
        """
        if not row.status.is_terminal:
            return []
        door, home = self._client.door, row.namespace
        runs = [run_id] if run_id else await self._runs_of(row)
        escalations = [(home, escalation.id_for(row.workflow_id, run)) for run in runs]

        def began(store: Reader) -> list[RunRow]:
            found = [it for it in store.latest(escalations) if it is not None]
            for run in runs:
                found += store.prefix(ids.alerts_of(run), namespace=home, limit=limits.LIST_MAX)
            return [it for it in found if it.workflow in _OWN]

        return await door.read(began)

    async def _runs_of(self, row: RunRow) -> list[str]:
        where = Filter(namespace=row.namespace, workflow_id=row.workflow_id)
        found: list[str] = []
        before: Place | None = None
        while True:
            page = await self._client.door.read(
                lambda store, before=before: store.list(where, limit=limits.LIST_MAX, before=before)
            )
            found += [it.run_id for it in page.rows if it.execution == row.execution]
            before = page.goes_on
            if before is None:
                return found

    async def _erase(self, row: RunRow, run: int, beside: Sequence[RunRow]) -> int:
        """Erase it, and before that what was ``beside`` it: whoever is cut off asks again.

        Raises:
            Conflict: one of these is open.
        """
        if (still := _open_beside(row, beside)) is not None:
            raise still
        for one in beside:
            if one.reason != Erasure.DONE:
                await self._erase_one(one, 0)
        return await self._erase_one(row, run)

    async def _erase_one(self, row: RunRow, run: int) -> int:
        door, loop, rows = self._client.door, asyncio.get_running_loop(), 0
        line = line_by(
            self._client.acts_for,
            ERASE,
            target=row.workflow_id,
            run_id=row.run_id if run else "",
            namespace=row.namespace,
        )
        wish = Erase(row.execution, run, audit=[line])
        while True:
            began, now = loop.time(), door.now()
            part: ErasedPart = await door.write(
                lambda store, wish=wish, now=now: store.erase(wish, now)
            )
            rows += part.rows
            if part.goes_on is None:
                return rows
            wish = msgspec.structs.replace(wish, after=part.goes_on)
            await asyncio.sleep((loop.time() - began) * (1 / _SHARE - 1))
