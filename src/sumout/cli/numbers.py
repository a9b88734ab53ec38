"""Numbers for people."""

from __future__ import annotations

import math


def logarithm(value: float) -> str:
    """A logarithm with six decimals.

    >>> logarithm(-1e-17), logarithm(-0.639963), logarithm(float("-inf"))
    ('0.000000', '-0.639963', '-inf')
    """
    return f"{value:.6f}" if round(value, 6) else "0.000000"


def both_logarithms(value: float) -> str:
    """A natural logarithm, and the base-10 one.

    >>> both_logarithms(-2.302585092994046)
    '-2.302585 (natural), -1.000000 (log10)'
    """
    return f"{logarithm(value)} (natural), {logarithm(value / math.log(10))} (log10)"


def from_log10(value: float) -> str:
    """The number with this base-10 logarithm, however small or large.

    >>> from_log10(-0.5), from_log10(-1000.5), from_log10(606.279), from_log10(float("-inf"))
    ('0.316228', '3.16228e-1001', '1.90108e+606', '0')
    """
    if value == -math.inf:
        return "0"
    if abs(value) < 300:
        return f"{10**value:.6g}"
    exponent = math.floor(value)
    return f"{10 ** (value - exponent):.6g}e{exponent:+d}"


def probability(value: float) -> str:
    """A probability with six decimals, or three digits where these would hide it.

    >>> probability(0.25), probability(0.0), probability(2.5e-7)
    ('0.250000', '0.000000', '2.50e-07')
    """
    return f"{value:.2e}" if 0 < value < 1e-4 else f"{value:.6f}"


def amount(value: float) -> str:
    """A count, in digits while it is short.

    >>> amount(12345), amount(3 * 10**12)
    ('12,345', '3e+12')
    """
    return f"{value:,}" if value < 10**9 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time in a unit that suits it.

    >>> duration(0.000004), duration(0.25), duration(90), duration(86400 * 3)
    ('4 µs', '250 ms', '90 s', '72 h')
    """
    for unit, name in ((3600, "h"), (1, "s"), (1e-3, "ms")):
        if seconds >= 2 * unit or (unit == 1 and seconds >= 1):
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-6:.3g} µs"
