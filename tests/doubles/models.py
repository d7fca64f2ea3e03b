"""Table models that note how they are used, or have a clock of their own."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from plainchant.arrays import Float32Array, IntArray
from plainchant.models.table import TableModel, TableRows

WORDS = ("<eos>", "Text:", "\n", " a", " b", " c", "<sep>")
Groups = Sequence[tuple[Any, int]]


class Spy(TableModel):
    """Logits grow with what a row holds; notes how it is used.

    Attributes:
        rooms: the room of each group of rows that was opened.
        calls: for each pass its groups: whether the row is public, what the rows hold, the token that they read.
    """

    def __init__(self, end: float = -1.0):
        def table(row: tuple[int, ...]) -> Any:
            counts = np.bincount(row, minlength=len(WORDS))
            return np.array([end, -5, -2, 0, 0, 0, -9]) + 0.7 * counts * [0, 0, 0, 1, 1, 1, 0]

        super().__init__(WORDS, table, end_of_text={0}, context_length=128)
        self.special = frozenset({0, 6})
        self.rooms: list[int] = []
        self.calls: list[list[Any]] = []

    def open_rows(self, prefix: Any, suffixes: Sequence[Sequence[int]], *, room: int) -> Any:
        rows: Any = super().open_rows(prefix, suffixes, room=room)
        # nothing before the last prompt token: the public row; a record has at least its frame
        rows.public = [list(suffix) for suffix in suffixes] == [[]]
        self.rooms.append(room)
        return rows

    def entries(self, row: Sequence[int], token: int) -> set[str]:
        """The texts that a row was shown, by what it holds and the token that it reads: all but the one it writes."""
        return {shown.strip() for shown in self.decode([*row, token]).split("Text:")[1:-1]}

    def step(self, groups: Groups, supports: Sequence[IntArray] | None = None) -> list[Float32Array]:
        self.calls.append(
            [(rows.public, [(*p, *rows.appended) for p in rows.prompts], token) for rows, token in groups]
        )
        return super().step(groups, supports)


class Letters(TableModel):
    """Every character of a small alphabet is a token; one special token, and a chat format of its own."""

    def __init__(self, context_length: int = 500):
        words = ["<s>", "</s>", *(chr(code) for code in range(32, 127)), "\n", "\r", "\t"]
        super().__init__(words, lambda _: [0.0], end_of_text={1}, context_length=context_length, start_tokens=(0,))
        self.special = frozenset({0, 1})

    def chat(self, user: str) -> str:
        return f"<s>U:{user}</s>A:"

    def read(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special ones too."""
        return "".join(self._vocabulary[token] for token in tokens)


class Timed(TableModel):
    """A model whose clock is its own: a pass takes what `cost` says for its rows. Notes what it is asked."""

    def __init__(self, cost: Callable[[int], float], monkeypatch: Any):
        super().__init__(WORDS[:-1], lambda _: np.array([-3.0, -9, -9, 0, 0, 0]), end_of_text={0})
        self.cost, self.now = cost, 0.0
        self.asked: list[int] = []
        self.opened: list[list[list[int]]] = []
        monkeypatch.setattr("plainchant.run.tuning.time.perf_counter", lambda: self.now)

    def open_rows(self, prefix: Any, suffixes: Sequence[Sequence[int]], *, room: int) -> TableRows:
        self.opened.append([list(suffix) for suffix in suffixes])
        return super().open_rows(prefix, suffixes, room=room)

    def step(self, groups: Groups, supports: Sequence[IntArray] | None = None) -> list[Float32Array]:
        self.asked.append(sum(rows.count for rows, _ in groups))
        self.now += self.cost(self.asked[-1])
        return super().step(groups, supports)


class Slow(TableModel):
    """Takes its time for every pass of private rows, or fails with a message that must not be shown."""

    def __init__(self, seconds: float, fails: str | None = None):
        super().__init__(["a", "b", "c"], lambda row: [0.5 * len(row), row[0], 1.0])
        self.seconds, self.fails = seconds, fails

    def step(self, groups: Groups, supports: Sequence[IntArray] | None = None) -> list[Float32Array]:
        if self.fails:
            raise ValueError(self.fails)
        if groups and groups[0][0].count != 1:
            time.sleep(self.seconds)
        return super().step(groups, supports)
