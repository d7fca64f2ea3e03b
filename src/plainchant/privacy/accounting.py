"""Privacy arithmetic: zCDP conversions, bounded range, ex-post bounds (guarantee 5, 6.1). Numbers only."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import brentq

from plainchant.errors import ConfigError

# Fixed before any run (guarantee 5.3): the orders at which Ville's inequality is applied to an ex-post loss.
LAMBDA_GRID = tuple(float(value) for value in np.geomspace(1 / 16, 1024, 43))


def check_delta(delta: float) -> float:
    """Returns delta where 0 < delta < 1, else raises ConfigError.

    >>> check_delta(1e-6)
    1e-06
    """
    if not 0 < delta < 1:
        raise ConfigError(
            f"delta = {delta}: must lie strictly between 0 and 1; 1e-6 is usual, below 1 / (number of units)"
        )
    return delta


def check_epsilon(epsilon: float) -> float:
    """Returns epsilon where it is positive and finite, else raises ConfigError.

    >>> check_epsilon(8.0)
    8.0
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ConfigError(
            f"epsilon = {epsilon}: must be a finite number > 0; 1 is strong, 8 is usual for text. "
            "For a release without private data use --method public"
        )
    return epsilon


def bounded_range_rho(eta: float) -> float:
    """The zCDP of a step whose log-ratio has range at most eta nats: eta²/8 ([CR21]; guarantee 5).

    >>> bounded_range_rho(0.4)
    0.020000000000000004
    """
    return eta * eta / 8


def delta_of(rho: float, epsilon: float) -> float:
    """The smallest delta for which rho-zCDP implies (epsilon, delta)-DP ([CKS20]; guarantee 6.1).

    >>> f"{delta_of(rho=1.0, epsilon=8.0):.1e}"
    '4.3e-07'
    """
    if rho == 0:
        return 0.0
    if math.isinf(rho):
        return 1.0

    # log δ(α) is convex; its derivative is (2α−1)ρ − ε + log(1−1/α), increasing. Solved for u = log(α−1).
    def slope(u: float) -> float:
        alpha = 1 + math.exp(u)
        return (2 * alpha - 1) * rho - epsilon - float(np.logaddexp(0, -u))

    high = 1.0
    while slope(high) < 0:
        high *= 2
    low = -1.0
    while slope(low) > 0:
        low *= 2
    u = brentq(slope, low, high, xtol=1e-12)
    alpha = 1 + math.exp(u)
    # −log(1−1/α) is log(1+e^−u); any α gives a valid delta, so rounding of the root does no harm
    log_delta = math.exp(u) * (alpha * rho - epsilon) - u - alpha * float(np.logaddexp(0, -u))
    return min(1.0, math.exp(log_delta))


def _narrowed(low: float, high: float, holds: Callable[[float], bool]) -> tuple[float, float]:
    """Bisects [low, high] to 12 digits around the point where `holds` becomes true; true at high, not at low."""
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def epsilon_of(rho: float, delta: float) -> float:
    """The smallest epsilon (rounded up) for which rho-zCDP implies (epsilon, delta)-DP; inf for inf.

    >>> round(epsilon_of(rho=1.0, delta=1e-6), 3)
    7.766
    """
    check_delta(delta)
    if rho < 0 or math.isnan(rho):
        raise ConfigError(f"rho = {rho}: must be at least 0")
    if delta_of(rho, 0.0) <= delta:
        return 0.0
    if math.isinf(rho):
        return math.inf
    low, high = 0.0, rho + 2 * math.sqrt(rho * math.log(1 / delta))
    return _narrowed(low, high, lambda epsilon: delta_of(rho, epsilon) <= delta)[1]


def rho_of(epsilon: float, delta: float) -> float:
    """The largest rho (rounded down in its 12th digit) for which rho-zCDP implies (epsilon, delta)-DP.

    >>> round(rho_of(epsilon=8.0, delta=1e-6), 3)
    1.052
    >>> epsilon_of(rho_of(8.0, 1e-6), 1e-6) <= 8.0
    True
    """
    check_epsilon(epsilon)
    check_delta(delta)
    low, high = 0.0, epsilon
    while delta_of(high, epsilon) <= delta:
        high *= 2
    return _narrowed(low, high, lambda rho: delta_of(rho, epsilon) > delta)[0]


def steps_affordable(rho: float, rho_per_step: float) -> int:
    """The largest number of steps whose total cost is at most rho (guarantee 5.1), in floating point.

    >>> steps_affordable(1.0, 0.015)
    66
    """
    steps = math.floor(rho / rho_per_step)
    while steps * rho_per_step > rho:
        steps -= 1
    return steps


@dataclass(frozen=True)
class Cost:
    """A privacy cost, at present in zCDP only: for every α > 1 the Rényi divergence is at most α·rho.

    * Costs of adaptive releases from the same unit add up.
    * A cost may be unlimited. Its sum with any other is unlimited too, and it fits only an unlimited budget.
    * Frozen, so that the planned cost is the one that is charged.

    >>> budget = Cost.of(epsilon=8.0, delta=1e-6)
    >>> counts, token = Cost(0.05), Cost(0.01)
    >>> (counts + token.scaled(64)).fits(budget)
    True
    >>> token.times_in(Cost(0.25))
    25
    >>> round(budget.epsilon(1e-6), 6)
    8.0
    >>> Cost.from_dict(counts.as_dict()) == counts
    True
    >>> sum([counts, token], Cost()) == counts + token
    True
    >>> Cost().is_zero, Cost.unlimited().fits(budget)
    (True, False)

    Attributes:
        rho: the zCDP parameter, at least 0; infinite where nothing limits the cost.
    """

    rho: float = 0.0

    def __post_init__(self) -> None:
        if not self.rho >= 0:
            raise ConfigError(f"rho = {self.rho}: must be at least 0")

    @classmethod
    def of(cls, epsilon: float, delta: float) -> Self:
        """The largest cost (rounded down in its 12th digit) that implies (epsilon, delta)-DP: a budget."""
        return cls(rho_of(epsilon, delta))

    @classmethod
    def unlimited(cls) -> Self:
        """An unlimited cost."""
        return cls(math.inf)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.rho + other.rho)

    def scaled(self, times: int) -> "Cost":
        """The cost of doing it `times` times."""
        if times < 0:
            raise ConfigError(f"times = {times}: must be at least 0")
        # zero times cost nothing, even if one time has an unlimited cost
        return Cost(times * self.rho) if times else Cost()

    def epsilon(self, delta: float) -> float:
        """The smallest ε (rounded up) for which this cost implies (ε, delta)-DP; inf where there is no limit."""
        return epsilon_of(self.rho, delta)

    def fits(self, budget: "Cost") -> bool:
        """Whether a budget pays for it."""
        return self.rho <= budget.rho

    def times_in(self, budget: "Cost") -> int:
        """How many times a limited budget pays for it; the cost must be above zero."""
        return steps_affordable(budget.rho, self.rho)

    @property
    def is_zero(self) -> bool:
        """Whether nothing is spent."""
        return self.rho == 0

    @property
    def is_limited(self) -> bool:
        """Whether anything limits it."""
        return math.isfinite(self.rho)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None means an unlimited cost, since JSON has no infinity."""
        return {"rho": self.rho if self.is_limited else None}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The cost that `as_dict` described; other keys are ignored.

        Raises:
            ConfigError: `content` describes no cost.
        """
        rho = content["rho"]
        if rho is None:
            return cls.unlimited()
        if isinstance(rho, bool) or not isinstance(rho, int | float):
            raise ConfigError(f"rho = {rho!r}: must be a number, or null for no limit")
        return cls(float(rho))


@dataclass(frozen=True)
class ExPost:
    """What a finished release cost, given its output: data-dependent, itself private (guarantee 5.3).

    Attributes:
        epsilon: the smaller of the two bounds plus `draws`, nats. It holds for everyone who sees the release, whatever
            they know about the secret draws.
        by_sum: the largest batch's sum of realised losses, plus a tail bound of the noisy counts' loss: for an observer
            who also knows the secret draws, above all the batch of every unit.
        by_ville: the largest batch's bound by Ville's inequality, including the noisy counts; for the same observer.
        draws: what is added for observers who do not know the draws.
        delta: the probability, over the randomness of the release, that the true loss exceeds `epsilon`.
    """

    epsilon: float
    by_sum: float
    by_ville: float
    draws: float
    delta: float


def loss_tail(rho: float, delta: float) -> float:
    """A bound that the loss of a rho-zCDP release exceeds with probability at most delta: ρ + 2√(ρ ln(1/δ)) [BS16].

    Larger than `epsilon_of`: (ε, δ)-DP allows the loss to exceed ε with probability above δ, if only by a little.

    >>> round(loss_tail(rho=1.0, delta=1e-6), 3), round(epsilon_of(rho=1.0, delta=1e-6), 3)
    (8.434, 7.766)
    """
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def ville_bound(rho: float, delta: float) -> float:
    """The smallest over the fixed grid of (1+λ)·ρ + ln(J/δ)/λ ([Amin25]; guarantee 5.3).

    >>> round(ville_bound(rho=1.0, delta=1e-6), 2)
    9.39
    """
    return min((1 + x) * rho + math.log(len(LAMBDA_GRID) / delta) / x for x in LAMBDA_GRID)


def ex_post(losses: Sequence[float], rhos: Sequence[float], rho_counts: float, delta: float) -> ExPost:
    """The ex-post bound of a release from the costs of its batches (guarantee 5.3).

    Batches are disjoint, so a unit pays for its batch and for the noisy counts. Four bounds can fail, each with
    probability at most delta / 4: the tail bound in the sum, Ville's bound, the step from an observer who knows the
    secret draws to one who does not, and the one for a release that favours the neighbour though it came from this
    data.

    Args:
        losses: for each batch Σ_t ε_t, nats.
        rhos: for each batch Σ_t ρ_t.
        rho_counts: zCDP of the noisy counts.
        delta: failure probability, in (0, 1).

    >>> cost = ex_post(losses=[0.7, 2.0], rhos=[0.1, 0.3], rho_counts=0.01, delta=1e-6)
    >>> cost.by_sum < cost.by_ville, cost.epsilon == cost.by_sum + cost.draws
    (True, True)
    """
    each = check_delta(delta) / 4
    by_sum = max(losses, default=0.0) + loss_tail(rho_counts, each)
    by_ville = ville_bound(max(rhos, default=0.0) + rho_counts, each)
    draws = math.log(1 / each)
    return ExPost(min(by_sum, by_ville) + draws, by_sum, by_ville, draws, delta)
