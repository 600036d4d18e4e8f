"""Every run that a test has driven is replayed at its end: live state is replayed state (I11)."""

import pytest
from tests.unit import drive


@pytest.fixture(autouse=True)
def _replay_what_ran():
    drive.RUNS.clear()
    yield
    runs, drive.RUNS[:] = [*drive.RUNS], []
    for run in runs:
        if run.is_checked:
            run.check_replay()
        run.instance.evict()
