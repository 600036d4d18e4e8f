"""Lists of workflows: policies are asked about each one, as queries are about instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import workflow
from perdure.control import Control, Principal
from perdure.errors import PolicyDenied
from perdure.host import WorkflowHost
from perdure.policy import Policies

W = "policy.workflow."
CROSS, SPACES = W + "run.crossNamespace", W + "run.allowedNamespaces"


@workflow.define(name="app.billing.invoice", version="1.0.0")
async def invoice(input: Any) -> None: ...


@workflow.define(name="app.billing.invoice", version="2.0.0")
async def invoice_2(input: Any) -> None: ...


@workflow.define(name="common.mail", version="1.0.0")
async def mail(input: Any) -> None: ...


@workflow.define(name="hr.dismissal", version="1.0.0")
async def dismissal(input: Any) -> None: ...


ALL = (invoice, invoice_2, mail, dismissal)
INVOICES = [("app.billing.invoice", "1.0.0"), ("app.billing.invoice", "2.0.0")]
MAIL, DISMISSAL = ("common.mail", "1.0.0"), ("hr.dismissal", "1.0.0")
OWN_ONLY = "workflow.namespace == service.namespace"
BY_CLAIM = "workflow.id.startsWith(request.auth.claims.area)"
CASES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, [*INVOICES, MAIL, DISMISSAL]),
    ({CROSS: True}, [*INVOICES, MAIL, DISMISSAL]),
    ({CROSS: False}, INVOICES),
    ({CROSS: False, SPACES: ["common"]}, [*INVOICES, MAIL]),
    ({SPACES: ["common"]}, [*INVOICES, MAIL, DISMISSAL]),  # by itself that is about starts
    ({W + "condition": OWN_ONLY}, INVOICES),
    ({W + "condition": "workflow.version != '1.0.0'"}, INVOICES[1:]),
    ({W + "condition": BY_CLAIM}, [DISMISSAL]),
    ({W + "condition": ["service.name != ''", BY_CLAIM], CROSS: False}, []),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case[0]) or "nothing")
async def test_a_service_is_shown_what_the_policies_let_it_see(
    tmp_path: Path, case: tuple[dict[str, Any], list[tuple[str, str]]]
):
    keys, seen = case
    async with engine_on(tmp_path, *ALL) as engine:
        host = WorkflowHost(
            engine.client,
            service="app.billing.worker",
            policies=Policies(keys),
            claims={"area": "hr."},
        )
        found = await host.list_workflows()
        assert [(one.workflow_id, one.version) for one in found] == seen


async def test_a_list_of_which_nothing_can_be_judged_is_denied(tmp_path: Path):
    async with engine_on(tmp_path, *ALL) as engine:
        policies = Policies({W + "condition": BY_CLAIM})
        host = WorkflowHost(engine.client, service="app.billing.worker", policies=policies)
        with pytest.raises(PolicyDenied) as refused:
            await host.list_workflows()
        assert refused.value.code == "POLICY_ERROR"
        [line] = (await engine.client.audit.list()).items
        assert (line.action, line.decision) == ("list", "denied")


async def test_operations_show_what_the_policies_let_them_see(tmp_path: Path):
    async with engine_on(tmp_path, *ALL) as engine:
        free = Control(engine.client, Principal("ada", roles=["admin"]))
        for type in ("common.mail", "hr.dismissal"):
            given = {"invocable": True, "task_queue": "default", "cron_schedule": "@daily"}
            assert (await free.workflows.upsert_config(type=type, **given)).ok
        policies = Policies({CROSS: False, SPACES: ["common"]})
        lt = Control(engine.client, free.auth, policies=policies, service="app.desk").workflows
        workers, discovered = await lt.list_workers(), await lt.list_discovered()
        assert [one["name"] for one in workers.data["workers"]] == ["common.mail"]
        assert [one["workflow_type"] for one in discovered.data["workflows"]] == ["common.mail"]
        crons, configs = await lt.get_cron_status(), await lt.list_configs()
        assert [one["workflow_type"] for one in crons.data["schedules"]] == ["common.mail"]
        assert [one.workflow_type for one in configs.data["workflows"]] == ["common.mail"]
        assert (await lt.get_config(type="common.mail")).ok
        hidden, unknown = await lt.get_config(type="hr.dismissal"), await lt.get_config(type="x")
        assert hidden == unknown
        assert hidden.status == 404
