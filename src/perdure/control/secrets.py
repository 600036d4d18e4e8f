"""Secrets that are shown once: ``pdk_<id>_<secret>``. The id finds the record, the hash proves it.

The hash is SHA-256 and not a slow one for passwords: a secret is 256 random bits, so there is
nothing to guess, and a check must not cost a tenth of a second per request.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from perdure.errors import Unauthenticated

_SHOWN = re.compile(r"([0-9a-z]+)_([0-9A-Za-z_-]+)")
_ID_BYTES = 8
_SECRET_BYTES = 32


class Made(NamedTuple):
    """A new secret: its id, what is shown once, and what is kept."""

    id: str
    text: str
    hash: str


def make(prefix: str, chance: Callable[[int], bytes]) -> Made:
    """Make a secret."""
    id = chance(_ID_BYTES).hex()
    secret = base64.urlsafe_b64encode(chance(_SECRET_BYTES)).decode().rstrip("=")
    return Made(id, f"{prefix}{id}_{secret}", _hash(secret))


def parse(prefix: str, text: str) -> tuple[str, str]:
    """Return id and secret.

    Raises:
        Unauthenticated: the text is not of this form.
    """
    shown = _SHOWN.fullmatch(text.removeprefix(prefix)) if text.startswith(prefix) else None
    if shown is None:
        raise Unauthenticated("this is no key of ours: one begins with an id and a secret")
    return shown[1], shown[2]


def fits(secret: str, kept: str) -> bool:
    """Tell whether a secret is the one that was hashed, in the same time whatever it is."""
    return hmac.compare_digest(_hash(secret), kept)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
