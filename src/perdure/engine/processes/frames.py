"""What an engine and its subprocesses say to each other.

A frame is four bytes of length, then one of these as msgpack. Arguments, results, contexts and
details are encoded payloads: bytes that nobody looks at on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from perdure.places import Place
from perdure.values.failures import FailureInfo
from perdure.values.lines import Line

_HEAD = struct.Struct(">I")


class Service(msgspec.Struct, frozen=True):
    """How a subprocess comes by a service: ``factory`` is ``"module:name"``, or it is pickled."""

    factory: str = ""
    pickled: bytes = b""


class Setup(msgspec.Struct, tag=True):
    """The first frame a subprocess gets: how it finds the user's code, and how it behaves."""

    engine: int
    path: list[str]
    argv: list[str]
    interval: float
    level: int
    max_payload: int
    main: Place
    services: dict[str, Service] = {}


class Call(msgspec.Struct, tag=True):
    """Run an attempt: ``opener`` (``"module:name"``) makes the activity of ``payload``.

    ``has_budget``: its run has one; the attempt pays for itself first.
    """

    number: int
    opener: str
    payload: bytes
    args: bytes
    info: bytes
    context: bytes | None = None
    has_budget: bool = False


class Answered(msgspec.Struct, tag=True):
    """What came of ``Spends`` or ``Settles`` number ``ask``; ``hold``: what it is reserved as."""

    ask: int
    hold: str = ""
    failure: FailureInfo | None = None


class Cancel(msgspec.Struct, tag=True):
    """Cancel the attempt that runs."""

    number: int


class Leave(msgspec.Struct, tag=True):
    """End in good order."""


class Pulse(msgspec.Struct, tag=True):
    """The subprocess lives."""


class Entered(msgspec.Struct, tag=True):
    """The attempt is about to enter its function: modules are imported, services built."""

    number: int


class Beaten(msgspec.Struct, tag=True):
    """``activity.heartbeat(details)``."""

    number: int
    details: bytes | None = None


class Logged(msgspec.Struct, tag=True):
    """A line that is kept with the run."""

    number: int
    line: Line


class Told(msgspec.Struct, tag=True):
    """A record of Python's logging."""

    logger: str
    line: Line


class Spends(msgspec.Struct, tag=True):
    """Spend from the budgets of the run, or reserve (``holds``); amounts are millionths."""

    number: int
    ask: int
    amounts: dict[str, int]
    holds: bool = False


class Settles(msgspec.Struct, tag=True):
    """Settle what was reserved."""

    number: int
    ask: int
    hold: str
    used: dict[str, int]


class Done(msgspec.Struct, tag=True):
    """The attempt's result."""

    number: int
    result: bytes


class Failed(msgspec.Struct, tag=True):
    """The attempt's failure."""

    number: int
    failure: FailureInfo


ToChild = Setup | Call | Answered | Cancel | Leave
FromChild = Pulse | Entered | Beaten | Logged | Told | Spends | Settles | Done | Failed

read_to_child = msgspec.msgpack.Decoder(ToChild).decode
read_from_child = msgspec.msgpack.Decoder(FromChild).decode
_encode = msgspec.msgpack.Encoder().encode


def encode(frame: ToChild | FromChild) -> bytes:
    """Return a frame with its length before it."""
    data = _encode(frame)
    return _HEAD.pack(len(data)) + data


class Reader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that are whole now."""
        self._data += data
        while len(self._data) >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._data)
            end = _HEAD.size + size
            if len(self._data) < end:
                return
            frame = bytes(self._data[_HEAD.size : end])
            del self._data[:end]
            yield frame
