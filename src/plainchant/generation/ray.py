"""Reading, batches and embeddings on a Ray cluster (extra `ray`): each worker holds one model, only the driver commits.

* A text counts once the driver has committed it, which happens before it requests more. Ray never repeats its task.
* Texts that a lost worker had not delivered are written again by another worker, which starts from the budgets left
  after the committed texts. No place is delivered twice.
* Files are read and texts embedded by tasks that Ray repeats when they are lost: their results are the same each time.
* Private tokens, the rows of the sample and its key are sent to workers: the cluster's network, memory and spill
  directories are as private as the data.
"""

import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from plainchant.arrays import Float32Array
from plainchant.config import PerformanceOptions
from plainchant.data.embedding import Embedder, load_embedder
from plainchant.errors import MissingDependencyError, PlainchantError, RunError
from plainchant.generation.decoding import BatchWork, Decoder, FinishedText

# A run gives up after this many lost workers without a finished text in between.
MOST_LOST = 5
# Number of texts that a worker embeds at a time.
CHUNK = 128


class _Worker:
    """Runs in a separate process and holds one decoder or embedder."""

    def __init__(self, make: Callable[[], Any]):
        self._held = make()

    def write(self, works: Sequence[BatchWork]) -> Iterator[FinishedText]:
        """Yields the texts of some batches as they end."""
        with _HideForeignMessages():
            yield from self._held.run(works)

    def encode(self, texts: Sequence[str], alone: bool) -> Float32Array:
        """Embeds some texts."""
        with _HideForeignMessages():
            return np.asarray(self._held.encode(texts, alone=alone))


class _HideForeignMessages:
    """Hides the messages of exceptions from other libraries inside a worker: they may quote a record."""

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
    # a tool for private data must not send usage statistics
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
                "one with ray start --head, or omit ray_address to use workers on this machine"
            ) from None
    return ray


class _Pool:
    """Workers of one kind.

    Args:
        performance: the cluster's address, and how many workers.
        make: makes what a worker holds; called on the worker.
        repeats: how often Ray starts a lost worker again and repeats its task. A task that writes texts is never
            repeated: that would draw a place twice.
    """

    def __init__(self, performance: PerformanceOptions, make: Callable[[], Any], *, repeats: int = 0):
        self.ray = _ray(performance)
        options = {
            "num_cpus": performance.threads or 1,
            "num_gpus": int(performance.device.startswith("cuda")),
            "max_restarts": repeats,
            "max_task_retries": repeats,
        }
        self._start = functools.partial(self.ray.remote(**options)(_Worker).remote, make)
        self.workers = [self._start() for _ in range(performance.workers)]

    def replace(self, lost: Any) -> Any:
        """Replaces a lost worker by a new one."""
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
        make: makes a worker's decoder; called on the worker.
        together: number of batches that a worker gets at a time.
    """

    def __init__(self, performance: PerformanceOptions, make: Callable[[], Decoder], *, together: int):
        self._pool = _Pool(performance, make)
        self._together = together

    def run(self, works: Iterable[BatchWork]) -> Iterator[FinishedText]:
        """Yields texts in the order in which workers finish them.

        Raises:
            RunError: workers are lost repeatedly, or one failed.
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
                        f"{lost} workers were lost without a finished text; check the cluster's memory, then continue "
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
    """The rest of a batch after a text was delivered, with what its contexts have paid by then."""
    left = [position for position in work.positions if position != text.position]
    return work.only(left, np.array(text.spent) if text.spent else work.spent)


def read_on_workers(performance: PerformanceOptions, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """A function's results for some items, in order, from tasks on all processors of the cluster.

    Args:
        performance: the cluster's address.
        function: has no effect but its result, since a lost task is done again.
        items: its arguments.

    Raises:
        PlainchantError: one that the function raised.
        RunError: a task failed otherwise, or was lost again and again.
    """
    ray = _ray(performance)
    from ray.exceptions import RayError

    task = ray.remote(num_cpus=1, max_retries=MOST_LOST)(_quietly)
    try:
        return list(ray.get([task.remote(function, item) for item in items]))
    except RayError as error:
        cause = getattr(error, "cause", None)
        failed = f"reading failed on a worker ({type(error).__name__}); start it again"
        raise (cause if isinstance(cause, PlainchantError) else RunError(failed)) from None


def _quietly(function: Callable[[Any], Any], item: Any) -> Any:
    with _HideForeignMessages():
        return function(item)


class RayEmbedder:
    """An `Embedder` on the workers of a cluster; they end with each call. A lost one is started again."""

    def __init__(self, performance: PerformanceOptions, name: str, make: Callable[[], Embedder] | None = None):
        self.name = name
        self._performance = performance
        self._make = make or functools.partial(load_embedder, name, device=performance.device)

    def encode(
        self, texts: Sequence[str], *, alone: bool = False, progress: Callable[[float], None] | None = None
    ) -> Float32Array:
        """Embed texts; see `Embedder.encode`."""
        from ray.exceptions import RayActorError, RayTaskError
        from ray.util import ActorPool

        # a text's vector is a function of the text
        pool = _Pool(self._performance, self._make, repeats=MOST_LOST)
        chunks = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)] or [[]]
        found = []
        try:
            for vectors in ActorPool(pool.workers).map(lambda worker, own: worker.encode.remote(own, alone), chunks):
                found.append(vectors)
                if progress is not None:
                    progress(len(found) / len(chunks))
        except (RayActorError, RayTaskError) as error:
            raise RunError(f"embedding failed on a worker ({type(error).__name__}); continue with --resume") from None
        finally:
            pool.close()
        return np.concatenate(found)
