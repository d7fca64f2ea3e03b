"""From the logits of a batch to one vector of scores: supports, clipping, aggregates (guarantee 4.2 to 4.5).

Everything here is a pure function of arrays. Private logits are float32 [n, V], public logits float32 [V]; scores that
are sampled from are float64 [|S|].
"""

import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.errors import ModelError
from plainchant.randomness import RandomSource

# A sampling weight is an integer of at least this size: rounding moves its logarithm by at most 2**-13 = 1.2e-4 nats.
WEIGHT_FLOOR = 2**12
# Columns of a batch whose median is taken at once: with 16 contexts they fit into a core's cache.
_COLUMNS = 2**13
# By how much that rounding can widen the range of a log-ratio: up and down, on both sides, nats.
ROUNDING_RANGE = 4 * 2**-13


class Support(enum.StrEnum):
    """Which tokens may be sampled; always a function of the public logits alone (guarantee 4.2)."""

    FULL = "full"
    TOP_K = "top_k"
    TOP_K_PLUS = "top_k_plus"


class Clipping(enum.StrEnum):
    """How one context's influence is bounded (guarantee 4.3)."""

    LOGITS = "logits"
    DIFFERENCE = "difference"
    INCREASE = "increase"


class Aggregate(enum.StrEnum):
    """How the predictions of a batch are combined (guarantee 4.4)."""

    MEAN = "mean"
    MEDIAN = "median"


def support_indices(
    support: Support, public: Float32Array | None, allowed: IntArray, *, k: int, margin: float
) -> IntArray:
    """The tokens that may be sampled at this step (guarantee 4.2).

    Args:
        support: the rule.
        public: public logits, float32 [V]; not used where the support is full.
        allowed: the ids that any support may hold, sorted, int64 [<= V].
        k: how many tokens `top_k` and `top_k_plus` start from.
        margin: 2C/s, by which `top_k_plus` reaches below the k-th largest logit ([InvInk]).

    Returns:
        Sorted token ids, int64 [|S|].

    Raises:
        ModelError: the public logits are not finite.

    >>> public = np.array([0.0, 3.0, 1.0, 2.0], dtype=np.float32)
    >>> support_indices(Support.TOP_K, public, np.arange(4), k=2, margin=0.0)
    array([1, 3])
    >>> support_indices(Support.TOP_K_PLUS, public, np.arange(4), k=2, margin=1.0)
    array([1, 2, 3])
    """
    if support is Support.FULL:
        return allowed
    if public is None:
        raise ModelError(f"support = {support}: needs the public logits")
    scores = public[allowed]
    if not np.isfinite(scores).all():
        raise ModelError("the model's public logits are not finite; another dtype (float32) may help")
    if k >= len(allowed):
        return allowed
    least = _largest(scores, k)
    if support is Support.TOP_K_PLUS:
        return np.asarray(allowed[scores >= least - margin])
    # ties are broken by token id, never at random
    chosen = scores > least
    chosen[np.flatnonzero(scores == least)[: k - np.count_nonzero(chosen)]] = True
    return np.asarray(allowed[chosen])


def _largest(scores: Float32Array, k: int) -> np.float32:
    """The k-th largest score, 1 <= k <= len(scores)."""
    depth = len(scores) // (8 * k)
    if depth > 1:
        # k columns have a score of at least this, so the k-th largest is no smaller
        bound = np.partition(scores[: len(scores) // depth * depth].reshape(depth, -1).max(axis=0), -k)[-k]
        scores = scores[scores >= bound]
    return np.float32(np.partition(scores, -k)[-k])


def clip_logits(logits: Float32Array, clip: float) -> Float32Array:
    """z_i = max(−c, φ_i − max φ_i + c), in [−c, c] ([Amin24]; guarantee 4.3).

    A row that is not finite contributes zero everywhere: a function of that row alone, inside the bounds.

    Args:
        logits: float32 [n, |S|].
        clip: c > 0, nats.

    >>> clip_logits(np.array([[5.0, 4.0, -9.0]], dtype=np.float32), clip=2.0)
    array([[ 2.,  1., -2.]], dtype=float32)
    """
    if not len(logits):
        return logits.astype(np.float32)
    top = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        clipped = logits + (np.float32(clip) - top)
    # rounding in float32 must not exceed the bounds from which the cost is derived
    np.clip(clipped, np.float32(-clip), np.float32(clip), out=clipped)
    # a NaN anywhere makes the row's maximum NaN; only −inf is harmless
    clipped[~np.isfinite(top[:, 0])] = 0
    return np.asarray(clipped, dtype=np.float32)


def clip_differences(logits: Float32Array, public: Float32Array, clip: float) -> Float32Array:
    """Δ_i = φ_i − φ_0, centred by its mid-range, clipped to [−C, C] ([InvInk]; guarantee 4.3).

    Args:
        logits: float32 [n, |S|].
        public: float32 [|S|].
        clip: C > 0, nats.

    >>> public = np.zeros(3, dtype=np.float32)
    >>> clip_differences(np.array([[5.0, 4.0, -5.0]], dtype=np.float32), public, clip=2.0)
    array([[ 2.,  2., -2.]], dtype=float32)
    """

    def mid_range(difference: Float32Array) -> Float32Array:
        low, high = difference.min(axis=1, keepdims=True), difference.max(axis=1, keepdims=True)
        return np.asarray((low + high) / 2)

    return _clip_by_public(logits, public, mid_range, -clip, clip)


def clip_increases(logits: Float32Array, public: Float32Array, clip: float) -> Float32Array:
    """Δ_i = φ_i − φ_0 over its own mean under weights ∝ √p_0, clipped to [0, C]: tokens are raised, none lowered.

    The tokens that a context lowers are mostly unlikely under the public model anyway. Ignoring them halves the range
    and hardly changes the distribution. Each context uses its own mean, so the row depends on its record alone.

    Args:
        logits: float32 [n, |S|].
        public: float32 [|S|].
        clip: C > 0, nats.

    >>> public = np.zeros(3, dtype=np.float32)
    >>> clip_increases(np.array([[5.0, 2.0, -1.0]], dtype=np.float32), public, clip=2.0)
    array([[2., 0., 0.]], dtype=float32)
    """
    weights = np.exp((public - public.max()) / 2)
    weights /= weights.sum()

    def mean(difference: Float32Array) -> Float32Array:
        # not a matrix product: its kernel could round a row differently for another number of rows
        return np.asarray((difference * weights).sum(axis=1, keepdims=True))

    return _clip_by_public(logits, public, mean, 0.0, clip)


def _clip_by_public(
    logits: Float32Array,
    public: Float32Array,
    centre: Callable[[Float32Array], Float32Array],
    low: float,
    high: float,
) -> Float32Array:
    """Δ_i less its own centre, float32 [n, 1], clipped; a row that is not finite contributes zero everywhere."""
    if not len(logits):
        return logits.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = logits - public
        sound = np.isfinite(difference).all(axis=1)
        difference -= centre(difference)
    np.clip(difference, np.float32(low), np.float32(high), out=difference)
    difference[~sound] = 0
    return np.asarray(difference, dtype=np.float32)


CLIPS_BY_PUBLIC: Mapping[Clipping, Callable[[Float32Array, Float32Array, float], Float32Array]] = {
    Clipping.DIFFERENCE: clip_differences,
    Clipping.INCREASE: clip_increases,
}
"""The clipping functions that use the public logits."""


class Box(NamedTuple):
    """A median and the box that holds the medians of all neighbours (guarantee 5.3); each float32 [|S|]."""

    median: Float32Array
    low: Float32Array
    high: Float32Array


def median_box(clipped: Float32Array, clip: float, empty: Float32Array) -> Box:
    """The coordinate-wise median of a batch, and how far adding or removing one context can move it (guarantee 5.3).

    Args:
        clipped: float32 [n, |S|], every value in [−clip, clip].
        clip: the clip norm, nats.
        empty: the result for an empty batch, inside [−clip, clip], float32 [|S|].

    Returns:
        The box is exact for n ≥ 3: every neighbour lies in it, and in each coordinate some neighbour attains each end.
        For n < 3 it is the clip range.

    >>> box = median_box(np.array([[0.0], [1.0], [5.0]], dtype=np.float32), 9.0, np.zeros(1, dtype=np.float32))
    >>> [float(values[0]) for values in box]
    [1.0, 0.5, 3.0]
    """
    n = len(clipped)
    if n < 3:
        median = np.asarray(np.mean(clipped, axis=0, dtype=np.float32)) if n else empty
        bound = np.full_like(median, clip)
        return Box(median, -bound, bound)
    if n % 2:
        below, middle, above = _middle(clipped, 3)
        return Box(middle, (below + middle) / 2, (middle + above) / 2)
    below, above = _middle(clipped, 2)
    return Box((below + above) / 2, below, above)


def _middle(rows: Float32Array, count: int) -> Float32Array:
    """The `count` middle values of every column, ascending, float32 [count, |S|]; n - count is even."""
    first = (len(rows) - count) // 2
    found = np.empty((count, rows.shape[1]), dtype=np.float32)
    # comparing whole rows is several times faster than sorting column by column
    for start in range(0, rows.shape[1], _COLUMNS):
        here = slice(start, start + _COLUMNS)
        own = list(rows[:, here].copy())
        spare = np.empty_like(own[0])
        for low, high in _selection_network(len(rows), first, first + count):
            np.minimum(own[low], own[high], out=spare)
            np.maximum(own[low], own[high], out=own[high])
            own[low], spare = spare, own[low]
        found[:, here] = own[first : first + count]
    return found


@functools.cache
def _selection_network(size: int, first: int, last: int) -> Sequence[tuple[int, int]]:
    """Pairs to compare and swap, so that places `first` to `last` - 1 of `size` are as in sorted order.

    Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2 M), only the pairs those places need.
    """
    top = 1 << max(0, (size - 1).bit_length() - 1)
    pairs = []
    part = top
    while part:
        stride, phase, distance = top, 0, part
        while True:
            pairs += [(low, low + distance) for low in range(size - distance) if low & part == phase]
            if stride == part:
                break
            distance, stride, phase = stride - part, stride // 2, part
        part //= 2
    wanted, kept = set(range(first, last)), []
    for pair in reversed(pairs):
        if wanted.intersection(pair):
            wanted.update(pair)
            kept.append(pair)
    return kept[::-1]


def log_softmax(scores: Float64Array) -> Float64Array:
    """The log softmax over the last axis, float64 in and out.

    >>> np.exp(log_softmax(np.log([1.0, 3.0])))
    array([0.25, 0.75])
    """
    shifted = scores - scores.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def sampling_weights(scores: Float64Array) -> npt.NDArray[np.uint64]:
    """Integer weights in proportion to exp(scores): the exact distribution that `sample` draws from.

    With integers the cumulative sum is exact and rare tokens keep their probability to 1.2e-4 relative. Weights below
    the floor are raised to it, which only brings the distributions of two neighbours closer together.

    >>> weights = sampling_weights(np.log([1.0, 3.0]))
    >>> float(weights[0] / weights.sum())
    0.25
    """
    bits = 62 - len(scores).bit_length()
    weights = np.rint(np.exp(scores - scores.max()) * 2.0**bits).astype(np.uint64)
    return np.asarray(np.maximum(weights, np.uint64(WEIGHT_FLOOR)))


def sample(scores: Float64Array, randomness: RandomSource) -> int:
    """Draws an index x with probability ∝ exp(scores[x]), by inverse CDF in exact integers (guarantee 4.5).

    >>> from plainchant.randomness import SystemRandomness
    >>> sample(np.array([0.0, -1000.0]), SystemRandomness())  # the other has a probability of about 1e-14
    0
    """
    cumulative = np.cumsum(sampling_weights(scores))
    draw = np.uint64(randomness.below(int(cumulative[-1])))
    return int(np.searchsorted(cumulative, draw, side="right"))
