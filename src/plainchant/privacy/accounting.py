"""Privacy arithmetic: zCDP conversions, bounded range, ex-post bounds (guarantee 5, 6.1). Numbers only."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from typing import Any, Self

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from plainchant.errors import ConfigError, PrivacyError
from plainchant.privacy.sampling import check_rate, epsilon_inside, epsilon_outside, sampled_divergences

# Fixed before any run (guarantee 5.3): the orders at which Ville's inequality is applied to an ex-post loss.
LAMBDA_GRID = tuple(float(value) for value in np.geomspace(1 / 16, 1024, 43))


# Bounds within which the conversions are exact to their stated digits.
SMALLEST_DELTA, LARGEST_DELTA = 1e-100, 0.99
SMALLEST_EPSILON, LARGEST_EPSILON = 1e-9, 1e9


def check_delta(delta: float) -> float:
    """Returns delta where it is from 1e-100 to 0.99, else raises ConfigError.

    Beyond these bounds float64 no longer holds what the conversions need.

    >>> check_delta(1e-6)
    1e-06
    """
    if not SMALLEST_DELTA <= delta <= LARGEST_DELTA:
        raise ConfigError(
            f"delta = {delta}: must be from {SMALLEST_DELTA:g} to {LARGEST_DELTA:g}; 1e-6 is usual, below 1 / (number "
            "of units)"
        )
    return delta


def check_epsilon(epsilon: float) -> float:
    """Returns epsilon where it is from 1e-9 to 1e9, else raises ConfigError.

    >>> check_epsilon(8.0)
    8.0
    """
    if not SMALLEST_EPSILON <= epsilon <= LARGEST_EPSILON:
        raise ConfigError(
            f"epsilon = {epsilon}: must be from {SMALLEST_EPSILON:g} to {LARGEST_EPSILON:g}; 1 is strong, 8 is usual "
            "for text. For a release without private data use --method public"
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
    u = _log_order(rho, epsilon)
    alpha = 1 + math.exp(u)
    # −log(1−1/α) is log(1+e^−u); any α gives a valid delta, so rounding of the root does no harm
    log_delta = math.exp(u) * (alpha * rho - epsilon) - u - alpha * float(np.logaddexp(0, -u))
    return min(1.0, math.exp(log_delta))


def zcdp_order(rho: float, epsilon: float) -> float:
    """The Rényi order by which rho-zCDP implies (epsilon, delta)-DP with the smallest delta ([CKS20]; guarantee 6.1).

    >>> round(zcdp_order(rho=1.0, epsilon=8.0), 2)
    4.62
    """
    return 1 + math.exp(_log_order(rho, epsilon))


def _log_order(rho: float, epsilon: float) -> float:
    """The logarithm of that order less 1."""

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
    return float(brentq(slope, low, high, xtol=1e-12))


def rounded_up(value: float, digits: int = 6) -> float:
    """The smallest number of so many significant digits that is not below the value: a bound stays one.

    >>> rounded_up(7.99999999999784), rounded_up(7.955181)
    (8.0, 7.95519)
    """
    if value == 0 or not math.isfinite(value):
        return value
    written = Decimal(repr(value))  # what is rounded already stays
    return float(written.quantize(Decimal(1).scaleb(written.adjusted() - digits + 1), rounding=ROUND_CEILING))


# By what share an ε that was found by bisection may lie above what it stands for.
_BISECTED = 1e-11


def shown_epsilon(cost: "Cost", delta: float, digits: int = 4) -> float:
    """The ε of a cost for people: rounded up, but for what bisection adds in the twelfth digit.

    >>> shown_epsilon(Cost.of(8.0, 1e-6), 1e-6), shown_epsilon(Cost(0.5), 1e-6)
    (8.0, 5.222)
    """
    return rounded_up(cost.epsilon(delta) * (1 - _BISECTED), digits)


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


def epsilon_at(divergence: float, order: float, delta: float) -> float:
    """The smallest ε at δ that a bound on the Rényi divergence of one order implies ([CKS20]; guarantee 6.1).

    May be negative where the bound is small and δ large: then (0, δ)-DP holds.

    >>> round(epsilon_at(divergence=4.0, order=4.0, delta=1e-6), 3)
    7.855
    >>> epsilon_at(4.0, 4.0, 1e-6) >= epsilon_of(1.0, 1e-6)
    True
    """
    return divergence + math.log1p(-1 / order) - (math.log(order) + math.log(delta)) / (order - 1)


def steps_affordable(rho: float, rho_per_step: float) -> int:
    """The largest number of steps whose total cost is at most rho (guarantee 5.1), in floating point.

    >>> steps_affordable(1.0, 0.015)
    66
    """
    steps = math.floor(rho / rho_per_step)
    while steps * rho_per_step > rho:
        steps -= 1
    return steps


# The lower of the two orders of a privacy filter, above 1, as a part of the higher one.
LOWER = 0.8
# The part of δ that it keeps for values found at a part of δ; half where its first step finds some.
KEPT, KEPT_BY_FINDERS = 0.1, 0.5

# A curve holds every integer order from 2 to this one, unless a small budget needs more.
LARGEST_ORDER = 64

# A curve: orders above 1, rising, each with a bound on the Rényi divergence of that order, nats.
Curve = tuple[tuple[float, float], ...]


def _chords(curve: Curve, order: float) -> float:
    """A bound between the orders of a curve: a chord of (α−1)·D_α, which is convex and 0 at α = 1 (guarantee 6.1)."""
    if not curve:
        return 0.0
    if order > curve[-1][0]:
        return math.inf
    knots = [1.0, *(known for known, _ in curve)]
    moments = [0.0, *((known - 1) * value for known, value in curve)]
    return float(np.interp(order, knots, moments)) / (order - 1)


def _added(one: Curve, other: Curve) -> Curve:
    """The sum of two curves, at the orders of either up to where both are known."""
    if not one or not other:
        return one or other
    if [order for order, _ in one] == [order for order, _ in other]:
        return tuple((order, a + b) for (order, a), (_, b) in zip(one, other, strict=True))
    last = min(one[-1][0], other[-1][0])
    orders = sorted({order for order, _ in (*one, *other) if order <= last})
    return tuple((order, _chords(one, order) + _chords(other, order)) for order in orders)


@dataclass(frozen=True)
class Cost:
    """A privacy cost as a Rényi curve: for every α > 1 a bound α·rho + curve(α) on D_α, in both directions.

    * With a delta it is approximate: the bound holds but for events of probability delta on each side ([BS16], 8).
    * Costs of adaptive releases from the same unit add up, order by order.
    * With a rate below 1 it is the cost of a run on a secret sample of the units. Then rho, curve and delta are what
      it costs a unit of the sample; the credit for the sample is taken once, from all of it (guarantee 13.6).
    * Without a curve it is plain zCDP, and everything about it is exact in rho.
    * Between the orders of a curve the bound is the chord of (α−1)·D_α; above the last one nothing is known.
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
    >>> curved = Cost(0.05, ((2.0, 0.1), (3.0, 0.2), (4.0, 0.4)))
    >>> [round(curved.at(order), 3) for order in (1.5, 2.0, 2.5, 5.0)]
    [0.175, 0.2, 0.292, inf]
    >>> curved + counts == Cost(0.1, curved.curve), Cost.from_dict(curved.as_dict()) == curved
    (True, True)

    >>> found = Cost(0.05, delta=1e-7)
    >>> found.epsilon(1e-6) == Cost(0.05).epsilon(9e-7), found.epsilon(1e-7)
    (True, inf)
    >>> Cost.from_dict((found + curved).as_dict()) == found + curved
    True

    >>> sampled = curved.sampled(0.1)
    >>> sampled.epsilon(1e-6) < curved.epsilon(1e-6), Cost.from_dict(sampled.as_dict()) == sampled
    (True, True)
    >>> sampled + Cost() == sampled, (sampled + sampled).epsilon(1e-6) > sampled.epsilon(1e-6)
    (True, True)

    Attributes:
        rho: the zCDP parameter, at least 0; infinite where nothing limits the cost.
        curve: what comes on top of zCDP: pairs of an order and a bound on D_α, nats; empty where there is nothing.
        delta: the probability with which the bound does not hold, at least 0.
        rate: with which the units were sampled before everything else, in (0, 1].
    """

    rho: float = 0.0
    curve: Curve = ()
    delta: float = 0.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.rho >= 0:
            raise ConfigError(f"rho = {self.rho}: must be at least 0")
        orders = [order for order, _ in self.curve]
        if any(not (math.isfinite(order) and order > 1) for order in orders) or orders != sorted(set(orders)):
            raise ConfigError(f"curve: its orders {orders} must be finite, above 1, and rise")
        if not 0 <= self.delta < 1:
            raise ConfigError(f"delta = {self.delta}: must be at least 0 and below 1")
        if any(not (math.isfinite(value) and value >= 0) for _, value in self.curve):
            raise ConfigError("curve: its values must be finite and at least 0; leave an order without a bound out")
        check_rate(self.rate)

    @classmethod
    def of(cls, epsilon: float, delta: float) -> Self:
        """The largest plain zCDP (rounded down in its 12th digit) that implies (epsilon, delta)-DP: a budget."""
        return cls(rho_of(epsilon, delta))

    @classmethod
    def unlimited(cls) -> Self:
        """An unlimited cost."""
        return cls(math.inf)

    def __add__(self, other: "Cost") -> "Cost":
        if self.rate < 1 or other.rate < 1:
            if self.is_zero or other.is_zero:
                return other if self.is_zero else self
            # two runs draw samples of their own, so that only their curves add up
            return self.as_curve() + other.as_curve()
        return Cost(self.rho + other.rho, _added(self.curve, other.curve), self.delta + other.delta)

    def scaled(self, times: int) -> "Cost":
        """The cost of doing it `times` times."""
        if times < 0:
            raise ConfigError(f"times = {times}: must be at least 0")
        # zero times cost nothing, even if one time has an unlimited cost
        if not times:
            return Cost()
        if self.rate < 1:
            return self if times == 1 else self.as_curve().scaled(times)
        return Cost(times * self.rho, tuple((a, times * value) for a, value in self.curve), times * self.delta)

    def sampled(self, rate: float) -> "Cost":
        """The cost of a whole run that looks at one secret sample of the units and at nothing else (guarantee 13.6).

        Every unit is in the sample with this probability, independently of all others, for the whole run; this cost is
        what everything the run does costs a unit of the sample, in both directions.
        """
        if self.rate < 1:
            raise PrivacyError("a cost of a run on a sample: cannot be sampled once more; a run draws one sample")
        return self if self.is_zero or not self.is_limited else replace(self, rate=check_rate(rate))

    def as_curve(self, largest_order: int = LARGEST_ORDER) -> "Cost":
        """The same without a sample: a Rényi curve of the whole orders as far as it is known; itself where rate is 1.

        It adds up with other costs, and is converted with more loss than the cost itself.
        """
        if self.rate == 1:
            return self
        inner = replace(self, rate=1.0)
        last = largest_order if not self.curve else min(largest_order, math.floor(self.curve[-1][0]))
        orders = range(2, last + 1)
        found = sampled_divergences(
            [inner.at(order) for order in orders],
            [inner.at(1 + self.rate * (order - 1)) for order in orders],
            self.rate,
        )
        curve = tuple((float(order), float(value)) for order, value in zip(orders, found, strict=True))
        return Cost(0.0, curve, self.delta)

    def at(self, order: float) -> float:
        """The bound on the Rényi divergence of a real order above 1, nats; inf above the last known one."""
        if not order > 1:
            raise ConfigError(f"order = {order}: must be above 1")
        if self.rate < 1:
            return self.as_curve().at(order)
        return order * self.rho + _chords(self.curve, order)

    def epsilon(self, delta: float) -> float:
        """The smallest ε (rounded up) for which this cost implies (ε, delta)-DP; inf where there is no limit."""
        if self.rate < 1:
            inside = replace(self, rate=1.0).epsilon(min(delta / self.rate, LARGEST_DELTA))
            return epsilon_outside(inside, self.rate)
        if self.delta and self.is_limited:
            # (ε, δ′) where the bound holds, and δ where it does not
            return math.inf if delta <= self.delta else Cost(self.rho, self.curve).epsilon(delta - self.delta)
        if self.is_zcdp or not self.is_limited:
            return epsilon_of(self.rho, delta)
        # found(α) is rounded in its 15th digit
        return max(0.0, self._best(delta)[0]) * (1 + 1e-12)

    def order(self, delta: float) -> float:
        """The Rényi order that implies the smallest ε at delta, which must be above the cost's own."""
        known = replace(self.as_curve(), delta=0.0)
        left = delta - self.delta
        return known._best(left)[1] if known.curve else zcdp_order(self.rho, known.epsilon(left))

    def _best(self, delta: float) -> tuple[float, float]:
        """The smallest ε that an order of a curve implies, and that order."""
        check_delta(delta)

        def found(order: float) -> float:
            return epsilon_at(self.at(order), order, delta)

        # every order gives a valid ε: the grid finds the place, and the search between its neighbours only gains
        orders = [1.0, *(order for order, _ in self.curve)]
        best = min(range(1, len(orders)), key=lambda i: found(orders[i]))
        around = [orders[best - 1], orders[best], orders[min(best + 1, len(orders) - 1)]]
        candidates = [orders[best]]
        for low, high in itertools.pairwise(around):
            if high > low:
                candidates.append(float(minimize_scalar(found, bounds=(low, high), method="bounded").x))
        return min((found(order), order) for order in candidates)

    def fits(self, budget: "Cost | Budget") -> bool:
        """Whether a budget pays for it.

        Raises:
            PrivacyError: curves are compared with a cost: which is less depends on the order. Take a `Budget`.
        """
        if isinstance(budget, Budget):
            return budget.covers(self)
        if not budget.is_limited:
            return True
        if not self.is_limited:
            return False
        if self.curve or budget.curve or self.rate < 1 or budget.rate < 1:
            raise PrivacyError("a cost curve is compared with (ε, δ), a Budget, and not with another cost")
        return self.rho <= budget.rho and self.delta <= budget.delta

    def times_in(self, budget: "Cost") -> int:
        """How many times a limited budget pays for it.

        Raises:
            ConfigError: it costs nothing, or the budget is unlimited.
            PrivacyError: one of the two is not plain zCDP.
        """
        if not (self.is_zcdp and budget.is_zcdp):
            raise PrivacyError("a cost curve is counted in (ε, δ) and not in another cost")
        if self.is_zero or not budget.is_limited:
            raise ConfigError(f"cost = {self.rho:g}: a budget of {budget.rho:g} pays for it any number of times")
        return steps_affordable(budget.rho, self.rho)

    @property
    def is_zcdp(self) -> bool:
        """Whether it is plain zCDP, and rho says everything."""
        return not self.curve and not self.delta and self.rate == 1

    @property
    def is_zero(self) -> bool:
        """Whether nothing is spent."""
        return self.rho == 0 and self.delta == 0 and not any(value for _, value in self.curve)

    @property
    def is_limited(self) -> bool:
        """Whether anything limits it."""
        return math.isfinite(self.rho)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None means an unlimited cost, since JSON has no infinity.

        With a curve, a delta or a rate `rho` is None too: a reader that knows none of them takes the cost for
        unlimited, never for less.
        """
        if self.is_zcdp or not self.is_limited:
            return {"rho": self.rho if self.is_limited else None}
        orders, values = ([pair[i] for pair in self.curve] for i in range(2))
        curve = {"rho": self.rho, "orders": orders, "values": values}
        further = ({"delta": self.delta} if self.delta else {}) | ({"rate": self.rate} if self.rate < 1 else {})
        return {"rho": None, "curve": curve | further}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The cost that `as_dict` described; other keys are ignored.

        Raises:
            ConfigError: `content` describes no cost.
        """
        rho, curve = content["rho"], content.get("curve")
        if curve is not None:
            if rho is not None:
                raise ConfigError(f"rho = {rho!r}: must be null beside a curve")
            return cls._from_curve(curve)
        if rho is None:
            return cls.unlimited()
        return cls(_number("rho", rho))

    @classmethod
    def _from_curve(cls, curve: Any) -> Self:
        if not isinstance(curve, Mapping) or not all(isinstance(curve.get(n), list) for n in ("orders", "values")):
            raise ConfigError("curve: must hold rho, orders and values")
        orders, values, delta = curve["orders"], curve["values"], _number("delta", curve.get("delta", 0.0))
        rate = _number("rate", curve.get("rate", 1.0))
        if not (orders or delta or rate < 1) or len(orders) != len(values):
            raise ConfigError(f"curve: has {len(orders)} orders and {len(values)} values; one value for each order")
        pairs = zip(orders, values, strict=True)
        return cls(
            _number("rho", curve.get("rho")),
            tuple((_number("order", order), _number("value", value)) for order, value in pairs),
            delta,
            rate,
        )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} = {value!r}: must be a number" + (", or null for no limit" * (name == "rho")))
    return float(value)


@dataclass(frozen=True)
class Budget:
    """What may be spent, as a person says it: (ε, δ).

    * A cost fits where it implies (ε, δ)-DP by one Rényi order at least.
    * For plain zCDP that is a comparison of rho with the largest one that does, exact as `rho_of` is.

    >>> budget = Budget(epsilon=1.0, delta=1e-6)
    >>> Cost(0.024).fits(budget), Cost(0.025).fits(budget)
    (True, False)
    >>> curved = Cost(0.01, ((10.0, 0.05), (20.0, 0.1)))
    >>> curved.fits(budget)
    True

    Attributes:
        epsilon: ε, nats.
        delta: δ.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_delta(self.delta)

    @property
    def zcdp(self) -> Cost:
        """The largest plain zCDP within it."""
        return Cost.of(self.epsilon, self.delta)

    def covers(self, cost: Cost) -> bool:
        """Whether a cost stays within it."""
        return cost.rho <= self.zcdp.rho if cost.is_zcdp else cost.epsilon(self.delta) <= self.epsilon

    def in_sample(self, rate: float) -> "Budget":
        """What a run may spend on a unit of its secret sample of this rate, rounded down (guarantee 13.6).

        >>> budget = Budget(epsilon=1.0, delta=1e-6)
        >>> inside = budget.in_sample(0.1)
        >>> round(inside.epsilon, 3), inside.zcdp.sampled(0.1).fits(budget), budget.in_sample(1.0) == budget
        (2.9, True, True)
        """
        if check_rate(rate) == 1:
            return self
        return Budget(epsilon_inside(self.epsilon, rate), min(self.delta / rate, LARGEST_DELTA))


@dataclass(frozen=True)
class Filter:
    """A privacy filter: what may be spent in steps of which each is chosen after seeing what came before (6.4).

    * Steps are paid for where at one of the orders the sum of their Rényi divergences stays within (epsilon, part).
      The orders and their parts of δ are fixed before the first step: so any number of steps costs (epsilon, delta).
    * What these parts leave of delta is for steps that find values at a part of δ; it is fixed beforehand too.

    >>> budget = Budget(epsilon=8.0, delta=1e-6)
    >>> of_plain = Filter.beginning_with(budget, Cost(0.5))
    >>> [(round(order, 1), part) for order, part in of_plain.orders], round(of_plain.kept, 9)
    ([(4.4, 4.5e-07), (3.7, 4.5e-07)], 1e-07)
    >>> whole = Filter.beginning_with(budget, budget.zcdp)
    >>> len(whole.orders), whole.covers(budget.zcdp), round(whole.left_after(budget.zcdp).rho, 9)
    (1, True, 0.0)
    >>> curved = Cost(0.01, ((10.0, 0.05), (20.0, 0.1)))
    >>> of_curve = Filter.beginning_with(budget, curved)
    >>> of_curve.covers(curved.scaled(8)), of_curve.epsilon(curved) > curved.epsilon(1e-6)
    (True, True)
    >>> of_plain.covers(Cost(0.5, delta=1e-7)), of_plain.covers(Cost(0.5, delta=2e-7))
    (True, False)

    Attributes:
        budget: what may be spent by all steps together.
        orders: Rényi orders above 1, each with its part of the budget's δ.
    """

    budget: Budget
    orders: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        parts = [part for order, part in self.orders if math.isfinite(order) and order > 1 and part > 0]
        if not parts or len(parts) < len(self.orders) or math.fsum(parts) > self.budget.delta * (1 + 1e-9):
            raise ConfigError(f"orders = {self.orders}: must be finite and above 1, with parts of δ that add up to it")

    @classmethod
    def beginning_with(cls, budget: Budget, cost: Cost) -> Self:
        """The filter for steps of which the first has this cost, known before anything is drawn.

        Two orders share δ: the best of plain zCDP, which suits costs that are small beside the budget, and a lower one,
        which suits costs that are not. A first step that does not fit so gets one order for itself.
        """
        best = zcdp_order(budget.zcdp.rho, budget.epsilon)
        part = budget.delta * (1 - (KEPT_BY_FINDERS if cost.delta else KEPT)) / 2
        shared = cls(budget, ((best, part), (1 + (best - 1) * LOWER, part)))
        if shared.covers(cost) or cost.delta >= budget.delta:
            return shared
        order = best if cost.is_zcdp else cost.order(budget.delta)
        return cls(budget, ((order, budget.delta - cost.delta),))

    @property
    def kept(self) -> float:
        """What is left of δ for values that are found at a part of it."""
        return max(0.0, self.budget.delta - math.fsum(part for _, part in self.orders))

    def covers(self, cost: Cost) -> bool:
        """Whether the steps are paid for whose costs were added up; a sum that is too large in its 9th digit fits."""
        return self.finds(cost) and self.epsilon(cost) <= self.budget.epsilon * (1 + 1e-9)

    def finds(self, cost: Cost) -> bool:
        """Whether the values are paid for that steps have found at a part of δ."""
        return cost.delta <= self.kept + self.budget.delta * 1e-9

    def epsilon(self, cost: Cost) -> float:
        """The ε at the budget's δ of steps whose costs were added up; inf where no order is known."""
        return max(0.0, min(at + epsilon_at(0.0, order, part) for order, part, at in self._sums(cost)))

    def left_after(self, cost: Cost) -> Cost:
        """The largest plain zCDP (rounded down) that may come on top of these steps; nothing where all is spent."""
        if not self.finds(cost):
            return Cost()
        rooms = (
            (self.budget.epsilon - epsilon_at(0.0, order, part) - at) / order for order, part, at in self._sums(cost)
        )
        return Cost(max(0.0, *rooms) * (1 - 1e-12))

    def _sums(self, cost: Cost) -> list[tuple[float, float, float]]:
        """Each order with its part of δ and the divergence of that order."""
        return [(order, part, cost.at(order)) for order, part in self.orders]


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
