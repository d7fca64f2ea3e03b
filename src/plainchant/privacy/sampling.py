"""What one secret sample of the units is worth, in front of a whole run (guarantee 13.6). Numbers only."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from plainchant.arrays import Float64Array
from plainchant.errors import ConfigError

# By how much sums of logarithms may be off, relative to the largest of them; bounds are rounded up by it.
ROUNDING = 1e-13


def check_rate(rate: float, name: str = "rate") -> float:
    """Returns a rate of a sample where it is above 0 and at most 1, else raises ConfigError.

    >>> check_rate(0.1)
    0.1
    """
    if not 0 < rate <= 1:
        raise ConfigError(f"{name} = {rate}: must be above 0 and at most 1")
    return rate


def epsilon_outside(epsilon: float, rate: float) -> float:
    """ε of a run from its ε on the sample, ln(1 + q(e^ε − 1)), rounded up; δ is multiplied by the rate.

    >>> round(epsilon_outside(3.0, 0.1), 4), epsilon_outside(0.0, 0.1), epsilon_outside(2.0, 1.0)
    (1.0677, 0.0, 2.0)
    """
    if rate == 1 or math.isinf(epsilon):
        return epsilon
    if epsilon < 1:
        return math.log1p(rate * math.expm1(epsilon)) * (1 + 1e-15)
    return (epsilon + math.log(rate + (1 - rate) * math.exp(-epsilon))) * (1 + 1e-15)


def epsilon_inside(epsilon: float, rate: float) -> float:
    """The largest ε (rounded down in its 11th digit) that a run may spend on the sample: the inverse.

    >>> round(epsilon_inside(1.0, 0.1), 4)
    2.9005
    >>> epsilon_outside(epsilon_inside(1.0, 0.1), 0.1) <= 1.0
    True
    """
    if rate == 1:
        return epsilon
    if epsilon < 1:
        found = math.log1p(math.expm1(epsilon) / rate)
    else:
        found = epsilon + math.log(1 / rate - (1 / rate - 1) * math.exp(-epsilon))
    return found * (1 - 1e-11)


def sampled_divergences(divergences: Sequence[float], fractional: Sequence[float], rate: float) -> Float64Array:
    """Bounds on both Rényi divergences of a run on a sample, at the whole orders from 2 on.

    Args:
        divergences: bounds for a unit of the sample at the orders 2, 3, …, nats.
        fractional: the same at 1 + q(α−1), for each of these orders α.
        rate: q, in (0, 1).

    Returns:
        Bounds rounded up, float64 [orders].
    """
    last = len(divergences) + 1
    j = np.arange(last + 1, dtype=np.float64)
    own = np.array([0.0, 0.0, *((order - 1) * divergences[order - 2] for order in range(2, last + 1))])
    alpha = j[2:]
    a = alpha[:, None]
    choose = gammaln(a + 1) - gammaln(j + 1) - gammaln(np.maximum(a - j, 0) + 1)
    terms = np.where(j <= a, choose + j * math.log(rate) + (a - j) * math.log1p(-rate) + own, -np.inf)
    forward = log_sum(terms) + ROUNDING * (own[2:] + gammaln(alpha + 1) + 1)
    by_means = rate * np.array(fractional)
    return np.maximum(forward / (alpha - 1), np.minimum(by_means, by_variance(alpha, rate, expm1(divergences[0]))))


def by_variance(alpha: Float64Array, share: float, variance: float) -> Float64Array:
    """The bound of D_α(Q ‖ P) by the variance of P/Q, of which 1 − share is the least value (guarantee 13.4).

    Args:
        alpha: orders, float64 [orders].
        share: the probability that the unit's presence shows at all.
        variance: of P/Q, in units of share².

    Returns:
        Bounds rounded up, float64 [orders]; inf where the unit is always in a writing batch.
    """
    if share >= 1:
        return np.full(len(alpha), np.inf)
    with np.errstate(over="ignore"):
        grown = np.expm1(-(alpha - 1) * math.log1p(-share))
        excess = grown - (alpha - 1) * share + 1e-15 * (grown + (alpha - 1) * share)
        return np.log1p(excess * variance) * (1 + ROUNDING) / (alpha - 1)


def expm1(x: float) -> float:
    """e^x − 1, infinite where it is too large for a float64."""
    return math.expm1(x) if x < 700 else math.inf


def log_sum(terms: Float64Array) -> Float64Array:
    """The logarithm of Σ exp of each row, float64 [rows]; every row has a term that is not −inf."""
    top = terms.max(axis=1)
    # where a term is infinite, so is the sum
    finite = np.isfinite(top)
    sums = np.exp(terms[finite] - top[finite, None]).sum(axis=1)
    top[finite] += np.log(sums)
    return np.asarray(top)
