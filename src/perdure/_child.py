"""The entry of an engine's subprocesses, started by the pool only."""

from perdure.engine.processes.child import main

__all__ = ["main"]
