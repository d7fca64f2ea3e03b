"""The joint law that is fitted to noisy marginals, and the rows that are drawn from it (guarantee 14.4)."""

import itertools

import numpy as np
import pytest
from doubles.randomness import Noise

from plainchant.privacy.marginals import Shares, noisy_marginals
from plainchant.randomness import SeededRandomness
from plainchant.run.joint import Joint, fit

SIZES = [3, 4, 5, 2]


def _table(n: int = 4000) -> np.ndarray:
    source = np.random.default_rng(0)
    cell = source.choice(3, n, p=[0.6, 0.3, 0.1])
    one = (cell + source.choice(2, n, p=[0.8, 0.2])) % 3
    return np.stack([cell, one, source.integers(0, 5, n), (one > 0) ^ (source.random(n) < 0.1)], axis=1)


def _agreement(one: np.ndarray, other: np.ndarray, columns: tuple[int, int]) -> float:
    shape = [SIZES[column] for column in columns]
    laws = [
        np.bincount(np.ravel_multi_index(rows[:, columns].T, shape), minlength=np.prod(shape)) / len(rows)
        for rows in (one, other)
    ]
    return 1 - abs(laws[0] - laws[1]).sum() / 2


def test_rows_of_a_fitted_law_have_the_tables_pairs_and_columns_of_one_cell_stay_independent_given_it() -> None:
    pytest.importorskip("mbi")
    table = _table()
    law = fit(SIZES, noisy_marginals(table, SIZES, Shares.of(0.1, 0), SeededRandomness(1)))
    rows = law.draw(table[:1000, 0], np.random.default_rng(1))
    assert (rows[:, 0] == table[:1000, 0]).all()
    for columns in itertools.combinations(range(4), 2):
        assert _agreement(table, rows, columns) > 0.93


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("sizes", [[1, 2], [2, 1, 1], [1, 3]])
def test_hardly_any_rows_and_constant_columns_give_a_law(rows: int, sizes: list[int]) -> None:
    pytest.importorskip("mbi")
    codes = np.zeros((rows, len(sizes)), dtype=np.int64)
    law = fit(sizes, noisy_marginals(codes, sizes, Shares.of(1.0, 0), SeededRandomness(rows)))
    drawn = law.draw(np.zeros(7, dtype=np.int64), np.random.default_rng(1))
    assert drawn.shape == (7, len(sizes))
    assert (drawn < sizes).all()


def test_pairs_that_are_noise_are_left_out() -> None:
    pytest.importorskip("mbi")
    source = np.random.default_rng(3)
    table = np.stack([source.integers(0, size, 4000) for size in SIZES], axis=1)
    law = fit(SIZES, noisy_marginals(table, SIZES, Shares.of(0.1, 0), SeededRandomness(2)))
    assert max(map(len, law.cliques)) == 1


def _chain() -> Joint:
    """Column 1 copies column 0, and column 2 copies column 1 but for one in ten."""
    first = np.diag([0.5, 0.3, 0.2])
    second = np.full((3, 3), 0.05) + np.diag([0.85] * 3)
    return Joint((3, 3, 3), ((0, 1), (1, 2)), (first, second / second.sum()))


def test_rows_follow_the_cliques_and_few_rows_are_even() -> None:
    rows = _chain().draw(np.repeat([0, 1, 2], 20), np.random.default_rng(0))
    assert (rows[:, 1] == rows[:, 0]).all()
    # systematic: nineteen or eighteen of twenty, never the sixteen that chance would sometimes give
    for code in range(3):
        assert 17 <= (rows[rows[:, 1] == code, 2] == code).sum() <= 19


def test_columns_that_share_only_the_cell_are_drawn_independently() -> None:
    even = np.full((1, 2), 0.5)
    law = Joint((1, 2, 2), ((0, 1), (0, 2)), (even, even))
    rows = law.draw(np.zeros(2000, dtype=np.int64), np.random.default_rng(0))
    assert abs(np.corrcoef(rows[:, 1], rows[:, 2])[0, 1]) < 0.1


def test_a_code_that_is_taken_out_is_never_drawn() -> None:
    rows = _chain().without(2, 1).draw(np.repeat([0, 1, 2], 200), np.random.default_rng(0))
    assert 1 not in rows[:, 2]
    assert (rows[:, 1] == rows[:, 0]).all()


def test_a_seed_decides_nothing_of_the_noise() -> None:
    noise = Noise()
    noisy_marginals(_table(50), SIZES, Shares.of(0.1, 0), noise)
    assert len(noise.asked) == 4 + 6
