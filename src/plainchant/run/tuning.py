"""Measures on public text and this machine how wide a forward pass should be and how long a run takes."""

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plainchant.arrays import IntArray
from plainchant.config import USUAL_ROWS, PerformanceOptions
from plainchant.errors import ConfigError
from plainchant.generation.decoding import KEPT_PREFIXES, BatchWork, Decoder
from plainchant.generation.prompting import Prompts
from plainchant.models import LanguageModel, device_memory
from plainchant.planning import Plan
from plainchant.privacy.aggregation import Support
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.randomness import SystemRandomness
from plainchant.run.progress import Progress
from plainchant.run.writers import Loaded


@dataclass(frozen=True)
class Measured:
    """What a short trial on public text found, on this machine.

    Attributes:
        expected_range: root mean square range of a context's clipped row, nats: a value for `config.expected_range`.
        tokens_per_text: mean tokens of the trial's texts.
        ended: share of the trial's texts that ended by themselves, not at `max_tokens`.
        seconds: about how long writing the requested texts takes, without loading and embedding the records.
    """

    expected_range: float
    tokens_per_text: float
    ended: float
    seconds: float


def measure(plan: Plan, model: LanguageModel, texts: Sequence[str], *, rows: int, passes: int = 1) -> Measured:
    """Writes a few texts from public ones instead of records, in batches of the plan's size (guarantee 6.2).

    Args:
        plan: the plan to measure.
        model: the language model.
        texts: public texts, at least one; texts similar to the private data give the best estimate.
        rows: approximate number of private rows per forward pass, as for the run.
        passes: number of those for each pass of public rows, as for the run.
    """
    config = plan.config
    loaded = Loaded.of(model, config)
    prompts = loaded.prompts
    # a budget too large to use up, and no slack, so that payments depend on ranges alone
    settings = dataclasses.replace(plan.settings, slack=0.0)
    mechanism = IndividualMeanMechanism(settings, 1e9, config.max_tokens)
    decoder = Decoder(model, mechanism, loaded.stop, rows=rows, passes=passes, randomness=SystemRandomness())
    turns = itertools.cycle(texts)

    def work(number: int) -> BatchWork:
        label = config.label_set[number % len(config.label_set)]
        together = plan.settings.records_per_context
        records = [
            prompts.records(list(itertools.islice(turns, together)), label) for _ in range(plan.settings.batch_size)
        ]
        return BatchWork(number, tuple(prompts.prefix(label)), tuple(prompts.start(label)), records, (0,))

    together = max(1, rows // plan.settings.batch_size) * passes
    began = time.perf_counter()
    written = list(decoder.run([work(number) for number in range(together)]))
    seconds = (time.perf_counter() - began) * config.written / len(written)
    tokens = sum(text.tokens for text in written)
    # guarantee 5.2, solved for the range: a record of range r pays (g·r/(sτ))²/8 per token
    paid = sum(sum(text.spent) for text in written) / (tokens * settings.batch_size)
    expected_range = math.sqrt(8 * paid) * settings.batch_size * settings.temperature / settings.guidance
    ended = sum(text.finish != "length" for text in written) / len(written)
    return Measured(expected_range, tokens / len(written), ended, seconds)


# Keep doubling the width of a pass while throughput grows by GROWTH, for at most PATIENCE seconds.
GROWTH, PATIENCE = 1.1, 2.0
# Steps per width; the fastest counts, since other load makes steps slower and never faster.
TRIALS = 2


def fastest_rows(
    model: LanguageModel,
    prompt: Sequence[int],
    support: IntArray,
    *,
    batch_size: int,
    most: float,
    passes: int = 1,
) -> int:
    """The number of rows per forward pass for this machine: from 64, doubled while rows per second grow by a tenth.

    Public: a function of the model, the machine and made-up rows; no record is looked at (guarantee 4.1, 7).

    Args:
        model: the language model.
        prompt: the public tokens of every row, at least one.
        support: ids whose logits a step needs, int64 [|S|].
        batch_size: s.
        most: maximum rows that fit into memory; one batch is always measured.
        passes: of private rows for each one of public rows.

    Returns:
        A multiple of the batch size.
    """
    prefix, token = model.prefill(prompt[:-1]), prompt[-1]
    began = time.perf_counter()
    best = batches = max(1, int(min(USUAL_ROWS, most)) // batch_size)
    fastest = 0.0
    while True:
        # a step of the decoder: the public rows in a separate pass, then the private ones
        groups = [
            [(model.open_rows(prefix, [[]] * rows, room=TRIALS), token) for _ in range(count)]
            for rows, count in ((1, batches * passes), (batch_size, batches))
        ]
        seconds = []
        for _ in range(TRIALS):
            start = time.perf_counter()
            model.step(groups[0])
            middle = time.perf_counter()
            model.step(groups[1], [support] * batches)
            seconds.append((middle - start) / passes + time.perf_counter() - middle)
        speed = batches * batch_size / min(seconds)
        if speed < fastest * GROWTH ** math.log2(batches / best):
            return best * batch_size
        best, fastest, batches = batches, speed, int(min(2 * batches, most // batch_size))
        # the next width takes about as long as all previous ones together
        if batches <= best or time.perf_counter() - began > PATIENCE:
            return best * batch_size


# Share of the device's memory for caches, where the options set neither rows nor memory.
MEMORY_SHARE = 0.25


def with_width(
    performance: PerformanceOptions, model: LanguageModel, prompts: Prompts, plan: Plan, progress: Progress
) -> PerformanceOptions:
    """Sets the rows per pass: the requested or the fastest number, limited by memory for the caches.

    Memory is estimated from public lengths, since the true ones are secret.
    """
    row = model.row_bytes(prompts.longest) / 2**30
    size, memory, rows = plan.settings.batch_size, performance.memory, performance.rows
    # the contexts of a batch, of which there may be more than s, and its public one; the prefixes come on top
    batch, prefixes = (size + math.sqrt(size) + 1) * row, KEPT_PREFIXES * row
    if memory is not None and memory < batch + prefixes:
        raise ConfigError(
            f"memory = {memory:g}: a batch of {size} contexts of up to {prompts.longest} tokens takes about "
            f"{batch + prefixes:.2g} GiB; allow that, or lower max_record_tokens, max_tokens or batch_size"
        )
    if memory is None and rows == "auto":
        memory = device_memory(performance) * MEMORY_SHARE
    # batches that fit; where they are few, a private pass keeps its width and the public one has fewer rows
    fit = math.inf if memory is None else max(1, int((memory - prefixes) / batch))
    most = fit * size
    if rows == "auto":
        # about half the longest context
        prompt = [*prompts.prefix(plan.config.label_set[0]), *prompts.start(plan.config.label_set[0])]
        prompt = [*prompt, *prompt[-1:] * (prompts.longest // 2 - len(prompt))]
        full, k = plan.settings.support is Support.FULL, min(plan.settings.k, model.vocabulary_size)
        # of the whole vocabulary too: a pass without a support is a public one
        support, passes = np.arange(model.vocabulary_size if full else k), performance.passes
        rows = fastest_rows(model, prompt, support, batch_size=size, most=most, passes=passes)
        progress.stage(f"measuring speed: {rows} rows per forward pass", 1.0)
    rows = int(min(rows, most))
    passes = int(max(1, min(performance.passes, fit // max(1, rows // size))))
    return performance.model_copy(update={"rows": rows, "passes": passes})
