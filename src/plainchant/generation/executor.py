"""Where batches are decoded: in this process, or on workers."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from plainchant.config import PerformanceOptions
from plainchant.generation.decoding import BatchWork, Decoder, FinishedText, StopRule
from plainchant.models import LanguageModel
from plainchant.planning import Plan
from plainchant.randomness import SystemRandomness


class Executor(Protocol):
    """Writes texts for batches; `decoding.Decoder` is the one for this process."""

    def run(self, works: Iterable[BatchWork]) -> Iterator[FinishedText]:
        """Yields texts as they end, each place once."""


def load_on(name: str, performance: PerformanceOptions) -> LanguageModel:
    """A language model by path or name, as the performance options want it."""
    from plainchant.models.transformers.model import load_model

    return load_model(name, device=performance.device, dtype=performance.dtype, threads=performance.threads)


def memory_on(performance: PerformanceOptions) -> float:
    """GiB of the device that the performance options name."""
    from plainchant.models.transformers.model import device_memory

    return device_memory(performance.device)


def make_decoder(plan: Plan, stop: StopRule, performance: PerformanceOptions) -> Decoder:
    """A decoder with a model of its own, as a worker needs it."""
    model = load_on(plan.config.model, performance)
    return Decoder(model, plan.mechanism, stop, rows=performance.width, randomness=SystemRandomness())
