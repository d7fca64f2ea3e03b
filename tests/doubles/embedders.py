"""Embedders that need no model."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from plainchant.arrays import Float32Array


class Hashing:
    """A direction in three dimensions, as good as random, by the hash of a text."""

    name = "hashing"

    def encode(
        self, texts: Sequence[str], *, alone: bool = False, progress: Callable[[float], None] | None = None
    ) -> Float32Array:
        bits = [np.frombuffer(hashlib.sha256(text.encode()).digest()[:12], dtype=np.int32) for text in texts]
        vectors = np.array(bits, dtype=np.float64).reshape(-1, 3)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Lengths:
    """Knows how long a text is, and whether it was embedded alone."""

    name = "lengths"

    def encode(
        self, texts: Sequence[str], *, alone: bool = False, progress: Callable[[float], None] | None = None
    ) -> Float32Array:
        return np.array([[len(text), alone] for text in texts], dtype=np.float32).reshape(-1, 2)


class Counts:
    """Counts the words of a list."""

    name = "counts"

    def __init__(self, words: Sequence[str]):
        self._words = words

    def encode(
        self, texts: Sequence[str], *, alone: bool = False, progress: Callable[[float], None] | None = None
    ) -> Float32Array:
        counts = np.array([[text.count(word) for word in self._words] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)
