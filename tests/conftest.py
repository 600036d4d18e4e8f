"""What every test shares: how hypothesis behaves."""

import os

from hypothesis import HealthCheck, settings

# Time limits per example measure the machine, not the code.
settings.register_profile("here", deadline=None)
# Continuous integration tries the same examples every time: a red build can be repeated.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "here")
