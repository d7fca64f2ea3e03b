"""Executors decode batches in this process or on workers."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from plainchant import models
from plainchant.config import PerformanceOptions
from plainchant.data.embedding import Embedder, load_embedder
from plainchant.data.raw import Readers
from plainchant.errors import PrivacyError
from plainchant.generation.decoding import BatchWork, Decoder, FinishedText, StopRule
from plainchant.generation.ray import RayEmbedder, RayExecutor, read_on_workers
from plainchant.models import LanguageModel
from plainchant.planning import Plan
from plainchant.privacy.aggregation import Support
from plainchant.randomness import RandomSource, SystemRandomness


class Executor(Protocol):
    """Writes texts for batches; `decoding.Decoder` is the one for this process."""

    def run(self, works: Iterable[BatchWork]) -> Iterator[FinishedText]:
        """Yields texts as they end, each place once."""


def open_embedder(name: str, performance: PerformanceOptions) -> Embedder:
    """An embedder by path or name, in this process or on workers as the performance options say."""
    if performance.executor == "ray":
        return RayEmbedder(performance, name)
    return load_embedder(name, device=performance.device)


def open_readers(performance: PerformanceOptions) -> Readers | None:
    """What reads several files at the same time: the workers of a cluster; None where this process reads them."""
    return functools.partial(read_on_workers, performance) if performance.executor == "ray" else None


@contextlib.contextmanager
def open_executor(
    plan: Plan,
    stop: StopRule,
    performance: PerformanceOptions,
    model: LanguageModel,
    randomness: RandomSource,
    on_tokens: Callable[[int], None] | None = None,
) -> Iterator[Executor]:
    """The executor that the performance options name, for a plan's batches; its workers end with the block.

    Args:
        plan: the run's plan.
        stop: when a text ends.
        performance: this process or workers, and the width of a pass.
        model: the language model of this process.
        randomness: the source of all tokens.
        on_tokens: called with the number of tokens of each step; workers do not report them.

    Raises:
        PrivacyError: a seed was given, but workers take their randomness from their own systems.
    """
    if performance.executor == "local":
        yield _decoder(plan, model, stop, performance, randomness, on_tokens)
        return
    if not randomness.private:
        raise PrivacyError("executor = ray: workers take randomness from their own systems; use no seed with it")
    together = max(1, performance.width // plan.settings.batch_size) * performance.passes
    make = functools.partial(make_decoder, plan, stop, performance)
    with contextlib.closing(RayExecutor(performance, make, together=together)) as executor:
        yield executor


def make_decoder(plan: Plan, stop: StopRule, performance: PerformanceOptions) -> Decoder:
    """A decoder with its own model for a worker; the model is checked on the worker's machine."""
    model = models.load(plan.config.model, performance)
    return _decoder(plan, model, stop, checked_for(plan, model, performance), SystemRandomness())


def checked_for(plan: Plan, model: LanguageModel, performance: PerformanceOptions) -> PerformanceOptions:
    """The performance options once a model is checked for them on this machine: what the guarantee rests on.

    Where batches that share a pass move each other's rows, by a bit even, each has passes of its own (guarantee 7).

    Raises:
        ModelError: the guarantee cannot rest on this model here.
    """
    settings, rows = plan.settings, performance.width
    check = functools.partial(
        models.checked,
        model,
        batch_size=settings.batch_size,
        support=model.vocabulary_size if settings.support is Support.FULL else settings.k,
        movement=plan.row_movement,
    )
    if not check(rows=rows, most=plan.most_rows(rows)):
        rows = settings.batch_size
        check(rows=rows, most=plan.most_rows(rows))
    return performance.model_copy(update={"rows": rows})


def _decoder(
    plan: Plan,
    model: LanguageModel,
    stop: StopRule,
    performance: PerformanceOptions,
    randomness: RandomSource,
    on_tokens: Callable[[int], None] | None = None,
) -> Decoder:
    width, passes = performance.width, performance.passes
    return Decoder(
        model, plan.mechanism, stop, rows=width, passes=passes, randomness=randomness, on_tokens=on_tokens,
        private_tokens=plan.config.head,
    )  # fmt: skip
