"""Where batches are decoded: in this process, or on workers."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from plainchant import models
from plainchant.config import PerformanceOptions
from plainchant.generation.decoding import BatchWork, Decoder, FinishedText, StopRule
from plainchant.planning import Plan
from plainchant.randomness import SystemRandomness


class Executor(Protocol):
    """Writes texts for batches; `decoding.Decoder` is the one for this process."""

    def run(self, works: Iterable[BatchWork]) -> Iterator[FinishedText]:
        """Yields texts as they end, each place once."""


def make_decoder(plan: Plan, stop: StopRule, performance: PerformanceOptions) -> Decoder:
    """A decoder with a model of its own, as a worker needs it; the model is checked on the worker's own machine."""
    model = models.load(plan.config.model, performance)
    models.checked(model, rows=performance.width, batch_size=plan.settings.batch_size)
    return Decoder(model, plan.mechanism, stop, rows=performance.width, randomness=SystemRandomness())
