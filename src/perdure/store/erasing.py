"""What goes into a store about erasing what runs were given and gave, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from perdure.store.rows import Place
from perdure.values.audit import AuditLine


class Erase(msgspec.Struct, frozen=True):
    """Erase the payloads of an execution that has ended: of all its runs, or of ``run`` alone,
    which may be one that ended before the others.

    ``after``: where to go on: in the history of run ``after.run``, behind event ``after.at``.
    ``rows``: about how many history rows at a time. ``audit``: told when all is erased.
    """

    execution: int
    run: int = 0
    after: Place | None = None
    rows: int = 200
    audit: Sequence[AuditLine] = ()


class Unerased(msgspec.Struct, frozen=True):
    """A run that is being erased, or whose erasing was cut off."""

    execution: int
    run: int
    run_id: str
    workflow_id: str
    namespace: str


class ErasedPart(msgspec.Struct, frozen=True):
    """What one call erased: so many history ``rows``, with their blobs. ``goes_on``: where it does;
    ``None``: all is erased.
    """

    rows: int = 0
    goes_on: Place | None = None


class Erasing(Protocol):
    """The verb of the store port that erases."""

    def erase(self, erase: Erase, now: int) -> ErasedPart:
        """Erase a part of what an execution's runs hold of users' data, for good.

        The kinds of events, their order, names, ids and times stay. With the first part everything
        that is not in the history goes, but for search attributes, and all runs that are meant say
        that they are being erased (``values/erasing.py``); with its last part each says that it is,
        and loses these, and with the last of all the audit is told. It may be repeated, from the
        beginning too; after a lost acknowledgement it is.

        Raises:
            Conflict: the execution, or the run, is open; nothing was changed.
            NotFound: there is no such run.
            Corrupt: a row cannot be read; the message names it.
            Sealed: a row cannot be opened here.
            Unavailable: also if a blob could not be deleted now. Nothing refers to it any more, and
                the sweep of blobs deletes it when it is a day old.
        """
        ...
