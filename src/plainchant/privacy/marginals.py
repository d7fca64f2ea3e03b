"""Noisy marginals of a table's columns, and noisy discovery of a column's values (guarantee 14).

Every unit has one row of codes. A marginal counts the rows by the codes of one column or of two.
"""

import collections
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from plainchant.arrays import IntArray
from plainchant.privacy.histograms import NO_CELL, noise_sigma
from plainchant.randomness import RandomSource

# Parts of the ρ of a table: for values that are found in the data (where there are any), then for single columns. The
# rest is for pairs.
FOUND_PART, SINGLE_PART = 0.1, 0.25
# Two columns with more combinations are not counted together: noise would be all that is left.
MOST_COMBINATIONS = 50_000


@dataclass(frozen=True)
class Shares:
    """How the ρ of a table is spent: decided before any record is looked at.

    Attributes:
        found: zCDP of each column whose values are found in the data.
        single: zCDP of all marginals of one column together.
        pairs: zCDP of all marginals of two columns together.
    """

    found: float
    single: float
    pairs: float

    @classmethod
    def of(cls, rho: float, found: int) -> "Shares":
        """The shares of a table with so many columns whose values are found in the data.

        >>> shares = Shares.of(1.0, found=2)
        >>> shares.found, round(shares.single, 3), round(shares.pairs, 3)
        (0.05, 0.225, 0.675)
        """
        first = FOUND_PART * rho if found else 0.0
        single = SINGLE_PART * (rho - first)
        return cls(first / max(found, 1), single, rho - first - single)


@dataclass(frozen=True, eq=False)
class Marginal:
    """A noisy marginal; released.

    Attributes:
        columns: one column, or two.
        counts: noisy counts of all combinations of codes, the last column's fastest, int64 [product of sizes].
        sigma: standard deviation of the noise.
    """

    columns: tuple[int, ...]
    counts: IntArray
    sigma: float


def found_values(values: Iterable[str | None], rho: float, delta: float, randomness: RandomSource) -> list[str]:
    """The values that many units have, in alphabetical order: δ-approximately rho-zCDP (guarantee 14.3).

    Args:
        values: the value of each unit, or None. Secret.
        rho: zCDP.
        delta: the probability that a value of a single unit is found.
        randomness: source of the noise.

    >>> from plainchant.randomness import SeededRandomness  # for an example that repeats; a run takes SystemRandomness
    >>> found_values(["red"] * 90 + ["blue"] * 80 + ["Ann"], 0.5, 1e-6, SeededRandomness(1))
    ['blue', 'red']
    """
    counts = sorted(collections.Counter(value for value in values if value is not None).items())
    sigma = noise_sigma(rho)
    if not counts:
        return []
    noisy = randomness.add_discrete_gaussian([count for _, count in counts], sigma)
    # a value of a single unit is found if its noise alone reaches the threshold
    least = 1 + rare_noise(sigma, delta)
    return [value for (value, _), count in zip(counts, noisy, strict=True) if count >= least]


def rare_noise(sigma: float, delta: float) -> int:
    """The smallest t with P(N >= t) <= delta for discrete Gaussian noise N.

    >>> rare_noise(1.0, 1e-6)
    6
    """
    # from the outside in, so that the smallest terms are added first; beyond `reach` lies less than delta / 1e6
    reach = math.ceil(sigma * math.sqrt(2 * math.log(1e6 / delta))) + 2
    k = np.arange(reach, -reach - 1, -1, dtype=np.float64)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    tail = (np.cumsum(weights) / weights.sum() + 1e-6 * delta) * (1 + 1e-9)
    return reach - int(np.searchsorted(tail, delta, side="right")) + 1


def counted_pairs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs of columns that are counted together: by their public sizes alone.

    >>> counted_pairs([3, 4, 1, 40_000])
    [(0, 1)]
    """
    pairs = itertools.combinations([column for column, size in enumerate(sizes) if size > 1], 2)
    return [(one, other) for one, other in pairs if sizes[one] * sizes[other] <= MOST_COMBINATIONS]


def noisy_marginals(codes: IntArray, sizes: Sequence[int], shares: Shares, randomness: RandomSource) -> list[Marginal]:
    """All marginals of one column, and of the counted pairs: (shares.single + shares.pairs)-zCDP (guarantee 14.2).

    * A unit adds one to one combination of each marginal, so each has ℓ2-sensitivity 1.
    * Noise is added to every combination of public codes, to empty ones too.

    Args:
        codes: one row for each unit, int64 [n, columns]; a row that holds NO_CELL takes no part. Secret.
        sizes: number of codes of each column: public or released.
        shares: the ρ of singles and of pairs, evenly over each kind; of singles alone where no pair is counted.
        randomness: source of the noise.
    """
    rows = codes[(codes != NO_CELL).all(axis=1)]
    pairs = counted_pairs(sizes)
    singles: list[tuple[int, ...]] = [(column,) for column in range(len(sizes))]
    single = shares.single if pairs else shares.single + shares.pairs
    chosen = [(columns, single / len(singles)) for columns in singles]
    chosen += [(columns, shares.pairs / len(pairs)) for columns in pairs]
    return [_marginal(rows, columns, sizes, rho, randomness) for columns, rho in chosen]


def _marginal(
    rows: IntArray, columns: tuple[int, ...], sizes: Sequence[int], rho: float, randomness: RandomSource
) -> Marginal:
    shape = [sizes[column] for column in columns]
    places = np.ravel_multi_index(tuple(rows[:, column] for column in columns), shape)
    counts = np.bincount(places, minlength=math.prod(shape))
    sigma = noise_sigma(rho)
    return Marginal(columns, randomness.add_discrete_gaussian(counts.tolist(), sigma), sigma)
