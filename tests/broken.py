"""Mechanisms that are broken on purpose: an audit must catch them."""

import dataclasses

import numpy as np

from plainchant.auditing.replay import Steps
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism


class NoClipping(MeanMechanism):
    """Claims what clipping would allow, and does not clip."""

    def distribution(self, private, public, support, allowance=None):
        return MeanMechanism(dataclasses.replace(self.settings, clip=1e3)).distribution(private, public, support)


class ForgetsWhatIsSpent(IndividualMeanMechanism):
    """Every step has the whole budget."""

    def allowance(self, spent, steps_left):
        return super().allowance(0 * spent, 1)


class AlwaysFullWeight(IndividualMeanMechanism):
    """Never asks whether a record can pay."""

    def allowance(self, spent, steps_left):
        return np.full(len(spent), 1e9)


def shared_padding(steps: Steps, seed: int = 3) -> Steps:
    """Public logits that a padded batch with the private rows moves by 0.3, as in bfloat16 (guarantee 4.1 and 9)."""
    moved = np.random.default_rng(seed).uniform(-0.3, 0.3, steps.public.shape).astype(np.float32)
    return dataclasses.replace(steps, public_without=steps.public + moved)
