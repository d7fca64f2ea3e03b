"""Candidates by the public model: what it is asked for (guarantee 8)."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from plainchant.config import SynthesisConfig
from plainchant.generation.batching import allot_texts, share_texts
from plainchant.generation.decoding import FinishedText
from plainchant.generation.prompting import EXPANDED_FROM, TURNS, choose_examples
from plainchant.privacy.histograms import Cell
from plainchant.run.choosing import numbers_asked
from plainchant.run.preparation import Preparation
from plainchant.run.released import Released
from plainchant.run.vocabulary import biases_of
from plainchant.run.writers import Request

# Sizes that stand for shares are whole numbers too.
FINE = 10**6
# Every second candidate is drawn at so many times the temperature.
WARMER = 1.3


def warmth_of(position: int) -> float:
    """Every second candidate is warmer: what nobody expects to win may."""
    return WARMER if position % 2 else 1.0


@dataclass(frozen=True)
class Expansion:
    """Further texts by the public model with released ones as examples: post-processing, free (guarantee 8).

    Attributes:
        preparation: the run's.
        further: how many texts there are in the end, those of an earlier round like this one among them.
    """

    preparation: Preparation
    further: int

    @property
    def name(self) -> str:
        """See `Round`."""
        words = " with the records' words" if self.preparation.directory.words() else ""
        return f"candidates by the public model{words}"

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        config = self.preparation.config
        return self.preparation.writer.write(list(self._requests(released, others=config.votes)))

    def _requests(self, released: Released, *, others: bool) -> Iterator[Request]:
        """What is missing.

        Args:
            released: what is released so far.
            others: whether a cell with too few texts shows those of its label, and one without any batch is written
                for: where records vote, candidates are wanted everywhere.
        """
        config, done, biases = self.preparation.config, released.done, biases_of(self.preparation)
        like = config.prompt.examples
        texts = released.texts_by_cell(released.places)
        cells = [dataclasses.replace(cell, batches=1) for cell in released.cells] if others else released.cells
        if others and released.rows is not None:
            # candidates for every row, in whatever cell it is
            counts_of_rows = Counter(row.cell for row in released.rows.rows)
            cells = [
                dataclasses.replace(cell, noisy_size=counts_of_rows[number], batches=min(1, counts_of_rows[number]))
                for number, cell in enumerate(cells)
            ]
        of_label: dict[int, list[str]] = {}
        if others:
            for number, own_cell in enumerate(cells):
                of_label.setdefault(own_cell.label, []).extend(texts.get(number, []))
            of_label = {label: choose_examples(own, len(released.texts), like) for label, own in of_label.items()}
        for cell, count in enumerate(self._counts(released, cells, others=others)):
            # all sound texts, the most different first; every further text sees the next few of them
            sound = choose_examples(texts.get(cell, []), len(released.texts), like)
            if others and len(sound) < EXPANDED_FROM:
                sound = list(dict.fromkeys([*sound, *of_label[cells[cell].label]]))
            number, batch = cells[cell].label, len(released.batches) + cell
            label, bias = config.label_set[number], biases[number]
            for place in range(count):
                if (batch, place) not in done:
                    shown = [sound[(place + turn) % len(sound)] for turn in range(min(EXPANDED_FROM, len(sound)))]
                    # nothing released to tell prompts apart: other examples do, at either warmth
                    turn = place // 2 % TURNS if others and not shown else 0
                    yield Request(
                        (batch, place),
                        label,
                        tuple(shown),
                        warmth_of(place) if others else 1.0,
                        turn,
                        released.lines_of((batch, place)),
                        released.lines_by_text,
                        bias,
                    )

    def _counts(self, released: Released, cells: Sequence[Cell], *, others: bool) -> list[int]:
        """How many texts each cell gets: first one for each row that has none, all others by noisy size or rows.

        Where labels are released in numbers of their own, so are candidates: a small label chooses from as many.
        """
        first = [0] * len(cells)
        if others:
            first = share_texts(cells, self.further, released.rows_without_place)
            if released.rows is None:
                cells = as_released(self.preparation.config, cells)
        more = allot_texts(cells, self.further - sum(first), None)
        return [own + sum(counts) for own, counts in zip(first, more, strict=True)]


def as_released(config: SynthesisConfig, cells: Sequence[Cell]) -> Sequence[Cell]:
    """Cells with sizes for which labels stand as they are released, where that is not as records or votes have it."""
    shares = numbers_asked(config)
    if shares is None:
        return cells
    sizes = [max(cell.noisy_size, 1) for cell in cells]
    of_label = Counter[int]()
    for cell, size in zip(cells, sizes, strict=True):
        of_label[cell.label] += size
    return [
        dataclasses.replace(cell, noisy_size=round(FINE * shares[cell.label] * size / of_label[cell.label]))
        for cell, size in zip(cells, sizes, strict=True)
    ]


@dataclass(frozen=True)
class Variation:
    """Further texts by the public model after the winners of a vote: post-processing, free (guarantee 8).

    Every winner is shown equally often, after one of its label that is near to it, each time another one.

    Attributes:
        preparation: the run's.
        number: of the vote whose winners are varied, from 0.
        further: how many texts are written.
    """

    preparation: Preparation
    number: int
    further: int

    @property
    def name(self) -> str:
        """See `Round`."""
        return f"candidates after the winners of vote {self.number + 1}"

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        return self.preparation.writer.write(list(self._requests(released)))

    def _requests(self, released: Released) -> Iterator[Request]:
        config, done, biases = self.preparation.config, released.done, biases_of(self.preparation)
        winners = self.preparation.directory.winners(self.number) or []
        chosen, labels = released.chosen(winners, config), len(config.label_set)
        vectors = self.preparation.encode([text.text for text in chosen]) if chosen else np.empty((0, 1), np.float32)
        ends = [self.further * (place + 1) // len(winners) for place in range(len(winners))]
        of_label: dict[int, list[int]] = {}
        for place, winner in enumerate(winners):
            of_label.setdefault(winner.label, []).append(place)
        groups = {label: np.array(own) for label, own in of_label.items()}
        written: dict[int, int] = {}
        for place, (winner, text) in enumerate(zip(winners, chosen, strict=True)):
            turns, own = ends[place] - (ends[place - 1] if place else 0), groups[winner.label]
            # itself is the nearest, and comes last in the prompt
            nearest = own[np.argsort(-(vectors[own] @ vectors[place]), kind="stable")[: turns + 1]]
            near = [chosen[other].text for other in nearest.tolist() if other != place]
            batch = released.variation_batch(self.number, labels, winner.label, text.cell)
            for turn in range(turns):
                position = written[batch] = written.get(batch, -1) + 1
                if (batch, position) not in done:
                    shown = [*([near[turn % len(near)]] if near else []), text.text]
                    yield Request(
                        (batch, position),
                        text.label,
                        tuple(shown),
                        warmth_of(position),
                        attributes=released.lines_of((batch, position)),
                        lines=released.lines_by_text,
                        bias=biases[winner.label],
                    )
