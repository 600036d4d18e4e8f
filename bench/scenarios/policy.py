"""What a policy costs: a check on the way of a start, and what is spent in the database for it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Figure, scenario
from perdure.policy import Policies, Request
from perdure.store.opening import open_store
from perdure.values.meters import Spend

ROUNDS = 20
CALLS = 500
SPENDS = 500
POLICY: dict[str, Any] = {
    "policy.workflow.run.allowed": ["user.onboarding", "order.processing", "report.*"],
    "policy.workflow.run.blocked": ["admin.dangerous", "legacy.*"],
    "policy.workflow.run.condition": "workflow.id != 'payment.process'"
    " || request.auth.claims.role == 'payment_admin'",
    "policy.workflow.condition": "request.auth.claims.role in ['admin', 'operator']"
    " && (workflow.namespace == service.namespace || workflow.namespace == 'user')"
    " && !glob(workflow.id, 'test.*') && env.DEPLOYMENT_ENV == 'production'"
    " && request.auth.claims.level >= 3",
    "policy.workflow.run.rateLimit": "100/minute",
    "policy.workflow.maxConcurrentInstances": 50,
    "policy.workflow.maxInstancesPerWorkflow": {"user.onboarding": 100},
    "policy.workflow.run.maxInputSizeKb": 100,
    "policy.workflow.run.requiredInputFields": {"user.onboarding": ["name", "email"]},
    "policy.workflow.alertOnFailure": ["payment.*"],
}
ASKED = Request(
    service="app.billing",
    claims={f"claim{n}": f"value {n}" for n in range(20)} | {"role": "operator", "level": 5},
    workflow_id="user.onboarding.v1",
    input={"name": "Ada", "email": "ada@example.org", "plan": "large"},
)


def microseconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call, which others on the machine do not lengthen: the median
    of rounds.
    """
    rounds: list[float] = []
    for _ in range(ROUNDS):
        begin = time.thread_time()
        for _ in range(CALLS):
            call()
        rounds.append((time.thread_time() - begin) / CALLS * 1e6)
    return statistics.median(rounds)


@scenario(
    Figure("check of a start, five clauses", "µs", at_most=50),
    Figure("check without conditions", "µs"),
    Figure("load, compiled", "ms"),
    Figure("spend from a meter, file", "µs"),
)
async def policy(folder: Path) -> dict[str, float]:
    """A realistic policy on the way of a start, and a rate that is counted in a file."""
    policies = Policies(POLICY, env={"DEPLOYMENT_ENV": "production"})
    plain = Policies({key: value for key, value in POLICY.items() if "condition" not in key})
    verdict = policies.check("run", ASKED)
    assert verdict.allowed, verdict
    store = open_store(f"sqlite:///{folder}/policy.db")

    def spend() -> float:
        store.migrate(1)
        begin = time.perf_counter()
        for n in range(SPENDS):
            store.spend(Spend(verdict.limits.meters), n * 1_000_000)
        return (time.perf_counter() - begin) / SPENDS * 1e6

    spent = await asyncio.to_thread(spend)
    store.close()
    begin = time.perf_counter()
    Policies(POLICY, env={"DEPLOYMENT_ENV": "production"})
    loaded = time.perf_counter() - begin
    return {
        "check of a start, five clauses": microseconds(lambda: policies.check("run", ASKED)),
        "check without conditions": microseconds(lambda: plain.check("run", ASKED)),
        "load, compiled": loaded * 1_000,
        "spend from a meter, file": spent,
    }
