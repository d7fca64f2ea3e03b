"""Any causal language model that transformers loads, with a separate key-value cache."""

import contextlib
import functools
import io
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, pad
from transformers.utils import logging as transformers_logging

from plainchant.arrays import Float32Array, IntArray
from plainchant.errors import ConfigError, ModelError
from plainchant.models import Rows
from plainchant.models.conformance import moved_by
from plainchant.models.transformers.attention import CACHE_STEP, CURRENT_PASS, Cache, Pass, Segment, Texts
from plainchant.models.transformers.tokenizer import TextCoder

NUMERICAL_SLACK = {"float32": 1e-3, "bfloat16": 1e-3}
"""ξ of guarantee 7 by dtype, measured over batch shapes and lengths; a dtype that is not listed is refused. Below
float32, rows move by whole nats or not at all, depending on the machine's kernels, so every load measures again."""

HEAD_TOLERANCE = 1e-4
"""Nats by which a logit may differ between the head on a support and the whole head; a model that differs more keeps
the whole one."""

# Rows are filled in pieces of one length, and caches are read up to a multiple of another: kernels round differently
# for different shapes, and the lengths of other rows must not affect a row (guarantee 7).
_PIECE = 16
# Kernels compute a few rows, and the few that are left over by their blocks, in other ways. In passes of at least so
# many rows, and of a multiple of so many, a row has the same bits wherever it stands, whatever others do (guarantee 7).
_LEAST_ROWS, _ROW_STEP = 16, 8
# Some kernels cut sums into parts by the number of rows even then: of matrix units, and of several threads. There the
# products of a private pass have one shape, of so many rows: fewer are filled up, more are taken apart. Measured: of
# fewer they are slower, of more no faster.
_BLOCK = 128
# Logits of a head that show how it rounds: all of them would take long, and a step needs few.
_HEAD_ROWS = 1024
_PREFILL_TOKENS = 40 * _PIECE  # tokens per prefill pass: as many as are checked; more gains no speed
_DEFAULT_CONTEXT = 2_048
PROBE = "The library on Mill Street opens at nine.\n\nIt lends maps, films & tools, 🎵 and is free for everybody."
"""Public text on which the backend is compared with transformers' own forward pass."""


class TransformersRows:
    """Rows of one group: their cache, its filled length for each row, and prompts that are not processed yet."""

    def __init__(self, lengths: Tensor, longest: int, room: int, unread: "Texts") -> None:
        self._cache = unread[0]
        self._unread: Texts | None = unread
        self._most = longest + room
        self._prompt = (lengths, longest)
        self.rewind()

    @property
    def count(self) -> int:
        return self._cache.count

    def rewind(self) -> None:
        self._lengths, self._longest = self._prompt


class TransformersModel:
    """A `LanguageModel` over a transformers model and its tokenizer.

    Args:
        name: the model's name in plans and reports.
        model: a causal language model in float32; its attention is replaced by this module's.
        tokenizer: its tokenizer.
        dtype: the dtype it is converted to once its architecture is checked, a key of `NUMERICAL_SLACK`.

    Raises:
        ConfigError: the model's dtype has no measured numerical slack.
        ModelError: the architecture needs something this module does not compute, or a check on public text fails.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, dtype: str = "float32") -> None:
        self.name = name
        self._model = model.eval()
        self._device = model.device
        self.numerical_slack = numerical_slack(dtype)
        self.vocabulary_size = _vocabulary_size(name, model)
        self.context_length = _context_length(model.config.get_text_config())
        ends = [getattr(x, "eos_token_id", None) for x in (model.generation_config, model.config)]
        self._coder = TextCoder(name, tokenizer, self.vocabulary_size, ends)
        self.end_of_text, self.special = self._coder.end_of_text, self._coder.special
        self.start_tokens, self.largest_id = self._coder.start_tokens, self._coder.largest_id
        # Padding of a pass is a token like any other, of no row.
        self._filler = next((i for i in range(self.vocabulary_size) if i not in self.special), 0)
        self._restricted = False
        # kept for a model: looked at once for each shape, at load or when the number of threads changes
        self._even = functools.cache(_rounds_evenly)
        with quiet():
            self._bytes_per_token = self._check() * int(getattr(torch, dtype).itemsize)
            self._model.to(getattr(torch, dtype))
            for layer in filter(_is_plain_linear, self._model.modules()):
                layer.forward = self._evened(layer.forward, layer)
            self._restrict()

    def encode(self, text: str, *, trusted: bool) -> list[int]:
        """See `TextCoder.encode`."""
        return self._coder.encode(text, trusted=trusted)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `TextCoder.decode`."""
        return self._coder.decode(tokens)

    def chat(self, user: str) -> str:
        """See `TextCoder.chat`."""
        return self._coder.chat(user)

    def row_bytes(self, tokens: int) -> int:
        """Bytes for keys and values of all layers; caches are up to `CACHE_STEP` tokens larger than needed."""
        return (tokens + CACHE_STEP) * self._bytes_per_token

    @torch.inference_mode()
    def prefill(self, prefix: Sequence[int]) -> Cache:
        """Computes the cache of a public prefix: one row of `len(prefix)` tokens, which may be none."""
        cache = Cache(1, len(prefix))
        self._require(cache.capacity)
        for start in range(0, len(prefix), _PREFILL_TOKENS):
            part = prefix[start : start + _PREFILL_TOKENS]
            self._fill([(cache, [part], start)], len(part), private=False)
        return cache

    @torch.inference_mode()
    def open_rows(self, prefix: Cache, suffixes: Sequence[Sequence[int]], *, room: int) -> TransformersRows:
        """Rows that continue `prefix`, each with its own suffix, with room for `room` further tokens.

        The suffixes are processed at the first step, together with those of all other groups in that step.

        Raises:
            ModelError: a row could outgrow `context_length`.
        """
        sizes = [len(suffix) for suffix in suffixes]
        start, longest = prefix.capacity, max(sizes, default=0)
        self._require(start + longest + room)
        cache = Cache(len(suffixes), -(-(start + longest + room) // CACHE_STEP) * CACHE_STEP, prefix)
        lengths = torch.tensor(sizes, dtype=torch.long, device=self._device) + start
        return TransformersRows(lengths, start + longest, room, (cache, suffixes, start))

    @torch.inference_mode()
    def step(
        self, groups: Sequence[tuple[Rows, int]], supports: Sequence[IntArray] | None = None
    ) -> list[Float32Array]:
        """One forward pass: appends one token to every row of each group.

        Returns:
            For each group the next-token logits, float32 [n, |S|], or [n, V] as views of one array. If the supports are
            small, the head computes their logits only.

        Raises:
            ModelError: a group has no room left.
        """
        segments, tokens, asked, private = [], [], [], supports is not None
        ours = [(cast("TransformersRows", rows), token) for rows, token in groups]
        small = (
            self._restricted and supports is not None and 2 * max(map(len, supports), default=0) < self.vocabulary_size
        )
        if any(rows._longest >= rows._most for rows, _ in ours):
            raise ModelError("the rows have no room for another token; open them with a larger room")
        self._fill([rows._unread for rows, _ in ours if rows._unread is not None], _PIECE, private=private)
        for place, (rows, token) in enumerate(ours):
            rows._unread = None
            if rows.count:
                every = torch.arange(rows.count, device=self._device)
                stop = -(-(rows._longest + 1) // CACHE_STEP) * CACHE_STEP
                segments.append(Segment(rows._cache, every, rows._lengths[:, None], stop, whole=True))
                tokens.append(torch.full((rows.count, 1), token, device=self._device))
                if small and supports is not None:
                    asked.append(torch.from_numpy(supports[place]).to(self._device))
        logits = np.empty((0, self.vocabulary_size), dtype=np.float32)
        if segments:
            together = torch.cat(tokens)
            if private:
                # public passes are not padded: how many rows they have is public, and their heads are large
                short = max(_LEAST_ROWS - len(together), -len(together) % _ROW_STEP)
                together = pad(together, (0, 0, 0, short), value=self._filler)
            found = self._forward(self._model, segments, together, asked if small else None, private=private)
            logits = found.logits[:, 0].float().cpu().numpy()
        answers, first = [], 0
        for place, (rows, _) in enumerate(ours):
            rows._lengths, rows._longest = rows._lengths + 1, rows._longest + 1
            own = logits[first : (first := first + rows.count)]
            if supports is not None:
                own = own[:, : len(supports[place])] if small else np.take(own, supports[place], axis=1)
            answers.append(own)
        return answers

    def _fill(self, groups: Sequence[Texts], piece: int, *, private: bool) -> None:
        """Computes the caches of each group's texts, `piece` positions of a row at a time."""
        together = max(1, _PREFILL_TOKENS // piece)
        longest = max((len(text) for _, texts, _ in groups for text in texts), default=0)
        for offset in range(0, longest, piece):
            left = [(place, row) for place, (_, texts, _) in enumerate(groups) for row in range(len(texts))
                    if len(texts[row]) > offset]  # fmt: skip
            for first in range(0, len(left), together):
                segments, tokens = [], []
                for place, some in itertools.groupby(left[first : first + together], key=lambda found: found[0]):
                    cache, texts, start = groups[place]
                    rows = [row for _, row in some]
                    parts = [texts[row][offset : offset + piece] for row in rows]
                    tokens += [[token] for part in parts for token in part]
                    begin, end = start + offset, start + offset + piece
                    positions = torch.arange(begin, end, device=self._device).expand(len(rows), -1)
                    stop = min(-(-end // CACHE_STEP) * CACHE_STEP, cache.capacity)
                    where = torch.tensor(rows, device=self._device)
                    lengths = torch.tensor([len(part) for part in parts], device=self._device)
                    places = (torch.arange(piece, device=self._device) < lengths[:, None]).flatten().nonzero()[:, 0]
                    segments.append(Segment(cache, where, positions, stop, whole=False, places=places))
                # a pass is padded, not each of its rows
                tokens += [[self._filler]] * (-len(tokens) % _PIECE)
                self._forward(
                    self._model.base_model, segments, torch.tensor(tokens, device=self._device), private=private
                )

    def _forward(
        self,
        module: Any,
        segments: list[Segment],
        tokens: Tensor,
        supports: list[Tensor] | None = None,
        *,
        private: bool,
    ) -> Any:
        """Runs the model, or its body without the head, on the tokens [t, 1] of all segments, and others after them."""
        if tokens.numel() == 1:
            # a single row would be computed by other kernels than a row among others
            only, tokens = segments[0], tokens.repeat(2, 1)
            segments = [Segment(only.cache, only.rows.repeat(2), only.positions.repeat(2, 1), only.stop, whole=False)]
        current = Pass(segments, supports, private)
        self._windows = current.windows  # not the segments: their caches must not outlive their owners
        token = CURRENT_PASS.set(current)
        try:
            positions = torch.cat([segment.of_tokens(segment.positions) for segment in segments])
            # tokens of no row stand at the end
            positions = pad(positions, (0, len(tokens) - len(positions)))[:, None]
            return module(input_ids=tokens, position_ids=positions, use_cache=False)
        finally:
            CURRENT_PASS.reset(token)

    def _evened(self, product: Callable[..., Tensor], layer: Any) -> Callable[..., Tensor]:
        """A layer's product that has one shape in private passes, where this machine rounds by the number of rows."""
        if self._device.type != "cpu":
            return product
        outputs, width = layer.weight.shape
        shape = (_HEAD_ROWS if outputs == self.vocabulary_size else outputs, width)
        return functools.partial(
            _in_blocks, product, functools.partial(self._even, shape, layer.weight.dtype, self._device)
        )

    @torch.inference_mode()
    def _restrict(self) -> None:
        """Makes the head compute the logits of a support only, if that gives the same result as the whole head.

        Later changes of logits by the model (soft-capping, scales) stay in the model and are part of the comparison.
        """
        head: Any = self._model.get_output_embeddings()
        if not _is_plain_linear(head):
            return
        whole = head.forward

        def forward(hidden: Tensor) -> Any:
            current = CURRENT_PASS.get(None)
            if current is None or current.supports is None:
                return whole(hidden)
            logits = hidden.new_zeros(*hidden.shape[:-1], max(map(len, current.supports)))
            product = self._evened(linear, head)
            first = 0
            for segment, ids in zip(current.segments, current.supports, strict=True):
                here = slice(first, first := first + len(segment.rows))
                bias = None if head.bias is None else head.bias[ids]
                logits[here, ..., : len(ids)] = product(hidden[here], head.weight[ids], bias)
            return logits

        head.forward = forward
        prompt = [*self.start_tokens, *self.encode(PROBE, trusted=False)][:8]
        # as many as fill a pass, so that both steps have one shape
        suffixes = [[], prompt[-2:]] * (_LEAST_ROWS // 4)
        rows = [self.open_rows(self.prefill(prompt), suffixes, room=1) for _ in range(2)]
        last = prompt[-1] if prompt else self._filler
        ids = np.arange(0, self.vocabulary_size, max(3, self.vocabulary_size // 100), dtype=np.int64)
        supports, groups = [ids, ids[::2]], [(own, last) for own in rows]

        def logits(*, restricted: bool) -> list[Float32Array]:
            self._restricted = restricted
            for own in rows:
                own.rewind()
            return self.step(groups, supports)

        pairs = zip(logits(restricted=True), logits(restricted=False), strict=True)
        self._restricted = all(moved_by(part, whole) <= HEAD_TOLERANCE for part, whole in pairs)

    def _require(self, capacity: int) -> None:
        if capacity > self.context_length:
            raise ModelError(
                f"a row could outgrow the model's {self.context_length} tokens; shorten the prompts or max_tokens"
            )

    @torch.inference_mode()
    def _check(self) -> int:
        """Compares the cached path with transformers' own attention on a public text.

        Returns:
            Numbers per token of a row in a cache.

        Raises:
            ModelError: they differ by more than the numerical slack, or a layer hides its sliding window.
        """
        tokens = (self.encode(PROBE, trusted=False) or [self._filler])[:16]
        tokens = [*self.start_tokens, *tokens * (16 // len(tokens) + 1)][:16]
        texts = [tokens[:8] + tokens[14:], tokens]
        differences = []
        try:
            self._model.set_attn_implementation("eager")
            whole = [torch.tensor([text], device=self._device) for text in texts]
            plain = [self._model(input_ids=tokens, use_cache=False).logits[0] for tokens in whole]
            self._model.set_attn_implementation("plainchant")
            prefix = self.prefill(tokens[:5])
            rows = self.open_rows(prefix, [text[5:-2] for text in texts], room=2)
            for tail in (tokens[-2:], tokens[-2:-1]):
                rows.rewind()
                for offset, token in enumerate(tail):
                    for logits, ours in zip(plain, self.step([(rows, token)])[0], strict=True):
                        theirs = logits[offset - 2].float().cpu().numpy()
                        differences.append((theirs, ours))
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            message = f"model {self.name!r}: its architecture is not supported ({error}); use another model"
            raise ModelError(message) from error
        if not all(np.isfinite(logits).all() for pair in differences for logits in pair):
            raise ModelError(
                f"model {self.name!r}: its logits are not finite (NaN or infinite), so its weights are broken; fetch "
                "it again"
            )
        self._require_known_layers(max(moved_by(*pair) for pair in differences))
        return sum(x.shape[1] * x.shape[3] for layer in prefix.layers.values() for x in layer)

    def _require_known_layers(self, difference: float) -> None:
        """Refuses layers whose attention this module does not fully see, and cached logits that differ too much."""
        config = self._model.config.get_text_config()
        kind = getattr(config, "model_type", "unknown")
        layers = getattr(config, "layer_types", None) or [None] * config.num_hidden_layers
        # A window or a chunk that exists only in the mask would make a difference on long texts only.
        hidden = set(layers) - {None, "full_attention", "sliding_attention"} or any(
            window is None
            and (layer == "sliding_attention" or (layer is None and getattr(config, "sliding_window", None)))
            for layer, window in zip(layers, self._windows.values(), strict=False)
        )
        if len(self._windows) != len(layers):
            reason = (
                f"{len(self._windows)} of its {len(layers)} layers use attention by transformers' interface, and a "
                "layer that keeps a state of another kind cannot be cached here"
            )
        elif hidden:
            reason = "a layer hides its window or chunk of attention"
        elif _has_experts(config.to_dict()):
            reason = (
                "it sends rows to experts, and which rows an expert computes together depends on all rows of a pass"
            )
        elif not difference <= self.numerical_slack:
            reason = f"its cached logits differ by {difference:.2g} (allowed: {self.numerical_slack:g})"
        else:
            return
        raise ModelError(
            f"model {self.name!r} is not supported, because {reason} (architecture {kind!r}); use another model"
        )


def _vocabulary_size(name: str, model: Any) -> int:
    head = model.get_output_embeddings()
    if head is None or getattr(head, "weight", None) is None:
        raise ModelError(
            f"model {name!r} is not supported, because it has no output embeddings; give a causal language model"
        )
    return int(head.weight.shape[0])


def _has_experts(config: Mapping[str, Any]) -> bool:
    """Whether a text model's configuration names more than one expert, by whatever name its architecture has for it."""
    named = {name: value for name, value in config.items() if "expert" in name and "per_tok" not in name}
    return any(isinstance(value, int) and not isinstance(value, bool) and value > 1 for value in named.values())


def _is_plain_linear(layer: Any) -> bool:
    return type(layer) is torch.nn.Linear


def _rounds_evenly(shape: tuple[int, int], dtype: torch.dtype, device: torch.device, threads: int) -> bool:
    """Whether a row's products with a weight [n, d] have the same bits among few rows and among many.

    Both halves of a sum cancel, so that nothing but rounding is left: another order of additions shows in any dtype.
    Kernels round by the number of threads too: an answer is for the number that torch has when it is called.
    """
    source, (outputs, width) = np.random.default_rng(0), shape
    half = width // 2
    if not half:
        return True
    one, other = (
        torch.from_numpy(source.standard_normal((count, half), dtype=np.float32)).to(device)
        for count in (outputs, _PREFILL_TOKENS)
    )
    weight = torch.cat([one, one], dim=1).to(dtype)
    rows = torch.cat([other, -other], dim=1).to(dtype)
    counts = (_LEAST_ROWS, 24, 40, 72, _BLOCK, 256, _PREFILL_TOKENS)
    few, *others = (linear(rows[:count], weight)[:_LEAST_ROWS] for count in counts)
    return all(bool((other == few).all()) for other in others)


def _in_blocks(product: Callable[..., Tensor], even: Callable[[int], bool], hidden: Tensor, *others: Any) -> Tensor:
    """A product of every row of [..., d]; in a private pass, unless it is even, `_BLOCK` of them at a time.

    The last ones are filled up. `even` says for a number of threads whether rows round evenly.
    """
    current = CURRENT_PASS.get(None)
    if current is None or not current.private or even(torch.get_num_threads()):
        return product(hidden, *others)
    rows = hidden.flatten(0, -2)
    filled = pad(rows, (0, 0, 0, -len(rows) % _BLOCK))
    blocks = [product(filled[first : first + _BLOCK], *others) for first in range(0, len(filled), _BLOCK)]
    return torch.cat(blocks)[: len(rows)].reshape(*hidden.shape[:-1], -1)


def numerical_slack(dtype: str) -> float:
    """The numerical slack of a dtype; refuses a dtype without one."""
    if dtype not in NUMERICAL_SLACK:
        known = ", ".join(NUMERICAL_SLACK)
        raise ConfigError(f"dtype = {dtype!r} has no measured numerical slack (guarantee 7); use {known}")
    return NUMERICAL_SLACK[dtype]


def _context_length(config: Any) -> int:
    """Maximum positions by the configuration, limited so that rotary frequencies do not depend on other rows."""
    length = int(getattr(config, "max_position_embeddings", None) or _DEFAULT_CONTEXT)
    rope = getattr(config, "rope_parameters", None) or {}
    for entry in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if entry.get("rope_type") in {"dynamic", "longrope"}:  # they change with the longest row of a pass
            original = "original_max_position_embeddings"
            length = min(length, int(entry.get(original) or getattr(config, original, None) or length))
    return length


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps progress bars and advice of transformers off the terminal, to which only the console writes."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
