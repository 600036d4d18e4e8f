"""The calls of lt.workflows: what each answers, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import ApplicationError, Engine, Status, activity, workflow
from perdure.control import ApiResult, Control, Envelope, Grant, Identity, Principal
from perdure.values.principals import Power


@activity.define
async def fetch(url: str) -> int:
    return len(url)


@workflow.define(name="reviewContent", task_queue="content-review")
async def review_content(envelope: Envelope) -> dict[str, Any]:
    """Return what it was invoked with, and for whom."""
    size = await fetch(str(envelope.data.get("url", "")))
    principal = workflow.principal()
    return {
        "type": "return",
        "data": {"size": size, "url": envelope.data.get("url")},
        "lt": envelope.lt,
        "metadata": envelope.metadata,
        "acts": principal.id if principal else None,
    }


@workflow.define(name="plain")
async def plain(envelope: dict[str, Any]) -> list[str]:
    return sorted(envelope)


@workflow.define(name="waits")
async def waits(envelope: Envelope) -> None:
    await workflow.listen("go").receive()


@workflow.define(name="fails")
async def fails(envelope: Envelope) -> None:
    raise ApplicationError("no", kind="Refused", retryable=False)


@workflow.define(name="perdure.housekeeping")
async def housekeeping(envelope: dict[str, Any]) -> None:
    return None


ADMIN = Principal(id="ada", roles=["admin"])
MEMBER = Principal(id="max", roles=["writer"])


def engine_at(folder: Path) -> Engine:
    queues = ["default", "content-review"]
    definitions = (review_content, plain, waits, fails, housekeeping)
    return engine_on(folder, *definitions, task_queues=queues)


@asynccontextmanager
async def operations(folder: Path) -> AsyncIterator[Control]:
    """An engine, and what an admin calls."""
    async with engine_at(folder) as engine:
        yield Control(engine.client, auth=ADMIN)


async def _result(lt: Control, invoked: ApiResult) -> ApiResult:
    workflow_id = invoked.data["workflow_id"]
    async with asyncio.timeout(20):
        while (found := await lt.workflows.get_result(workflow_id=workflow_id)).status == 202:
            await asyncio.sleep(0.01)  # sleep: polls, as a caller of a call that never blocks does
    return found


async def test_the_page_runs(tmp_path: Path):
    async with operations(tmp_path) as lt:
        upserted = await lt.workflows.upsert_config(
            type="reviewContent",
            invocable=True,
            task_queue="content-review",
            default_role="reviewer",
            description="Review flagged content",
        )
        assert (upserted.status, upserted.data.workflow_type) == (200, "reviewContent")
        invoked = await lt.workflows.invoke(
            type="reviewContent",
            data={"url": "https://example.com/page"},
            metadata={"source": "dashboard"},
        )
        assert (invoked.status, invoked.data["message"]) == (202, "Workflow started")
        assert invoked.data["workflow_id"].startswith("reviewContent-")
        found = await _result(lt, invoked)
        assert found.status == 200
        result = found.data["result"]
        assert result["data"] == {"size": 24, "url": "https://example.com/page"}
        assert result["metadata"] == {"source": "dashboard"}
        assert result["acts"] == "ada"
        assert result["lt"]["user_id"] == "ada"
        assert result["lt"]["origin_id"] == invoked.data["workflow_id"]
        status = await lt.workflows.get_status(workflow_id=invoked.data["workflow_id"])
        assert status.data == {"workflow_id": invoked.data["workflow_id"], "status": 0}


async def test_a_workflow_that_is_not_annotated_gets_a_mapping_with_the_same_keys(tmp_path: Path):
    async with operations(tmp_path) as lt:
        found = await _result(lt, await lt.workflows.invoke(type="plain"))
        assert found.data["result"] == ["data", "lt", "metadata", "resolver"]


@pytest.mark.parametrize(
    ("auth", "config", "call", "status", "code"),
    [
        (None, None, {}, 401, "unauthenticated"),
        (MEMBER, None, {}, 202, None),
        (MEMBER, None, {"type": "nobody"}, 404, "not_found"),
        (MEMBER, None, {"data": [1]}, 400, "invalid"),
        (MEMBER, None, {"metadata": "x"}, 400, "invalid"),
        (MEMBER, None, {"options": {"nonsense": 1}}, 400, "invalid"),
        (MEMBER, None, {"options": {"createdBy": "somebody else"}}, 400, "invalid"),
        (MEMBER, None, {"options": {"context": {"principal": {"id": "eve"}}}}, 400, "invalid"),
        (MEMBER, None, {"execute_as": "bot"}, 403, "permission_denied"),
        (ADMIN, None, {"execute_as": "nobody"}, 404, "not_found"),
        (MEMBER, {"invocable": True, "task_queue": "default"}, {}, 202, None),
        (MEMBER, {"invocable": False, "task_queue": "default"}, {}, 403, "not_invocable"),
        (MEMBER, {"invocable": True}, {}, 400, "no_task_queue"),
        (
            MEMBER,
            {"invocable": True, "task_queue": "default", "invocation_roles": ["editor"]},
            {},
            403,
            "insufficient_role",
        ),
        # Roles come before all that the configuration says of the workflow.
        (MEMBER, {"invocation_roles": ["editor"]}, {}, 403, "insufficient_role"),
        (MEMBER, {"invocable": True, "invocation_roles": ["writer"]}, {}, 400, "no_task_queue"),
        (
            ADMIN,
            {"invocable": True, "task_queue": "default", "invocation_roles": ["editor"]},
            {},
            202,
            None,
        ),
        (
            Principal(id="root", roles=[Grant("ops", Power.SUPERADMIN)]),
            {"invocable": True, "task_queue": "default", "invocation_roles": ["editor"]},
            {},
            202,
            None,
        ),
        # An admin of some other role is none here.
        (
            Principal(id="boss", roles=[Grant("sales", Power.ADMIN)]),
            {"invocable": True, "task_queue": "default", "invocation_roles": ["editor"]},
            {},
            403,
            "insufficient_role",
        ),
        (Principal(id="key", scopes=["workflow:read"]), None, {}, 403, "insufficient_scope"),
        (Principal(id="key", scopes=["workflow:invoke"]), None, {}, 202, None),
    ],
)
async def test_who_may_invoke_what(
    tmp_path: Path,
    auth: Principal | None,
    config: dict[str, Any] | None,
    call: dict[str, Any],
    status: int,
    code: str | None,
):
    async with engine_at(tmp_path) as engine:
        if config is not None:
            admin = Control(engine.client, auth=ADMIN)
            assert (await admin.workflows.upsert_config(type="plain", **config)).ok
        found = await Control(engine.client, auth=auth).workflows.invoke(
            **{"type": "plain", **call}
        )
        assert (found.status, found.code) == (status, code), found.error
        assert await engine.client.count() == (1 if status == 202 else 0), (
            "a refusal starts nothing"
        )


async def test_an_id_is_started_once(tmp_path: Path):
    async with operations(tmp_path) as lt:
        options = {"workflowId": "one", "search": {"site": "a"}, "entity": "page"}
        first = await lt.workflows.invoke(type="waits", options=options)
        assert (first.status, first.data["workflow_id"]) == (202, "one")
        again = await lt.workflows.invoke(type="waits", options=options)
        assert (again.status, again.code) == (409, "already_exists")


async def test_signal_in_is_taken_and_changes_nothing(tmp_path: Path):
    async with operations(tmp_path) as lt:
        for given in (True, False, None):
            started = await lt.workflows.invoke(type="plain", options={"signalIn": given})
            assert started.status == 202, started.error


async def test_data_is_checked_where_the_configuration_says_so(tmp_path: Path):
    async with operations(tmp_path) as lt:
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        given = {"invocable": True, "task_queue": "default", "envelope_schema": schema}
        await lt.workflows.upsert_config(type="plain", **given)
        assert (await lt.workflows.invoke(type="plain", data={"n": "x"})).status == 202, (
            "a template"
        )
        await lt.workflows.upsert_config(type="plain", validate_envelope=True, **given)
        refused = await lt.workflows.invoke(type="plain", data={"n": "x"})
        assert (refused.status, refused.code) == (422, "invalid_envelope")
        assert "data.n" in refused.data["violations"][0]
        assert (await lt.workflows.invoke(type="plain", data={"n": 1})).status == 202


@pytest.mark.parametrize(
    ("call", "unfinished", "ended"),
    [
        ("get_status", (200, None), (200, None)),
        ("get_result", (202, None), (409, "workflow.terminated")),
        ("export", (200, None), (200, None)),
        ("terminate", (200, None), (409, "workflow.terminated")),
    ],
)
async def test_calls_about_a_run_answer_without_anybody_calling(
    tmp_path: Path, call: str, unfinished: tuple[int, str | None], ended: tuple[int, str | None]
):
    async with engine_at(tmp_path) as engine:
        lt = Control(engine.client, auth=ADMIN)
        nobody = getattr(Control(engine.client).workflows, call)
        missing = await nobody(workflow_id="missing")
        assert (missing.status, missing.code) == (404, "not_found")
        invoked = await lt.workflows.invoke(type="waits", options={"workflow_id": "w"})
        assert invoked.status == 202
        found = await nobody(workflow_id="w")
        assert (found.status, found.code) == unfinished
        if call != "terminate":
            assert (await lt.workflows.terminate(workflow_id="w")).data == {
                "terminated": True,
                "workflow_id": "w",
            }
        await until_status(engine.client.get("w"), Status.TERMINATED)
        found = await nobody(workflow_id="w")
        assert (found.status, found.code) == ended


async def test_a_run_that_failed_says_so_and_not_that_it_runs(tmp_path: Path):
    async with operations(tmp_path) as lt:
        invoked = await lt.workflows.invoke(type="fails")
        found = await _result(lt, invoked)
        assert (found.status, found.code) == (409, "workflow.failed")
        assert found.error is not None
        assert "no" in found.error
        status = await lt.workflows.get_status(workflow_id=invoked.data["workflow_id"])
        assert status.data["status"] == -1


async def test_a_principal_of_a_tenant_sees_its_runs_alone(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        acme = Control(engine.client, Principal(id="a", tenant="acme"))
        other = Control(engine.client, Principal(id="b", tenant="other"))
        assert (await acme.workflows.invoke(type="waits", options={"id": "w"})).status == 202
        for call in ("get_status", "get_result", "export", "terminate", "resume"):
            refused = await getattr(other.workflows, call)(workflow_id="w")
            assert (refused.status, refused.code) == (404, "not_found")
        assert (await acme.workflows.get_status(workflow_id="w")).status == 200


async def test_what_others_gave_under_the_same_origin_comes_along(tmp_path: Path):
    async with operations(tmp_path) as lt:
        first = await lt.workflows.invoke(
            type="reviewContent", data={"url": "a"}, options={"originId": "case-1"}
        )
        await _result(lt, first)
        for type, origin, consumed in (
            ("reviewContent", "case-1", {"size": 1, "url": "a"}),
            ("reviewContent", "case-2", None),
        ):
            await lt.workflows.upsert_config(
                type=type, invocable=True, task_queue="content-review", consumes=["reviewContent"]
            )
            found = await _result(
                lt, await lt.workflows.invoke(type=type, options={"originId": origin})
            )
            providers = found.data["result"]["lt"].get("providers", {})
            assert providers.get("reviewContent", {}).get("data") == consumed
            assert found.data["result"]["metadata"] == {"certified": True}


async def test_a_tenant_does_not_consume_what_others_gave(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        given = {"invocable": True, "task_queue": "content-review", "consumes": ["reviewContent"]}
        await Control(engine.client, ADMIN).workflows.upsert_config(type="reviewContent", **given)
        options = {"originId": "case-1"}
        for tenant, consumed in (("acme", set()), ("other", set()), ("acme", {"reviewContent"})):
            lt = Control(engine.client, Principal(id="a", tenant=tenant))
            invoked = await lt.workflows.invoke(type="reviewContent", options=options)
            found = await _result(lt, invoked)
            assert set(found.data["result"]["lt"].get("providers", {})) == consumed


async def test_a_configuration_that_is_not_certified_certifies_nothing(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await lt.workflows.upsert_config(
            type="reviewContent",
            invocable=True,
            task_queue="content-review",
            roles=["reviewer"],
            certified=False,
        )
        found = await _result(lt, await lt.workflows.invoke(type="reviewContent"))
        assert found.data["result"]["metadata"] == {}


async def test_the_audit_names_who_calls(tmp_path: Path):
    queues = ["default"]
    async with engine_on(tmp_path, waits, task_queues=queues, audit="summary") as engine:
        lt = Control(engine.client, auth=ADMIN)
        await lt.workflows.upsert_config(type="waits", invocable=True, task_queue="default")
        await lt.workflows.invoke(type="waits", options={"id": "w"})
        await lt.workflows.terminate(workflow_id="w")
        told = (await engine.client.audit.list()).items
        acts = {entry.action: entry.principal for entry in told}
        wanted = {"workflow_config.upsert": "ada", "start": "ada", "terminate": "ada"}
        assert {action: acts.get(action) for action in wanted} == wanted


# -- export ----------------------------------------------------------------------------------------


async def test_an_export_has_the_facets_that_are_asked_for(tmp_path: Path):
    async with operations(tmp_path) as lt:
        invoked = await lt.workflows.invoke(type="reviewContent", options={"id": "r"})
        await _result(lt, invoked)
        full = (await lt.workflows.export(workflow_id="r")).data
        assert [*full] == ["workflow_id", "data", "state", "status", "timeline", "transitions"]
        assert [moment["index"] for moment in full["timeline"]] == [
            *range(1, len(full["timeline"]) + 1)
        ]
        [fetched] = full["transitions"]
        assert (fetched["activity"], fetched["status"]) == ("fetch", "completed")
        assert full["data"]["output"]["data"]["size"] == 0
        some = (
            await lt.workflows.export(workflow_id="r", allow=["status", "timeline"], values=False)
        ).data
        assert [*some] == ["workflow_id", "status", "timeline"]
        assert "value" not in some["timeline"][0]
        rest = (await lt.workflows.export(workflow_id="r", block=["timeline"])).data
        assert "timeline" not in rest
        assert (await lt.workflows.export(workflow_id="r", allow="nonsense")).status == 400
        counted = (await lt.workflows.export(workflow_id="r", summary=True)).data
        assert counted["activities"] == {
            "total": 1,
            "completed": 1,
            "failed": 0,
            "system": 0,
            "user": 1,
        }


# -- what there is ---------------------------------------------------------------------------------


async def test_workers_are_listed_by_what_they_serve(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await lt.workflows.upsert_config(type="plain", invocable=True)
        found = (await lt.workflows.list_workers()).data["workers"]
        assert {
            "name": "plain",
            "task_queue": "default",
            "registered": True,
            "system": False,
        } in found
        assert [it["task_queue"] for it in found if it["name"] == "reviewContent"] == [
            "content-review"
        ]
        assert not any(it["system"] for it in found)
        everything = (await lt.workflows.list_workers(include_system=True)).data["workers"]
        assert "perdure.housekeeping" in [it["name"] for it in everything]


async def test_types_are_discovered_from_workers_runs_and_configurations(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        lt = Control(engine.client, auth=ADMIN)
        await lt.workflows.invoke(type="waits")
        await lt.workflows.upsert_config(type="planned", description="soon", roles=["reviewer"])
        await lt.workflows.upsert_config(type="plain", invocable=True)
        found = {
            it["workflow_type"]: it
            for it in (await lt.workflows.list_discovered()).data["workflows"]
        }
        assert [*found] == ["fails", "plain", "planned", "reviewContent", "waits"]
        assert {name: it["tier"] for name, it in found.items()} == {
            "fails": "durable",
            "plain": "registered",
            "planned": "certified",
            "reviewContent": "durable",
            "waits": "durable",
        }
        assert (found["planned"]["active"], found["planned"]["invocable"]) == (False, False)
        assert (found["waits"]["active"], found["waits"]["invocable"]) == (True, True)
        assert found["reviewContent"]["task_queue"] == "content-review"


# -- configurations --------------------------------------------------------------------------------


async def test_a_configuration_is_replaced_as_a_whole(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await lt.workflows.upsert_config(
            type="t", invocable=True, task_queue="q", roles=["reviewer"], description="first"
        )
        first = (await lt.workflows.get_config(type="t")).data
        assert (first.certified, first.default_role, first.roles) == (
            True,
            "reviewer",
            ("reviewer",),
        )
        second = (await lt.workflows.upsert_config(type="t", default_role="lead")).data
        assert (second.invocable, second.task_queue, second.roles) == (False, None, ())
        assert (second.description, second.certified, second.default_role) == (None, False, "lead")
        assert second.created_at == first.created_at
        listed = (await lt.workflows.list_configs()).data["workflows"]
        assert [config.workflow_type for config in listed] == ["t"]
        deleted = await lt.workflows.delete_config(type="t")
        assert deleted.data == {"deleted": True, "workflow_type": "t"}
        for call in (lt.workflows.get_config, lt.workflows.delete_config):
            missing = await call(type="t")
            assert (missing.status, missing.error) == (404, "Workflow config not found")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nonsense": 1}, "unknown field 'nonsense'"),
        ({"invocable": "yes"}, "Expected `bool`"),
        ({"roles": ["No Role"]}, "'No Role' is no name of a role"),
        ({"default_role": "9"}, "'9' is no name of a role"),
        ({"cron_schedule": "every day"}, "cron"),
        ({"resolver_schema": {"type": 5}}, "resolver_schema"),
        ({"envelope_schema": {"type": 5}, "validate_envelope": True}, "envelope_schema"),
    ],
)
async def test_nothing_is_saved_of_a_bad_configuration(
    tmp_path: Path, given: dict[str, Any], says: str
):
    async with operations(tmp_path) as lt:
        refused = await lt.workflows.upsert_config(type="t", **given)
        assert (refused.status, refused.code) == (400, "invalid")
        assert refused.error is not None
        assert says in refused.error
        assert (await lt.workflows.get_config(type="t")).status == 404


async def test_upserts_at_the_same_time_all_succeed(tmp_path: Path):
    async with operations(tmp_path) as lt:
        results = await asyncio.gather(
            *(lt.workflows.upsert_config(type="t", description=str(n)) for n in range(4))
        )
        assert [result.status for result in results] == [200] * 4
        assert len((await lt.workflows.list_configs()).data["workflows"]) == 1


# -- who acts --------------------------------------------------------------------------------------


async def test_an_account_acts_and_the_person_is_named(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        lt = Control(engine.client, auth=ADMIN)
        await Identity(engine.client).accounts.create("robot", name="Robot")
        found = await _result(
            lt, await lt.workflows.invoke(type="reviewContent", execute_as="robot")
        )
        said = found.data["result"]
        assert (said["acts"], said["lt"]["user_id"]) == ("robot", "robot")
        assert said["lt"]["principal"]["type"] == "bot"
        assert (said["lt"]["initiated_by"], said["lt"]["scopes"]) == ("ada", ["workflow:invoke"])


async def test_the_envelope_names_the_person_behind_a_delegation_as_the_run_does(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        identity = Identity(engine.client)
        await identity.accounts.create("robot")
        token = await identity.delegations.create(ADMIN, "bob")
        delegated = await identity.delegations.principal(token.text)
        lt = Control(engine.client, auth=delegated)
        for account, acts in (("robot", "robot"), (None, ADMIN.id)):
            invoked = await lt.workflows.invoke(type="reviewContent", execute_as=account)
            told = (await _result(lt, invoked)).data["result"]["lt"]
            person = told["initiating_principal"]
            assert (told["user_id"], told["initiated_by"], person["id"]) == (acts, "bob", "bob")


async def test_the_account_of_the_request_comes_before_that_of_the_configuration(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        for name in ("robot", "clerk"):
            await Identity(engine.client).accounts.create(name)
        for auth, asked, acts in (
            (MEMBER, None, "clerk"),
            (ADMIN, None, "clerk"),
            (ADMIN, "robot", "robot"),
        ):
            lt = Control(engine.client, auth=auth)
            await lt.workflows.upsert_config(
                type="reviewContent",
                invocable=True,
                task_queue="content-review",
                execute_as="clerk",
            )
            invoked = await lt.workflows.invoke(type="reviewContent", execute_as=asked)
            assert (await _result(lt, invoked)).data["result"]["acts"] == acts


async def test_roles_that_a_configuration_names_are_made(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await lt.workflows.upsert_config(type="t", roles=["reader"], invocation_roles=["editor"])
        found = await Identity(lt.client).roles.list()
        assert [role.name for role in found.items] == ["editor", "reader", "reviewer"]


# -- what begins by the clock ----------------------------------------------------------------------

HOURLY: dict[str, Any] = {"invocable": True, "task_queue": "default", "cron_schedule": "0 * * * *"}


@pytest.mark.parametrize(
    ("given", "is_active"),
    [
        (HOURLY, True),
        ({**HOURLY, "invocable": False}, False),
        ({**HOURLY, "task_queue": None}, False),
    ],
)
async def test_a_cron_schedule_stands_and_falls_with_its_configuration(
    tmp_path: Path, given: dict[str, Any], is_active: bool
):
    async with operations(tmp_path) as lt:
        for _ in range(2):  # the same call twice makes one schedule
            await lt.workflows.upsert_config(type="plain", **HOURLY)
        assert len((await lt.client.schedules.list()).items) == 1
        await lt.workflows.upsert_config(type="plain", **given)
        [status] = (await lt.workflows.get_cron_status()).data["schedules"]
        assert (status["active"], len(status["next"])) == (is_active, 5 if is_active else 0)
        assert len((await lt.client.schedules.list()).items) == int(is_active)
        await lt.workflows.upsert_config(type="plain", invocable=True, task_queue="default")
        assert (await lt.workflows.get_cron_status()).data == {"schedules": []}
        assert (await lt.client.schedules.list()).items == [], "left out: no cron any more"


async def test_a_deleted_configuration_leaves_no_cron_schedule(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await lt.workflows.upsert_config(type="plain", **HOURLY)
        await lt.workflows.delete_config(type="plain")
        assert (await lt.client.schedules.list()).items == []


async def test_what_begins_by_the_clock_gets_the_template_and_says_so(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await lt.workflows.upsert_config(
            type="reviewContent",
            invocable=True,
            task_queue="content-review",
            cron_schedule="@hourly",
            envelope_schema={"data": {"url": "nightly"}},
        )
        await lt.client.schedules.trigger("reviewContent-cron")

        async def runs() -> bool:
            found = await lt.client.list(workflow="reviewContent", status="completed")
            return len(found.items) == 1

        await until(runs)
        [run] = (await lt.client.list(workflow="reviewContent")).items
        result = await lt.client.get(run.id).result()
        assert result["data"]["url"] == "nightly"
        assert result["metadata"] == {"source": "cron"}
        assert (result["acts"], result["lt"]["scopes"]) == ("perdure", ["workflow:cron"])
