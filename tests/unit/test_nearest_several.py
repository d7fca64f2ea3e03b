"""The nearest several points of a row: exact, a function of that row alone, ties to the lowest index (guarantee 1)."""

import numpy as np
import pytest

from plainchant.data.nearest import nearest_point, nearest_points


def unit_rows(n, d=384, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 5, 16, 40])
def test_they_are_the_nearest_and_of_equal_ones_the_first(count):
    some, rows = unit_rows(20, seed=1), unit_rows(50, seed=2)
    points = np.concatenate([some, some])
    found = nearest_points(rows, points, count)
    distances = np.round(np.linalg.norm(rows[:, None].astype(np.float64) - points[None], axis=2), 9)
    expected = np.sort(np.argsort(distances, axis=1, kind="stable")[:, :count], axis=1)
    assert np.array_equal(found, expected)
    if count == 1:
        assert np.array_equal(found[:, 0], nearest_point(rows, points))


def test_no_removal_no_block_and_no_order_moves_another_rows_choice(monkeypatch):
    some, rows = unit_rows(31, seed=3), unit_rows(23, seed=4)
    points = np.concatenate([some, some])
    whole = nearest_points(rows, points, 4)
    for gone in range(len(rows)):
        assert np.array_equal(nearest_points(np.delete(rows, gone, axis=0), points, 4), np.delete(whole, gone, axis=0))
    assert np.array_equal(nearest_points(rows[::-1], points, 4)[::-1], whole)
    monkeypatch.setattr("plainchant.data.nearest._SCORES", 3 * len(points))
    assert np.array_equal(nearest_points(rows, points, 4), whole)
