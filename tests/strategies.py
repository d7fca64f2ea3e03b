"""Shared pieces of the tests: small settings, exact distributions, grids of neighbours."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from plainchant.arrays import Float32Array, Float64Array
from plainchant.privacy.aggregation import Clipping, Support, sampling_weights
from plainchant.privacy.mechanisms import TokenDistribution, TokenMechanism, TokenSettings

Array = Float64Array


def settings(**changes: Any) -> TokenSettings:
    """Small settings, with changes."""
    values: dict[str, Any] = {
        "support": Support.FULL,
        "k": 2,
        "clipping": Clipping.LOGITS,
        "clip": 1.5,
        "guidance": 1.0,
        "temperature": 1.0,
        "batch_size": 3,
        "slack": 0.0,
    }
    return TokenSettings(**(values | changes))


def probabilities(distribution: TokenDistribution, vocabulary: int) -> Array:
    """The exact distribution of the released token over all ids, by the sampler's integer weights, float64 [V]."""
    weights = sampling_weights(distribution.scores)
    out = np.zeros(vocabulary)
    out[distribution.support] = weights.astype(np.float64) / float(weights.sum())
    return out


def distribution_of(mechanism: TokenMechanism, rows: Any, public: Any) -> TokenDistribution:
    """The distribution for rows given as any nested sequence, with every id allowed."""
    public = np.asarray(public, dtype=np.float32)
    private = np.asarray(rows, dtype=np.float32).reshape(-1, len(public))
    return step_distribution(mechanism, private, public)


def step_distribution(mechanism: TokenMechanism, private: Any, public: Any, allowance: Any = None) -> TokenDistribution:
    """The distribution for logits float32 [n, V] and [V], with every id allowed."""
    support = mechanism.support(public, np.arange(len(public)))
    return mechanism.distribution(private[:, support], public, support, allowance)


def removals(rows: Float32Array) -> Iterator[Float32Array]:
    """All batches with one context less."""
    for i in range(len(rows)):
        yield np.delete(rows, i, axis=0)


def additions(rows: Float32Array, grid: Float32Array) -> Iterator[Float32Array]:
    """All batches with one context more, its logits on a grid."""
    for values in itertools.product(grid, repeat=rows.shape[1]):
        yield np.vstack([rows, np.array([values], dtype=np.float32)])


def renyi(p: Array, q: Array, alpha: float) -> float:
    """The Rényi divergence D_α(p ‖ q), nats; inf where q misses a part of p."""
    if np.any((q == 0) & (p > 0)):
        return float("inf")
    mask = p > 0
    exponents = alpha * np.log(p[mask]) + (1 - alpha) * np.log(q[mask])
    top = exponents.max()
    return float((top + np.log(np.sum(np.exp(exponents - top)))) / (alpha - 1))
