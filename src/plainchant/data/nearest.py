"""The public point nearest to a private row: one exact rule for cells and for votes (guarantee 1).

A unit's choice must depend only on its own row and on the public points. Floating point breaks that silently. A BLAS
product rounds a row's sums in an order that depends on the matrix's shape, on the row's position and on the number of
threads. If two points are equal, or nearly so, adding or removing another unit can then flip the choice. Here every sum
is exact, so the order does not matter:

* Each row, and each point, becomes integers at a power-of-two scale of its own: X = rint(x · 2^(b − e)) with the least
  e such that max |x| <= 2^e (the largest entry is the same in any order), so that |X| <= 2^b.
* Over d dimensions, every sum of any of the products ±X·C is an integer of at most d · 2^(2b) <= 2^53 in absolute
  value, by the choice b = ⌊(53 − ⌈log2 d⌉)/2⌋. Float64 holds all of those exactly. So whatever order, blocks, fused
  multiply-adds or threads a product uses, each of its intermediate values is exact, and its result is the same bits.
* From there on, every operation is elementwise on a (row, point) pair: scaling by a power of two, one subtraction, a
  comparison. IEEE 754 rounds those in one way only.

For d = 384, b is 22: a coordinate is exact to within 2^-23 of its vector's largest one. Points that are nearer to each
other than that count as equal; the lowest index wins.
"""

import numpy as np

from plainchant.arrays import Float32Array, Float64Array, IntArray

_CHUNK = 4096  # rows of one matrix of scores: 32 MB at 1000 points
# Integers up to 2^53 are exact in float64.
_EXACT_BITS = 53
_SCORES = 1 << 22  # of one matrix where several points are chosen: 32 MB


def nearest_point(rows: Float32Array, points: Float32Array) -> IntArray:
    """The nearest point of each row by Euclidean distance; among equally near ones the lowest index.

    Args:
        rows: [n, d]; a row that is not finite counts as the origin.
        points: finite, [k, d], k and d >= 1.

    Returns:
        int64 [n]. Each answer is a function of its own row and of `points`, to the last bit (see the module).

    >>> nearest_point(np.array([[0.9, 0.1]], dtype=np.float32), np.eye(2, dtype=np.float32))
    array([0])
    """
    scores_of = _Scores(points)
    chosen = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK):
        # |x|^2 / 2 is the same for every point
        chosen[start : start + _CHUNK] = np.argmin(scores_of(rows[start : start + _CHUNK]), axis=1)
    return chosen


def nearest_points(rows: Float32Array, points: Float32Array, count: int) -> IntArray:
    """The nearest points of each row by Euclidean distance, a set; of equally near ones the lowest indices.

    Blocks of rows bound the memory, and cannot change a bit of the answer (see the module). The time is that of a
    product [n, d] × [d, k] in float64 and some passes over the scores: for a million rows and 20,000 points of d = 384,
    about 17 minutes of one processor core (`python bench/candidates.py cost`).

    Args:
        rows: [n, d]; a row that is not finite counts as the origin.
        points: finite, [k, d].
        count: how many of each row, 1 to k.

    Returns:
        Indices into `points`, ascending, int64 [n, count]; each row's a function of that row and of `points` alone.
    """
    chosen = np.empty((len(rows), count), dtype=np.int64)
    size = max(1, min(_CHUNK, _SCORES // len(points)))
    scores_of = _Scores(points)
    for start in range(0, len(rows), size):
        scores = scores_of(rows[start : start + size])
        last = np.partition(scores, count - 1, axis=1)[:, count - 1 : count]
        nearer, equal = scores < last, scores == last
        # of those as near as the last one that is chosen, the first
        room = count - nearer.sum(axis=1, keepdims=True)
        taken = nearer | (equal & (np.cumsum(equal, axis=1) <= room))
        chosen[start : start + size] = np.nonzero(taken)[1].reshape(-1, count)
    return chosen


class _Scores:
    """|x − c|²/2 − |x|²/2 of rows x and points c; each value a function of that row and that point, to the last bit."""

    def __init__(self, points: Float32Array):
        self._bits = (_EXACT_BITS - (points.shape[1] - 1).bit_length()) // 2
        self._whole, exponents = _fixed_point(points, self._bits)
        # |c|^2 / 2: a sum of squares is exact for the same reason
        self._half_squares = np.ldexp(np.einsum("kd,kd->k", self._whole, self._whole), 2 * (exponents - self._bits) - 1)
        self._scales = np.ldexp(1.0, exponents - 2 * self._bits)

    def __call__(self, rows: Float32Array) -> Float64Array:
        """Float64 [n, k]."""
        own, exponents = _fixed_point(rows, self._bits)
        products: Float64Array = own @ self._whole.T
        products *= self._scales
        products *= np.ldexp(1.0, exponents)[:, None]
        np.subtract(self._half_squares, products, out=products)
        return products


def _fixed_point(vectors: Float32Array, bits: int) -> tuple[Float64Array, IntArray]:
    """Vectors as integers of at most 2^bits, float64 [n, d], each to be multiplied by 2^(e − bits); e, int64 [n]."""
    wide = vectors.astype(np.float64)
    largest = np.abs(wide).max(axis=1)
    sound = np.isfinite(largest)
    if not sound.all():
        wide[~sound], largest[~sound] = 0.0, 0.0
    # an exact power of two counts as half of the next: 1 = 0.5 * 2^1
    exponents = np.frexp(largest)[1].astype(np.int64)
    return np.rint(np.ldexp(wide, (bits - exponents)[:, None])), exponents
