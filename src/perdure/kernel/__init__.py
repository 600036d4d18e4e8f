"""Floor 1: the deterministic kernel. History in, commands out; no clock, no I/O.

Start reading at ``instance.py``; ``loop.py`` is the event loop, ``traps.py`` the only awaitables
that can suspend a workflow, ``apply.py`` what each recorded fact does.
"""
