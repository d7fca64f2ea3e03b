"""Mechanisms that are broken on purpose: a test of truth must catch each of them."""

import dataclasses
from typing import Any

import numpy as np

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.auditing.replay import Steps
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism, MedianMechanism, TokenDistribution


class NoClipping(MeanMechanism):
    """Claims what clipping would allow, and does not clip."""

    def distribution(
        self, private: Float32Array, public: Any, support: IntArray, allowance: Any = None
    ) -> TokenDistribution:
        return MeanMechanism(dataclasses.replace(self.settings, clip=1e3)).distribution(private, public, support)


class DividesByN(MeanMechanism):
    """Divides by the true number of contexts, which is secret."""

    def distribution(
        self, private: Float32Array, public: Any, support: IntArray, allowance: Any = None
    ) -> TokenDistribution:
        true_size = dataclasses.replace(self.settings, batch_size=max(1, len(private)))
        return MeanMechanism(true_size).distribution(private, public, support)


class NarrowBox(MedianMechanism):
    """Measures its loss in half of the box that neighbours can reach."""

    def distribution(
        self, private: Float32Array, public: Any, support: IntArray, allowance: Any = None
    ) -> TokenDistribution:
        found = super().distribution(private, public, support)
        assert found.low is not None
        assert found.high is not None
        low, high = ((found.scores + bound) / 2 for bound in (found.low, found.high))
        return dataclasses.replace(found, low=low, high=high)


class ForgetsWhatIsSpent(IndividualMeanMechanism):
    """Every step has the whole budget."""

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array:
        return super().allowance(0 * spent, 1)


class AlwaysFullWeight(IndividualMeanMechanism):
    """Never asks whether a record can pay."""

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array:
        return np.full(len(spent), 1e9)


class Hasty(IndividualMeanMechanism):
    """Not broken by itself: each step may take all that is left. What it spends early, a forgotten sum spends again."""

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array:
        return np.maximum(self._payable - spent, 0.0)


class Cuts(Hasty):
    """The textbook filter: a context that cannot pay sits the step out."""

    def distribution(
        self, private: Float32Array, public: Any, support: IntArray, allowance: Any = None
    ) -> TokenDistribution:
        free = super().distribution(private, public, support, np.full(len(private), 1e9))
        assert free.charges is not None
        assert free.removals is not None
        pays = free.charges <= allowance
        base = public.astype(np.float64) / self.settings.temperature
        scores = base - free.removals[pays].sum(axis=0, dtype=np.float64)
        return dataclasses.replace(free, scores=scores, charges=np.where(pays, free.charges, 0.0))


class AsOthersDecide(IndividualMeanMechanism):
    """Everybody takes part as far as the one who can afford least."""

    def distribution(
        self, private: Float32Array, public: Any, support: IntArray, allowance: Any = None
    ) -> TokenDistribution:
        distribution = super().distribution(private, public, support, allowance)
        if not len(private):
            return distribution
        free = super().distribution(private, public, support, np.full(len(private), 1e9))
        assert distribution.charges is not None
        assert free.charges is not None
        weight = np.sqrt(np.min(distribution.charges / np.maximum(free.charges, 1e-12)))
        empty = super().distribution(private[:0], public, support, np.zeros(0))
        return dataclasses.replace(
            free, scores=empty.scores + weight * (free.scores - empty.scores), charges=distribution.charges
        )


def shared_padding(steps: Steps, seed: int = 3) -> Steps:
    """Public logits that a padded batch with the private rows moves by 0.3, as in bfloat16 (guarantee 4.1 and 9)."""
    moved = np.random.default_rng(seed).uniform(-0.3, 0.3, steps.public.shape).astype(np.float32)
    return dataclasses.replace(steps, public_without=steps.public + moved)
