"""What administrators say of a workflow type: who may invoke it, on which queue, and when.

A configuration is a record (``values/records.py``) of kind ``workflow_config``. It is replaced as a
whole: what is left out is reset to its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from perdure.control.roles import check_role
from perdure.errors import Invalid
from perdure.values.cron import check_cron
from perdure.values.schemas import Schema

KIND: Final = "workflow_config"
DEFAULT_ROLE: Final = "reviewer"
_LISTS: Final = ("roles", "invocation_roles", "consumes", "tool_tags")


class WorkflowConfig(msgspec.Struct, kw_only=True, frozen=True):
    """A configuration.

    ``roles``: who may resolve its escalations; ``default_role``: whose they are if they name none.
    ``invocation_roles``: who may invoke it; empty: everybody. ``certified``: its results are looked
    at for escalations. ``envelope_schema``: a template of the envelope, which the cron schedule
    sends, or (``validate_envelope``) the JSON Schema of the envelope's data. ``resolver_schema``:
    the JSON Schema of what resolvers answer.
    """

    workflow_type: str
    invocable: bool = False
    task_queue: str | None = None
    default_role: str = DEFAULT_ROLE
    description: str | None = None
    execute_as: str | None = None
    roles: tuple[str, ...] = ()
    invocation_roles: tuple[str, ...] = ()
    consumes: tuple[str, ...] = ()
    tool_tags: tuple[str, ...] = ()
    envelope_schema: dict[str, Any] | None = None
    resolver_schema: dict[str, Any] | None = None
    cron_schedule: str | None = None
    validate_envelope: bool = False
    certified: bool = False
    created_at: str = ""
    updated_at: str = ""

    @property
    def is_scheduled(self) -> bool:
        """Whether it has a cron schedule that runs."""
        return bool(self.cron_schedule and self.invocable and self.task_queue)

    @property
    def named_roles(self) -> tuple[str, ...]:
        """Every role it names, each once."""
        return tuple(dict.fromkeys((self.default_role, *self.roles, *self.invocation_roles)))

    def data_schema(self) -> Schema | None:
        """Return what the envelope's data must fit."""
        if not self.validate_envelope or self.envelope_schema is None:
            return None
        return Schema(self.envelope_schema, what="envelope_schema")

    def template(self) -> dict[str, Any]:
        """Return the envelope's data and metadata as the cron schedule sends them."""
        given = {} if self.validate_envelope else (self.envelope_schema or {})
        return {"data": {}, "metadata": {}, **given}


def make(type: str, given: Mapping[str, Any], *, now: str, before: WorkflowConfig | None) -> Any:
    """Return a configuration as it is to be stored.

    Raises:
        Invalid: an unknown field, one of the wrong type, a bad role, cron text or schema.
    """
    known = [name for name in WorkflowConfig.__struct_fields__ if not name.endswith("_at")]
    known.remove("workflow_type")
    if unknown := sorted(set(given) - set(known)):
        raise Invalid(f"upsert_config: unknown field {unknown[0]!r}; it takes {', '.join(known)}")
    # Left out and `None` are the same: the default.
    said = {name: value for name, value in given.items() if value is not None}
    said.setdefault("certified", bool(said.get("roles") or said.get("consumes")))
    created_at = before.created_at if before is not None else now
    times = {"created_at": created_at, "updated_at": now}
    try:
        config = msgspec.convert({"workflow_type": type, **said, **times}, WorkflowConfig)
    except (msgspec.ValidationError, UnicodeEncodeError) as exc:
        raise Invalid(f"upsert_config: {exc}") from exc
    _check(config)
    lists = {name: getattr(config, name) for name in _LISTS}
    once = {name: tuple(dict.fromkeys(given)) for name, given in lists.items()}
    return msgspec.structs.replace(config, **once)


def _check(config: WorkflowConfig) -> None:
    if not config.workflow_type:
        raise Invalid("type: '' names no workflow")
    if config.task_queue == "":
        raise Invalid("task_queue: '' names no queue; leave it out for none")
    if config.execute_as == "":
        raise Invalid("execute_as: '' names no account; leave it out for none")
    for name in ("consumes", "tool_tags"):
        if "" in getattr(config, name):
            raise Invalid(f"{name}: '' names nothing")
    for role in config.named_roles:
        check_role(role)
    if config.cron_schedule is not None:
        check_cron(config.cron_schedule)
    config.data_schema()
    if config.resolver_schema is not None:
        Schema(config.resolver_schema, what="resolver_schema")
