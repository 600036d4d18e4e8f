"""Escalations of workflows that are invoked: asked, answered, and gone on with in two ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until

from perdure import Engine, human, workflow
from perdure.control import ApiResult, Control, Envelope, Grant, Principal, Reach
from perdure.graph import flow
from perdure.policy import Policies

SCHEMA = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}},
    "required": ["approved"],
}
ASKS = {"type": "escalation", "data": {"draft": "x"}, "message": "Is this all right?"}


@workflow.define(name="reviewContent")
async def review_content(envelope: Envelope) -> Any:
    """Ask by ending: it is run again with the answer."""
    if envelope.resolver is not None:
        return {"type": "return", "data": envelope.resolver, "lt": envelope.lt}
    if envelope.data.get("fails"):
        raise ZeroDivisionError("nobody thought of that")
    search = envelope.data.get("found_by")
    return {**ASKS, "role": envelope.data.get("role"), "priority": 1, "search": search}


@workflow.define(name="approveSpend")
async def approve_spend(envelope: Envelope) -> Any:
    """Ask within the run: it is woken by the answer."""
    options = {"role": envelope.data["role"]} if "role" in envelope.data else {}
    decided = await human.request("Spend it?", data=envelope.data, type="spend", **options)
    return {"outcome": decided.outcome, "value": decided.value, "by": decided.by}


@workflow.define(name="parent")
async def parent(envelope: dict[str, Any]) -> Any:
    return await workflow.execute("approveSpend", envelope)


machine = flow("machine").human("look", form=None).build()


@workflow.define(name="consumer")
async def consumer(envelope: Envelope) -> Any:
    return {name: one.data for name, one in envelope.lt.providers.items()}


ADMIN = Principal(id="ada", roles=["admin"])
REVIEWER = Principal(id="rita", roles=["reviewer"])


def engine_at(folder: Path) -> Engine:
    return engine_on(folder, review_content, approve_spend, parent, machine, consumer)


@asynccontextmanager
async def operations(folder: Path, **config: Any) -> AsyncIterator[Control]:
    """An engine, and what an admin calls; every type is configured."""
    async with engine_at(folder) as engine:
        lt = Control(engine.client, auth=ADMIN)
        for type in ("reviewContent", "approveSpend", "parent", "machine"):
            given = {"invocable": True, "task_queue": "default", "roles": ["reviewer"], **config}
            assert (await lt.workflows.upsert_config(type=type, **given)).ok
        yield lt


async def pending(lt: Control, workflow_id: str) -> dict[str, Any]:
    """Return the escalation that a workflow id waits for."""
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        page = await lt.escalations.list(workflow_id=workflow_id)
        found[:] = page.data["escalations"]
        return len(found) == 1

    await until(is_there)
    return found[0]


async def invoked(lt: Control, type: str, **data: Any) -> str:
    found = await lt.workflows.invoke(type=type, data=data)
    assert found.status == 202, found.error
    return found.data["workflow_id"]


async def result(lt: Control, workflow_id: str) -> ApiResult:
    found: list[ApiResult] = []

    async def is_over() -> bool:
        found[:] = [await lt.workflows.get_result(workflow_id=workflow_id)]
        return found[0].status not in (202, 404)

    await until(is_over)
    return found[0]


async def test_what_a_certified_workflow_returns_is_answered_and_it_runs_again(tmp_path: Path):
    async with operations(tmp_path) as lt:
        workflow_id = await invoked(lt, "reviewContent", url="a")
        asked = await pending(lt, workflow_id)
        assert (asked["workflow_id"], asked["workflow_type"]) == (workflow_id, "reviewContent")
        assert (asked["type"], asked["role"], asked["priority"]) == ("reviewContent", "reviewer", 1)
        assert asked["escalation_payload"] == {"draft": "x"}
        assert asked["run_id"] == (await lt.client.get(workflow_id).describe()).run_id
        assert (await result(lt, workflow_id)).data["result"]["type"] == "escalation"
        reviewer = lt.as_(REVIEWER)
        done = await reviewer.escalations.resolve(id=asked["id"], payload={"approved": True})
        assert (done.status, done.data["resumes"]) == (200, f"rerun-{asked['id']}")
        assert done.data["escalation"]["status"] == "resolved"
        again = (await result(lt, done.data["resumes"])).data["result"]
        assert again["data"] == {"approved": True}
        assert (again["lt"]["user_id"], again["lt"]["origin_id"]) == ("ada", workflow_id)
        assert again["lt"]["escalation_id"] == asked["id"]
        assert again["lt"]["escalation_status"] == "resolved"
        twice = await reviewer.escalations.resolve(id=asked["id"], payload={})
        assert (twice.status, twice.code) == (409, "already_resolved")
        every = (await lt.escalations.get_by_workflow_id(workflow_id=workflow_id)).data
        assert [one["id"] for one in every["escalations"]] == [asked["id"]]


async def test_a_workflow_that_waits_is_woken_by_the_answer(tmp_path: Path):
    async with operations(tmp_path) as lt:
        workflow_id = await invoked(lt, "approveSpend", amount=7)
        asked = await pending(lt, workflow_id)
        assert (asked["type"], asked["workflow_type"]) == ("spend", "approveSpend")
        every: list[dict[str, Any]] = [{"type": "spend"}, {"workflow_id": workflow_id}]
        for filters in every:
            page = (await lt.escalations.list(**filters)).data["escalations"]
            assert [one["id"] for one in page] == [asked["id"]]
        done = await lt.as_(REVIEWER).escalations.resolve(id=asked["id"], payload=7)
        assert done.data["resumes"] == workflow_id
        assert (await result(lt, workflow_id)).data["result"] == {
            "outcome": "completed",
            "value": 7,
            "by": "rita",
        }


@pytest.mark.parametrize("type", ["reviewContent", "approveSpend"])
async def test_an_escalation_is_found_by_what_is_declared_to_be_searched(tmp_path: Path, type: str):
    async with operations(tmp_path) as lt:
        found = await lt.workflows.invoke(
            type=type, data={"found_by": {"order": 7}}, options={"search": {"order": 7}}
        )
        workflow_id = found.data["workflow_id"]
        await lt.workflows.invoke(type=type, data={"found_by": {"order": 8}})
        asked = await pending(lt, workflow_id)
        reviewer = lt.as_(REVIEWER).escalations
        page = (await reviewer.list(search={"order": 7})).data["escalations"]
        assert [one["id"] for one in page] == [asked["id"]]
        for given in ({"order": "7"}, {"order": 7, "escalation_of": "another"}):
            assert (await reviewer.list(search=given)).data["escalations"] == []
        stranger = lt.as_(Principal(id="max", roles=["sales"])).escalations
        assert (await stranger.list(search={"order": 7})).data["escalations"] == []
        refused = await reviewer.list(search={"order": object()})
        assert (refused.status, refused.code) == (400, "invalid")


@pytest.mark.parametrize(("verb", "outcome"), [("cancel", "cancelled"), ("reject", "rejected")])
@pytest.mark.parametrize("type", ["reviewContent", "approveSpend"])
async def test_what_is_taken_back_or_refused_starts_nothing_again(
    tmp_path: Path, type: str, verb: str, outcome: str
):
    async with operations(tmp_path) as lt:
        workflow_id = await invoked(lt, type)
        asked = await pending(lt, workflow_id)
        assert (await getattr(lt.escalations, verb)(id=asked["id"])).status == 200
        found = await result(lt, workflow_id)
        if type == "approveSpend":
            assert found.data["result"]["outcome"] == outcome

        async def is_over() -> bool:
            return not await lt.client.count(status=["running", "waiting"])

        await until(is_over)
        assert await lt.client.find(f"rerun-{asked['id']}") == []


async def test_a_certified_workflow_that_raises_is_somebody_elses_to_look_at(tmp_path: Path):
    async with operations(tmp_path) as lt:
        workflow_id = await invoked(lt, "reviewContent", fails=True)
        asked = await pending(lt, workflow_id)
        assert "Unhandled error: " in asked["description"]
        assert "nobody thought of that" in asked["escalation_payload"]["error"]
        found = await result(lt, workflow_id)
        assert (found.status, found.code) == (409, "workflow.failed")
        done = await lt.escalations.resolve(id=asked["id"], payload={"approved": False})
        again = await result(lt, done.data["resumes"])
        assert again.data["result"]["data"] == {"approved": False}


async def test_what_is_not_certified_returns_a_mapping_and_no_more(tmp_path: Path):
    async with operations(tmp_path, certified=False) as lt:
        for data in ({}, {"fails": True}):
            await result(lt, await invoked(lt, "reviewContent", **data))
        assert await lt.client.count(workflow="perdure.escalation") == 0


@pytest.mark.parametrize("type", ["reviewContent", "approveSpend"])
async def test_an_answer_has_to_fit_what_the_configuration_says(tmp_path: Path, type: str):
    async with operations(tmp_path, resolver_schema=SCHEMA) as lt:
        asked = await pending(lt, await invoked(lt, type))
        for payload, field in (({}, ""), ({"approved": "yes"}, "approved")):
            refused = await lt.escalations.resolve(id=asked["id"], payload=payload)
            assert (refused.status, refused.code) == (422, "schema_validation")
            assert [one["field"] for one in refused.data["violations"]] == [field]
            many = await lt.escalations.resolve_all_or_none(ids=[asked["id"]], payload=payload)
            assert (many.status, many.code) == (422, "schema_validation")
        assert (await lt.escalations.get(id=asked["id"])).data["status"] == "pending"
        done = await lt.escalations.resolve(id=asked["id"], payload={"approved": True})
        assert done.status == 200


# -- whose it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["reviewContent", "approveSpend", "parent", "machine"])
async def test_what_names_no_role_is_that_of_the_configuration(tmp_path: Path, type: str):
    async with operations(tmp_path, default_role="clerk") as lt:
        await invoked(lt, type)
        await until(lambda: _has_one(lt, role="clerk"))


@pytest.mark.parametrize("type", ["reviewContent", "approveSpend"])
async def test_a_role_that_is_named_stays(tmp_path: Path, type: str):
    async with operations(tmp_path, default_role="clerk") as lt:
        await invoked(lt, type, role="lead")
        await until(lambda: _has_one(lt, role="lead"))


async def test_what_begins_by_the_clock_asks_the_default_role_too(tmp_path: Path):
    config = {"default_role": "clerk", "cron_schedule": "@hourly"}
    async with operations(tmp_path, **config) as lt:
        await lt.client.schedules.trigger("reviewContent-cron")
        await until(lambda: _has_one(lt, role="clerk"))


async def test_only_a_configuration_has_a_default_role(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        lt = Control(engine.client, auth=ADMIN)
        asked = await pending(lt, await invoked(lt, "approveSpend"))
        assert asked["role"] is None


async def test_nobody_invokes_with_a_role_of_their_own(tmp_path: Path):
    async with operations(tmp_path) as lt:
        options = {"context": {"default_role": "clerk"}}
        refused = await lt.workflows.invoke(type="approveSpend", options=options)
        assert (refused.status, refused.code) == (400, "invalid")


async def test_one_that_is_raised_by_hand_has_the_default_role_of_its_type(tmp_path: Path):
    async with operations(tmp_path, default_role="clerk") as lt:
        assert (await lt.escalations.create(type="reviewContent")).data["role"] == "clerk"


async def _has_one(lt: Control, **filters: Any) -> bool:
    return len((await lt.escalations.list(**filters)).data["escalations"]) == 1


# -- terminate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["reviewContent", "approveSpend"])
async def test_terminating_a_workflow_takes_back_what_is_asked_for_it(tmp_path: Path, type: str):
    async with operations(tmp_path) as lt:
        workflow_id = await invoked(lt, type)
        asked = await pending(lt, workflow_id)
        done = await lt.workflows.terminate(workflow_id=workflow_id, reason="enough")
        assert done.data == {"terminated": True, "workflow_id": workflow_id}

        async def is_cancelled() -> bool:
            found = await lt.escalations.get(id=asked["id"])
            return found.data["status"] == "cancelled"

        await until(is_cancelled)
        refused = await lt.escalations.resolve(id=asked["id"], payload={})
        assert (refused.status, refused.code) == (409, "already_cancelled")
        again = await lt.workflows.terminate(workflow_id=workflow_id)
        ended = "completed" if type == "reviewContent" else "terminated"
        assert (again.status, again.code) == (409, f"workflow.{ended}")
        assert await lt.client.find(f"rerun-{asked['id']}") == []


async def test_terminating_one_workflow_leaves_those_of_others_alone(tmp_path: Path):
    async with operations(tmp_path) as lt:
        ids = [await invoked(lt, "reviewContent") for _ in range(2)]
        asked = [await pending(lt, id) for id in ids]
        await lt.workflows.terminate(workflow_id=ids[0])
        found = await lt.escalations.get(id=asked[1]["id"])
        assert found.data["status"] == "pending"


async def test_a_tenant_sees_and_ends_its_own(tmp_path: Path):
    async with operations(tmp_path) as lt:
        acme, other = (
            lt.as_(Principal(id="a", roles=["reviewer"], tenant=tenant))
            for tenant in ("acme", "other")
        )
        workflow_id = await invoked(acme, "reviewContent")
        asked = await pending(acme, workflow_id)
        assert (await other.escalations.get(id=asked["id"])).status == 404
        assert (await other.escalations.list()).data["escalations"] == []
        found = await other.escalations.get_by_workflow_id(workflow_id=workflow_id)
        assert found.data["escalations"] == []
        assert (await other.workflows.terminate(workflow_id=workflow_id)).status == 404
        assert (await acme.escalations.resolve(id=asked["id"], payload=1)).status == 200


# -- what others consume ---------------------------------------------------------------------------


async def test_an_escalation_is_no_output_that_others_consume(tmp_path: Path):
    async with operations(tmp_path) as lt:
        config = {"invocable": True, "task_queue": "default", "consumes": ["reviewContent"]}
        await lt.workflows.upsert_config(type="consumer", **config)
        options = {"originId": "case-1"}

        async def consumed() -> Any:
            found = await lt.workflows.invoke(type="consumer", options=options)
            return (await result(lt, found.data["workflow_id"])).data["result"]

        first = await lt.workflows.invoke(type="reviewContent", options=options)
        asked = await pending(lt, first.data["workflow_id"])
        assert await consumed() == {}
        done = await lt.escalations.resolve(id=asked["id"], payload={"approved": True})
        await result(lt, done.data["resumes"])
        assert await consumed() == {"reviewContent": {"approved": True}}
        later = await lt.workflows.invoke(type="reviewContent", options=options)
        await pending(lt, later.data["workflow_id"])
        assert await consumed() == {"reviewContent": {"approved": True}}, "the latest that is one"


async def test_the_run_that_asks_is_none_of_the_types_that_are_shown(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await pending(lt, await invoked(lt, "reviewContent"))
        workers = (await lt.workflows.list_workers()).data["workers"]
        found = (await lt.workflows.list_discovered()).data["workflows"]
        names = {it["name"] for it in workers} | {it["workflow_type"] for it in found}
        assert not {name for name in names if name.startswith("perdure.")}
        every = (await lt.workflows.list_discovered(include_system=True)).data["workflows"]
        assert "perdure.escalation" in {it["workflow_type"] for it in every}


W = "policy.workflow."


@pytest.mark.parametrize(
    ("type", "verb", "keys", "rule"),
    [
        ("approveSpend", "resolve", {W + "signal.allowedSignals": []}, "signal.allowedSignals"),
        ("approveSpend", "cancel", {W + "signal.allowedSignals": []}, "signal.allowedSignals"),
        ("reviewContent", "reject", {W + "signal.allowedSignals": []}, "signal.allowedSignals"),
        ("reviewContent", "resolve", {W + "run.allowed": ["other"]}, "run.allowed"),
        (
            "reviewContent",
            "resolve",
            {W + "run.condition": "workflow.version != '1.0.0'"},
            "run.condition",
        ),
        ("reviewContent", "resolve_all_or_none", {W + "run.allowed": []}, "run.allowed"),
        ("approveSpend", "bulk_cancel", {W + "signal.allowedSignals": []}, "signal.allowedSignals"),
    ],
)
async def test_policies_judge_decisions_as_signals_and_what_begins_again_as_a_start(
    tmp_path: Path, type: str, verb: str, keys: dict[str, Any], rule: str
):
    async with operations(tmp_path) as lt:
        asked = await pending(lt, await invoked(lt, type))
        judged = Control(lt.client, ADMIN, policies=Policies(keys)).escalations
        given: dict[str, Any] = {"payload": {"approved": True}} if "resolve" in verb else {}
        is_many = verb.startswith(("bulk", "resolve_all"))
        whom = {"ids": [asked["id"]]} if is_many else {"id": asked["id"]}
        refused = await getattr(judged, verb)(**whom, **given)
        assert (refused.status, refused.data["rule"]) == (403, W + rule), refused.error
        assert (await lt.escalations.get(id=asked["id"])).data["status"] == "pending"
        allowed = Policies(
            {W + "signal.allowedSignals": ["escalation_*"], W + "auditLevel": "summary"}
        )
        done = Control(lt.client, ADMIN, policies=allowed).escalations
        assert (await getattr(done, verb)(**whom, **given)).status == 200
        lines = (await lt.client.audit.list(action="people.*")).items
        decided = [it for it in lines if it.decision == "allowed"]
        assert len(decided) == 1, "the audit has by which policies it was decided"
        assert decided[0].detail is not None
        assert decided[0].detail["policy"] == allowed.version


@pytest.mark.parametrize("verb", ["resolve", "reject", "cancel", "resolve_all_or_none"])
async def test_policies_judge_what_nobodys_run_has_asked_by_its_type(tmp_path: Path, verb: str):
    async with operations(tmp_path) as lt:
        raised = await lt.escalations.create(type="disk full", role="reviewer")
        whom = {"ids": [raised.data["id"]]} if "all" in verb else {"id": raised.data["id"]}
        given: dict[str, Any] = {"payload": {"ok": True}} if "resolve" in verb else {}
        no = Policies({W + "signal.condition": "workflow.id != 'disk full'"})
        refused = await getattr(Control(lt.client, ADMIN, policies=no).escalations, verb)(
            **whom, **given
        )
        assert (refused.status, refused.data["rule"]) == (403, W + "signal.condition")
        judged = Control(lt.client, ADMIN, policies=Policies()).escalations
        if given:
            large = await getattr(judged, verb)(**whom, payload="x" * 1_100_000)
            assert (large.status, large.code) == (403, "INPUT_TOO_LARGE")
        done = await getattr(judged, verb)(**whom, **given)
        assert done.status == 200, done.error


async def test_who_may_not_answer_spends_nothing_of_what_policies_grant(tmp_path: Path):
    async with operations(tmp_path) as lt:
        asked = await pending(lt, await invoked(lt, "reviewContent"))
        policies = Policies({W + "run.rateLimit": "1/day"})
        reader = Principal("rob", roles=[Grant("reviewer", write=Reach.NONE)])
        one: dict[str, Any] = {"id": asked["id"], "payload": {"approved": True}}
        all: dict[str, Any] = {"ids": [asked["id"]], "payload": {"approved": True}}
        denied = Control(lt.client, reader, policies=policies).escalations
        for refused in (await denied.resolve(**one), await denied.resolve_all_or_none(**all)):
            assert (refused.status, refused.code) == (403, "permission_denied")
        assert (await lt.as_(REVIEWER).escalations.claim(id=asked["id"])).status == 200
        judged = Control(lt.client, ADMIN, policies=policies).escalations
        held = await judged.resolve(**one)
        assert (held.status, held.code) == (409, "claimed_by_other")
        assert (await lt.escalations.cancel(id=asked["id"])).status == 200
        assert (await judged.resolve(**one)).status == 409
        again = await pending(lt, await invoked(lt, "reviewContent"))
        assert (await judged.resolve(**{**one, "id": again["id"]})).status == 200
