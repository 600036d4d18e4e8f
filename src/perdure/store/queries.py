"""Reads files of named SQL.

A file is a sequence of blocks. ``-- name: claims`` begins one; its text goes on to the next. A
block may be used inside another as ``{name}``, so that a list of columns stands in one place. The
same names stand in every dialect's file, which is how the stores stay comparable.
"""

from __future__ import annotations

import re
from pathlib import Path

from perdure.errors import DefinitionError

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_USE = re.compile(r"\{(\w+)\}")
_COMMENT = re.compile(r"^\s*--.*$\n?", re.MULTILINE)


def load_queries(path: Path) -> dict[str, str]:
    """Return the queries of a file by name, comments left out.

    Raises:
        DefinitionError: a name stands twice, or a used block does not exist.
    """
    parts = _NAME.split(path.read_text(encoding="utf-8"))
    names, texts = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DefinitionError(f"{path.name}: named twice: {', '.join(twice)}")
    raw = dict(zip(names, (_COMMENT.sub("", text).strip() for text in texts), strict=True))

    def expand(text: str) -> str:
        def block(use: re.Match[str]) -> str:
            if use[1] not in raw:
                raise DefinitionError(f"{path.name}: no block is named {use[1]!r}")
            return expand(raw[use[1]])

        return _USE.sub(block, text)

    return {name: expand(text).rstrip(";") for name, text in raw.items()}
