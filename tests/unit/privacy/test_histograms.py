"""Which cells are kept, from noisy counts alone (guarantee 2.3 to 2.5)."""

import numpy as np
import pytest
from doubles.randomness import Noise

from plainchant.privacy.histograms import (
    NO_CELL,
    WHOLE_LABEL,
    batches_of,
    noise_sigma,
    rebalance,
)
from plainchant.randomness import SeededRandomness

# two labels, three centres; where a unit's own centre is not allowed it takes the nearest number
LABELS = np.array([0] * 9 + [1] * 7 + [NO_CELL])
CENTRES = np.array([0] * 5 + [1] * 1 + [2] * 3 + [1] * 6 + [2] + [0])


def nearest(units, allowed):
    own = CENTRES[units]
    return own if allowed is None else allowed[np.abs(own[:, None] - allowed).argmin(axis=1)]


def go(noise=None, among=nearest, **changes):
    values = {"labels": 2, "centres": 3, "batch_size": 2, "kept": None, "min_cell": 3, "rho_select": 0.5, "rho_size": 2}
    return rebalance(LABELS, among, **(values | changes), randomness=noise or Noise())


@pytest.mark.parametrize(
    ("size", "batches"), [(-9, 0), (0, 0), (1, 0), (4, 0), (5, 1), (9, 1), (19, 1), (20, 2), (39, 3)]
)
def test_batches_are_whole_ones_and_one_from_half(size, batches):
    assert batches_of(size, 10) == batches


def test_sigma_pays_rho_at_sensitivity_one():
    assert 1 / (2 * noise_sigma(0.3) ** 2) == pytest.approx(0.3)


def test_small_cells_go_and_their_units_to_the_nearest_kept_of_their_label():
    noise = Noise()
    found = go(noise)
    assert [(c.label, c.centre) for c in found.cells] == [(0, 0), (0, 2), (1, 1)]
    assert found.cell_of_unit.tolist() == [0] * 5 + [0] + [1] * 3 + [2] * 7 + [NO_CELL]
    # every cell of the public grid is noised, empty ones too; each histogram with its own share
    assert noise.asked == [([5, 1, 3, 0, 6, 1], 1.0), ([6, 3, 7], 0.5)]
    assert [(c.noisy_size, c.batches) for c in found.cells] == [(6, 3), (3, 1), (7, 3)]


def test_the_choice_sees_noisy_counts_only():
    found = go(Noise([-4, 9, 0, 0, 0, 0]))
    assert [(c.label, c.centre) for c in found.cells] == [(0, 1), (0, 2), (1, 1)]


def test_an_empty_cell_is_kept_where_its_noisy_count_is_large():
    # the fourth cell has no unit; if that alone kept it out, the release would show that nobody is there
    found = go(Noise([0, 0, 0, 9, 0, 0]))
    assert [(c.label, c.centre) for c in found.cells] == [(0, 0), (0, 2), (1, 0), (1, 1)]


def test_kept_takes_the_largest_and_never_one_below_the_floor():
    assert [(c.label, c.centre) for c in go(kept=1).cells] == [(0, WHOLE_LABEL), (1, 1)]
    assert [(c.label, c.centre) for c in go(kept=2).cells] == [(0, 0), (1, 1)]
    assert len(go(kept=6).cells) == 3


def test_floor_is_batch_size_and_two_sigma_by_default():
    # 2 + 2 · 1 = 4
    assert [(c.label, c.centre) for c in go(min_cell=None).cells] == [(0, 0), (1, 1)]


def test_a_label_without_a_large_cell_is_one_cell():
    found = go(min_cell=100)
    assert [(c.label, c.centre) for c in found.cells] == [(0, WHOLE_LABEL), (1, WHOLE_LABEL)]
    assert found.cell_of_unit.tolist() == LABELS.tolist()


def test_unclustered_is_one_cell_a_label_for_one_histogram():
    noise = Noise()
    found = go(noise, among=None, rho_select=0)
    assert [(c.label, c.centre, c.noisy_size) for c in found.cells] == [(0, WHOLE_LABEL, 9), (1, WHOLE_LABEL, 7)]
    assert len(noise.asked) == 1


def test_without_any_unit_there_are_cells_still():
    found = rebalance(
        np.empty(0, np.int64), nearest, labels=2, centres=3, batch_size=2, kept=None, min_cell=1,
        rho_select=0.1, rho_size=0.1, randomness=SeededRandomness(0),
    )  # fmt: skip
    assert {cell.label for cell in found.cells} == {0, 1}
    assert len(found.cell_of_unit) == 0
