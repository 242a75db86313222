"""Figures that may have nothing to compare with, and how they are written."""

import math


def ratio(value: float, of: float) -> float | None:
    """`value / of`, or None if `of` is 0: then there is nothing to compare with."""
    return float(value / of) if of else None


def written(value: float | None, digits: int = 2) -> str:
    """A figure with so many digits after the point; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def short(value: float | str | None) -> str:
    """A cell of a table: three digits, more before the point, and a dash for what is no number."""
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
