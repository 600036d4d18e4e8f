"""``lt.audit``: who did what, and whether nobody has changed what is told of it."""

from __future__ import annotations

from typing import Any

from perdure.client import Client
from perdure.control.access import needs_admin, needs_auth, needs_scope
from perdure.control.results import ApiResult, Refused, answering
from perdure.values.principals import Principal

READ = "audit:read"


class AuditCalls:
    """See the module's text. ``auth``: who calls."""

    def __init__(self, client: Client, auth: Principal | None) -> None:
        self._audit = client.audit
        self._auth = auth

    @answering
    async def list(self, **filters: Any) -> ApiResult:
        """Return ``entries``, newest first, and the ``cursor`` of the next page.

        ``filters``: those of ``client.audit.list``.
        """
        self._check()
        page = await self._audit.list(**filters)
        return ApiResult(200, {"entries": page.items, "cursor": page.cursor})

    @answering
    async def verify(self, *, number: int = 0, hash: str = "") -> ApiResult:
        """Check the whole chain: ``holds``, and what was found; 200 also if it is broken.

        ``number`` and ``hash``: of a row, as they were noted elsewhere.
        """
        self._check()
        found = await self._audit.verify(number=number, hash=hash)
        return ApiResult(200, {"holds": found.holds, "found": found})

    def _check(self) -> None:
        """Refuse whoever may not read it: it has what everybody did, and in one chain for all
        tenants. So a scope that includes everything is not enough for who is no admin.
        """
        caller = needs_scope(needs_auth(self._auth), READ)
        if caller.scopes is None:
            needs_admin(caller)
        if caller.tenant:
            raise Refused(403, "other_tenants", "The audit holds what all tenants did")
