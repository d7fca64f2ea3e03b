"""Language models behind one small Protocol (guarantee 4.1).

The decoder knows token ids only. A model keeps, for a *prefix* that is public and shared, its key-value cache, and for
a group of *rows* (the contexts of one batch) the caches of their prompts, so that nothing is computed twice.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from plainchant.arrays import Float32Array, IntArray

CACHE_STEP = 32
"""Caches are read, and made, up to a multiple of so many tokens: other rows' lengths must not show (guarantee 7)."""


class Rows(Protocol):
    """The contexts of one batch inside a model: caches of n rows that share no state with other groups of rows."""

    @property
    def count(self) -> int:
        """n, the number of rows; may be zero. Secret where the rows are private."""

    def rewind(self) -> None:
        """Forget every token after the prompt, keep the prompt's cache."""


class LanguageModel(Protocol):
    """A causal language model over token ids.

    Implementations must guarantee:

    * the logits of a row are a function of that row's own tokens, up to `numerical_slack` nats in any coordinate when
      the number, the length or the content of other rows changes (guarantee 7);
    * `encode(text, trusted=False)` never yields an id of `special` (guarantee 9: special tokens inside private text);
    * `prefill` and `open_rows` keep nothing on disk and log nothing of what they are given.
    """

    name: str
    vocabulary_size: int
    """V, the width of the logits."""
    context_length: int
    """The most tokens a row can hold, prompt and continuation together."""
    bytes_per_token: int
    """What one token of one row takes in a cache."""
    start_tokens: tuple[int, ...]
    """What opens every prompt (beginning of sequence), may be empty."""
    end_of_text: frozenset[int]
    """Ids after which a text is finished."""
    special: frozenset[int]
    """Ids that stand for no text: outside every support unless in `end_of_text` (guarantee 4.2)."""
    numerical_slack: float
    """Nats by which a logit may move when other rows change (guarantee 7); 0 for exact models."""

    def encode(self, text: str, *, trusted: bool) -> list[int]:
        """Token ids of a text, without `start_tokens`. Trusted (public) text may contain special tokens' names."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special ids left out."""

    def chat(self, user: str) -> str:
        """A user's message in the model's own chat format, up to where the assistant begins to speak (trusted text).

        Raises:
            ModelError: the model has no chat template.
        """

    def prefill(self, prefix: Sequence[int]) -> Any:
        """Computes a public prefix once; the result is passed to `open_rows` any number of times."""

    def open_rows(self, prefix: Any, suffixes: Sequence[Sequence[int]], *, room: int) -> Rows:
        """Rows that each continue `prefix` with their own suffix, with room for `room` further tokens.

        Suffixes may be empty and of different lengths, and there may be none at all.
        """

    def step(
        self, groups: Sequence[tuple[Rows, int]], supports: Sequence[IntArray] | None = None
    ) -> list[Float32Array]:
        """One forward pass: appends one token to every row of each group.

        Args:
            groups: rows, and the token that each of them reads.
            supports: for each group the ids whose logits are wanted, int64 [|S|]; None for all of them.

        Returns:
            For each group the next-token logits, float32 [n, |S|] or [n, V].
        """
