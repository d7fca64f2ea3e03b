"""Batches and embeddings over a Ray cluster (extra `ray`): a worker holds one model, the driver alone commits.

* A text counts when the driver commits it, before it asks for more; Ray itself never runs anything twice.
* What a lost worker had not handed over is written again by another, from the sums that its batch's committed texts
  have left; no place is handed over twice.
* Private tokens travel to the workers: the cluster's network, memory and spill directories are as private as the data.
"""

import dataclasses
import functools
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from plainchant.aggregation import IndexArray
from plainchant.config import USUAL_ROWS, PerformanceOptions
from plainchant.decoding import BatchWork, Decoder, FinishedText, StopRule
from plainchant.embedding import Embedder, FloatArray, load_embedder
from plainchant.errors import MissingDependencyError, PlainchantError, RunError
from plainchant.models import LanguageModel
from plainchant.planning import Plan
from plainchant.randomness import SystemRandomness

# So many workers may be lost without a text in between before a run gives up.
MOST_LOST = 5
# Texts that a worker embeds at a time.
CHUNK = 128
# A pass is doubled while rows a second still grow so many times, and for so many seconds.
GROWTH, PATIENCE = 1.1, 2.0
# Steps of each width; the fastest counts, since a busy machine makes steps slower and never faster.
TRIALS = 2


class Executor(Protocol):
    """Writes texts for batches; `decoding.Decoder` is the one for this process."""

    def run(self, works: Iterable[BatchWork]) -> Iterator[FinishedText]:
        """Yields texts as they end, each place once."""


class _Worker:
    """Lives in a process of its own and holds one decoder or embedder."""

    def __init__(self, make: Callable[[], Any]):
        self._held = make()

    def write(self, works: Sequence[BatchWork]) -> Iterator[FinishedText]:
        """Yields the texts of some batches as they end."""
        with _Discreet():
            yield from self._held.run(works)

    def encode(self, texts: Sequence[str], alone: bool) -> FloatArray:
        """Embeds some texts."""
        with _Discreet():
            return np.asarray(self._held.encode(texts, alone=alone))


class _Discreet:
    """Lets no message of a foreign exception out of a worker: it may quote a record."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None and not isinstance(error, PlainchantError | GeneratorExit):
            raise RunError(f"a worker failed with {type(error).__name__}; its message is not shown") from None


def _ray(performance: PerformanceOptions) -> Any:
    """Ray, connected.

    Raises:
        MissingDependencyError: it is not installed.
        RunError: the cluster cannot be reached.
    """
    # a tool for private data reports nothing about its use
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("executor = ray needs: pip install 'plainchant[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(
                address=performance.ray_address,
                log_to_driver=False,
                include_dashboard=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(
                f"ray_address = {performance.ray_address!r}: no cluster answers there ({type(error).__name__}); start "
                "one with ray start --head, or leave it out for workers on this machine"
            ) from None
    return ray


class _Pool:
    """Workers of one kind."""

    def __init__(self, performance: PerformanceOptions, make: Callable[[], Any]):
        self.ray = _ray(performance)
        options = {
            "num_cpus": performance.threads or 1,
            "num_gpus": int(performance.device.startswith("cuda")),
            # a task that Ray ran again by itself would draw a place twice
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._start = functools.partial(self.ray.remote(**options)(_Worker).remote, make)
        self.workers = [self._start() for _ in range(performance.workers)]

    def replace(self, lost: Any) -> Any:
        """A new worker in the place of a lost one."""
        self.workers.remove(lost)
        self.workers.append(self._start())
        return self.workers[-1]

    def close(self) -> None:
        """Ends all workers."""
        for worker in self.workers:
            self.ray.kill(worker)
        self.workers = []


class RayExecutor:
    """Decodes batches on the workers of a cluster.

    Args:
        performance: workers, address, and what each worker computes on.
        make: makes a worker's decoder; called there.
        together: batches that a worker is given at a time.
    """

    def __init__(self, performance: PerformanceOptions, make: Callable[[], Decoder], *, together: int):
        self._pool = _Pool(performance, make)
        self._together = together

    def run(self, works: Iterable[BatchWork]) -> Iterator[FinishedText]:
        """Yields texts as they end, in whatever order workers finish them.

        Raises:
            RunError: workers are lost again and again, or one failed.
        """
        from ray.exceptions import RayActorError, RayTaskError

        ray, waiting, lost = self._pool.ray, iter(works), 0
        idle = list(self._pool.workers)
        running: dict[Any, tuple[Any, dict[int, BatchWork]]] = {}
        while True:
            while idle and (own := list(itertools.islice(waiting, self._together))):
                worker = idle.pop()
                running[worker.write.remote(own)] = worker, {work.batch: work for work in own}
            if not running:
                return
            stream = ray.wait(list(running), num_returns=1)[0][0]
            worker, left = running[stream]
            try:
                text: FinishedText = ray.get(next(stream))
            except StopIteration:
                del running[stream]
                idle.append(worker)
            except RayActorError:
                lost += 1
                if lost >= MOST_LOST:
                    raise RunError(
                        f"{lost} workers were lost without a finished text; look at the cluster's memory, then go on "
                        "with --resume"
                    ) from None
                del running[stream]
                idle.append(self._pool.replace(worker))
                waiting = itertools.chain([work for work in left.values() if work.positions], waiting)
            except RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, PlainchantError) else RunError("a worker failed")) from None
            else:
                lost = 0
                left[text.batch] = _without(left[text.batch], text)
                yield text

    def close(self) -> None:
        """Ends all workers."""
        self._pool.close()


def _without(work: BatchWork, text: FinishedText) -> BatchWork:
    """What is left of a batch once a text is there, and what its contexts have paid by then."""
    positions = [position for position in work.positions if position != text.position]
    spent = np.array(text.spent) if text.spent else work.spent
    return dataclasses.replace(work, positions=positions, spent=spent)


class RayEmbedder:
    """An `Embedder` on the workers of a cluster; they end with each call."""

    def __init__(self, performance: PerformanceOptions, name: str, make: Callable[[], Embedder] | None = None):
        self.name = name
        self._performance = performance
        self._make = make or functools.partial(load_embedder, name, device=performance.device)

    def encode(
        self, texts: Sequence[str], *, alone: bool = False, progress: Callable[[float], None] | None = None
    ) -> FloatArray:
        """Embed texts; see `Embedder.encode`."""
        from ray.exceptions import RayActorError, RayTaskError
        from ray.util import ActorPool

        pool = _Pool(self._performance, self._make)
        chunks = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)] or [[]]
        found = []
        try:
            for vectors in ActorPool(pool.workers).map(lambda worker, own: worker.encode.remote(own, alone), chunks):
                found.append(vectors)
                if progress is not None:
                    progress(len(found) / len(chunks))
        except (RayActorError, RayTaskError) as error:
            raise RunError(f"embedding failed on a worker ({type(error).__name__}); go on with --resume") from None
        finally:
            pool.close()
        return np.concatenate(found)


def load_on(name: str, performance: PerformanceOptions) -> LanguageModel:
    """A language model by path or name, as the performance options want it."""
    from plainchant.models.transformers import load_model

    return load_model(name, device=performance.device, dtype=performance.dtype, threads=performance.threads)


def memory_on(performance: PerformanceOptions) -> float:
    """GiB of the device that the performance options name."""
    from plainchant.models.transformers import device_memory

    return device_memory(performance.device)


def fastest_rows(
    model: LanguageModel, prompt: Sequence[int], support: IndexArray | None, *, batch_size: int, most: float
) -> int:
    """How many rows a forward pass should hold here: from 64 on, doubled while rows a second grow by a tenth.

    Public: a function of the model, the machine and made-up rows; no record is looked at (spec 4.1, 7).

    Args:
        model: the language model.
        prompt: public tokens that every row stands for, at least one.
        support: ids whose logits a step wants, int64 [|S|]; None for all.
        batch_size: s.
        most: rows that memory allows; one batch is always measured.

    Returns:
        A multiple of the batch size.
    """
    prefix, token = model.prefill(prompt[:-1]), prompt[-1]
    began = time.perf_counter()
    best = batches = max(1, int(min(USUAL_ROWS, most)) // batch_size)
    fastest = 0.0
    while True:
        # a step of the decoder: the public rows in a pass of their own, then the private ones
        groups = [
            [(model.open_rows(prefix, [[]] * rows, room=TRIALS), token) for _ in range(batches)]
            for rows in (1, batch_size)
        ]
        seconds = []
        for _ in range(TRIALS):
            start = time.perf_counter()
            model.step(groups[0])
            model.step(groups[1], None if support is None else [support] * batches)
            seconds.append(time.perf_counter() - start)
        speed = batches * batch_size / min(seconds)
        if speed < fastest * GROWTH ** math.log2(batches / best):
            return best * batch_size
        best, fastest, batches = batches, speed, int(min(2 * batches, most // batch_size))
        # the next width takes about as long as all before
        if batches <= best or time.perf_counter() - began > PATIENCE:
            return best * batch_size


def make_decoder(plan: Plan, stop: StopRule, performance: PerformanceOptions) -> Decoder:
    """A decoder with a model of its own, as a worker needs it."""
    model = load_on(plan.config.model, performance)
    return Decoder(model, plan.mechanism, stop, rows=performance.width, randomness=SystemRandomness())
