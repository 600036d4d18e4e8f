"""What an engine is told, as its parts read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.engine.alerts import Alert
from perdure.engine.limits import Limits
from perdure.engine.processes.watchdog import Watchdog
from perdure.store.sealing import Seal
from perdure.values.limits import MAX_PAYLOAD
from perdure.values.queues import QueueLimit, TaskQueue


class Settings:
    """Numbers of an engine; times in microseconds unless they say seconds."""

    def __init__(
        self,
        *,
        lease: int = 10_000_000,
        max_payload: int = MAX_PAYLOAD,
        turn_limit_seconds: float = 10.0,
        cache: int = 10_000,
        activity_slots: int = 10_000,
        thread_slots: int = 32,
        transaction_limit: int = 10_000_000,
        limits: Limits | None = None,
        services: Mapping[str, Any] | None = None,
        isolated: bool = False,
        kill_grace: int = 5_000_000,
        watchdog: Watchdog | None = None,
        process_slots: int = 0,
        task_queues: Sequence[TaskQueue] = (),
        queue_limits: Sequence[QueueLimit] = (),
        retention: int = 30 * 86_400_000_000,
        retention_interval: int = 3_600_000_000,
        seal: Seal | None = None,
        alerts: Mapping[str, Alert] | None = None,
    ) -> None:
        self.alerts = alerts or {}
        self.retention = retention
        self.retention_interval = retention_interval
        self.seal = seal
        self.services = services or {}
        self.isolated = isolated
        self.kill_grace = kill_grace
        self.watchdog = watchdog or Watchdog()
        self.process_slots = process_slots
        self.task_queues = task_queues
        self.queue_limits = queue_limits
        self.lease = lease
        self.max_payload = max_payload
        self.turn_limit_seconds = turn_limit_seconds
        self.cache = cache
        self.activity_slots = activity_slots
        self.thread_slots = thread_slots
        self.transaction_limit = transaction_limit
        self.limits = limits
