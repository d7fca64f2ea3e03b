"""Shared by the attacks: bootstrap intervals and a model of characters."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from plainchant.arrays import Float64Array, IntArray
from plainchant.errors import DataError
from plainchant.evaluation.figures import Figure

BOOTSTRAPS = 1_000
# The character model: length of its n-grams, size of its alphabet, weight of the next shorter n-gram.
ORDER, ALPHABET, SMOOTHING = 5, 4_000, 1.0


def bootstrapped(statistic: Callable[..., Any], *samples: npt.NDArray[Any], generator: np.random.Generator) -> Figure:
    """A statistic of samples with its bootstrap interval; each sample is resampled along its first axis."""
    drawn = [
        statistic(*(sample[generator.integers(len(sample), size=len(sample))] for sample in samples))
        for _ in range(BOOTSTRAPS)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Figure(float(statistic(*samples)), float(low), float(high))


def check_not_empty(**samples: Sequence[Any] | npt.NDArray[Any]) -> None:
    """Raises DataError for an empty sample."""
    for name, sample in samples.items():
        if not len(sample):
            raise DataError(f"{name}: is empty; an audit needs at least one")


# The character model of canaries and membership


class CharacterModel:
    """An interpolated n-gram model of characters without case: p_k(x | context) = (count + a·p_{k−1}) / (total + a).

    Args:
        texts: the texts to learn from.

    Raises:
        DataError: the texts contain no character.
    """

    def __init__(self, texts: Sequence[str]):
        frequent = Counter(itertools.chain.from_iterable(text.casefold() for text in texts)).most_common(ALPHABET)
        check_not_empty(texts=frequent)
        # 0 stands before a text, 1 for every other character
        self._codes = {character: code for code, (character, _) in enumerate(frequent, start=2)}
        self._base = len(self._codes) + 2
        grams, _ = self._grams(texts)
        self._counts = [np.unique(column, return_counts=True) for column in grams]
        self._totals = [np.unique(column // self._base, return_counts=True) for column in grams]

    def _grams(self, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
        """For each character the n-grams that end there, int64 [ORDER, c], and its text's number, int64 [c]."""
        padding = (0,) * (ORDER - 1)
        coded = [(*padding, *(self._codes.get(character, 1) for character in text.casefold())) for text in texts]
        codes = np.fromiter(itertools.chain.from_iterable(coded), np.int64)
        # the newest character is the last digit; what rolls over the edge falls on padding
        shifted = np.array([np.roll(codes, k) * self._base**k for k in range(ORDER)])
        is_character = codes > 0
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in coded])
        return np.cumsum(shifted, axis=0)[:, is_character], owner[is_character]

    def score(self, texts: Sequence[str]) -> Float64Array:
        """The log-likelihood of each text, nats, float64 [m]."""
        grams, owner = self._grams(texts)
        p = np.full(grams.shape[1], 1 / self._base)
        for column, counts, totals in zip(grams, self._counts, self._totals, strict=True):
            p = (_counted(counts, column) + SMOOTHING * p) / (_counted(totals, column // self._base) + SMOOTHING)
        return np.bincount(owner, np.log(p), minlength=len(texts)).astype(np.float64)


def _counted(table: tuple[IntArray, IntArray], keys: IntArray) -> IntArray:
    known, counts = table
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, counts[place], 0)
