"""Handlers in subprocesses: the pool, what runs in it, and the watch over it."""
