"""Numbers as text, rounded and with their units."""

from __future__ import annotations

import math


def percent(fraction: float | None) -> str:
    """A fraction in per cent; only 0 and 1 are written as 0 and 100 %."""
    if fraction is None or not math.isfinite(fraction):
        return "\N{EN DASH}"
    if fraction in (0, 1):
        return f"{100 * fraction:.0f} %"
    if fraction < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if fraction > 0.999 else f"{100 * fraction:.1f} %"


def with_unit(words: str, unit: str) -> str:
    """A number or range with its unit."""
    if not unit:
        return words
    return f"{words} \N{MULTIPLICATION SIGN} {unit}" if unit.startswith("10") else f"{words} {unit}"


def readable(value: float) -> str:
    """A number with three significant digits, without exponent below 10^9."""
    text = f"{value:.3g}"
    return (f"{value:,.0f}" if "e+0" in text and abs(value) < 1e9 else text).replace("-", "\N{MINUS SIGN}")
