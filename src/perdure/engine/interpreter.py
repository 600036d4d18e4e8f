"""What a running engine asks of the interpreter, for as long as one runs in this process.

Two settings, both of the whole process, both put back when the last engine stops:

* The switch interval falls to 0.5 ms. A Python thread that computes keeps the interpreter lock for
  a whole interval each time the loop or the writer thread waits for anything; at the default 5 ms
  that halved the throughput (R1).
* The first generation of the garbage collector takes 10,000 objects. Turns make and drop thousands
  of short-lived objects a second; at the default 700 the collector took a quarter of the loop's
  time to find nothing.

A value that is already further in this direction is left alone. ``Engine(tune_interpreter=False)``
leaves all of it alone.
"""

from __future__ import annotations

import gc
import sys
import threading

SWITCH_INTERVAL = 0.0005
FIRST_GENERATION = 10_000

_lock = threading.Lock()
_engines = 0
_before: tuple[float, int] = (0.0, 0)


def tune() -> None:
    """Set what an engine needs; each call is answered by one of :func:`restore`."""
    global _before, _engines  # noqa: PLW0603 - the settings are the process's, and so is their count
    with _lock:
        _engines += 1
        if _engines > 1:
            return
        first, second, third = gc.get_threshold()
        _before = sys.getswitchinterval(), first
        sys.setswitchinterval(min(_before[0], SWITCH_INTERVAL))
        if first:  # 0: somebody has switched collection off
            gc.set_threshold(max(first, FIRST_GENERATION), second, third)


def restore() -> None:
    """Put back what was before the first engine."""
    global _engines  # noqa: PLW0603 - see above
    with _lock:
        _engines -= 1
        if _engines:
            return
        interval, first = _before
        sys.setswitchinterval(interval)
        gc.set_threshold(first, *gc.get_threshold()[1:])
