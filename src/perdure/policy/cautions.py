"""What a policy may say and hardly means: names and patterns that nothing can ever fit.

A list of what is blocked that has one blocks less than it seems to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from perdure.errors import Invalid
from perdure.policy.globs import read_name
from perdure.policy.keys import KEYS, Kind
from perdure.policy.kinds import Values
from perdure.policy.verdict import Caution
from perdure.values.cron import check_cron

_SIGNALS = "policy.workflow.signal.allowedSignals"
_LISTS = (Kind.NAMES, Kind.CRONS, Kind.FIELDS, Kind.COUNTS)
_WORDS = re.compile(r"[\w@:/+.-]*")
_SIGNAL = re.compile(r"[A-Za-z0-9_-]*")
_PATTERN = "a name, in which only * is special: user.onboarding, or user.*"


def cautions(values: Values) -> Iterator[Caution]:
    """Yield a caution for each name in a policy's lists that fits nothing."""
    for key, given in values.items():
        kind = KEYS[key].kind
        if kind not in _LISTS:
            continue
        for one in given:
            for text in one.value:
                message, fix = _doubt(key, kind, text)
                if message:
                    yield Caution(key, 0, 0, f"{text!r} {message}", fix, one.where)


def _doubt(key: str, kind: Kind, text: Any) -> tuple[str, str]:
    if kind is Kind.CRONS:
        return _doubt_of_cron(text)
    words = text.replace("*", "")
    if key == _SIGNALS:
        fits = _SIGNAL.fullmatch(words)
        return ("", "") if fits else ("fits no signal", "letters, digits, _ and -")
    if not _WORDS.fullmatch(words) or text[0] == "." or text[-1] == ".":
        return "fits no workflow", _PATTERN
    name = read_name(text)
    if name is not None and name.version:
        return "fits no workflow: names in a policy have no version", repr(name.name)
    return "", ""


def _doubt_of_cron(text: str) -> tuple[str, str]:
    if "**" in text:
        return "", ""
    try:
        check_cron(text)
    except Invalid as exc:
        return f"fits no cron text ({exc.message})", "'0 0 * * *', '@daily' or '0 ** 1 *'"
    return "", ""
