"""Limits on everything, in one place. Bytes, counts and microseconds."""

from __future__ import annotations

from typing import Final

MAX_PAYLOAD: Final = 2 * 1024 * 1024
BATCH_TURNS: Final = 2_000
BATCH_BYTES: Final = 8 * 1024 * 1024
INBOX_PER_EXECUTION: Final = 10_000
LOST_IN_A_ROW: Final = 3
CLOSE_RETRIES: Final = 3
LIST_DEFAULT: Final = 100
LIST_MAX: Final = 1_000
COUNT_MAX: Final = 10_000
COUNTED: Final = 1_000_000_000
"""The highest number of whatever somebody limits by counting it: attempts, instances, slots."""
LABEL: Final = 1_000
"""Characters of a tag, of the name of a search attribute, and of the texts that say for whom an
execution is (``correlation_id``, ``tenant``, ``created_by``).
"""
NAME_BYTES: Final = 2_000
"""Bytes of a name that an index leads with: of a person, or a role; PostgreSQL has room for 2,704.
"""
TAGS: Final = 100
SEARCH_ATTRIBUTES: Final = 100
SEARCH_TEXT: Final = 10_000
"""Characters of a search attribute's text; of all its texts together, if it is a list."""
REASON: Final = 4_096
"""Characters of the reason of a cancel or a terminate."""
LOG_LINES: Final = 10_000
"""Log lines that a run keeps; older ones go first."""
LOG_TEXT: Final = 16_384
"""Characters of a kept line's message."""
LOG_DATA: Final = 65_536
"""Bytes of a kept line's data."""
