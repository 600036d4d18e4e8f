"""Every test here runs over every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.store_contract import OPENERS, World, opened


@pytest.fixture(params=list(OPENERS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with opened(request.param, tmp_path) as world:
        yield world
