"""What PostgreSQL's errors mean to the store, by their SQLSTATE and never by their text.

Three questions decide. Did two transactions stand in each other's way (then nothing was written,
and it is tried again)? Was the data refused (then the batch is)? Or is the server away?
"""

from __future__ import annotations

import psycopg

from perdure.errors import Corrupt, SchemaMismatch, StoreError, StoreRefused, Unavailable

_CONFLICTS = frozenset({"40001", "40P01"})
_BLOCKED = "55P03"
_DATA = ("22", "23", "54")
_AWAY = ("08", "53", "55", "57", "58", "25")
_NO_TABLES = frozenset({"42P01", "42883", "42703", "3F000"})
_BROKEN = ("XX",)
_FORBIDDEN = "42501"

BAD_VALUES = (OverflowError, UnicodeError)
"""What the driver raises, besides its own errors, for values that no column can hold."""


def state_of(exc: BaseException) -> str:
    """Return the SQLSTATE of an error; ``""`` if the server did not say one."""
    return getattr(exc, "sqlstate", None) or ""


def is_conflict(exc: BaseException) -> bool:
    """Tell whether the transaction stood in another's way: it left no trace and may be repeated."""
    return state_of(exc) in _CONFLICTS


def is_blocked(exc: BaseException) -> bool:
    """Tell whether another held a lock for too long: nothing was written."""
    return state_of(exc) == _BLOCKED


def is_forbidden(exc: BaseException) -> bool:
    """Tell whether the role lacks a right."""
    return state_of(exc) == _FORBIDDEN


def translate(exc: BaseException, where: str) -> StoreError:
    """Return the store's error for a driver's error."""
    state = state_of(exc)
    text = str(exc).strip()
    if isinstance(exc, BAD_VALUES) or state[:2] in _DATA:
        return StoreRefused(f"{where} refused the data: {text}", cause=exc)
    if is_forbidden(exc):
        return SchemaMismatch(
            f"{where} does not let this role work with Perdure's tables ({text}): let their owner "
            "run what `perdure db migrate --sql --pending --role ROLE` prints",
            cause=exc,
        )
    if state in _NO_TABLES:
        return SchemaMismatch(
            f"{where} does not have Perdure's tables ({text}): a worker makes them when it starts "
            "(`perdure dev MODULE`)",
            cause=exc,
        )
    if state in _CONFLICTS or state[:2] in _AWAY:
        return Unavailable(f"{where} cannot be used now: {text}", cause=exc)
    if state[:2] in _BROKEN:
        return Corrupt(f"{where} is damaged: {text}", cause=exc)
    if not state and isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Unavailable(f"{where} cannot be reached: {text}", cause=exc)
    if isinstance(exc, (psycopg.DataError, psycopg.ProgrammingError)) and not state:
        return StoreRefused(f"{where} refused the data: {text}", cause=exc)
    return StoreError(f"{where}: {text}", cause=exc)
