"""The table in docs/schedules.md of daylight saving: `python -m tests.unit.values.dst`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perdure.values.schedules import Spec, checked, upcoming

PAGE = Path(__file__).parents[3] / "docs" / "schedules.md"
_PLACE = re.compile(
    r"(<!-- table: python -m tests\.unit\.values\.dst -->\n)(?:\n\|.*?\n(?=\n[^|]))?", re.DOTALL
)
CASES = (
    ("Europe/Berlin", "2026-03-29", "02:00 → 03:00", ("30 2 * * *", "0 3 * * *", "0 9 * * *")),
    ("Europe/Berlin", "2026-03-29", "02:00 → 03:00", ("30 * * * *",)),
    ("Europe/Berlin", "2026-10-25", "03:00 → 02:00", ("30 2 * * *", "0 3 * * *")),
    ("Europe/Berlin", "2026-10-25", "03:00 → 02:00", ("30 * * * *",)),
    ("Australia/Lord_Howe", "2026-10-04", "02:00 → 02:30", ("15 2 * * *",)),
    ("Australia/Lord_Howe", "2026-04-05", "02:00 → 01:30", ("45 1 * * *",)),
    ("America/New_York", "2026-11-01", "02:00 → 01:00", ("30 1 * * *",)),
)


def table() -> str:
    """Return the table."""
    lines = [
        "| zone | day | the clocks | cron | runs there |",
        "|---|---|---|---|---|",
    ]
    for zone, day, clocks, texts in CASES:
        for text in texts:
            lines.append(f"| {zone} | {day} | {clocks} | `{text}` | {_runs(zone, day, text)} |")
    return "\n".join(lines) + "\n"


def _runs(zone: str, day: str, text: str) -> str:
    """Return the ticks of a day's first four hours, or of all of it if there are none."""
    spec = checked(Spec(cron=text, timezone=zone))
    noon = datetime.fromisoformat(f"{day}T12:00+00:00") - timedelta(days=1)
    after = (noon - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    found = [one for one in upcoming(spec, after, 60) if f"{one.local:%Y-%m-%d}" == day]
    early = [one for one in found if one.local.hour < 4] or found
    return ", ".join(f"{one.local:%H:%M} ({one.local:%z})" for one in early)


def with_table(page: str) -> str:
    """Return the page with the table as it is now."""
    found = _PLACE.search(page)
    assert found is not None
    return f"{page[: found.start()]}{found[1]}\n{table()}{page[found.end() :]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
