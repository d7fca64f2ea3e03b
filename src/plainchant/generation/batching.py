"""Secret batches inside public cells, and how many texts each batch writes (guarantee 3)."""

from collections.abc import Sequence

import numpy as np

from plainchant.arrays import IntArray
from plainchant.privacy.histograms import NO_CELL, Cell
from plainchant.randomness import RandomSource

NO_BATCH = -1


def draw_batches(cell_of_unit: IntArray, cells: Sequence[Cell], randomness: RandomSource) -> IntArray:
    """Draws the batch of each unit independently and uniformly from those of its cell (guarantee 3.1).

    Adding or removing a unit therefore changes one batch by one context, and no other unit's batch: the draws do not
    depend on each other, nor on the number of units. Batches are numbered consecutively through all cells.

    Returns:
        The batch of each unit, int64 [n]; NO_BATCH for a unit without a cell or in a cell without batches.
    """
    first = np.concatenate([[0], np.cumsum([cell.batches for cell in cells])])
    batch_of_unit = np.full(len(cell_of_unit), NO_BATCH, dtype=np.int64)
    for unit, cell in enumerate(cell_of_unit):
        if cell != NO_CELL and cells[cell].batches:
            batch_of_unit[unit] = first[cell] + randomness.below(cells[cell].batches)
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
    capacity = np.array([texts if per_batch is None else per_batch * cell.batches for cell in cells], dtype=np.int64)
    capacity[[cell.batches == 0 for cell in cells]] = 0
    weight = np.array([max(cell.noisy_size, 1) for cell in cells], dtype=np.float64)
    share = np.zeros(len(cells), dtype=np.int64)
    target = min(texts, int(capacity.sum()))
    for _ in range(target):
        # highest averages (Sainte-Laguë): each text goes to the cell whose share is furthest behind its size
        lag = np.where(share < capacity, weight / (2 * share + 1), -1.0)
        share[int(np.argmax(lag))] += 1
    return [
        [int(count) // cell.batches + (batch < int(count) % cell.batches) for batch in range(cell.batches)]
        for count, cell in zip(share, cells, strict=True)
    ]
