"""Finds work that others put into the database: new runs, inbox rows, questions, due timers.

Looks when another process has committed, when a worker was taken over, and once a second in any
case. What it finds goes to the loader or straight to a live run; nothing here writes.

A worker takes up only what it has room for. Of runs that anybody may claim it has at most ``HAND``
in hand that have not begun, and takes no more of a lane while many attempts of it wait for a slot
here. So what others could begin is left to them, and nobody's run stands behind a long line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure import errors
from perdure.door import encode_answer
from perdure.engine.lanes import full_lanes, is_any_short
from perdure.engine.runs import Phase, Run
from perdure.engine.timers import HORIZON
from perdure.store.complaints import Complaints
from perdure.store.port import Posted, Question
from perdure.values import events as ev
from perdure.values import failures

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_PAGE = 1_000
HAND = 400
_SHORT = HAND // 2
_AGAIN = 100
_LEAST_SECONDS = 0.01
_TIMERS = 10_000
_OVERDUE = 2_000_000
_NEWS_EVERY = 900_000
_SOON = 5_000_000
SAFETY_SECONDS = 1.0


class Intake:
    """See the module's text."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._wake = asyncio.Event()
        self._behind = self._caught_up = 0
        self._news_at = 0
        self._hand: dict[int, Run] = {}
        """Runs that were claimed, and have not begun when last looked at."""
        self._has_more = False
        self._after = 0
        self.passes_over: Sequence[str] = ()
        """Lanes of which no more runs are taken up for now."""
        self._admits_at: int | None = None
        self._questions: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_stopping = False
        self._trouble = Complaints(_log, asyncio.get_running_loop().time)

    def look(self) -> None:
        """Look soon."""
        self._wake.set()

    def admit(self) -> None:
        """Look soon whether somebody in a queue may begin."""
        self._news_at = 0
        self._wake.set()

    def admit_at(self, at: int) -> None:
        """Look at this time whether somebody in a queue may begin; rates say when."""
        if self._admits_at is None or at < self._admits_at:
            self._admits_at = at
            seconds = max(_LEAST_SECONDS, (at - self._core.clock.now()) / 1_000_000)
            asyncio.get_running_loop().call_later(seconds, self._admit_due, at)

    def _admit_due(self, at: int) -> None:
        if self._admits_at == at and not self.is_stopping:
            self._admits_at = None
            self.admit()

    def go_on(self) -> None:
        """Look soon for more runs to claim, if there are some and most of those in hand began."""
        if self._has_more and self._in_hand() <= _SHORT:
            self._has_more = False
            self._wake.set()

    def look_if_room(self) -> None:
        """Look soon if a lane that was passed over has become short."""
        if is_any_short(self._core.runner.lines, self.passes_over):
            self.passes_over = ()
            self._wake.set()

    def _in_hand(self) -> int:
        busy = Phase.LOADING, Phase.COMMITTING
        self._hand = {
            key: run
            for key, run in self._hand.items()
            if (run.is_queued or run.phase in busy) and not run.is_owned
        }
        return len(self._hand)

    def catch_up(self) -> None:
        """Look soon, and let no inbox row pass those that are in the database already."""
        self._behind += 1
        self._wake.set()

    @property
    def is_behind(self) -> bool:
        """Whether rows must come in by a look, because older ones may not be known here yet."""
        return self._behind > self._caught_up

    async def run(self) -> None:
        """Look until stopped."""
        is_woken = True
        while not self.is_stopping:
            try:
                await self.look_once(is_woken=is_woken)
            except errors.StoreError as error:
                self._trouble.add("could not look for work, will try again: %s", error)
            else:
                self._trouble.over("work can be looked for again")
            if not self._wake.is_set():
                try:
                    async with asyncio.timeout(SAFETY_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            is_woken = self._wake.is_set()
            self._wake.clear()

    async def look_once(self, *, is_woken: bool = True) -> None:
        """Take up everything that waits for a worker like this one.

        ``is_woken``: something has happened; else one question tells whether it is worth a look.
        """
        core = self._core
        served, queues, worker = core.registry.served, core.registry.queues, core.committer.worker
        now, behind = core.clock.now(), self._behind
        soon = now + _SOON
        if now >= self._news_at:
            self._news_at = now + _NEWS_EVERY
            acts = core.registry.activities
            news = await core.desk.read(
                lambda store: store.news(now, soon, served, queues, worker, acts)
            )
            core.carrier.hear(news.offers_due, has_any=news.has_offers)
            core.escalations.hear(news.people_at)
            if news.inactive or core.registry.inactive:
                core.registry.learn(await core.desk.read(lambda store: store.definitions()))
            if news.next_at is not None:
                self.admit_at(news.next_at)
            core.schedules.hear(news.schedules_at)
            if news.has_room:
                if await core.desk.write(lambda store: store.admit(now)):
                    self.admit()  # when the next one may begin is to be known
            elif not (news.has_work or is_woken):
                await self._read_timers(now)
                return
        known = core.registry.names
        acts = core.registry.activities if is_woken else ()
        room, after = HAND - self._in_hand(), self._after
        full = full_lanes(core.runner.lines)
        offers, claimable, again, beginning, inbox, questions = await core.desk.read(
            lambda store: (
                store.offers(queues, acts) if acts else (False, None),
                store.claimable(served, queues, limit=HAND, after=after, passed_over=full)
                if room >= _SHORT
                else [],
                store.served_again(served, queues, limit=_AGAIN),
                store.beginning(soon, served, queues, limit=_PAGE),
                store.inbox(served, queues, worker, limit=_PAGE),
                store.questions(now, known, limit=100),
            )
        )
        core.carrier.hear(offers[1], has_any=offers[0])
        if is_woken:
            core.carrier.check()
        self.passes_over = full
        self._has_more = room < _SHORT or len(claimable) == HAND or len(again) == _AGAIN
        self._claim(again)
        if room >= _SHORT:
            last = self._claim(claimable)
            self._after = last if self._has_more else 0
        for key, begins in beginning:
            core.timers.add(key, begins, even_if_far=True)
        for row in inbox:
            try:
                fact = ev.decode_fact(row.event)
            except errors.StoreError:
                core.feed_unreadable(row)
                continue
            core.feed(Posted("delivered", row.id, row.execution, row.run, row.event), fact)
        self._caught_up = behind
        for question in questions:
            if question.id not in self._questions:
                self._answer_soon(question)
        await self._read_overdue(now)
        await self._read_timers(now)
        self.go_on()

    def _claim(self, runs: Sequence[int]) -> int:
        """Take runs up while there is room; return the last one, or 0."""
        last = 0
        for key in runs:
            if key not in self._hand:
                if len(self._hand) == HAND:
                    self._has_more = True
                    break
                self._core.claim(key)
                self._hand[key] = self._core.runs[key]
            last = key
        return last

    async def _read_timers(self, now: int) -> None:
        """Read what comes due within the horizon, on from where the last look ended, if that was
        long ago.
        """
        core = self._core
        if core.timers.known_until - now >= HORIZON // 2:
            return
        served, queues = core.registry.served, core.registry.queues
        after, until = core.timers.known_until, now + HORIZON
        due = await core.desk.read(
            lambda store: store.due(until, served, queues, limit=_TIMERS, after=after)
        )
        if len(due) == _TIMERS:
            # More than a page: go on from the last time read (the overdue look catches ties).
            until = due[-1][1]
            self._wake.set()
        core.timers.known_until = until
        for key, wake_at in due:
            core.timers.add(key, wake_at)

    async def _read_overdue(self, now: int) -> None:
        """Wake what nobody woke: runs of a worker that died between commit and timer, say."""
        core = self._core
        served, queues, until = core.registry.served, core.registry.queues, now - _OVERDUE
        due = await core.desk.read(lambda store: store.due(until, served, queues, limit=_PAGE))
        for key, _ in due:
            core.timer_due(key)

    def _answer_soon(self, question: Question) -> None:
        self._questions.add(question.id)
        task = asyncio.get_running_loop().create_task(self._answer(question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, question: Question) -> None:
        core = self._core
        try:
            answer = await core.answers.ask(question)
        except errors.Unavailable:
            self._questions.discard(question.id)
            return
        except Exception as exc:  # noqa: BLE001 - it goes back to whoever asked
            answer = encode_answer(None, failures.from_exception(exc))
        now = core.clock.now()
        try:
            await core.desk.write(lambda store: store.answer(question.id, answer, now))
        except errors.Unavailable as error:
            _log.warning("could not answer a question, the next look will: %s", error)
        self._questions.discard(question.id)
