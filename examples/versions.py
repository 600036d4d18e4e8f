"""Code that changes while runs are under way.

    perdure dev examples/versions.py
    perdure start onboarding Ada --id ada
    perdure send ada confirmed
    perdure result ada

A run's history is replayed against the code that is there when it wakes up. A change in the middle
of a workflow therefore says so: runs that have passed the place go on as they began, new ones take
the new way. A run that does not fit is parked with the line that differs (`perdure why`), never
skipped.
"""

from __future__ import annotations

from perdure import activity, workflow


@activity.define
async def create_account(user: str) -> str:
    return f"account of {user}"


@activity.define
async def send_welcome(user: str) -> str:
    return f"welcome mail to {user}"


@activity.define
async def assign_plan(user: str, plan: str) -> str:
    return f"{plan} plan for {user}"


@workflow.define
async def onboarding(user: str) -> list[str]:
    done = [await create_account(user)]
    if workflow.patched("welcome-mail"):  # added later: False for runs that were already past here
        done.append(await send_welcome(user))
    await workflow.listen("confirmed").receive()
    # Changed twice: 1 is what ran before the call stood here.
    match workflow.version("plan", 1, 3):
        case 1:
            plan = "basic"
        case 2:
            plan = "standard"
        case _:
            plan = "trial"
    done.append(await assign_plan(user, plan))
    return done


# A new shape altogether is a new version of the definition. Runs keep the version they began with;
# new ones get the highest.
@workflow.define(name="invoice", version="1.0.0")
async def invoice_1(customer: str) -> str:
    return await assign_plan(customer, "paper invoice")


@workflow.define(name="invoice", version="2.0.0")
async def invoice_2(customer: str) -> str:
    return await assign_plan(customer, "electronic invoice")
