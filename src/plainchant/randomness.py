"""Randomness sources: the operating system or, in tests only, a seed, which makes a run not private."""

import secrets
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from plainchant.arrays import IntArray
from plainchant.errors import PrivacyError


class RandomSource(Protocol):
    """Uniform integers and discrete noise.

    Implementations must set `private` truthfully: True only if nobody can predict what is drawn.
    """

    private: bool

    def below(self, bound: int) -> int:
        """An integer uniform on 0, …, bound − 1."""

    def add_discrete_gaussian(self, counts: Sequence[int], sigma: float) -> IntArray:
        """Counts with independent noise, P(k) ∝ exp(−k²/(2σ²)) on the integers [CKS20]."""

    def discrete_laplace(self, scale: float) -> int:
        """An integer k with P(k) ∝ exp(−|k|/scale)."""


class SystemRandomness:
    """The operating system's cryptographic source; noise by opendp, whose exact sampler uses the same source."""

    private = True

    def below(self, bound: int) -> int:
        return secrets.randbelow(bound)

    def add_discrete_gaussian(self, counts: Sequence[int], sigma: float) -> IntArray:
        import opendp.prelude as dp

        if not sigma > 0:
            raise PrivacyError(f"sigma = {sigma}: noise needs a standard deviation > 0")
        dp.enable_features("contrib")
        # int alone would be 32 bits wide, at whose ends noise stops
        measurement = dp.m.make_gaussian(
            dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float), scale=float(sigma)
        )
        return np.asarray(measurement([int(count) for count in counts]), dtype=np.int64)

    def discrete_laplace(self, scale: float) -> int:
        import opendp.prelude as dp

        if not scale > 0:
            raise PrivacyError(f"scale = {scale}: noise needs a scale > 0")
        dp.enable_features("contrib")
        # `int` would be 32 bits wide, which would cut the noise off at its ends
        return int(dp.m.make_laplace(dp.atom_domain(T="i64"), dp.absolute_distance(T="i64"), scale=float(scale))(0))


class SeededRandomness:
    """For tests only: repeatable, therefore not private. Every output of a run that uses it says so."""

    private = False

    def __init__(self, seed: int):
        self._generator = np.random.default_rng(seed)

    def below(self, bound: int) -> int:
        # joins random 64-bit words, so that bounds beyond int64 work like any other
        words = -(-bound.bit_length() // 64) + 1
        value = int.from_bytes(self._generator.bytes(8 * words), "big")
        return value % bound

    def add_discrete_gaussian(self, counts: Sequence[int], sigma: float) -> IntArray:
        reach = int(np.ceil(12 * sigma)) + 1
        support = np.arange(-reach, reach + 1)
        weights = np.exp(-(support**2) / (2 * sigma**2))
        noise = self._generator.choice(support, size=len(counts), p=weights / weights.sum())
        return np.asarray(np.asarray(counts, dtype=np.int64) + noise)

    def discrete_laplace(self, scale: float) -> int:
        # the difference of two geometric variables
        return int(np.subtract(*self._generator.geometric(-np.expm1(-1 / scale), 2)))
