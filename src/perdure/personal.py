"""Personal values: what is of a person, sealed by a key of that person's own.

A workflow gets one, keeps it and passes it on, and never sees what is in it; so its history can be
replayed when the key has been destroyed (``client.personal.erase``) and nobody can open the value
any more. Activities and clients open it:

    @activity.define
    async def send_mail(to: Personal) -> None:
        address = await to.open(str)
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from perdure import activity, errors
from perdure.kernel import traps
from perdure.values import payload

T = TypeVar("T")

_OUTSIDE = (
    "a personal value is sealed and opened here in activities; elsewhere a client does it: "
    "client.personal.seal(…), client.personal.open(…)"
)
_IN_WORKFLOW = (
    "a personal value cannot be sealed or opened in workflow code, which is replayed also when "
    "nobody can open it any more: pass it on to an activity"
)
_APART = (
    "a subprocess has no keys of persons: let an activity that is not isolated seal or open it "
    "(isolation='thread')"
)


class Personal(msgspec.Struct, frozen=True, omit_defaults=True, rename={"subject": "$personal"}):
    """A value of a person, sealed. It is equal to its copies, and to nothing else.

    ``subject``: whose it is. That stands beside it in the clear: take an id that says nothing.
    ``home``: the namespace in which the subject's key is kept.
    """

    subject: str
    sealed: bytes
    home: str = "default"

    def __repr__(self) -> str:
        return f"Personal({self.subject!r})"

    async def open(self, kind: type[T] | Any = Any) -> T | Any:
        """Return what is in it, as ``kind``, in an activity: ``await value.open(Address)``.

        Raises:
            Erased: the subject was erased. It is not retried.
            Invalid: it is no ``kind``.
            UsageError: not called in an activity; or in a subprocess, which has no keys.
        """
        return decoded(self, await _keys().open(self), kind)

    def open_now(self, kind: type[T] | Any = Any) -> T | Any:
        """The same in a plain function, which runs in a thread."""
        keys = _keys()
        return decoded(self, keys.wait(keys.open(self)), kind)


async def seal(subject: str, value: Any) -> Personal:
    """Seal what is of a person, in an activity: ``return await personal.seal("u42", address)``.

    The key is that of the subject in the run's namespace, and is made when it is first needed.

    Raises:
        Erased: the subject was erased; who comes back is another subject.
        Invalid: the value cannot be encoded, or the subject is no id.
        UsageError: not called in an activity; in a transactional one, whose transaction may be in
            the way of the key's; or in a subprocess, which has no keys.
    """
    return await _keys(writes=True).seal(subject, encoded(subject, value), _namespace())


def seal_now(subject: str, value: Any) -> Personal:
    """The same in a plain function, which runs in a thread."""
    keys = _keys(writes=True)
    return keys.wait(keys.seal(subject, encoded(subject, value), _namespace()))


def encoded(subject: str, value: Any) -> bytes:
    """Encode what is to be sealed."""
    return payload.encode(value, what=f"personal value of {subject!r}")


def decoded(value: Personal, data: bytes, kind: Any) -> Any:
    """Decode what was opened."""
    return payload.decoder(kind, what=f"personal value of {value.subject!r}")(data)


class Keys(Protocol):
    """Who seals and opens for attempts: the engine."""

    async def seal(self, subject: str, data: bytes, home: str) -> Personal:
        """Seal an encoded value."""
        ...

    async def open(self, value: Personal) -> bytes:
        """Return the encoded value."""
        ...

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the engine's loop, and wait for it in this thread."""
        ...


def _keys(*, writes: bool = False) -> Keys:
    if traps.current() is not None:
        raise errors.UsageError(_IN_WORKFLOW)
    attempt = activity.current()
    if attempt is None:
        raise errors.UsageError(_OUTSIDE)
    keys: Keys | None = attempt.keys
    if keys is None:
        raise errors.UsageError(_APART)
    if writes and attempt.connection is not None:
        raise errors.UsageError(
            "personal values cannot be sealed in a transactional activity: the key might have to "
            "be written, which waits for the end of this very transaction. Seal it before"
        )
    return keys


def _namespace() -> str:
    return activity.info().namespace
