"""Quantiles of Student's t distribution, so that an interval does not need SciPy."""

from __future__ import annotations

import math


def t_quantile(probability: float, freedom: float) -> float:
    """Return the t below which `probability` of the distribution lies; agrees with SciPy to 1e-8.

    Args:
        probability: 0.5 < probability < 1 (0.975 for a two-sided 95 % interval).
        freedom: degrees of freedom, above 0; fractional ones as Welch's test has them.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0.5 < probability < 1 or freedom <= 0:
        raise ValueError(f"need 0.5 < probability < 1 and freedom > 0, got {probability} and {freedom}")
    tail = 2 * (1 - probability)
    # P(|T| > t) = I_x(freedom / 2, 1 / 2) with x = freedom / (freedom + t^2), which falls as t rises.
    low, high = 0.0, 1.0
    while _tails(high, freedom) > tail:
        low, high = high, high * 2
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _tails(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def _tails(t: float, freedom: float) -> float:
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d, c = 1 / (1 + step * d), 1 + step / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(logarithm) * fraction / a
