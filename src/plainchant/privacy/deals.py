"""The rule of a run's deals: from noisy sizes and public wishes to writing batches and payments (guarantee 13.7)."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from plainchant.arrays import Float64Array
from plainchant.errors import PrivacyError
from plainchant.privacy.accounting import Budget, Cost, epsilon_at
from plainchant.privacy.amplification import deal_divergences

# Which share of a cell's batches writes in a deal: what is cheapest depends on the cell and on the payment.
SHARES = (1.0, 0.9, 1 / 3)
# Whole orders above this one are not tried; with them an ε below about 0.02 leaves nothing at δ = 1e-6.
LARGEST_TRIED = 1024
# Sums of a few divergences are rounded by less than this, relative to the largest of them.
ROUNDING = 1e-11
# To how many digits a payment is found; it is rounded down.
DIGITS = 1e-6


@dataclass(frozen=True)
class DealRule:
    """How many deals a cell gets, how many of its batches write in each, and what a unit may pay for a text.

    * Everything follows from the cell's number of batches, which comes from its noisy size, and from public numbers.
    * All deals of a cell together cost a unit of it at most `budget` at the Rényi order `order`, which is fixed before
      the counts are drawn, whatever they come out as (guarantee 13.7).

    >>> rule = DealRule(order=16, budget=0.5, payment=0.05, least=0.05, first=4)
    >>> rule.deals(batches=30, texts=50)
    [4, 10, 9, 9, 9, 9]
    >>> rule.most_texts(batches=30, wanted=500)
    423
    >>> rule.payment_of(30, 50) > 0.05
    True
    >>> rule.spent_by(30, 50, rule.payment_of(30, 50)) <= rule.budget
    True

    Attributes:
        order: α, a whole number of at least 2.
        budget: what the deals of one cell may cost at that order, nats.
        payment: ρ that a text takes, or is expected to take where costs are individual.
        least: a cell that cannot afford one text at `payment` writes one for what it has, if that is at least this ρ.
        first: texts of a cell's first deal, which later prompts show; 0 where they show none.
    """

    order: int
    budget: float
    payment: float
    least: float
    first: int

    @property
    def cost(self) -> Cost:
        """What the deals of a cell cost a unit: the one order that is known."""
        return Cost(0.0, ((float(self.order), self.budget),))

    def deals(self, batches: int, texts: int) -> list[int]:
        """The number of writing batches of each deal of a cell, each of which writes one text."""
        ways = ways_of(batches, texts, self.first)
        costs = [spent_at(batches, way, self.payment, self.order) for way in ways]
        return list(ways[costs.index(min(costs))])

    def spent_by(self, batches: int, texts: int, payment: float) -> float:
        """What so many texts of a cell cost a unit at the order, nats."""
        return spent_at(batches, tuple(self.deals(batches, texts)), payment, self.order)

    def most_texts(self, batches: int, wanted: int) -> int:
        """How many texts a cell may write, of those that are wanted."""
        if not batches or not wanted:
            return 0
        if not self._affords(batches, 1, self.payment):
            return int(self._affords(batches, 1, self.least))
        low, high = 1, 2
        while high <= wanted and self._affords(batches, high, self.payment):
            low, high = high, 2 * high
        high = min(high, wanted + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._affords(batches, middle, self.payment) else (low, middle)
        return low

    def fewer(self, batches: int, texts: int) -> int:
        """The largest number, at most `texts`, that a cell pays for: fewer texts may have more expensive deals."""
        while texts > 1 and not self._affords(batches, texts, self.payment):
            texts -= 1
        return texts

    def payment_of(self, batches: int, texts: int) -> float:
        """r: the most (rounded down) that a unit may pay for each of so many texts of a cell."""
        return _largest(lambda r: self.spent_by(batches, texts, r) <= self.budget, self.budget / self.order)

    def _affords(self, batches: int, texts: int, payment: float) -> bool:
        return self.spent_by(batches, texts, payment) <= self.budget


def ways_of(batches: int, texts: int, first: int) -> list[tuple[int, ...]]:
    """Numbers of writing batches in each deal, in some ways of which the cheapest is taken; all are valid.

    A small first deal, then as few and as even ones as there can be with all batches writing, or a share of them.

    >>> ways_of(batches=10, texts=25, first=4)
    [(4, 7, 7, 7), (4, 3, 3, 3, 3, 3, 3, 3)]
    >>> ways_of(10, 4, 4), ways_of(2, 3, 0)
    ([(4,), (2, 2)], [(2, 1), (1, 1, 1)])
    """
    begun = (min(first, batches),) if 0 < first < texts else ()
    rest = texts - sum(begun)
    ways = []
    for share in SHARES:
        number = -(-rest // max(1, math.floor(share * batches)))
        ways.append(begun + tuple(rest // number + (turn < rest % number) for turn in range(number)))
    return list(dict.fromkeys(ways))


@dataclass(frozen=True)
class Expected:
    """The cells that a plan expects, all alike; a run forms its own from noisy sizes.

    Attributes:
        cells: how many there are; None where nobody knows how many units the data has.
        batches: t, of each cell.
        texts: of each cell.
    """

    cells: int | None
    batches: int
    texts: int


@functools.lru_cache(maxsize=256)
def make_rule(budget: Budget, counts: Cost, expected: Expected, first: int, payment: float | None = None) -> DealRule:
    """The rule at about the order that lets the expected cells pay the most for a text; any order is valid.

    Args:
        budget: (ε, δ) of the whole run.
        counts: what a unit pays for everything but texts, plain zCDP.
        expected: cells as the plan expects them.
        first: texts of a cell's first deal.
        payment: ρ that a text takes; None: the most that the expected cells can pay.

    Raises:
        PrivacyError: the budget does not even pay for the counts at any order.
    """
    ways = tuple(ways_of(expected.batches, expected.texts, first))

    def left(r: float) -> float:
        return best_order(budget, counts, expected.batches, ways, r)[1]

    about = _largest(lambda r: left(r) >= 0, budget.zcdp.rho, digits=0.01)
    # where a payment is only just affordable, at the order at which it is
    order = best_order(budget, counts, expected.batches, ways, max(about, payment or 0.0))[0]
    limit = dict(_limits(budget, counts))[order]
    taken = about if payment is None else payment
    return DealRule(order, limit, taken, taken, first)


def best_order(
    budget: Budget, counts: Cost, batches: int, ways: Sequence[tuple[int, ...]], payment: float
) -> tuple[int, float]:
    """The order at which a cell's deals leave most of the budget, and what they leave, nats; below 0: too much.

    The deals are those of the cheapest of some ways.

    Raises:
        PrivacyError: the budget does not even pay for the counts at any order.
    """
    limits = _limits(budget, counts)
    if not limits:
        raise PrivacyError(
            f"epsilon = {budget.epsilon:g}: is too small for deals at delta = {budget.delta:g}, whose cost is counted "
            f"at orders up to {LARGEST_TRIED}; raise epsilon, let counts and votes take less, or set deals = false"
        )
    orders = tuple(order for order, _ in limits)
    spent = np.min([_divergences(batches, way, payment, orders) for way in ways], axis=0)
    left = np.array([limit for _, limit in limits]) - spent
    best = int(np.argmax(left))
    return orders[best], float(left[best])


def spent_at(batches: int, deals: tuple[int, ...], payment: float, order: int) -> float:
    """What the deals of a cell cost a unit at an order, nats (rounded up)."""
    return float(_divergences(batches, deals, payment, (order,))[0])


@functools.lru_cache(maxsize=64)
def _limits(budget: Budget, counts: Cost) -> tuple[tuple[int, float], ...]:
    """Orders at which the counts leave something for texts, rising, and what they leave, nats (rounded down)."""
    # zCDP of the whole budget has its best order about here, and deals have theirs below
    suits = 1 + math.sqrt(math.log(1 / budget.delta) / budget.zcdp.rho)
    last = min(LARGEST_TRIED, max(16, math.ceil(1.2 * suits)))
    grid = sorted({*range(2, 13), *np.geomspace(13, last, 12).astype(np.int64).tolist()})
    found = []
    for order in grid:
        counted = counts.at(order)
        left = budget.epsilon - epsilon_at(counted, order, budget.delta) - ROUNDING * (counted + budget.epsilon)
        if left > 0:
            found.append((order, left))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _divergences(batches: int, deals: tuple[int, ...], payment: float, orders: tuple[int, ...]) -> Float64Array:
    """What the deals of a cell cost together at each order, rounded up, float64 [orders]."""
    at = np.array(orders, dtype=np.int64)
    found = np.zeros(len(orders))
    for writing in sorted(set(deals)):
        found += deals.count(writing) * deal_divergences(batches, writing, payment, at)
    return found * (1 + ROUNDING)


def _largest(fits: Callable[[float], bool], start: float, digits: float = DIGITS) -> float:
    """The largest number, rounded down, for which `fits` holds; it holds below any number for which it does."""
    low, high = 0.0, start
    while fits(high):
        low, high = high, 2 * high
    while high - low > digits * high:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
