"""A language model given as a function from tokens to logits: exact, for tests and proofs (guarantee 10)."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from plainchant.arrays import Float32Array, IntArray
from plainchant.errors import ModelError
from plainchant.models import Rows

Tokens = tuple[int, ...]


@dataclass(eq=False)
class TableRows:
    """Rows as plain tokens: those of each prompt, and those appended since."""

    prompts: list[Tokens]
    room: int
    appended: Tokens = ()

    @property
    def count(self) -> int:
        return len(self.prompts)

    def rewind(self) -> None:
        self.appended = ()


class TableModel:
    """A `LanguageModel` whose logits are looked up.

    Args:
        vocabulary: the string of each token id; an empty string can be decoded but never encoded.
        table: all tokens of a row (prefix, suffix, appended) -> V logits.
        end_of_text: ids that end a text; they are the special ids.
        context_length: maximum tokens of a row.
        start_tokens: the tokens at the start of every prompt.

    Attributes:
        forward_passes: calls of `step` with at least one row.
        row_steps: rows over all calls of `step`.
    """

    name = "table"
    numerical_slack = 0.0

    def __init__(
        self,
        vocabulary: Sequence[str],
        table: Callable[[Tokens], npt.ArrayLike],
        *,
        end_of_text: Collection[int] = (),
        context_length: int = 1_024,
        start_tokens: Sequence[int] = (),
    ) -> None:
        self.vocabulary_size = len(vocabulary)
        self.largest_id = self.vocabulary_size - 1
        self.context_length = context_length
        self.start_tokens = tuple(start_tokens)
        self.end_of_text = frozenset(end_of_text)
        self.special = self.end_of_text
        self.forward_passes = self.row_steps = 0
        self._vocabulary = tuple(vocabulary)
        self._table = table
        self._longest_first = sorted((word, i) for i, word in enumerate(vocabulary) if word)
        self._longest_first.sort(key=lambda entry: -len(entry[0]))

    def row_bytes(self, tokens: int) -> int:
        """Eight bytes per token, as if a cache held ids only."""
        return 8 * tokens

    def encode(self, text: str, *, trusted: bool) -> list[int]:
        """The longest token that matches at each place; characters that no token starts with are dropped."""
        tokens, place = [], 0
        while place < len(text):
            for word, i in self._longest_first:
                if text.startswith(word, place) and (trusted or i not in self.special):
                    tokens.append(i)
                    place += len(word)
                    break
            else:
                place += 1
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The strings of the tokens in a row, special ids left out."""
        return "".join(self._vocabulary[i] for i in tokens if i not in self.special)

    def chat(self, user: str) -> str:
        """Refused: a table has no chat format."""
        raise ModelError("a table model has no chat template")

    def prefill(self, prefix: Sequence[int]) -> Tokens:
        """The prefix itself."""
        return tuple(prefix)

    def open_rows(self, prefix: Tokens, suffixes: Sequence[Sequence[int]], *, room: int) -> TableRows:
        """Rows of `prefix` and each suffix.

        Raises:
            ModelError: a row could outgrow `context_length`.
        """
        prompts = [prefix + tuple(suffix) for suffix in suffixes]
        if max(map(len, prompts), default=0) + room > self.context_length:
            raise ModelError(
                f"a row could outgrow the model's {self.context_length} tokens; shorten the prompts or max_tokens"
            )
        return TableRows(prompts, room)

    def step(
        self, groups: Sequence[tuple[Rows, int]], supports: Sequence[IntArray] | None = None
    ) -> list[Float32Array]:
        """Appends one token to every row of each group; for each group the logits, float32 [n, |S|] or [n, V].

        Raises:
            ModelError: a group has no room left.
        """
        ours = [(cast("TableRows", rows), token) for rows, token in groups]
        if any(len(rows.appended) >= rows.room for rows, _ in ours):
            raise ModelError("the rows have no room for another token; open them with a larger room")
        logits = []
        for rows, token in ours:
            rows.appended = (*rows.appended, token)
            found = [np.asarray(self._table(prompt + rows.appended), dtype=np.float64) for prompt in rows.prompts]
            logits.append(np.array(found, dtype=np.float32).reshape(rows.count, self.vocabulary_size))
        self.forward_passes += any(rows.count for rows, _ in groups)
        self.row_steps += sum(rows.count for rows, _ in groups)
        return logits if supports is None else [x[:, ids] for x, ids in zip(logits, supports, strict=True)]
