"""The keys of persons: records, made when they are first needed, and destroyed for good.

A key is kept in memory for a minute: so long may a process still open values of a subject that
another process has erased. The process that erases forgets the key at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from perdure import errors, views
from perdure.crypto import AesGcm
from perdure.personal import Personal
from perdure.store.desk import WRITER
from perdure.store.port import Reader, Store
from perdure.values.audit import AuditLine
from perdure.values.duration import SECOND
from perdure.values.labels import check_label
from perdure.values.records import Amend, Put, Record

T = TypeVar("T")

KIND = "subject_key"
"""The kind of record that keys are."""
KEPT = 60 * SECOND
"""How long a key stays in memory."""
_MOST = 1_000
_KEY_ID = "subject"


class Kept(Protocol):
    """Where the records are: a desk."""

    def read(self, verb: Callable[[Reader], T]) -> Any:
        """Read from the store."""
        ...

    def write(self, verb: Callable[[Store], T]) -> Any:
        """Write to the store."""
        ...


class _Entry(msgspec.Struct, omit_defaults=True):
    """A record: a key, or when it was destroyed (microseconds since 1970)."""

    key: str = ""
    erased_at: int = 0


_read = msgspec.json.Decoder(_Entry).decode


def _checked(subject: str) -> str:
    if not check_label(subject, "subject"):
        raise errors.Invalid("subject: it is empty")
    return subject


class Subjects:
    """See the module's text. Bound to ``loop``."""

    def __init__(self, desk: Kept, now: Callable[[], int], loop: asyncio.AbstractEventLoop) -> None:
        self._desk = desk
        self._now = now
        self._loop = loop
        self._cached: dict[tuple[str, str], tuple[AesGcm, int]] = {}
        self._erased = 0
        """How often something was erased here: a key that was read before is not kept."""

    async def seal(self, subject: str, data: bytes, home: str) -> Personal:
        """Seal an encoded value.

        Raises:
            Erased: the subject was erased.
            Invalid: the subject is no id.
        """
        cipher = await self._key(home, _checked(subject), make=True)
        return Personal(subject, cipher.encode(data), home)

    async def open(self, value: Personal) -> bytes:
        """Return the encoded value.

        Raises:
            Erased: the subject was erased.
            Sealed: the subject's key is not in this database.
            Invalid: it was changed since it was sealed.
        """
        cipher = await self._key(value.home, value.subject, make=False)
        try:
            return cipher.decode(value.sealed)
        except (errors.Corrupt, errors.Sealed):
            raise errors.Invalid(
                f"the personal value of {value.subject!r} does not fit the key of that subject: it "
                "was changed, or sealed in another database"
            ) from None

    async def erase(self, subject: str, home: str, audit: Sequence[AuditLine]) -> bool:
        """Destroy a subject's key, and let nobody make another; ``False``: that was done before.

        Raises:
            Invalid: the subject is no id.
        """
        _checked(subject)
        while True:
            record, entry = await self._entry(home, subject)
            if entry is not None and entry.erased_at:
                return False
            now = self._now()
            version = record.version if record is not None else 0
            data = msgspec.json.encode(_Entry(erased_at=now))
            amend = Amend([Put(KIND, subject, data, version, home)], audit=audit)
            try:
                await self._desk.write(lambda store, it=amend, now=now: store.amend(it, now))
            except errors.Conflict:
                continue  # made, or erased, meanwhile
            finally:
                self._erased += 1
                self._cached.pop((home, subject), None)
            return True

    async def has_key(self, subject: str, home: str) -> bool:
        """Tell whether something was sealed for a subject, who was not erased."""
        _, entry = await self._entry(home, _checked(subject))
        return entry is not None and not entry.erased_at

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, and wait for it in this thread.

        Raises:
            UsageError: this thread is the one that it would wait for.
        """
        is_loop = asyncio._get_running_loop() is not None  # pyright: ignore[reportPrivateUsage] - cheap, and raises nothing
        if is_loop or threading.current_thread().name == WRITER:
            coroutine.close()
            raise errors.UsageError(
                "open_now and seal_now wait, and must not wait here: await open() in a coroutine; "
                "in a transactional activity on a database in memory, neither of them works"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _key(self, home: str, subject: str, *, make: bool) -> AesGcm:
        found = self._cached.get((home, subject))
        if found is not None and 0 <= self._now() - found[1] < KEPT:
            return found[0]
        while True:
            at, erased = self._now(), self._erased
            record, entry = await self._entry(home, subject)
            if entry is None and make:
                await self._make(home, subject)
                continue
            if record is None or entry is None:
                raise errors.Sealed(
                    f"a personal value of {subject!r} cannot be opened: there is no key of that "
                    f"subject in namespace {home!r}; it was sealed in another database"
                )
            if entry.erased_at:
                when = views.to_datetime(entry.erased_at).isoformat(timespec="seconds")
                raise errors.Erased(
                    f"{subject!r} was erased at {when}: nobody can open what was sealed for them, "
                    "and nothing more can be"
                )
            cipher = AesGcm({_KEY_ID: entry.key})
            if len(self._cached) >= _MOST:
                self._cached.clear()
            if erased == self._erased:
                self._cached[home, subject] = cipher, at
            return cipher

    async def _make(self, home: str, subject: str) -> None:
        data = msgspec.json.encode(_Entry(AesGcm.new_key()))
        amend, now = Amend([Put(KIND, subject, data, 0, home)]), self._now()
        try:
            await self._desk.write(lambda store: store.amend(amend, now))
        except errors.Conflict:
            pass  # somebody else has made it: that one counts

    async def _entry(self, home: str, subject: str) -> tuple[Record | None, _Entry | None]:
        record: Record | None = await self._desk.read(
            lambda store: store.record(KIND, subject, namespace=home)
        )
        return record, None if record is None else _read(record.data)
