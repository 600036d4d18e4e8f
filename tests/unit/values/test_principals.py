"""Principals: what may travel, what a tenant may see and start."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.errors import Invalid, PermissionDenied
from perdure.filters import narrowed
from perdure.store.port import Filter
from perdure.values.principals import (
    CONTEXT_KEY,
    Grant,
    Kind,
    Power,
    Principal,
    Reach,
    carrying,
    check_context,
    principal_in,
    sees,
    tenant_for,
)

ACME, ANYBODY = Principal("ada", tenant="acme"), Principal("root")


@pytest.mark.parametrize(
    "principal",
    [
        Principal("ada"),
        Principal("robot", Kind.SERVICE, roles=["admin", "finance"], scopes=[], initiated_by="ada"),
        Principal(
            "é", roles=[Grant("x", Power.ADMIN, Reach.SELF, Reach.NONE)], claims={"a": [1, None]}
        ),
    ],
)
def test_what_travels_arrives_as_it_was_and_nothing_else_with_it(principal: Principal):
    context = carrying({"other": 1, CONTEXT_KEY: "eve"}, principal)
    assert principal_in(context) == principal
    assert context["other"] == 1
    assert carrying(context, None) == {"other": 1}


def test_a_users_context_does_not_say_who_acts():
    assert check_context({"a": 1}) == {"a": 1}
    with pytest.raises(Invalid, match="who acts"):
        check_context({CONTEXT_KEY: None})


@pytest.mark.parametrize(
    ("principal", "asked", "tenant"),
    [
        (None, None, None),
        (None, "x", "x"),
        (ANYBODY, "x", "x"),
        (ANYBODY, None, None),
        (ACME, None, "acme"),
        (ACME, "", "acme"),
        (ACME, "acme", "acme"),
        (ACME, "x", PermissionDenied),
    ],
)
def test_who_has_a_tenant_starts_for_it_alone(
    principal: Principal | None, asked: str | None, tenant: Any
):
    if tenant is PermissionDenied:
        with pytest.raises(PermissionDenied):
            tenant_for(principal, asked)
    else:
        assert tenant_for(principal, asked) == tenant


@pytest.mark.parametrize(
    ("principal", "asked", "seen"),
    [
        (None, "", ""),
        (ANYBODY, "x", "x"),
        (ACME, "", "acme"),
        (ACME, "acme", "acme"),
        (ACME, "x", None),
    ],
)
def test_a_list_is_narrowed_and_never_widened(
    principal: Principal | None, asked: str, seen: str | None
):
    found = narrowed(Filter(tenant=asked, workflow="w"), principal)
    assert (found and found.tenant) == seen
    assert found is None or found.workflow == "w"


def test_who_has_a_tenant_sees_nothing_of_others():
    assert sees(ACME, "acme") and not sees(ACME, "x") and not sees(ACME, None)
    assert sees(ANYBODY, "x") and sees(None, "x")
