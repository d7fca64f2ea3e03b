"""Where the seconds and the memory of decoding go, seen through public hooks: torch's, and the decoder's observer."""

import contextlib
import gc
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from plainchant.arrays import Float32Array, IntArray
from plainchant.generation.decoding import BatchWork, Decoder, StepTiming, StopRule
from plainchant.models import LanguageModel
from plainchant.privacy.mechanisms import TokenMechanism
from plainchant.randomness import SystemRandomness
from speed.common import ROWS, WARM

PARTS = ("forward", "hand over", "support", "distribution", "cost", "rest")


def module_of(model: LanguageModel) -> Any:
    """The transformers model inside a backend, seen as torch runs it on one public token."""
    seen: list[Any] = []
    hook = nn.modules.module.register_module_forward_pre_hook(lambda module, _: seen.append(module))
    try:
        tokens = model.encode("a text", trusted=False)
        model.step([(model.open_rows(model.prefill([*model.start_tokens, *tokens]), [()], room=1), tokens[0])])
    finally:
        hook.remove()
    return next(module for module in seen if getattr(module, "get_output_embeddings", lambda: None)() is not None)


class Timed:
    """Stands for a mechanism, and counts the seconds in each of its methods."""

    def __init__(self, inner: TokenMechanism):
        self.inner = inner
        self.seconds: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return self._clock(name, value) if callable(value) else value

    def _clock(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = function(*values, **named)
            self.seconds[name] += time.perf_counter() - began  # type: ignore[assignment]
            return result

        return timed


@contextlib.contextmanager
def timed_passes(module: Any) -> Iterator[Counter[str]]:
    """Seconds of `forward`, passes with the head, and of `prompts`, passes of the body alone, which read prompts."""
    seconds: Counter[str] = Counter()
    running: list[tuple[str, float]] = []

    def begin(name: str) -> Callable[..., None]:
        return lambda *_: running.append((name, time.perf_counter()))

    def end(*_: Any) -> None:
        name, began = running.pop()
        # the body within a pass with the head is that pass's
        if not running:
            seconds[name] += time.perf_counter() - began  # type: ignore[assignment]

    hooks = [
        hook
        for name, part in (("forward", module), ("prompts", module.base_model))
        for hook in (part.register_forward_pre_hook(begin(name)), part.register_forward_hook(end))
    ]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def decode(
    model: LanguageModel,
    mechanism: TokenMechanism,
    works: Sequence[BatchWork],
    steps: int,
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    *,
    rows: int = ROWS,
    passes: int = 1,
) -> dict[str, float]:
    """Decodes some steps of all batches side by side; seconds by where they went, all a step's mean but `step`."""
    watched: Any = Timed(mechanism)
    timings: list[StepTiming] = []
    found: dict[str, float] = {}
    with timed_passes(module_of(model)) as clocked, contextlib.ExitStack() as inner:
        before = cache_tensors()

        def observe(timing: StepTiming) -> None:
            timings.append(timing)
            if len(timings) == WARM:
                found["prefill"] = clocked["prompts"]
                clocked.clear()
                watched.seconds.clear()
                inner.enter_context(around())
            if len(timings) == WARM + steps:
                inner.close()
                found["forward"] = clocked["forward"]
                found.update({name: watched.seconds[name] for name in ("support", "distribution", "cost")})
                found["cache bytes"] = sum(one.nbytes for key, one in cache_tensors().items() if key not in before)

        stop = StopRule(None, WARM + steps + 1, WARM + steps)
        decoder = Decoder(
            model, watched, stop, rows=rows, passes=passes, randomness=SystemRandomness(), observer=observe
        )
        assert len(list(decoder.run(works))) == len(works)
    each = timings[WARM : WARM + steps]
    if {timing.batches for timing in each} != {len(works)}:
        raise ValueError(f"{len(works)} batches are not written together at {passes} passes of {rows} rows; take fewer")
    private = sum(timing.private_pass for timing in each)
    public = sum(timing.public_pass for timing in each)
    found["hand over"] = private + public - found["forward"]
    found["rest"] = sum(timing.seconds for timing in each) - sum(found[part] for part in PARTS if part != "rest")
    found |= {"private pass": private, "public pass": public}
    means = {name: found[name] / steps for name in (*PARTS, "private pass", "public pass")}
    step = statistics.median(timing.seconds for timing in each)
    return means | {"step": step, "prefill": found["prefill"], "cache bytes": found["cache bytes"]}


def cache_tensors() -> dict[int, Tensor]:
    """All keys and values that are held at this moment, by where they lie: what outlives a pass and has four axes.

    Objects of other kinds are not touched: some of them do things when they are asked what they are.
    """
    return {
        one.data_ptr(): one for one in gc.get_objects() if type(one) is Tensor and one.ndim == 4 and one.numel()
    }  # fmt: skip


def resident() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Held:
    """Stands for a model, and notes the most that its caches, and this process, hold at any step."""

    def __init__(self, inner: LanguageModel):
        self.inner = inner
        self.most: Counter[str] = Counter()
        self._layers = module_of(inner).config.get_text_config().num_hidden_layers
        self._others = set(cache_tensors())
        self._base = resident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, groups: Sequence[tuple[Any, int]], supports: Sequence[IntArray] | None = None) -> list[Float32Array]:
        answers = self.inner.step(groups, supports)
        tensors = [one for key, one in cache_tensors().items() if key not in self._others]
        now = {"caches": sum(one.nbytes for one in tensors), "resident": resident() - self._base}
        # keys and values of every layer have a place for each row
        now |= {"rows": sum(rows.count for rows, _ in groups), "held": sum(map(len, tensors)) // (2 * self._layers)}
        self.most |= Counter(now)  # the larger of each
        return answers
