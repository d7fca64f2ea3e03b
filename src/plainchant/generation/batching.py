"""Secret batches inside public cells, and how many texts each batch writes (guarantee 3)."""

import itertools
from collections.abc import Sequence

import numpy as np

from plainchant.arrays import IntArray
from plainchant.privacy.deals import DealRule
from plainchant.privacy.histograms import NO_CELL, Cell
from plainchant.randomness import RandomSource

NO_BATCH = -1


def draw_batches(
    cell_of_unit: IntArray, cells: Sequence[Cell], randomness: RandomSource, writing: Sequence[int] | None = None
) -> IntArray:
    """Draws the batch of each unit independently and uniformly from those of its cell (guarantee 3.1, 13.1).

    Adding or removing a unit therefore changes one batch by one context, and no other unit's batch: the draws do not
    depend on each other, nor on the number of units. Batches that write are numbered consecutively through all cells.

    Args:
        cell_of_unit: the cell of each unit, or NO_CELL, int64 [n]. Secret.
        cells: the kept cells.
        randomness: source of the draws.
        writing: how many batches of each cell write; None: all of them.

    Returns:
        The batch of each unit, int64 [n]; NO_BATCH for a unit without a cell, or whose batch writes nothing.
    """
    writing = [cell.batches for cell in cells] if writing is None else writing
    first = np.concatenate([[0], np.cumsum(writing)])
    batch_of_unit = np.full(len(cell_of_unit), NO_BATCH, dtype=np.int64)
    for unit, cell in enumerate(cell_of_unit):
        if cell != NO_CELL and writing[cell]:
            drawn = randomness.below(cells[cell].batches)
            if drawn < writing[cell]:
                batch_of_unit[unit] = first[cell] + drawn
    return batch_of_unit


def draw_contexts(batch_of_unit: IntArray, batch_size: int, randomness: RandomSource) -> IntArray:
    """Draws each unit's context in its batch independently and uniformly, if several share one (guarantee 3.3).

    Returns:
        The context of each unit, 0 to `batch_size` − 1, int64 [n].
    """
    return np.array([randomness.below(batch_size) for _ in batch_of_unit], dtype=np.int64)


def allot_texts(cells: Sequence[Cell], texts: int, per_batch: int | None) -> list[list[int]]:
    """Spreads a number of texts over cells in proportion to their noisy sizes, then evenly over a cell's batches.

    Depends on released numbers only. No batch gets more than `per_batch`; texts that one cell cannot take go to others.

    Args:
        cells: the kept cells.
        texts: number of texts requested.
        per_batch: maximum texts that a batch's budget pays for; None where there is no such bound.

    Returns:
        For each cell, for each of its batches, a number of texts. Their sum is `texts`, or all that can be paid for.

    >>> cells = [Cell(label=0, centre=3, noisy_size=60, batches=3), Cell(label=1, centre=5, noisy_size=20, batches=1)]
    >>> allot_texts(cells, texts=8, per_batch=2)
    [[2, 2, 2], [2]]
    """
    capacity = [texts if per_batch is None else per_batch * cell.batches for cell in cells]
    return [
        [count // cell.batches + (batch < count % cell.batches) for batch in range(cell.batches)]
        for count, cell in zip(share_texts(cells, texts, capacity), cells, strict=True)
    ]


def share_texts(cells: Sequence[Cell], texts: int, most: Sequence[int]) -> list[int]:
    """How many texts each cell writes, in proportion to noisy sizes; what one cell cannot take goes to others.

    Args:
        cells: the kept cells.
        texts: number of texts requested.
        most: the most that each cell takes; one without batches takes none.
    """
    capacity = np.array([count if cell.batches else 0 for count, cell in zip(most, cells, strict=True)], dtype=np.int64)
    weight = np.array([max(cell.noisy_size, 1) for cell in cells], dtype=np.float64)
    share = np.zeros(len(cells), dtype=np.int64)
    target = min(texts, int(capacity.sum()))
    for _ in range(target):
        # highest averages (Sainte-Laguë): each text goes to the cell whose share is furthest behind its size
        lag = np.where(share < capacity, weight / (2 * share + 1), -1.0)
        share[int(np.argmax(lag))] += 1
    return [int(count) for count in share]


def share_deals(rule: DealRule, cells: Sequence[Cell], texts: int) -> tuple[list[list[int]], list[float]]:
    """Spreads a number of texts over cells, and over the deals of each (guarantee 13.7).

    Depends on released numbers only. Each text is written by a batch of its own.

    Args:
        rule: of the run.
        cells: the kept cells.
        texts: number of texts requested.

    Returns:
        For each deal, for each cell, how many of its batches write; and for each cell what a unit may pay for a text,
        ρ, 0 where it writes none.

    >>> cells = [Cell(label=0, centre=3, noisy_size=900, batches=30), Cell(label=1, centre=5, noisy_size=40, batches=1)]
    >>> dealt, payments = share_deals(DealRule(order=16, budget=0.9, payment=0.05, least=0.05, first=4), cells, 20)
    >>> dealt, payments[0] > payments[1] > 0.05
    ([[4, 1], [8, 0], [7, 0]], True)
    """
    most = [rule.most_texts(cell.batches, texts) for cell in cells]
    counts = [
        rule.fewer(cell.batches, count) for cell, count in zip(cells, share_texts(cells, texts, most), strict=True)
    ]
    own = [rule.deals(cell.batches, count) if count else [] for cell, count in zip(cells, counts, strict=True)]
    payments = [
        rule.payment_of(cell.batches, count) if count else 0.0 for cell, count in zip(cells, counts, strict=True)
    ]
    return [list(deal) for deal in itertools.zip_longest(*own, fillvalue=0)], payments
