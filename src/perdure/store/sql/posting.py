"""Puts rows into inboxes, after everything else of a batch is written.

So a post sees what the batch did: a message to a run that closes in the same commit meets a closed
run, one to an execution that continues as new meets the new run. Rows for one inbox keep the order
of the batch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.store.port import Post, Posted, Watch
from perdure.store.sealing import Packing
from perdure.store.sql.database import Answer, Writing, one
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.leaving import BY_CANCEL, BY_TERMINATE
from perdure.store.sql.plan import Outgoing, Plan
from perdure.store.sql.ties import Ties
from perdure.store.sql.watching import Watching, row_of
from perdure.values.ids import MAILBOX
from perdure.values.limits import INBOX_PER_EXECUTION
from perdure.values.states import CODES, TERMINAL

_CLOSED = frozenset(CODES[status] for status in TERMINAL)

Address = tuple[Any, ...]


class _Target(msgspec.Struct, gc=False):
    execution: int
    run: int
    status: int
    rows: int


class Delivery:
    """One batch's posts: where they go, which were seen before, and what they become."""

    def __init__(self, database: Writing, now: int, packing: Packing) -> None:
        self._database = database
        self._seal = database.seal
        self._now = now
        self._targets: dict[Address, _Target] = {}
        self._seqs: dict[str, int] = {}
        self._senders: dict[str, int] = {}
        self._rows: list[Any] = []
        self._accepted: list[Posted] = []
        self._watching = Watching(database, packing)
        self._open: set[str] = set()
        self._mail: list[Any] = []
        self.watched: list[str] = []
        """What became of each watch: ``watching``, ``dropped``, ``ended`` or ``not_found``."""

    def deliver(self, plan: Plan, posts: int, ties: Ties) -> tuple[list[Posted], list[Posted]]:
        """Write the plan's posts; return the answers to the batch's own and the rows of turns."""
        ended = plan.ended if ties.watchers or ties.watches else []
        answers = [Posted("not_found")] * posts
        fed: list[Posted] = []
        outgoing = plan.outgoing
        if outgoing or plan.watching:
            self._look_up(outgoing, plan.watching)
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
                said = item.post.refusal
                if answer.outcome == "full" and item.post.overflow is not None:
                    said = item.post.overflow
                elif answer.outcome == "closed" and item.post.ended is not None:
                    said = item.post.ended
                refusal = Post(said, execution=item.home, is_control=True)
                back = self._post(refusal, is_limited=False)
                if back.outcome == "delivered":
                    fed.append(back)
        orphans: Answer | None = None
        if plan.orphaned and ties.children:
            orphans = self._database.run("children", plan.json["orphaned"])
        if not plan.watching:  # else the watches of this batch come first
            self._watching.ask(ended)
        if orphans is not None:
            self._close_children(orphans, fed)
        for watch, home in plan.watching:
            self._watch(watch, home, fed)
        if ended or plan.watching:
            self._give_notice(ended, has_watches=ties.watches, fed=fed)
        self._insert()
        return answers, fed

    def _look_up(self, outgoing: list[Outgoing], watching: list[tuple[Watch, int]]) -> None:
        addresses: dict[Address, None] = {}
        for item in outgoing:
            addresses[_address(item.post)] = None
            if item.post.refusal is not None and item.home:
                addresses[item.home, None, None] = None
        for watch, home in watching:
            addresses[_address(watch)] = None
            if home:
                addresses[home, None, None] = None
        boxes = [address[2] for address in addresses if _is_mailbox(address)]
        boxes += [watch.mailbox for watch, _ in watching if watch.mailbox]
        self._find_mailboxes(boxes)
        places = [address for address in addresses if not _is_mailbox(address)]
        text = one(self._database, "targets", to_json(places), INBOX_PER_EXECUTION)
        by_execution: dict[int, _Target] = {}
        for place, execution, run, status, rows in from_json(text):
            # Two addresses of one execution share its room.
            target = by_execution.setdefault(execution, _Target(execution, run, status, rows))
            self._targets[places[place]] = target
        senders = list({item.post.sender for item in outgoing if item.post.sender})
        if senders:
            known = one(self._database, "senders", to_json(senders))
            self._seqs = dict(from_json(known))

    def _post(self, post: Post, *, is_limited: bool) -> Posted:
        if post.sender and post.seq <= self._seqs.get(post.sender, -1):
            return Posted("duplicate")
        address = _address(post)
        if _is_mailbox(address):
            self._put_mail(address[2], post.event)
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
        self._rows += (
            execution,
            post.sender,
            post.seq,
            self._seal.seal(post.event, is_control=post.is_control),
            int(post.is_control),
            self._now,
        )
        answer = Posted("delivered", execution=execution, run=run, event=post.event)
        self._accepted.append(answer)
        return answer

    def _watch(self, watch: Watch, home: int, fed: list[Posted]) -> None:
        target = self._targets.get(_address(watch))
        if target is None:
            self.watched.append("not_found")
            if watch.refusal is not None and home and not watch.drop:
                refusal = Post(watch.refusal, execution=home, is_control=True)
                back = self._post(refusal, is_limited=False)
                if back.outcome == "delivered":
                    fed.append(back)
            return
        row = row_of(watch, target.execution, home)
        if watch.drop:
            self._watching.drop(row)
            self.watched.append("dropped")
        elif target.status in _CLOSED:
            watcher = self._targets.get((home, None, None))
            self._watching.answer(row, watcher.run if watcher is not None else 0)
            self.watched.append("ended")
        else:
            self._watching.enter(row)
            self.watched.append("watching")

    def _give_notice(self, ended: list[int], *, has_watches: bool, fed: list[Posted]) -> None:
        notices = list(self._watching.notices(ended, has_watches=has_watches))
        self._find_mailboxes([notice.mailbox for notice in notices if notice.mailbox])
        for notice in notices:
            if notice.mailbox:
                self._put_mail(notice.mailbox, notice.event)
            elif notice.watcher is not None and notice.run:
                post = Post(notice.event, is_control=True)
                fed.append(self._accept(notice.watcher, notice.run, post))

    def _find_mailboxes(self, boxes: list[str]) -> None:
        if boxes:
            wanted = to_json(sorted(set(boxes)))
            self._open.update(from_json(one(self._database, "open_mailboxes", wanted)))

    def _put_mail(self, mailbox: str, event: bytes) -> None:
        if mailbox in self._open:
            self._mail += (mailbox, self._seal.seal(event))

    @property
    def has_mail(self) -> bool:
        """Whether something went into a mailbox."""
        return bool(self._mail)

    def _close_children(self, orphans: Answer, fed: list[Posted]) -> None:
        for run, execution, policy in from_json(orphans.fetchone()[0]):
            event = BY_TERMINATE if policy == "terminate" else BY_CANCEL
            fed.append(self._accept(execution, run, Post(event, is_control=True)))

    def _insert(self) -> None:
        if self._mail:
            self._database.insert("insert_mail", 2, self._mail)
        if not self._rows:
            return
        ids = self._database.insert("insert_inbox", 6, self._rows)
        for row, id in zip(self._accepted, ids, strict=True):
            row.id = id
        if self._senders:
            senders = to_json(list(self._senders.items()))
            self._database.run("upsert_senders", senders, self._now)
        self._database.written += sum(len(row.event) for row in self._accepted)


def _address(post: Post | Watch) -> Address:
    if post.execution is not None:
        return post.execution, None, None
    return None, post.namespace, post.workflow_id


def _is_mailbox(address: Address) -> bool:
    return address[0] is None and address[2].startswith(MAILBOX)
