"""Noisy histograms: which cells to keep, how large they are (guarantee 2.3 to 2.5), what the records vote for (8).

A vote for words is one for candidates: what a unit says may be written more often (guarantee 8.5).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from plainchant.arrays import BoolArray, IntArray
from plainchant.errors import ConfigError
from plainchant.randomness import RandomSource

# If no cell of a label reaches the floor, the whole label is one cell.
WHOLE_LABEL = -1
# Cell of a unit that is left out: its label is not in the public label set.
NO_CELL = -1
# G: a whole vote, so that a part of one is an integer and the noise can be exact.
VOTE_GRID = 1024
# Units whose votes are counted at once; it bounds the memory and cannot change a count.
_UNITS = 1 << 16


@dataclass(frozen=True)
class Cell:
    """A kept cell: everything here is released under ρ_select and ρ_size.

    Attributes:
        label: index into the public label set.
        centre: index of its public centre, or WHOLE_LABEL.
        noisy_size: noisy count of its units, may be negative.
        batches: m_c.
    """

    label: int
    centre: int
    noisy_size: int
    batches: int


@dataclass(frozen=True)
class Rebalanced:
    """The outcome: public cells, and, secret, every unit's cell (index into `cells` or NO_CELL), int64 [n]."""

    cells: tuple[Cell, ...]
    cell_of_unit: IntArray


def noise_sigma(rho: float) -> float:
    """σ of discrete Gaussian noise on a histogram of ℓ2-sensitivity 1 that is rho-zCDP (guarantee 2.3; [CKS20]).

    >>> noise_sigma(rho=0.02)
    5.0
    """
    return math.sqrt(1 / (2 * rho))


def batches_of(noisy_size: int, batch_size: int) -> int:
    """m_c = ⌊ñ_c / s⌋, at least 1 if ñ_c ≥ s/2, else 0 (guarantee 2.5).

    >>> [batches_of(size, batch_size=10) for size in (-3, 4, 5, 19, 20)]
    [0, 0, 1, 1, 2]
    """
    return max(noisy_size // batch_size, int(2 * noisy_size >= batch_size))


def rebalance(
    label_of_unit: IntArray,
    nearest: Callable[[BoolArray, IntArray | None], IntArray] | None,
    *,
    labels: int,
    centres: int,
    batch_size: int,
    kept: int | None,
    min_cell: int | None,
    rho_select: float,
    rho_size: float,
    randomness: RandomSource,
) -> Rebalanced:
    """Selects cells and counts them, under (rho_select + rho_size)-zCDP for adding or removing one unit.

    * Each unit's cell is a function of that unit alone, before and after reassignment.
    * Noise is added to every cell of the public grid, including empty ones.

    Args:
        label_of_unit: index into the label set, NO_CELL where the label is unknown, int64 [n].
        nearest: (units, bool [n]; allowed centres, int64 [m], or None for all) → the nearest allowed centre of each
            such unit, int64; None where batches are not clustered.
        labels: size of the public label set.
        centres: number of public centres.
        batch_size: s.
        kept: k', or None for every cell above the floor.
        min_cell: the floor, or None for s + 2σ.
        rho_select: zCDP of the first histogram.
        rho_size: zCDP of the second.
        randomness: source of the noise.

    >>> from plainchant.randomness import SeededRandomness  # for an example that repeats; a run takes SystemRandomness
    >>> labels = np.repeat([0, 1], 50)
    >>> found = rebalance(
    ...     labels, None, labels=2, centres=0, batch_size=10, kept=None, min_cell=None, rho_select=0.0, rho_size=50.0,
    ...     randomness=SeededRandomness(1),
    ... )
    >>> [(cell.label, cell.batches) for cell in found.cells]
    [(0, 5), (1, 5)]
    """
    taking_part = label_of_unit != NO_CELL
    cells: list[tuple[int, int]] = []
    cell_of_unit = np.full(len(label_of_unit), NO_CELL, dtype=np.int64)
    if nearest is None:
        cells = [(label, WHOLE_LABEL) for label in range(labels)]
        cell_of_unit[taking_part] = label_of_unit[taking_part]
    else:
        sigma = noise_sigma(rho_select)
        grid = label_of_unit[taking_part] * centres + nearest(taking_part, None)
        counts = np.bincount(grid, minlength=labels * centres)
        noisy = randomness.add_discrete_gaussian(counts.tolist(), sigma)
        floor = batch_size + 2 * sigma if min_cell is None else min_cell
        largest = np.argsort(-noisy, kind="stable")[:kept]
        chosen = np.sort(largest[noisy[largest] >= floor])
        for label in range(labels):
            own = chosen[chosen // centres == label] % centres
            mask = label_of_unit == label
            first = len(cells)
            if len(own):
                cells += [(label, int(centre)) for centre in own]
                cell_of_unit[mask] = first + np.searchsorted(own, nearest(mask, own))
            else:
                cells.append((label, WHOLE_LABEL))
                cell_of_unit[mask] = first
    counts = np.bincount(cell_of_unit[taking_part], minlength=len(cells))
    sizes = randomness.add_discrete_gaussian(counts.tolist(), noise_sigma(rho_size))
    return Rebalanced(
        tuple(
            Cell(label, centre, int(size), batches_of(int(size), batch_size))
            for (label, centre), size in zip(cells, sizes, strict=True)
        ),
        cell_of_unit,
    )


def most_contexts(batch_size: int, rho: float, probability: float, batches: int = 1) -> float:
    """A bound on the contexts in a batch, or in several together, from public numbers (guarantee 7).

    The expected size of a batch is the cell's true count divided by its number of batches. A noisy count below 2s makes
    one batch, and the true count may exceed it by the noise. Each unit is then assigned to a batch independently, which
    is bounded by Chernoff. Several batches are of at most as many cells, and the noise of their cells is independent.

    Args:
        batch_size: s, where every context belongs to one unit.
        rho: zCDP of the noisy sizes.
        probability: of exceeding the bound, in (0, 1); half of it for the noise and half for the draw.
        batches: number of batches.

    >>> round(most_contexts(batch_size=20, rho=0.02, probability=1e-9))
    134
    >>> round(most_contexts(batch_size=20, rho=0.02, probability=1e-9, batches=8))
    543
    """
    # discrete Gaussian noise has lighter tails than exp(−x²/(2σ²))
    tail = math.log(2 / probability)
    expected = batches * (2 * batch_size - 1) + noise_sigma(rho) * math.sqrt(2 * batches * tail)
    # P(X >= u·λ) <= exp(−λ·(u ln u − u + 1)), increasing in u from 1 on
    needed, high = tail / expected, 2.0
    while high * math.log(high) - high + 1 < needed:
        high *= 2
    return expected * float(brentq(lambda u: u * math.log(u) - u + 1 - needed, 1.0, high))


@dataclass(frozen=True, eq=False)
class Ballot:
    """What a unit may vote for, by its label: public, fixed before any record is looked at (guarantee 8).

    A cell of the histogram is a pair (the unit's label, candidate). Cells are numbered label by label. Candidates are
    texts, or words.

    Attributes:
        candidates: for each label the candidates that its units may vote for, each int64 [m_label], no index twice.
        spread: for each label Q, over how many of them a unit's vote is spread at most.
    """

    candidates: tuple[IntArray, ...]
    spread: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.spread) != len(self.candidates):
            raise ConfigError(f"a ballot: {len(self.spread)} spreads for {len(self.candidates)} labels; give one each")
        if min(self.spread, default=1) < 1:
            raise ConfigError(f"vote_spread = {min(self.spread)}: a vote needs at least one candidate")
        if any(len(np.unique(own)) != len(own) for own in self.candidates):
            raise ConfigError("a ballot: names a candidate twice, so that two cells would be one; give each once")

    @property
    def first(self) -> IntArray:
        """The first cell of each label, and, last, the number of cells; int64 [labels + 1]."""
        return np.cumsum([0, *map(len, self.candidates)])

    def chosen(self, label: int) -> int:
        """How many candidates a unit of this label votes for."""
        return min(self.spread[label], len(self.candidates[label]))


def vote_weight(chosen: int) -> int:
    """What a unit gives each of its candidates, in units of the grid: w = ⌊G/√Q⌋, so that Q·w² ≤ G² exactly.

    >>> [vote_weight(chosen) for chosen in (1, 2, 4, 16)]
    [1024, 724, 512, 256]
    """
    return math.isqrt(VOTE_GRID**2 // chosen)


def count_votes(
    label_of_unit: IntArray, nearest: Callable[[IntArray, IntArray, int], IntArray], ballot: Ballot
) -> IntArray:
    """The exact votes. Secret. One unit changes them by a vector of ℓ2-norm at most VOTE_GRID (guarantee 8).

    Args:
        label_of_unit: index into the label set, NO_CELL for a unit that has no vote, int64 [n].
        nearest: (units, int64 [u]; candidates, int64 [m]; how many, Q) → places in `candidates` of those that each such
            unit votes for, all different, NO_CELL where it votes for fewer, int64 [u, Q]: a function of the unit and
            of public candidates alone.
        ballot: the public ballot.

    Returns:
        Votes for each cell of the ballot, in units of the grid, int64 [cells].

    >>> ballot = Ballot((np.array([0, 2]), np.array([1])), spread=(4, 4))
    >>> count_votes(np.array([0, 1, NO_CELL]), lambda units, own, count: np.arange(count)[None], ballot)
    array([ 724,  724, 1024])
    """
    first = ballot.first
    counts = np.zeros(int(first[-1]), dtype=np.int64)
    for label, candidates in enumerate(ballot.candidates):
        chosen = ballot.chosen(label)
        units = np.flatnonzero(label_of_unit == label) if chosen else np.empty(0, dtype=np.int64)
        for start in range(0, len(units), _UNITS):
            places = nearest(units[start : start + _UNITS], candidates, chosen)
            given = np.count_nonzero(places != NO_CELL, axis=1)
            for number in range(1, chosen + 1):
                votes = places[given == number]
                own = np.bincount(votes[votes != NO_CELL], minlength=len(candidates))
                counts[first[label] : first[label + 1]] += vote_weight(number) * own
    return counts


def noisy_votes(counts: IntArray, rho: float, randomness: RandomSource) -> IntArray:
    """Votes with discrete Gaussian noise of σ = G/√(2ρ), for every cell of the ballot: rho-zCDP (guarantee 8).

    Args:
        counts: from `count_votes`.
        rho: zCDP.
        randomness: source of the noise.

    >>> from plainchant.randomness import SeededRandomness  # for an example that repeats; a run takes SystemRandomness
    >>> len(noisy_votes(np.array([1024, 0, 512]), 0.5, SeededRandomness(1)))
    3
    """
    return randomness.add_discrete_gaussian(counts.tolist(), VOTE_GRID * noise_sigma(rho))
