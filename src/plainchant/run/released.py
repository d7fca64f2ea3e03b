"""What a run has released so far, which is all that its next round may show or choose from."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from plainchant.config import SynthesisConfig
from plainchant.data.schema import Value
from plainchant.generation.decoding import FinishedText
from plainchant.privacy.histograms import Cell
from plainchant.run.attributes import AttributeRows
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
        origin: "records" where records contributed to the text, "model" where the public model wrote it from released
            texts and rows alone, "public" in a preview.
        attributes: the attributes of its row, by column name; empty where there are none.
    """

    text: str
    label: str | None
    cell: int
    origin: str = "records"
    attributes: Mapping[str, Value] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Released:
    """What a run has released so far.

    Texts that the public model writes from released ones have one further batch per cell, after all others.

    Attributes:
        cells: the kept cells.
        batches: the batches that records write in.
        texts: all texts so far, in the order of their places.
        rows: the attribute rows that texts are written for; None where there are no attributes.
    """

    cells: Sequence[Cell]
    batches: Sequence[Batch]
    texts: Sequence[FinishedText]
    rows: AttributeRows | None = None

    # after the batches stand one for each cell, then, for each vote that others follow, one for each label and cell

    def variation_batch(self, number: int, labels: int, label: int, cell: int) -> int:
        """Where the public model's texts after the winners of vote `number` stand, of this label and cell."""
        return len(self.batches) + (1 + number * labels + label) * len(self.cells) + cell

    @classmethod
    def of(cls, directory: RunDirectory) -> Self:
        """What is released at this moment."""
        return cls(directory.cells(), directory.batches(), directory.texts(), directory.attribute_rows())

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
        return self._cell_of_batch(text.batch)

    def _cell_of_batch(self, batch: int) -> int:
        if batch < len(self.batches):
            return self.batches[batch].cell
        return (batch - len(self.batches)) % len(self.cells)

    def row_of(self, place: Place) -> int | None:
        """The attribute row that the text at a place is written for; None where its label has no row.

        The texts of a cell take its rows in turn, those that records contribute to first. A cell without rows takes
        those of its label.
        """
        batch, position = place
        cell = self._cell_of_batch(batch)
        own = self._rows_of_cells.get(cell, ())
        turn = self._turns.get(place, self._written.get(cell, 0) + position)
        return own[turn % len(own)] if own else None

    @functools.cached_property
    def _rows_of_cells(self) -> dict[int, list[int]]:
        """The rows that each cell's texts are written for."""
        rows = [] if self.rows is None else self.rows.rows
        by_cell: dict[int, list[int]] = {}
        by_label: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            by_cell.setdefault(row.cell, []).append(number)
            by_label.setdefault(self.cells[row.cell].label, []).append(number)
        return {number: by_cell.get(number) or by_label.get(cell.label, []) for number, cell in enumerate(self.cells)}

    @functools.cached_property
    def rows_without_place(self) -> list[int]:
        """For each cell how many of its attribute rows no place of records is for: all texts of the cell take turns."""
        counts = Counter(row.cell for row in (() if self.rows is None else self.rows.rows))
        return [max(0, counts[cell] - self._written.get(cell, 0)) for cell in range(len(self.cells))]

    def lines_of(self, place: Place) -> str:
        """The attributes of that row as a prompt shows them; nothing where there are none."""
        return "" if self.rows is None else self.rows.shown(self.row_of(place))

    @functools.cached_property
    def lines_by_text(self) -> dict[str, str]:
        """The attributes that each text so far was written for, as a prompt shows them; empty where there are none."""
        if self.rows is None:
            return {}
        return {text.text: self.lines_of((text.batch, text.position)) for text in self.texts}

    @functools.cached_property
    def _turns(self) -> dict[Place, int]:
        """The number of each place that records contribute to, among those of its cell."""
        turns: dict[Place, int] = {}
        counts: dict[int, int] = {}
        for batch, position in sorted(self.places, key=lambda place: (place[1], place[0])):
            cell = self.batches[batch].cell
            turns[batch, position] = counts.get(cell, 0)
            counts[cell] = counts.get(cell, 0) + 1
        return turns

    @functools.cached_property
    def _written(self) -> dict[int, int]:
        """How many places of each cell records contribute to."""
        counts: dict[int, int] = {}
        for batch in self.batches:
            counts[batch.cell] = counts.get(batch.cell, 0) + batch.texts
        return counts

    def label_of(self, text: FinishedText, labels: int) -> int:
        """The number of the label that a text's prompt asked for."""
        group = (text.batch - len(self.batches)) // len(self.cells) if self.is_expanded(text) else 0
        return self.cells[self.cell_of(text)].label if group == 0 else (group - 1) % labels

    def labelled(self, text: FinishedText, config: SynthesisConfig, label: int | None = None) -> SyntheticText:
        """A text with its label, its cell, its origin, the attributes of its row and what follows from the label.

        Args:
            text: the text.
            config: names the labels.
            label: the number of its label; None: the one that its prompt asked for.
        """
        name = config.label_set[self.label_of(text, len(config.label_set)) if label is None else label]
        origin = "records" if config.reads_records and not self.is_expanded(text) else "model"
        attributes = {} if self.rows is None else self.rows.values(self.row_of((text.batch, text.position)))
        return SyntheticText(
            text.text, name, self.cell_of(text), origin, {**attributes, **config.columns.following(name)}
        )

    def without_text(self, config: SynthesisConfig) -> list[SyntheticText]:
        """The attribute rows of a run that writes no texts, with their labels."""
        own = self.rows
        if own is None:
            return []
        names = [config.label_set[self.cells[row.cell].label] for row in own.rows]
        return [
            SyntheticText("", name, row.cell, attributes={**own.values(number), **config.columns.following(name)})
            for number, (row, name) in enumerate(zip(own.rows, names, strict=True))
        ]

    def chosen(self, winners: Sequence[Winner], config: SynthesisConfig) -> list[SyntheticText]:
        """The winners of a vote, with the labels that the records gave them."""
        by_place = {(text.batch, text.position): text for text in self.texts}
        return [self.labelled(by_place[winner.batch, winner.position], config, winner.label) for winner in winners]
