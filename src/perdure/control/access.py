"""Who may call what."""

from __future__ import annotations

from perdure.control.configs import WorkflowConfig
from perdure.control.results import Refused
from perdure.values.principals import Principal


def needs_auth(auth: Principal | None) -> Principal:
    """Return who calls.

    Raises:
        Refused: nobody does.
    """
    if auth is None:
        raise Refused(401, "unauthenticated", "Authentication is required")
    return auth


def needs_scope(caller: Principal, scope: str) -> Principal:
    """Return who calls, unless the key has not the scope."""
    if not caller.may(scope):
        raise Refused(403, "insufficient_scope", f"The key lacks the scope {scope}")
    return caller


def needs_admin(caller: Principal) -> Principal:
    """Return who calls, if that is an admin."""
    if not caller.is_admin:
        raise Refused(403, "not_admin", "Only an admin may do this")
    return caller


def check_role(caller: Principal, config: WorkflowConfig | None) -> None:
    """Refuse who has none of the roles that may invoke it. Without any, everybody may."""
    wanted = config.invocation_roles if config is not None else ()
    if not wanted or caller.is_admin:
        return
    if not any(grant.role in wanted for grant in caller.grants):
        raise Refused(403, "insufficient_role", "Insufficient role for invocation")


def check_invocation(caller: Principal, config: WorkflowConfig | None, scope: str) -> None:
    """Refuse a key that has not the scope, and what is not to be invoked."""
    needs_scope(caller, scope)
    if config is None:
        return
    if not config.invocable:
        raise Refused(403, "not_invocable", "Workflow is not invocable")
    if config.task_queue is None:
        raise Refused(400, "no_task_queue", "Workflow has no task_queue configured")
