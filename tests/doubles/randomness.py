"""Chance that does what a test says. `private` is claimed wherever a run would otherwise be none."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from plainchant.arrays import IntArray
from plainchant.randomness import SeededRandomness


class Repeatable(SeededRandomness):
    """Seeded, and says that it is private."""

    private = True


class Draws(Repeatable):
    """Draws what it is told, one number after another."""

    def __init__(self, numbers: Iterable[int]):
        super().__init__(0)
        self.numbers = list(numbers)

    def below(self, bound: int) -> int:
        return self.numbers.pop(0) % bound


class AsTold(Draws):
    """Noisy counts are eight, each unit's batch is the next number; what needs large numbers is seeded.

    Once the numbers are used up the largest is drawn, which leaves an order as it is.
    """

    def below(self, bound: int) -> int:
        if bound >= 1000:
            return SeededRandomness.below(self, bound)
        if not self.numbers:
            return bound - 1
        return 0 if bound == 1 else super().below(bound)

    def add_discrete_gaussian(self, counts: Sequence[int], sigma: float) -> IntArray:
        return np.full(len(counts), 8)


class Noise(Repeatable):
    """Adds what it is told, then nothing; notes what it was asked."""

    def __init__(self, *noises: Any):
        super().__init__(0)
        self.noises = list(noises)
        self.asked: list[tuple[list[int], float]] = []

    def add_discrete_gaussian(self, counts: Sequence[int], sigma: float) -> IntArray:
        self.asked.append((list(counts), sigma))
        return np.asarray(counts) + (self.noises.pop(0) if self.noises else 0)


class Stuck(Repeatable):
    """Draws one place for ever: at the border of two tokens it shows a unit that hardly matters."""

    def __init__(self, place: float):
        super().__init__(0)
        self._place = place

    def below(self, bound: int) -> int:
        return int(bound * self._place)
