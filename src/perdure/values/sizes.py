"""Sizes as users write them."""

from __future__ import annotations

from perdure.errors import Invalid


def parse_size(value: int | str) -> int:
    """Read a size in bytes: a number, or text like ``"2MiB"``, ``"1MB"``.

    Raises:
        Invalid: it is not one, or not above 0.
    """
    size = _size(value)
    if size <= 0:
        raise Invalid(f"size: {value!r} is not above 0")
    return size


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise Invalid(f"size: {value!r} is not like 1048576 or '2MiB'")
    units = {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
    text = value.strip().lower()
    for unit, factor in units.items():
        if text.endswith(unit):
            text, scale = text.removesuffix(unit), factor
            break
    else:
        text, scale = text.removesuffix("b"), 1
    try:
        return round(float(text) * scale)
    except (ValueError, OverflowError):
        raise Invalid(f"size: {value!r} is not like 1048576 or '2MiB'") from None
