"""Secret batches drawn one by one, texts spread by released numbers (guarantee 3)."""

import numpy as np
import pytest
from doubles.randomness import Draws
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from plainchant.generation.batching import NO_BATCH, allot_texts, draw_batches, share_deals
from plainchant.privacy.deals import DealRule
from plainchant.privacy.histograms import NO_CELL, Cell, batches_of
from plainchant.randomness import SeededRandomness, SystemRandomness


def cells_of(*sizes, s=10):
    return [Cell(0, number, size, batches_of(size, s)) for number, size in enumerate(sizes)]


CELLS = st.lists(st.integers(-20, 200), min_size=1, max_size=6).map(lambda sizes: cells_of(*sizes))


@given(cells=CELLS, texts=st.integers(1, 300), per_batch=st.none() | st.integers(1, 20))
def test_allotted_texts_add_up_and_no_batch_gets_more_than_it_pays_for(cells, texts, per_batch):
    allotted = allot_texts(cells, texts, per_batch)
    assert [len(counts) for counts in allotted] == [cell.batches for cell in cells]
    batches = sum(cell.batches for cell in cells)
    wanted = texts * (batches > 0) if per_batch is None else min(texts, per_batch * batches)
    assert sum(map(sum, allotted)) == wanted
    for counts in filter(None, allotted):
        assert max(counts) - min(counts) <= 1
        assert per_batch is None or max(counts) <= per_batch


def test_texts_are_in_proportion_to_noisy_sizes():
    assert [sum(counts) for counts in allot_texts(cells_of(100, 200, 700), 50, None)] == [5, 10, 35]


def test_what_a_cell_cannot_take_others_do():
    # 1, 1 and 9 batches of at most two texts
    assert [sum(counts) for counts in allot_texts(cells_of(10, 10, 90), 21, 2)] == [2, 2, 17]


def test_every_unit_draws_uniformly_from_its_own_cell():
    cells = cells_of(40, 3, 30)
    cell_of_unit = np.array([0, 1, 2, NO_CELL] * 3000)
    batches = draw_batches(cell_of_unit, cells, SystemRandomness())
    assert set(batches[cell_of_unit == 1]) == set(batches[cell_of_unit == NO_CELL]) == {NO_BATCH}
    for cell, numbers in ((0, [0, 1, 2, 3]), (2, [4, 5, 6])):
        found, counts = np.unique(batches[cell_of_unit == cell], return_counts=True)
        assert found.tolist() == numbers
        assert chisquare(counts).pvalue > 1e-6  # the rate of false alarms


@pytest.mark.parametrize("gone", [0, 7, 19])
def test_a_unit_more_or_less_moves_no_other(gone):
    cells, cell_of_unit = cells_of(40, 30), np.array([0, 1] * 10)
    draws = [SeededRandomness(unit).below(3) for unit in range(20)]

    everyone = draw_batches(cell_of_unit, cells, Draws(draws))
    without = draw_batches(np.delete(cell_of_unit, gone), cells, Draws(np.delete(draws, gone)))
    assert without.tolist() == np.delete(everyone, gone).tolist()


def test_a_unit_draws_from_all_batches_of_its_cell_of_which_some_write():
    cells = cells_of(40, 30)
    cell_of_unit = np.array([0, 1] * 6000)
    batches = draw_batches(cell_of_unit, cells, SystemRandomness(), [2, 1])
    for cell, numbers in ((0, [0, 1]), (1, [2])):
        own = batches[cell_of_unit == cell]
        t = cells[cell].batches
        counts = [np.sum(own == number) for number in (*numbers, NO_BATCH)]
        wanted = [len(own) / t] * len(numbers) + [len(own) * (1 - len(numbers) / t)]
        assert sum(counts) == len(own)
        assert chisquare(counts, wanted).pvalue > 1e-6  # the rate of false alarms
    # a cell that writes nothing draws nothing
    assert set(draw_batches(np.zeros(4, dtype=np.int64), cells, Draws([]), [0, 1])) == {NO_BATCH}


def test_texts_of_deals_are_shared_by_noisy_sizes_and_written_in_as_many_deals_as_each_cell_needs():
    rule = DealRule(order=16, budget=0.9, payment=0.05, least=0.05, first=4)
    dealt, payments = share_deals(rule, cells_of(300, 100, 3), 40)
    assert np.sum(dealt, axis=0).tolist() == [30, 10, 0]
    assert dealt[0] == [4, 4, 0]
    assert payments[2] == 0
    assert min(payments[:2]) > 0.05
    assert share_deals(rule, cells_of(3, 2), 40) == ([], [0.0, 0.0])
