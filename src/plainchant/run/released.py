"""What a run has released so far, which is all that its next round may show or choose from."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from plainchant.config import SynthesisConfig
from plainchant.generation.decoding import FinishedText
from plainchant.privacy.histograms import Cell
from plainchant.run.store import Batch, RunDirectory, Winner

Place: TypeAlias = tuple[int, int]
"""A batch and a position in it; each place holds one text."""


@dataclass(frozen=True)
class SyntheticText:
    """A text that a run has written.

    Attributes:
        text: the text.
        label: its label, or None.
        cell: number of its public cell.
        source: "private" where records contributed, "expanded" where the public model wrote it from released texts
            alone, "public" in a preview.
    """

    text: str
    label: str | None
    cell: int
    source: str = "private"


@dataclass(frozen=True)
class Released:
    """What a run has released so far.

    Texts that the public model writes from released ones have one further batch per cell, after all others.

    Attributes:
        cells: the kept cells.
        batches: the batches that records write in.
        texts: all texts so far, in the order of their places.
    """

    cells: Sequence[Cell]
    batches: Sequence[Batch]
    texts: Sequence[FinishedText]

    # after the batches stand one for each cell, then, for each vote that others follow, one for each label and cell

    def variation_batch(self, number: int, labels: int, label: int, cell: int) -> int:
        """Where the public model's texts after the winners of vote `number` stand, of this label and cell."""
        return len(self.batches) + (1 + number * labels + label) * len(self.cells) + cell

    @classmethod
    def of(cls, directory: RunDirectory) -> Self:
        """What is released at this moment."""
        return cls(directory.cells(), directory.batches(), directory.texts())

    @property
    def done(self) -> set[Place]:
        """The places that are filled."""
        return {(text.batch, text.position) for text in self.texts}

    @property
    def places(self) -> set[Place]:
        """Every place that records contribute to."""
        return {(batch.batch, position) for batch in self.batches for position in range(batch.texts)}

    def first_places(self, count: int) -> set[Place]:
        """The first places of each cell that has more than `count`, spread over its batches."""
        by_cell: dict[int, list[Place]] = {}
        for batch in self.batches:
            by_cell.setdefault(batch.cell, []).extend((position, batch.batch) for position in range(batch.texts))
        return {
            (batch, position) for own in by_cell.values() if len(own) > count for position, batch in sorted(own)[:count]
        }

    def texts_by_cell(self, places: set[Place]) -> dict[int, list[str]]:
        """The texts at these places, by cell and in order."""
        texts: dict[int, list[str]] = {}
        for text in self.texts:
            if (text.batch, text.position) in places:
                texts.setdefault(self.cell_of(text), []).append(text.text)
        return texts

    def is_expanded(self, text: FinishedText) -> bool:
        """Whether the public model wrote it from released texts alone."""
        return text.batch >= len(self.batches)

    def cell_of(self, text: FinishedText) -> int:
        """The number of a text's cell."""
        if not self.is_expanded(text):
            return self.batches[text.batch].cell
        return (text.batch - len(self.batches)) % len(self.cells)

    def label_of(self, text: FinishedText, labels: int) -> int:
        """The number of the label that a text's prompt asked for."""
        group = (text.batch - len(self.batches)) // len(self.cells) if self.is_expanded(text) else 0
        return self.cells[self.cell_of(text)].label if group == 0 else (group - 1) % labels

    def labelled(self, text: FinishedText, config: SynthesisConfig) -> SyntheticText:
        """A text with the label that its prompt asked for, its cell and its source."""
        label = self.label_of(text, len(config.label_set))
        source = "expanded" if self.is_expanded(text) else "private"
        return SyntheticText(text.text, config.label_set[label], self.cell_of(text), source)

    def chosen(self, winners: Sequence[Winner], config: SynthesisConfig) -> list[SyntheticText]:
        """The winners of a vote, with the labels that the records gave them."""
        by_place = {(text.batch, text.position): text for text in self.texts}
        return [
            dataclasses.replace(
                self.labelled(by_place[winner.batch, winner.position], config), label=config.label_set[winner.label]
            )
            for winner in winners
        ]
