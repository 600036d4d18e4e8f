"""Drives a workflow by hand: facts in, commands out. No store, no clock, no engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure import errors
from perdure.kernel.instance import Instance, StoredTurn
from perdure.values import events as ev
from perdure.values import failures, payload

SECOND = 1_000_000
NOON = 1_750_000_000 * SECOND
SEED = bytes(range(16))

RUNS: list[Run] = []
"""The runs of the current test; its end replays them (see ``kernel/conftest.py``)."""


class Run:
    """One run of ``program``. Every turn goes into ``rows`` as the store would keep it."""

    def __init__(
        self,
        program: Any,
        input: Any = None,
        *,
        seed: bytes = SEED,
        time: int = NOON,
        start: bool = True,
        **fields: Any,
    ) -> None:
        self.program = program
        self.instance = Instance(program)
        self.time = time
        self.rows: list[tuple[bytes, int, bool]] = []
        self.commands: list[Any] = []
        self.unexpected: BaseException | None = None
        self.is_checked = True
        self.started = ev.RunStarted(
            workflow=program.name,
            version="1.0.0",
            workflow_id="order-7",
            run_id="01970000-0000-7000-8000-000000000007",
            seed=seed,
            input=payload.encode(input),
            started_at=time,
            first_started_at=time,
            **fields,
        )
        RUNS.append(self)
        if start:
            self.turn(self.started)

    # -- turns -------------------------------------------------------------------------------

    def turn(self, *facts: ev.Event, after: float = 0) -> list[Any]:
        """Apply facts in the order of their ranks; return the commands."""
        self.time += round(after * SECOND)
        ordered = sorted(facts, key=lambda fact: fact.rank)
        waiting = self._blind()
        checked, self.is_checked = self.is_checked, False
        turn = self.instance.apply(waiting + ordered, self.time)
        self.is_checked = checked
        self.commands, self.unexpected = turn.commands, turn.unexpected
        data = ev.encode_turn([*ordered, *turn.commands])
        self.rows.append((data, self.time, True))
        self.instance.size += len(data)
        return turn.commands

    def blind(self, *facts: ev.Event) -> None:
        """Record facts without a turn; they join the next one."""
        self.rows.append((ev.encode_turn(list(facts)), self.time, False))

    def _blind(self) -> list[Any]:
        facts: list[ev.Event] = []
        for data, _, is_applied in reversed(self.rows):
            if is_applied:
                break
            facts[:0] = ev.decode_turn(data)
            self.instance.size += len(data)
        return facts

    def complete(self, name: str, result: Any = None) -> list[Any]:
        """Let the oldest open activity of this name complete."""
        return self.turn(self.completed(name, result))

    def fail(self, name: str, message: str = "no luck", **options: Any) -> list[Any]:
        """Let the oldest open activity of this name fail for good."""
        return self.turn(self.failed(name, message, **options))

    def fire(self) -> list[Any]:
        """Let time pass until the next timer is due."""
        due = self.instance.next_due()
        assert due is not None, "no timer is started"
        self.time = max(self.time, due)
        return self.turn(*self.instance.due_timers(self.time))

    def message(self, topic: str, value: Any = None, **fields: Any) -> list[Any]:
        """Let a message arrive."""
        return self.turn(message(topic, value, **fields))

    def cancel(self, reason: str = "enough") -> list[Any]:
        """Let somebody ask for the end."""
        return self.turn(ev.CancelRequested(reason=reason))

    def update(self, name: str, *args: Any, id: str = "u1") -> list[Any]:
        """Let an update be accepted."""
        return self.turn(ev.UpdateAccepted(update=id, name=name, args=payload.encode(args)))

    # -- facts -------------------------------------------------------------------------------

    def open(self, name: str) -> list[int]:
        """Return the open activities of this name, oldest first."""
        return [n for n, p in self.instance.activities.items() if p.event.name == name]

    def completed(self, name: str, result: Any = None, *, nth: int = 0) -> ev.ActivityCompleted:
        return ev.ActivityCompleted(activity=self.open(name)[nth], result=payload.encode(result))

    def failed(self, name: str, message: str = "no luck", **options: Any) -> ev.ActivityFailed:
        info = failures.from_exception(errors.ApplicationError(message, **options))
        return ev.ActivityFailed(activity=self.open(name)[0], failure=info)

    def child_closed(self, nth: int = 0, **fields: Any) -> ev.ChildClosed:
        number = list(self.instance.children)[nth]
        if "result" in fields:
            fields["result"] = payload.encode(fields["result"])
        return ev.ChildClosed(child=number, at=self.time, **{"status": "completed", **fields})

    # -- looking -----------------------------------------------------------------------------

    @property
    def asked(self) -> list[str]:
        """The commands of the last turn, in a few words each."""
        return [command.brief() for command in self.commands]

    @property
    def closed(self) -> Any:
        return self.instance.closed

    @property
    def result(self) -> Any:
        assert isinstance(self.closed, ev.RunCompleted), self.closed
        return payload.decode(self.closed.result)

    @property
    def failure(self) -> Any:
        assert isinstance(self.closed, ev.RunFailed), self.closed
        return self.closed.failure

    def query(self, name: str, *args: Any) -> Any:
        data = payload.encode(args)
        return payload.decode(self.instance.query(name, lambda handler: handler.answer(data)))

    # -- replay ------------------------------------------------------------------------------

    def stored(self) -> list[StoredTurn]:
        return [
            StoredTurn(ev.decode_turn(data), time, is_applied, len(data))
            for data, time, is_applied in self.rows
        ]

    def replayed(self, program: Any = None) -> Instance:
        """Return a fresh instance to which the history was applied."""
        instance = Instance(program or self.program)
        instance.replay(self.stored())
        return instance

    def check_replay(self) -> None:
        """Replay turn by turn: the commands and the state are those of the live run."""
        replica = Instance(self.program)
        facts: list[ev.Event] = []
        for events, time, is_applied, size in self.stored():
            count = ev.split(events)
            facts += events[:count]
            if is_applied:
                turn = replica.apply(facts, time, events[count:])
                assert [*_unmarked(turn.commands)] == [*_unmarked(events[count:])]
                facts = []
            replica.size += size
        assert state(replica) == state(self.instance)
        replica.evict()


def _unmarked(commands: Sequence[ev.Event]) -> list[ev.Event]:
    soft = (ev.VersionMarked, ev.SideEffectRecorded)
    return [command for command in commands if not isinstance(command, soft)]


def state(instance: Instance) -> dict[str, Any]:
    """Return what of an instance decides how it goes on, as far as it can be compared."""
    waits = instance.waits()
    return {
        "waits": {name: getattr(waits, name) for name in waits.__struct_fields__},
        "length": instance.length,
        "size": instance.size,
        "time": instance.time,
        "activities": list(instance.activities),
        "timers": {number: due for number, (due, _) in instance.timers.items()},
        "children": list(instance.children),
        "sends": list(instance.sends),
        "unread": instance.mail.unread(),
        "notices": len(instance.notices.items),
        "updates": list(instance.updates),
        "answered": instance.answered,
        "tasks": len(instance.loop.live_tasks()),
        "order": instance.loop.next_order(),
        "chance": instance.entropy.draw(8),
        "closed": instance.closed,
    }


def message(topic: str, value: Any = None, **fields: Any) -> ev.MessageReceived:
    given = {"sender": "order-1", "sent_at": NOON, **fields}
    return ev.MessageReceived(message=ev.Message(topic, payload.encode(value), **given))
