"""Who did what: ``client.audit``. Lists, the check that nobody has changed it, archive and cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import msgspec

from perdure import errors, views
from perdure.door import Host
from perdure.values import limits, payload
from perdure.values.audit import (
    AuditFilter,
    AuditHead,
    AuditPlace,
    AuditRow,
    detail,
    fault_of,
    line_by,
)
from perdure.values.labels import check_name
from perdure.values.principals import Principal
from perdure.values.records import Amend
from perdure.views import Page
from perdure.workflow import check_mapping

CUT = "audit.cut"
ERASE = "audit.erase"
_PAGE = 2_000
_HIGHEST = 2**63 - 1
_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")


class AuditEntry(msgspec.Struct, frozen=True):
    """A line of the audit. ``at``: aware, UTC.

    ``target``: a workflow id, the id of a human task, ``kind/id`` of a record. ``detail``: what was
    before and after, at level "full"; ``is_erased``: it was, and ``sealed``: why it cannot be
    opened here.
    """

    number: int
    at: datetime
    action: str
    principal: str
    target: str = ""
    run_id: str = ""
    initiated_by: str = ""
    namespace: str = "default"
    decision: str = ""
    rule: str = ""
    detail: Mapping[str, Any] | None = None
    is_erased: bool = False
    sealed: str = ""
    hash: str = ""


class Verified(msgspec.Struct, frozen=True):
    """What came of a check. ``broken``: the first row that does not fit, and ``fault``, what of it.

    ``rows``: how many fit, from behind row ``cut``, or with archives from row 1 on. ``head`` and
    ``hash``: of the last: who keeps them elsewhere can prove later that nothing before was changed.
    ``unopened``: rows whose detail could not be opened here, so that only the chain was checked.
    """

    rows: int
    head: int
    hash: str
    cut: int = 0
    broken: int | None = None
    fault: str = ""
    unopened: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return self.broken is None


class _Noted(NamedTuple):
    """A row as somebody has noted it; without a hash, only that it is there."""

    number: int
    hash: str


class _Chain:
    """Goes through the rows of a chain; stands still at the first that does not fit."""

    def __init__(self, head: AuditHead, noted: _Noted) -> None:
        self._head = head
        self._noted = noted
        self._rows = 0
        self._unopened = 0
        self._told = not head.cut
        self._broken: int | None = None
        self.last = AuditHead()
        self.fault = ""

    def begins_behind_the_cut(self) -> None:
        self.last = AuditHead(self._head.cut, self._head.cut_hash)
        if self._noted.number == self.last.number:
            self._compare(self.last)

    def archived(self, lines: Iterable[bytes]) -> None:
        """Go through archived rows, up to where the chain was cut off."""
        cut = self._head.cut
        for line in lines:
            row = read_archived(line)
            if not self._rows and row.number != 1:
                raise errors.Invalid(
                    f"verify: the archive begins with row {row.number}; name those from before it, "
                    "too, oldest first"
                )
            if row.number > cut or not self._fits(row):
                break
        if self.fault:
            return
        if self.last.number < cut:
            behind = self.last.number + 1
            self._found(behind, f"rows {behind} to {cut} were cut off, and are in no archive here")
        elif self.last.hash != self._head.cut_hash:
            self._found(cut, "it is not the row behind which the chain was cut off")

    def stored(self, rows: Sequence[AuditRow]) -> None:
        """Go through rows of the database."""
        end = self._head
        if not rows:
            behind = self.last.number + 1
            self._found(behind, f"rows {behind} to {end.number} are missing at the end")
        for row in rows:
            if not self._fits(row):
                return
            self._told = self._told or (row.action, row.target) == (
                CUT,
                f"{end.cut}:{end.cut_hash}",
            )
            if row.number == end.number and row.hash != end.hash:
                self._found(row.number, "it is not the row that the chain ended with")

    def verified(self) -> Verified:
        if not self.fault and not self._told:
            self._found(self._head.cut, "it was cut off here, and no line tells of it")
        if not self.fault and self._noted.number > self.last.number:
            last = self.last.number
            self._found(self._noted.number, f"there is no such row: the chain ends with row {last}")
        return Verified(
            self._rows,
            self.last.number,
            self.last.hash,
            self._head.cut,
            self._broken,
            self.fault,
            self._unopened,
        )

    def _fits(self, row: AuditRow) -> bool:
        if fault := fault_of(row, self.last):
            self._found(row.number, fault)
            return False
        if row.number == self._noted.number and not self._compare(AuditHead(row.number, row.hash)):
            return False
        self.last = AuditHead(row.number, row.hash)
        self._rows += 1
        self._unopened += bool(row.sealed)
        return True

    def _compare(self, row: AuditHead) -> bool:
        if self._noted.hash in ("", row.hash):
            return True
        self._found(row.number, f"its hash is {row.hash}, not the one that was noted")
        return False

    def _found(self, broken: int, fault: str) -> None:
        self._broken, self.fault = broken, fault


class Audit:
    """See the module's text."""

    def __init__(self, client: Host) -> None:
        self._client = client

    async def list(
        self, *, limit: int = limits.LIST_DEFAULT, cursor: str | None = None, **filters: Any
    ) -> Page[AuditEntry]:
        """List lines, newest first.

        Args:
            limit: at most this many, 1 to 1000.
            cursor: ``page.cursor`` of the page before.
            **filters: ``principal``, ``action`` (``"people.*"``: all that begin so), ``target`` (or
                ``workflow_id``), ``run_id``, ``since`` and ``until`` (aware datetimes, ``until``
                excluded), ``namespace``.

        Raises:
            Invalid: an unknown filter, or a cursor that is none.
        """
        if not isinstance(cast("Any", limit), int) or not 1 <= limit <= limits.LIST_MAX:
            raise errors.Invalid(f"limit: {limit!r} is not a number from 1 to {limits.LIST_MAX}")
        where, before = self._filter(filters), _place(cursor) if cursor else None
        rows = await self._client.door.read(
            lambda store: store.audit(where, limit=limit + 1, before=before)
        )
        items, last = [shown(row) for row in rows[:limit]], rows[:limit][-1:]
        goes_on = f"{last[0].at}.{last[0].number}" if len(rows) > limit else None
        return Page(items, goes_on)

    async def note(
        self,
        action: str,
        target: str = "",
        *,
        run_id: str = "",
        decision: str = "",
        rule: str = "",
        by: Principal | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a line of one's own, of a decision say; it is on disk when this returns.

        ``by``: who did it, if not the one for whom this client acts. ``facts``: its detail. Erasing
        an execution's payloads erases those of notes that have its ``run_id``.

        Raises:
            Invalid: no action, something else than text, or facts that cannot be encoded, or that
                are called ``salt``, as what the chain has of its own is.
        """
        door = self._client.door
        check_name(action, "action")
        for name, given in (("target", target), ("run_id", run_id), ("rule", rule)):
            payload.text(given, what=name, maximum=limits.LABEL)
        if by is not None and not isinstance(cast("Any", by), Principal):
            raise errors.Invalid(f"by: {by!r} is no principal: Principal({by!r})")
        told = None if facts is None else payload.encode(_facts(facts), what="facts")
        line = line_by(
            by or self._client.acts_for,
            action,
            target=target,
            run_id=run_id,
            namespace=self._client.namespace,
            decision=decision,
            rule=rule,
            data=told
            and detail(door.chance, msgspec.json.decode(told, type=dict[str, msgspec.Raw])),
        )
        now = door.now()
        await door.write(lambda store: store.amend(Amend(audit=[line]), now))

    async def verify(
        self, *, number: int = 0, hash: str = "", archived: Iterable[bytes] | None = None
    ) -> Verified:
        """Check the chain from where it was cut off to its end, and name the first broken row.

        ``number`` and ``hash``: of a row, as they were noted elsewhere: whoever can write to the
        database can also make a chain anew, but not one with this hash. ``archived``: the lines of
        all archives, oldest first: then the chain is checked from row 1 on.

        Raises:
            Conflict: the row that was noted is in no database any more, and not in ``archived``.
            Invalid: a hash without a row, or what is none; a line of no archive, or the first ones
                are missing.
        """
        payload.text(hash, what="hash")
        _check_number(number, least=1 if hash else 0)
        lines = None if archived is None else list(archived)
        while True:
            head = await self._client.door.read(lambda store: store.audit_head())
            found = await self._verified(head, _Noted(number, hash), lines)
            if found.holds:
                return found
            if (await self._client.door.read(lambda store: store.audit_head())).cut == head.cut:
                return found  # else rows were cut off under our eyes

    async def _verified(
        self, head: AuditHead, noted: _Noted, archived: Sequence[bytes] | None
    ) -> Verified:
        chain = _Chain(head, noted)
        if archived is not None:
            chain.archived(archived)
        elif noted.hash and noted.number < head.cut:
            raise errors.Conflict(
                f"row {noted.number} was cut off, with all up to row {head.cut}: give the archive "
                "that has it, and those from before"
            )
        else:
            chain.begins_behind_the_cut()
        while not chain.fault and chain.last.number < head.number:
            after = chain.last.number
            rows = await self._client.door.read(
                lambda store, after=after: store.audit_chain(after=after, limit=_PAGE)
            )
            chain.stored(rows)
        return chain.verified()

    async def archive(self, until: datetime, write: Callable[[bytes], object]) -> int:
        """Write the lines from before a time, one JSON document each, oldest first; return the
        number of the last. Nothing is deleted: see :meth:`cut`.

        Raises:
            Sealed: a detail cannot be opened here, and would be in no archive.
        """
        end = views.from_datetime(until)
        after = (await self._client.door.read(lambda store: store.audit_head())).cut
        while True:
            rows = await self._client.door.read(
                lambda store, after=after: store.audit_chain(after=after, limit=_PAGE)
            )
            for row in rows:
                if row.at >= end:
                    return after
                if row.sealed:
                    raise errors.Sealed(
                        f"the detail of row {row.number} would be in no archive: {row.sealed}"
                    )
                write(_archived(row) + b"\n")
                after = row.number
            if len(rows) < _PAGE:
                return after

    async def erase(self, target: str) -> int:
        """Erase the details of all that was done to a target, for ever; return of how many lines.

        Who did what stays, and the chain still holds; a new line tells of it. Archives and
        histories are not touched.

        Raises:
            Invalid: the target is empty, or no text.
        """
        check_name(target, "target")
        door, home = self._client.door, self._client.namespace
        line = line_by(self._client.acts_for, ERASE, target=target, namespace=home)
        now = door.now()
        return await door.write(
            lambda store: store.erase_audit(target, [line], now, namespace=home)
        )

    async def cut(self, number: int) -> int:
        """Delete the lines up to row ``number``, which a new line tells of; return how many.

        The rest can still be checked: the chain goes on from the hash of that row.

        Raises:
            Conflict: there is no such row.
            Invalid: that is no number of a row.
        """
        _check_number(number, least=1)
        door = self._client.door
        rows = await door.read(lambda store: store.audit_chain(after=number - 1, limit=1))
        if not rows or rows[0].number != number:
            raise errors.Conflict(f"the audit has no row {number}")
        target = f"{number}:{rows[0].hash}"
        line, now, deleted = line_by(self._client.acts_for, CUT, target=target), door.now(), 0
        while True:
            part = await door.write(lambda store: store.cut_audit(number, [line], now, limit=_PAGE))
            deleted += part
            if part < _PAGE:
                return deleted

    def _filter(self, given: dict[str, Any]) -> AuditFilter:
        values = {key: value for key, value in given.items() if value is not None}
        if "workflow_id" in values:
            values["target"] = values.pop("workflow_id")
        if unknown := set(values) - set(AuditFilter.__struct_fields__):
            raise errors.Invalid(f"list: unknown filter {', '.join(sorted(unknown))}")
        for key in ("since", "until"):
            if isinstance(values.get(key), datetime):
                values[key] = views.from_datetime(values[key])
        try:
            return msgspec.convert({"namespace": self._client.namespace, **values}, AuditFilter)
        except msgspec.ValidationError as exc:
            raise errors.Invalid(f"list: {exc}") from exc


def shown(row: AuditRow) -> AuditEntry:
    """Show a row."""
    facts: dict[str, Any] | None = None
    if row.data is not None:
        facts = msgspec.json.decode(row.data)
        assert facts is not None
        facts.pop("salt", None)
    return AuditEntry(
        number=row.number,
        at=views.to_datetime(row.at),
        action=row.action,
        principal=row.principal,
        target=row.target,
        run_id=row.run_id,
        initiated_by=row.initiated_by,
        namespace=row.namespace,
        decision=row.decision,
        rule=row.rule,
        detail=facts,
        is_erased=bool(row.digest) and row.data is None and not row.sealed,
        sealed=row.sealed,
        hash=row.hash,
    )


def _archived(row: AuditRow) -> bytes:
    """Return a row with all that its hash covers; its detail as text, byte for byte."""
    fields = msgspec.structs.asdict(row)
    data = fields.pop("data")
    return msgspec.json.encode({**fields, "data": None if data is None else data.decode()})


def read_archived(line: bytes) -> AuditRow:
    """Return the row of a line that :meth:`Audit.archive` wrote.

    Raises:
        Invalid: it is none.
    """
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
        data = fields.pop("data", None)
        row = msgspec.convert(fields, AuditRow)
        row.data = None if data is None else data.encode()
    except (msgspec.DecodeError, AttributeError, TypeError) as exc:
        raise errors.Invalid(f"this is not a line of an audit's archive: {exc}") from exc
    return row


def _place(cursor: str) -> AuditPlace:
    found = _CURSOR.fullmatch(cursor) if isinstance(cast("Any", cursor), str) else None
    if found is None:
        raise errors.Invalid(f"cursor: {cursor!r} is none of this list")
    return AuditPlace(int(found[1]), int(found[2]))


def _check_number(number: int, *, least: int) -> None:
    is_one = isinstance(cast("Any", number), int) and not isinstance(number, bool)
    if not is_one or not least <= number <= _HIGHEST:
        raise errors.Invalid(f"{number!r} is no number of a row")


def _facts(given: Mapping[str, Any]) -> Mapping[str, Any]:
    facts = check_mapping(given, "facts")
    if "salt" in facts:
        raise errors.Invalid("facts: 'salt' is what the chain itself adds: take another name")
    return facts
