"""What a door that has judged a start lets it have, and be counted under."""

from __future__ import annotations

from typing import Final

import msgspec

POLICY_KEY: Final = "policy"
"""Where ``workflow.context`` has the version of the policies that let a run begin."""


class Granted(msgspec.Struct, frozen=True):
    """Given by the door, never by who asks. ``policy``: the policies' version. ``places``: keys
    under which the execution counts while it is open, each with how many may.
    """

    policy: str = ""
    places: tuple[tuple[str, int], ...] = ()


NOTHING = Granted()
