"""Processes that change one document, and append to one audit, at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.store.processes import Script

from perdure.store.opening import open_store
from perdure.values.audit import AuditHead, fault_of

PROCESSES, TIMES = 6, 40
COUNT = """
import sys
from perdure.errors import Conflict
from perdure.store.opening import open_store
from perdure.values.audit import AuditLine
from perdure.values.records import Amend, Put
name, url, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_store(url)
store.migrate(1)
print("ready", flush=True)
sys.stdin.readline()
refused = 0
for n in range(times):
    while True:
        found = store.record("counter", "c")
        number = int(found.data) if found else 0
        put = Put("counter", "c", b"%d" % (number + 1), found.version if found else 0)
        try:
            store.amend(Amend([put], audit=[AuditLine("count", name, str(number + 1))]), 1)
        except Conflict:
            refused += 1
        else:
            break
print(refused, flush=True)
store.close()
"""


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/a.db"


def test_no_change_is_lost_and_the_chain_has_neither_gaps_nor_branches(url: str):
    store = open_store(url)
    store.migrate(1)
    racing = [Script(COUNT, f"p{n}", url, TIMES) for n in range(PROCESSES)]
    try:
        assert [script.line() for script in racing] == ["ready"] * PROCESSES
        for script in racing:
            script.tell()
        refused = sum(int(script.line()) for script in racing)
    finally:
        for script in racing:
            script.kill()
    found = store.record("counter", "c")
    total = PROCESSES * TIMES
    assert found is not None and (int(found.data), found.version) == (total, total)
    before = AuditHead()
    chain = store.audit_chain(limit=10_000)
    for row in chain:
        assert fault_of(row, before) == ""
        before = AuditHead(row.number, row.hash)
    assert [row.target for row in chain] == [str(n) for n in range(1, total + 1)]
    assert store.audit_head() == before
    assert refused > 0, "nobody was in anybody's way: this has tested nothing"
    store.close()
