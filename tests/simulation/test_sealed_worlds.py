"""Random worlds whose data is sealed: what is replayed is what was live, whatever goes wrong."""

from __future__ import annotations

import pytest
from tests.simulation.judge import judge
from tests.simulation.world import Stop, World
from tests.support.seals import Backwards

from perdure.store.sealing import Seal


@pytest.mark.parametrize("seed", range(40))
def test_a_world_with_a_codec_ends_well(seed: int) -> None:
    world = World(str(seed))
    with world.sim:
        store = world.sim.store
        store.database.seal = Seal(Backwards(), compress_above=100)
        store.migrate(world.sim.clock.now())
        try:
            world.run()
            found = judge(world)
        except Stop as exc:
            found = [str(exc)]
        rows = store.database.execute("SELECT payload FROM perdure_history").fetchall()
    assert not found, f"\n{world.sim.report(150)}\nseed {seed}: {found}"
    assert rows
    assert all(payload[:1] == b"\xc1" for (payload,) in rows)
