"""The face of operations: each group of calls under its name."""

from __future__ import annotations

from perdure.client import Client
from perdure.control.workflows import Workflows
from perdure.values.principals import Principal


class Control:
    """What operators and their programs do, for somebody.

    Every call returns an :class:`~perdure.control.ApiResult` and raises nothing that is to be
    expected. ``auth``: who calls; a principal given in process is believed. Without one, what needs
    somebody answers 401.
    """

    def __init__(self, client: Client, auth: Principal | None = None) -> None:
        self.client = client
        self.auth = auth
        self.workflows = Workflows(client, auth)

    def as_(self, auth: Principal | None) -> Control:
        """Return the same for somebody else."""
        return Control(self.client, auth)
