"""A unit's choice of a point is a function of its own row: no other unit's coming or going moves it (guarantee 1)."""

import contextlib

import numpy as np
import pytest
import threadpoolctl

from plainchant.data.nearest import nearest_point, nearest_points

DIMENSIONS, VOTERS = 384, 24
COUNTS = range(2, 202)


def unit_rows(n, d=DIMENSIONS, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def with_twins(count, seed):
    """`count` points of which every second is a copy of another one, in an order of its own."""
    some = unit_rows((count + 1) // 2, seed=seed)
    order = np.random.default_rng(seed).permutation(2 * len(some))[:count]
    return np.concatenate([some, some])[order]


def in_floating_point(rows, points):
    """The arithmetic that rounding moves: what this module replaces."""
    rows, points = rows.astype(np.float64), points.astype(np.float64)
    return np.argmin(0.5 * np.einsum("kd,kd->k", points, points) - rows @ points.T, axis=1)


def moved(nearest, counts, voters=VOTERS):
    """How many (removal, other unit) pairs change the other unit's choice; and the largest ℓ2-norm of one removal."""
    pairs, worst = 0, 0.0
    for count in counts:
        points, rows = with_twins(count, seed=count), unit_rows(voters, seed=1000 + count)
        whole = nearest(rows, points)
        for gone in range(voters):
            before, after = np.delete(whole, gone), nearest(np.delete(rows, gone, axis=0), points)
            pairs += int((before != after).sum())
            change = np.bincount(before, minlength=count) - np.bincount(after, minlength=count)
            worst = max(worst, float(np.linalg.norm(change)))
    return pairs, worst


@pytest.mark.parametrize("threads", [1, 2, 4, None])
def test_no_removal_moves_another_units_choice(threads):
    with threadpoolctl.threadpool_limits(threads, user_api="blas") if threads else contextlib.nullcontext():
        # threads that wait for each other are slow where cores are few
        assert moved(nearest_point, COUNTS if threads == 1 else COUNTS[::25]) == (0, 0.0)


def test_power_sums_that_are_rounded_are_caught():
    # which shapes round differently is a matter of the processor's kernels
    found = [moved(in_floating_point, COUNTS[::4], voters) for voters in (11, 24, 30, 41)]
    assert sum(pairs for pairs, _ in found) > 0
    assert max(worst for _, worst in found) > 1


def test_threads_places_and_companions_move_nothing():
    points, rows = with_twins(101, seed=3), unit_rows(300, seed=4)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        alone = [int(nearest_point(row[None], points)[0]) for row in rows]
    order = np.random.default_rng(0).permutation(len(rows))
    for threads in (1, 2, 4):
        with threadpoolctl.threadpool_limits(threads, user_api="blas"):
            assert nearest_point(rows, points).tolist() == alone
            assert nearest_point(rows[order], points).tolist() == np.array(alone)[order].tolist()
            assert nearest_point(np.asfortranarray(rows), points).tolist() == alone


def test_every_sum_is_exact():
    """Against integers of unbounded size, over dimensions and magnitudes that are far apart."""
    generator = np.random.default_rng(5)
    for d in (1, 2, 3, 31, 32, 33, 384, 1024):
        rows = (generator.normal(size=(6, d)) * 2.0 ** generator.integers(-40, 40, size=(6, 1))).astype(np.float32)
        points = (generator.normal(size=(5, d)) * 2.0 ** generator.integers(-40, 40, size=(5, 1))).astype(np.float32)
        points[3] = points[1]
        bits = (53 - int(np.ceil(np.log2(d)))) // 2
        assert d * 4**bits <= 2**53
        scores = [[_score(row, point, bits) for point in points] for row in rows]
        expected = [own.index(min(own)) for own in scores]
        assert nearest_point(rows, points).tolist() == expected


def _score(row, point, bits):
    """|c|²/2 − x·c of the fixed-point vectors, as float64 of exact integers."""
    (x, e), (c, f) = (_whole(vector, bits) for vector in (row, point))
    half_square, product = sum(b * b for b in c), sum(a * b for a, b in zip(x, c, strict=True))
    assert max(abs(product), half_square) <= 2**53
    return half_square * 2.0 ** (2 * (f - bits) - 1) - product * 2.0 ** (e + f - 2 * bits)


def _whole(vector, bits):
    _, e = np.frexp(np.abs(vector.astype(np.float64)).max())
    return [round(float(value) * 2.0 ** (bits - int(e))) for value in vector], int(e)


def test_it_is_the_nearest_by_euclid():
    points, rows = unit_rows(50, seed=6) * np.float32(0.7), unit_rows(400, seed=7)
    distances = np.linalg.norm(rows[:, None].astype(np.float64) - points[None], axis=2)
    assert np.array_equal(nearest_point(rows, points), np.argmin(distances, axis=1))


def test_rows_that_are_not_finite_count_as_the_origin_and_move_no_other():
    points, rows = unit_rows(9, seed=8), unit_rows(5, seed=9)
    broken = rows.copy()
    broken[1, 3], broken[4, 0] = np.nan, np.inf
    origin = int(nearest_point(np.zeros((1, DIMENSIONS), np.float32), points)[0])
    assert nearest_point(broken, points)[[1, 4]].tolist() == [origin, origin]
    assert nearest_point(broken, points)[[0, 2, 3]].tolist() == nearest_point(rows, points)[[0, 2, 3]].tolist()


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
