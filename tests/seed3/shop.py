"""Handlers and steps that definition files name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perdure.graph import BaseMachineStep, ExclusiveGateway


@dataclass
class Order:
    id: str
    total: int = 0


async def validate(order: dict[str, Any], ctx: Any) -> dict[str, Any]:
    return {"id": order["id"], "total": order["total"], "in_stock": order["total"] < 100}


def ship(order: dict[str, Any]) -> dict[str, Any]:
    return {"shipped": order["id"]}


def look() -> dict[str, Any]:
    return {"done": True, "result": "seen"}


def as_order(prev: Any, workflow_input: Any) -> dict[str, Any]:
    return {"id": workflow_input["id"], "total": prev["total"]}


def items(ctx: Any) -> list[int]:
    return [1, 2]


def double(number: int) -> int:
    return 2 * number


def summed(ctx: Any) -> Any:
    return {"steps": sorted(ctx.steps)}


def which(ctx: Any) -> str:
    return "yes"


def three(ctx: Any) -> int:
    return 3


class Review(BaseMachineStep):
    name = "review"
    limit = 10

    async def execute(self, context: Any) -> Any:
        return {"limit": self.limit, "by": self.name}


class Route(ExclusiveGateway):
    async def evaluate(self, context: Any) -> str:
        return "low"


class Threshold(BaseMachineStep):
    """One with a constructor of its own."""

    def __init__(self, above: int, *, names: list[str] | None = None) -> None:
        super().__init__("threshold")
        self.above, self.names = above, names

    async def execute(self, context: Any) -> Any:
        return self.above


not_a_step = dict
number = 7
