"""Puts rows into inboxes, after everything else of a batch is written.

So a post sees what the batch did: a message to a run that closes in the same commit meets a closed
run, one to an execution that continues as new meets the new run. Rows for one inbox keep the order
of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from perdure.store.port import Post, Posted
from perdure.store.sqlite.database import Database, one
from perdure.store.sqlite.plan import CLOSE_BY_CANCEL, CLOSE_BY_TERMINATE, Outgoing, Plan
from perdure.store.sqlite.sql import SQL, ManyRows, to_json
from perdure.values.ids import MAILBOX
from perdure.values.limits import INBOX_PER_EXECUTION
from perdure.values.states import CODES, TERMINAL

_INSERT = ManyRows("insert_inbox", 5)
_CLOSED = frozenset(CODES[status] for status in TERMINAL)
_decode: Callable[[str], Any] = msgspec.json.decode

Address = tuple[Any, ...]


class _Target(msgspec.Struct, gc=False):
    execution: int
    run: int
    status: int
    rows: int


class Delivery:
    """One batch's posts: where they go, which were seen before, and what they become."""

    def __init__(self, database: Database, now: int) -> None:
        self._database = database
        self._now = now
        self._targets: dict[Address, _Target] = {}
        self._seqs: dict[str, int] = {}
        self._senders: dict[str, int] = {}
        self._rows: list[Any] = []
        self._accepted: list[Posted] = []

    def deliver(self, plan: Plan, posts: int) -> tuple[list[Posted], list[Posted]]:
        """Write the plan's posts; return the answers to the batch's own and the rows of turns."""
        answers = [Posted("not_found")] * posts
        fed: list[Posted] = []
        outgoing = plan.outgoing
        if outgoing:
            self._look_up(outgoing)
        for item in outgoing:
            # Without a refusal nobody would hear that a row was left out: a child's end must go in.
            is_told = item.place >= 0 or item.post.refusal is not None
            is_limited = is_told and not item.post.is_control
            answer = self._post(item.post, is_limited=is_limited)
            if item.place >= 0:
                answers[item.place] = answer
            elif answer.outcome == "delivered":
                if answer.execution:  # a mailbox has none
                    fed.append(answer)
            elif answer.outcome != "duplicate" and item.post.refusal is not None and item.home:
                refusal = Post(item.post.refusal, execution=item.home)
                back = self._post(refusal, is_limited=False)
                if back.outcome == "delivered":
                    fed.append(back)
        if plan.ended:
            self._close_children(plan, fed)
        self._insert()
        return answers, fed

    def _look_up(self, outgoing: list[Outgoing]) -> None:
        addresses: dict[Address, None] = {}
        for item in outgoing:
            addresses[_address(item.post)] = None
            if item.post.refusal is not None and item.home:
                addresses[item.home, None, None] = None
        places = [address for address in addresses if not _is_mailbox(address)]
        text = one(self._database, SQL["targets"], (to_json(places), INBOX_PER_EXECUTION))
        by_execution: dict[int, _Target] = {}
        for place, execution, run, status, rows in _decode(text):
            # Two addresses of one execution share its room.
            target = by_execution.setdefault(execution, _Target(execution, run, status, rows))
            self._targets[places[place]] = target
        senders = list({item.post.sender for item in outgoing if item.post.sender})
        if senders:
            known = one(self._database, SQL["senders"], (to_json(senders),))
            self._seqs = dict(_decode(known))

    def _post(self, post: Post, *, is_limited: bool) -> Posted:
        if post.sender and post.seq <= self._seqs.get(post.sender, -1):
            return Posted("duplicate")
        address = _address(post)
        if _is_mailbox(address):
            return Posted("delivered")
        target = self._targets.get(address)
        if target is None:
            return Posted("not_found")
        if target.status in _CLOSED:
            return Posted("closed", execution=target.execution, run=target.run)
        if is_limited and target.rows >= INBOX_PER_EXECUTION:
            return Posted("full", execution=target.execution, run=target.run)
        if post.sender:
            self._seqs[post.sender] = self._senders[post.sender] = post.seq
        target.rows += 1
        return self._accept(target.execution, target.run, post)

    def _accept(self, execution: int, run: int, post: Post) -> Posted:
        self._rows += (execution, post.sender, post.seq, post.event, self._now)
        answer = Posted("delivered", execution=execution, run=run, event=post.event)
        self._accepted.append(answer)
        return answer

    def _close_children(self, plan: Plan, fed: list[Posted]) -> None:
        children = one(self._database, SQL["children"], (plan.json["ended"],))
        for run, execution, policy in _decode(children):
            event = CLOSE_BY_TERMINATE if policy == "terminate" else CLOSE_BY_CANCEL
            fed.append(self._accept(execution, run, Post(event)))

    def _insert(self) -> None:
        if not self._rows:
            return
        done = 0
        for text, part in _INSERT.statements(self._rows):
            count = len(part) // _INSERT.columns
            last = self._database.execute(text, part).lastrowid
            assert last is not None
            _number(self._accepted[done : done + count], last - count + 1)
            done += count
        if self._senders:
            senders = to_json(list(self._senders.items()))
            self._database.execute(SQL["upsert_senders"], (senders, self._now))
        self._database.written += sum(len(row.event) for row in self._accepted)


def _number(rows: Iterable[Posted], first: int) -> None:
    for id, row in enumerate(rows, start=first):
        row.id = id


def _address(post: Post) -> Address:
    if post.execution is not None:
        return post.execution, None, None
    return None, post.namespace, post.workflow_id


def _is_mailbox(address: Address) -> bool:
    return address[0] is None and address[2].startswith(MAILBOX)
