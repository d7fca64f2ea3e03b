"""What the secret draw of batches is worth (guarantee 13): the mathematics of deals, whose rule is `privacy.deals`."""

import functools
import math
from typing import cast

import numpy as np
from scipy.special import gammaln, lambertw

from plainchant.arrays import Float64Array, IntArray
from plainchant.errors import ConfigError
from plainchant.privacy.accounting import LARGEST_ORDER, Cost
from plainchant.privacy.sampling import ROUNDING, by_variance, check_rate, expm1, log_sum

# The cells of an integral (guarantee 13.4) and exponents of a bound of its tail. Any choice is valid; finer ones
# gain little.
CELLS = np.geomspace(1e-3, 1e5, 3700)
EXPONENTS = np.concatenate([np.linspace(0.1, 5, 50), np.geomspace(5.2, 600, 60)])


def deal_cost(t: int, w: int, r: float, q: float = 1.0, *, largest_order: int = LARGEST_ORDER) -> Cost:
    """What one deal of a cell costs a unit: w of t batches write one text each (guarantee 13.2 to 13.5).

    * Bounds D_α(P ‖ Q) and D_α(Q ‖ P), P and Q being the distributions of the deal's texts with and without the unit.
    * Holds where every unit draws its batch uniformly, secretly, afresh for this deal and independently of all others,
      and where its payments for one text never exceed r, whatever the text.
    * No batch of the deal may see an unfinished text of another.
    * q < 1 is the rate of a secret sample that is drawn afresh for this deal too. No run draws one. A sample that all
      deals share is `Cost.sampled`: charging it deal by deal is too little (guarantee 13.6).
    * One batch and no sample is no secret: plain zCDP of r, exact.

    >>> deal_cost(t=1, w=1, r=0.5)
    Cost(rho=0.5, curve=(), delta=0.0, rate=1.0)
    >>> one = deal_cost(t=10, w=10, r=0.5)
    >>> round(one.at(8), 3), Cost(0.5).at(8)
    (1.708, 4.0)
    >>> one.epsilon(1e-6) < Cost(0.5).epsilon(1e-6) / 1.5
    True
    >>> deal_cost(t=10, w=2, r=0.5).epsilon(1e-6) < one.epsilon(1e-6)
    True

    Args:
        t: batches of the cell; public.
        w: those of them that write.
        r: ρ that a unit's payments for one text never exceed.
        q: rate of a fresh sample, in (0, 1].
        largest_order: the curve holds the integers from 2 to this one.
    """
    _check(t, w, q, largest_order)
    if not (math.isfinite(r) and r >= 0):
        raise ConfigError(f"r = {r}: must be a finite number, at least 0")
    if r == 0 or (t == w == 1 and q == 1):
        return Cost(r)
    alpha = np.arange(2, largest_order + 1, dtype=np.int64)
    return _curve(alpha, deal_divergences(t, w, r, alpha, q))


def deal_divergences(t: int, w: int, r: float, orders: IntArray, q: float = 1.0) -> Float64Array:
    """The bounds of `deal_cost` at some whole orders from 2 on, without the others, float64 [orders].

    >>> np.isclose(deal_divergences(10, 2, 0.5, np.array([8])), deal_cost(10, 2, 0.5).at(8))
    array([ True])
    """
    if r == 0 or (t == w == 1 and q == 1):
        return r * orders.astype(np.float64)
    alpha = orders.astype(np.float64)
    forward = log_moments(t, w, r, q, int(orders.max()))[orders] / (alpha - 1)
    share = q * w / t
    by_means = share * r * (1 + (alpha - 1) * q / t)
    by_spread = by_variance(alpha, share, expm1(2 * r) / w)
    backward = np.minimum(np.minimum(by_means, by_spread), _by_exponentials(alpha, t, w, r, q))
    return np.maximum(forward, backward)


def log_moments(t: int, w: int, r: float, q: float, largest_order: int) -> Float64Array:
    """Rounded-up bounds log M_α of log E_Q (P/Q)^α for α = 0 … largest_order (guarantee 13.3), float64 [orders + 1].

    * All orders are the coefficients of one power series, multiplied in logarithms: nothing overflows.

    >>> moments = log_moments(t=2, w=2, r=0.1, q=1.0, largest_order=3)
    >>> bool(np.isclose(np.exp(moments[2]), 1 + (np.exp(0.2) - 1) / 2))
    True
    """
    _check(t, w, q, largest_order)
    k = np.arange(largest_order + 1, dtype=np.float64)
    batch = k * math.log(q / t) - gammaln(k + 1) + k * (k - 1) * r
    rest = 1 - q * w / t
    with np.errstate(divide="ignore", invalid="ignore"):
        idle = np.where(k == 0, 0.0, k * np.log(rest)) - gammaln(k + 1)
    moments = gammaln(k + 1) + _times(_power(batch, w), idle)
    moments[:2] = 0.0
    moments[2:] += ROUNDING * (k * (k - 1) * r + gammaln(k + 1) + 1)[2:]
    return moments


def _check(t: int, w: int, q: float, largest_order: int) -> None:
    if not 1 <= w <= t:
        raise ConfigError(f"w = {w}, t = {t}: at least one batch writes, and at most all of them")
    check_rate(q, "q")
    if largest_order < 2:
        raise ConfigError(f"largest_order = {largest_order}: must be at least 2")


def _curve(alpha: Float64Array | IntArray, values: Float64Array) -> Cost:
    return Cost(0.0, tuple((float(order), float(value)) for order, value in zip(alpha, values, strict=True)))


def _by_exponentials(alpha: Float64Array, t: int, w: int, r: float, q: float) -> Float64Array:
    """The bound of D_α(Q ‖ P) by m^−β = E e^(−S·m) · (a constant), S Gamma-distributed (guarantee 13.4, third bound).

    The integral is taken from above: cell by cell, the larger end of the integrand times the largest density.

    Returns:
        Bounds rounded up, float64 [orders].
    """
    beta = (alpha - 1)[:, None]
    low, high = CELLS[:-1], CELLS[1:]
    grown = np.minimum(_log_laplace_by_variance(high * q / t, r), high * q / t)
    grown = w * np.minimum(grown, high * q / t + _log_laplace_by_powers(low * q / t, r))
    middle = log_sum(_log_masses(tuple(alpha.tolist())) + _log_expm1(grown))
    # below the first cell, at most its least probability times what has grown by there
    start = w * _log_laplace_by_variance(CELLS[:1] * q / t, r)
    first = _log_expm1(start) + np.minimum(0.0, beta[:, 0] * math.log(CELLS[0]) - gammaln(alpha))
    # above the last one a power of S falls faster than its density's own power rises
    u, end = EXPONENTS, math.log(CELLS[-1])
    spare = w * u - beta
    tails = w * (u * (np.log(u) - 1 - math.log(q / t)) + u * (u + 1) * r) - spare * end - gammaln(beta)
    tail = np.where(spare > 0, tails - np.log(np.where(spare > 0, spare, 1.0)), np.inf).min(axis=1)
    tail -= CELLS[-1] * (1 - q * w / t)
    together = log_sum(np.stack([middle, first, tail], axis=1))
    return np.asarray(np.logaddexp(0.0, together) * (1 + ROUNDING) / (alpha - 1))


@functools.lru_cache(maxsize=64)
def _log_masses(orders: tuple[float, ...]) -> Float64Array:
    """For each order, the largest density of a Gamma variable of shape α − 1 in each cell times the cell's width.

    Returns:
        Logarithms, float64 [orders, cells].
    """
    beta = np.array(orders)[:, None] - 1
    low, high = CELLS[:-1], CELLS[1:]
    place = np.clip(beta - 1, low, high)
    return np.asarray((beta - 1) * np.log(place) - place - gammaln(beta) + np.log(high - low))


def _log_laplace_by_variance(theta: Float64Array, r: float) -> Float64Array:
    """A bound on log E e^(−θ(L−1)) where E L = 1 and E L² ≤ e^2r; inf where θ is large and others are smaller."""
    small = np.minimum(theta, 600.0)
    with np.errstate(over="ignore"):
        excess = np.log1p((np.expm1(small) - small) * expm1(2 * r)) + ROUNDING
    return np.where(theta < 600, excess, np.inf)


def _log_laplace_by_powers(theta: Float64Array, r: float) -> Float64Array:
    """A bound on log E e^(−θL) by E L^−u ≤ e^(u(u+1)r) at u with ln u + (2u+1)r = ln θ, which is the best one."""
    # any u above 0 gives a bound, so that rounding of the root does no harm; a bound that overflows is none
    root: Float64Array = np.real(lambertw(2 * r * theta * math.exp(-r)))  # type: ignore[call-overload]
    u = np.maximum(root / (2 * r), 1e-300)
    return np.asarray(u * (np.log(u) - 1 - np.log(theta)) + u * (u + 1) * r)


def _log_expm1(x: Float64Array) -> Float64Array:
    """The logarithm of e^x − 1 for x > 0."""
    return np.asarray(x + np.log(-np.expm1(-x)))


def _times(a: Float64Array, b: Float64Array) -> Float64Array:
    """The product of two power series in logarithms, cut off where they are, float64 [n] each."""
    n = len(a)
    lag = np.arange(n)[:, None] - np.arange(n)[None, :]
    terms = np.where(lag >= 0, a[None, :] + b[np.maximum(lag, 0)], -np.inf)
    return log_sum(terms)


def _power(a: Float64Array, exponent: int) -> Float64Array:
    """A power series, in logarithms, to a whole power of at least 1."""
    result = None
    while True:
        if exponent % 2:
            result = a if result is None else _times(result, a)
        exponent //= 2
        if not exponent:
            return cast("Float64Array", result)
        a = _times(a, a)
