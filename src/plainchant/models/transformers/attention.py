"""Caches of rows and the attention over them, instead of those of transformers.

The caches of transformers pad the rows of a batch to one length. Here index equals position in every row: there is no
padding between a row's tokens, so a row's sliding windows and rotary positions do not depend on other rows (guarantee
4.1, 7). Only attention handles the groups of rows separately; everything else runs on all rows at once.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from plainchant.errors import ModelError

CACHE_STEP = 32
"""Cache sizes are multiples of this many tokens: other rows' lengths must not affect a row (guarantee 7)."""

_IGNORED_ARGUMENTS = {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits",
                      "return_dict", "logits_to_keep"}  # fmt: skip


@dataclass(eq=False)
class Cache:
    """Keys and values of n rows: for each layer two tensors [n, kv_heads, capacity, head_dim] in the model's dtype."""

    count: int
    capacity: int
    prefix: "Cache | None" = None
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def layer(self, index: int, like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The tensors of a layer, made at first use (the model determines their shapes), beginning with the prefix."""
        if index not in self.layers:
            # Zeros, not empty memory: a masked NaN would still spoil the sum.
            made = [x.new_zeros(self.count, x.shape[1], self.capacity, x.shape[3]) for x in like]
            if self.prefix is not None and self.prefix.capacity:
                for ours, public in zip(made, self.prefix.layers[index], strict=True):
                    ours[:, :, : self.prefix.capacity] = public
            self.layers[index] = (made[0], made[1])
        return self.layers[index]


# Texts to process into a cache: one for each of its rows, all starting at the same position.
Texts = tuple[Cache, Sequence[Sequence[int]], int]


@dataclass(eq=False)
class Segment:
    """Rows of one cache within a forward pass.

    Attributes:
        cache: holds their keys and values.
        rows: int64 [m], indices of rows in the cache.
        positions: int64 [m, q], positions of their new tokens; the first one of a row is always there.
        stop: number of positions of the cache that are read.
        whole: whether `rows` are all rows in order, so that reading the cache needs no copy.
        places: int64 [t], which of the m * q places have a token, in order; None for all. Nothing else of a model is
            computed, nor stored, at the others.
    """

    cache: Cache
    rows: Tensor
    positions: Tensor
    stop: int
    whole: bool
    places: Tensor | None = None
    masks: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """t, the number of new tokens."""
        return self.positions.numel() if self.places is None else len(self.places)

    def extend(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes keys and values [t, kv_heads, 1, d] at their positions; returns the rows' [m, kv_heads, stop, d]."""
        stored = self.cache.layer(index, (key, value))
        rows = self.of_tokens(self.rows[:, None].expand_as(self.positions))
        for tensor, new in zip(stored, (key, value), strict=True):
            tensor[rows, :, self.of_tokens(self.positions)] = new[:, :, 0]
        keys, values = (x[:, :, : self.stop] if self.whole else x[self.rows, :, : self.stop] for x in stored)
        return keys, values

    def of_tokens(self, placed: Tensor) -> Tensor:
        """Of something at every place, [m, q, ...], what is at those with a token, [t, ...]."""
        flat = placed.flatten(0, 1)
        return flat if self.places is None else flat[self.places]

    def placed(self, of_tokens: Tensor) -> Tensor:
        """Something of every token, [t, ...], at its place, [m, q, ...]; zeros elsewhere."""
        flat = of_tokens
        if self.places is not None:
            flat = of_tokens.new_zeros(self.positions.numel(), *of_tokens.shape[1:])
            flat[self.places] = of_tokens
        return flat.reshape(*self.positions.shape, *flat.shape[1:])

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
class Pass:
    """Data of one forward pass for the attention function and the head, and the sliding windows that layers use.

    Attributes:
        segments: the rows in the pass.
        supports: for each segment the ids whose logits are needed, int64 [|S|]; None for all.
        private: whether how many rows there are is secret.
        windows: the sliding window of each layer.
    """

    segments: list[Segment]
    supports: list[Tensor] | None = None
    private: bool = False
    windows: dict[int, int | None] = field(default_factory=dict)


CURRENT_PASS: ContextVar[Pass] = ContextVar("plainchant_pass")


def attention(
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
        query: [tokens, heads, 1, d].
        key: [tokens, kv_heads, 1, d].
        value: [tokens, kv_heads, 1, d_value].
        attention_mask: must be None; the mask follows from the positions.
        dropout: must be 0.
        scaling: factor of the scores, None for 1/sqrt(d).
        sliding_window: a query at p sees the keys in (p - window, p].
        softcap: scores are squashed to (-softcap, softcap).
        is_causal: must not be False.
        **others: refused, unless empty or harmless.

    Returns:
        [tokens, 1, heads, d_value] in the query's dtype, and None instead of the weights; zeros for tokens of no row.

    Raises:
        ModelError: the layer needs something that is not computed here.
    """
    refused = sorted(k for k, v in others.items() if k not in _IGNORED_ARGUMENTS and v is not None and v is not False)
    causal = getattr(module, "is_causal", True) and is_causal is not False
    if refused or attention_mask is not None or dropout or not causal:
        raise ModelError(
            f"{type(module).__name__} needs attention that is not computed here {refused}; use another model"
        )
    current = CURRENT_PASS.get()
    current.windows[module.layer_idx] = sliding_window
    heads, _, width = query.shape[1:]
    output = query.new_zeros(len(query), 1, heads, value.shape[-1])
    first = 0
    for segment in current.segments:
        here, (rows, length) = slice(first, first := first + segment.tokens), segment.positions.shape
        keys, values = segment.extend(module.layer_idx, key[here], value[here])
        kv_heads = keys.shape[1]
        # The query heads of one key head are adjacent, so the keys need no copies.
        placed = segment.placed(query[here, :, 0]).transpose(1, 2)
        queries = placed.reshape(rows, kv_heads, heads // kv_heads * length, width)
        mask = segment.mask(sliding_window, heads // kv_heads)
        if softcap is None:
            attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scaling)
        else:
            scores = queries @ keys.transpose(2, 3) * (width**-0.5 if scaling is None else scaling)
            scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~mask, -torch.inf)
            attended = scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
        attended = attended.reshape(rows, heads, length, values.shape[-1]).transpose(1, 2)
        output[here, 0] = segment.of_tokens(attended)
    return output, None


transformers.AttentionInterface.register("plainchant", attention)  # no mask of that name: transformers makes none
