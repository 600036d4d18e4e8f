"""A database on a server: what lies between it and each worker, and what may happen there.

With a ``Network`` a simulation is a fleet. A verb travels to the server, is carried out there, and
its answer travels back; each process has one connection for what it writes and one for what it
reads, and hands in the next verb when it has the answer to the last. So a verb that was sent is
carried out even if the process that sent it stands still, or is dead by then.

When a connection breaks, a verb on its way is *lost*, or *written* and not acknowledged, or comes
*late*: the process has been told that it failed, and then it happens. A commit never comes late:
what decides about it (the fence) holds the row that whoever asks what became of it must wait for.
The server has a clock of its own, and the workers' clocks may be wrong by any amount.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from perdure import errors
from perdure.testing.clock import EPOCH, Process, VirtualLoop

_REFUSED_SECONDS = 0.02
_SILENT_SECONDS = 3.0
"""After how long a process takes a server that does not answer for gone, at the latest."""
_LATE_SECONDS = 4.0


class End(Protocol):
    """The end of a connection that a process has."""

    process: Process

    def carry_out(self, verb: Callable[[Any], Any], *, is_late: bool) -> Outcome | None:
        """Let the store do it; ``None``: the process died of it."""
        ...

    def seconds(self) -> float:
        """Return how long one half of the way takes."""
        ...

    def notice(self) -> None:
        """Others may have committed."""
        ...


Outcome = tuple[Any, Exception | None]
_Told = Callable[[Any, BaseException | None], None]


class _Call:
    __slots__ = ("is_broken", "is_carried_out", "told", "verb")

    def __init__(self, verb: Callable[[Any], Any], told: _Told) -> None:
        self.verb = verb
        self.told = told
        self.is_broken = False
        self.is_carried_out = False


class Network:
    """See the module's text."""

    def __init__(self, loop: VirtualLoop, chance: Random) -> None:
        self.loop = loop
        self.chance = chance
        self.hears_hints = True
        self.outages = self.cuts = 0
        self._lines: list[Line] = []
        self._cut: dict[str, Process] = {}
        self._is_down = False
        self._stalls_until = 0.0

    # -- what goes wrong -----------------------------------------------------------------------

    def go_down(self) -> None:
        """Let the server crash: for everybody, at once."""
        self._is_down = True
        self.outages += 1
        for line in list(self._lines):
            line.cut()

    def come_up(self) -> None:
        """Let it serve again."""
        self._is_down = False
        self._tell_again()

    def cut(self, process: Process) -> None:
        """Cut one process off from the server."""
        self._cut[process.name] = process
        self.cuts += 1
        for line in list(self._lines):
            if line.end.process is process:
                line.cut()

    def join(self, process: Process) -> None:
        """Let it reach the server again."""
        if self._cut.pop(process.name, None) is not None:
            self._tell_again()

    def stall(self, seconds: float) -> None:
        """Let everything that reaches the server in this time wait until it is over."""
        self._stalls_until = max(self._stalls_until, self.loop.time() + seconds)

    def calm(self) -> None:
        """Let everybody reach a server that answers."""
        self._is_down, self.hears_hints = False, True
        self._cut.clear()
        self._stalls_until = 0.0
        self._tell_again()

    # -- what is asked of it -------------------------------------------------------------------

    def time(self) -> int:
        """Return what the server's clock says, in microseconds since 1970."""
        return EPOCH + round(self.loop.time() * 1_000_000)

    def lease(self, now: int, until: int) -> int:
        """Return when a lease ends that lasts from ``now`` ``until`` then by a worker's clock."""
        return self.time() + until - now

    def reaches(self, process: Process) -> bool:
        """Tell whether a process can talk to the server."""
        return not self._is_down and process.name not in self._cut

    def check(self, process: Process) -> None:
        """Raise ``Unavailable`` if a process cannot talk to the server."""
        if not self.reaches(process):
            raise errors.Unavailable("planted: the server cannot be reached")

    def line(self, end: End) -> Line:
        """Give a process a connection."""
        line = Line(self, end)
        self._lines.append(line)
        return line

    def gone(self, process: Process) -> None:
        """A process is dead, and its connections with it."""
        for line in list(self._lines):
            if line.end.process is process:
                line.cut()
        self._lines = [line for line in self._lines if line.end.process is not process]

    def stalled(self) -> float:
        """Return how many seconds what reaches the server now has to wait."""
        return max(0.0, self._stalls_until - self.loop.time())

    def on_server(self, seconds: float, callback: Callable[..., None], *args: Any) -> None:
        """Call it then as nobody's process: it happens whoever stands still."""
        self.loop.call_at(
            self.loop.time() + seconds, callback, *args, context=contextvars.Context()
        )

    def patience(self, process: Process) -> float:
        """Return after how many seconds a process hears that the server is not there."""
        if process.name in self._cut:
            return self.chance.random() * _SILENT_SECONDS
        return self.chance.random() * _REFUSED_SECONDS

    def _tell_again(self) -> None:
        for line in list(self._lines):
            line.end.notice()  # as a listener does that has connected again


class Line:
    """One connection of a process: verbs go over it one after the other."""

    def __init__(self, network: Network, end: End) -> None:
        self.end = end
        self._network = network
        self._waiting: deque[_Call] = deque()
        self._under_way: _Call | None = None

    def hand_in(self, verb: Callable[[Any], Any], told: _Told) -> None:
        """Carry out a verb, and tell what became of it, unless the process is dead by then."""
        self._waiting.append(_Call(verb, told))
        if self._under_way is None:
            self._send()

    def cut(self) -> None:
        """Break the connection, and let chance decide what becomes of the verb on its way."""
        call, network = self._under_way, self._network
        if call is None or call.is_broken:
            return
        call.is_broken = True
        if not call.is_carried_out:
            fate = network.chance.choice(("lost", "written", "late"))
            if fate == "written":
                self.end.carry_out(call.verb, is_late=False)
            elif fate == "late":
                seconds = network.chance.random() * _LATE_SECONDS
                network.on_server(seconds, self._come_late, call)
        self._fail(call)

    def _send(self) -> None:
        call = self._under_way = self._waiting.popleft()
        network = self._network
        if network.reaches(self.end.process):
            network.on_server(self.end.seconds(), self._arrive, call)
        else:
            call.is_broken = True
            self._fail(call)

    def _arrive(self, call: _Call) -> None:
        if call.is_broken:
            return
        if stalled := self._network.stalled():
            self._network.on_server(stalled, self._arrive, call)
            return
        call.is_carried_out = True
        outcome = self.end.carry_out(call.verb, is_late=False)
        if outcome is not None:
            self._as_process(self.end.seconds(), self._deliver, call, *outcome)

    def _come_late(self, call: _Call) -> None:
        self.end.carry_out(call.verb, is_late=True)

    def _fail(self, call: _Call) -> None:
        error = errors.Unavailable("planted: the connection to the server is lost")
        seconds = self._network.patience(self.end.process)
        self._as_process(seconds, self._answer, call, None, error)

    def _deliver(self, call: _Call, answer: Any, error: Exception | None) -> None:
        if not call.is_broken:
            self._answer(call, answer, error)

    def _answer(self, call: _Call, answer: Any, error: Exception | None) -> None:
        self._under_way = None
        if self._waiting:
            self._send()
        call.told(answer, error)

    def _as_process(self, seconds: float, callback: Callable[..., None], *args: Any) -> None:
        self.end.process.call(self._network.loop.call_later, seconds, callback, *args)


__all__ = ["End", "Line", "Network", "Outcome"]
