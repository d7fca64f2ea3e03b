"""The rounds of a run: each adds to what is released, or chooses from it.

A round depends only on its `Preparation` and on what is released when it starts. An interrupted run therefore starts
again with the round it was in and writes only what is missing. Besides the records of a batch, a round shows the model
only what an earlier round released (guarantee 8).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

import numpy as np

from plainchant.config import SynthesisConfig
from plainchant.generation.batching import allot_texts
from plainchant.generation.decoding import BatchWork, FinishedText
from plainchant.generation.executor import Executor
from plainchant.generation.prompting import EXPANDED_FROM, choose_examples
from plainchant.privacy.histograms import Cell
from plainchant.run.cells import public_writer
from plainchant.run.preparation import Preparation
from plainchant.run.store import Batch, RunDirectory, Winner
from plainchant.run.votes import hold_vote

# First texts of a cell per text that is shown in its prompts.
BOOTSTRAP = 2
# Every second candidate is drawn at so many times the temperature.
WARMER = 1.3

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
            alone.
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


class Round(Protocol):
    """A step of a run."""

    @property
    def name(self) -> str:
        """What it does, for people."""

    def write(self, released: Released) -> Iterator[FinishedText]:
        """Yields the texts of this round that are still missing; a round that only chooses yields none.

        Args:
            released: what is released when the round begins.
        """


def rounds_of(preparation: Preparation, executor: Executor) -> list[Round]:
    """The rounds of a run, in order.

    Args:
        preparation: the run's.
        executor: writes the texts that records contribute to.
    """
    config = preparation.config
    rounds: list[Round] = []
    if config.written:
        if config.parts.released_examples:
            rounds.append(Bootstrap(preparation, executor))
        rounds.append(Main(preparation, executor))
    if not config.votes:
        return [*rounds, Expansion(preparation, config.further)] if config.further else rounds
    for number, further in enumerate(shares(config.further, config.parts.rounds)):
        rounds.append(Variation(preparation, number - 1, further) if number else Expansion(preparation, further))
        rounds.append(Vote(preparation, number))
    return rounds


def shares(further: int, rounds: int) -> list[int]:
    """How many texts the public model writes before each vote: before the first twice as many as before another."""
    ends = [further * (number + 2) // (rounds + 1) for number in range(rounds)]
    return [end - begin for begin, end in itertools.pairwise([0, *ends])]


@dataclass(frozen=True)
class Bootstrap:
    """The first texts of every cell that has many; later prompts of the cell show some of them (guarantee 8)."""

    preparation: Preparation
    executor: Executor
    name = "first texts from records"

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        places = released.first_places(_bootstrap_size(self.preparation.config))
        return self.executor.run(_works(self.preparation, released, places, {}))


@dataclass(frozen=True)
class Main:
    """All other texts that records contribute to, with the chosen examples of their cell in the prompt."""

    preparation: Preparation
    executor: Executor
    name = "texts from records"

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        count = self.preparation.config.parts.released_examples
        first = released.first_places(_bootstrap_size(self.preparation.config)) if count else set()
        shown = {cell: choose_examples(own, count) for cell, own in released.texts_by_cell(first).items()}
        return self.executor.run(_works(self.preparation, released, released.places - first, shown))


@dataclass(frozen=True)
class Expansion:
    """Further texts by the public model with released ones as examples: post-processing, free (guarantee 8)."""

    preparation: Preparation
    further: int
    name = "candidates by the public model"

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        config = self.preparation.config
        works = list(self._works(released, others=config.votes))
        return (
            written_by_public(self.preparation, works) if config.votes else public_writer(self.preparation).run(works)
        )

    def _works(self, released: Released, *, others: bool) -> Iterator[BatchWork]:
        """What is missing.

        Args:
            released: what is released so far.
            others: whether a cell with too few texts shows those of its label, and one without any batch is written
                for: where records vote, candidates are wanted everywhere.
        """
        config, prompts, done = self.preparation.config, self.preparation.prompts, released.done
        texts = released.texts_by_cell(released.places)
        cells = [dataclasses.replace(cell, batches=1) for cell in released.cells] if others else released.cells
        of_label: dict[int, list[str]] = {}
        if others:
            for number, own_cell in enumerate(cells):
                of_label.setdefault(own_cell.label, []).extend(texts.get(number, []))
            of_label = {label: choose_examples(own, len(released.texts)) for label, own in of_label.items()}
        # a cell's share is that of its noisy size
        for cell, counts in enumerate(allot_texts(cells, self.further, None)):
            # all sound texts, the most different first; every further text sees the next few of them
            sound = choose_examples(texts.get(cell, []), len(released.texts))
            if others and len(sound) < EXPANDED_FROM:
                sound = list(dict.fromkeys([*sound, *of_label[cells[cell].label]]))
            label, batch = config.label_set[cells[cell].label], len(released.batches) + cell
            for place in range(sum(counts)):
                if (batch, place) not in done:
                    shown = [sound[(place + turn) % len(sound)] for turn in range(min(EXPANDED_FROM, len(sound)))]
                    prefix, start = tuple(prompts.prefix(label, shown)), tuple(prompts.start(label))
                    yield BatchWork(batch, prefix, start, (), (place,))


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
        return written_by_public(self.preparation, list(self._works(released)))

    def _works(self, released: Released) -> Iterator[BatchWork]:
        config, prompts, done = self.preparation.config, self.preparation.prompts, released.done
        winners = self.preparation.directory.winners(self.number) or []
        chosen, labels = released.chosen(winners, config), len(config.label_set)
        vectors = self.preparation.encode([text.text for text in chosen]) if chosen else np.empty((0, 1), np.float32)
        ends = [self.further * (place + 1) // len(winners) for place in range(len(winners))]
        written: dict[int, int] = {}
        for place, (winner, text) in enumerate(zip(winners, chosen, strict=True)):
            own = np.array([other for other in range(len(winners)) if winners[other].label == winner.label])
            # itself is the nearest, and comes last in the prompt
            nearest = own[np.argsort(-(vectors[own] @ vectors[place]), kind="stable")]
            near = [chosen[other].text for other in nearest.tolist() if other != place]
            batch = released.variation_batch(self.number, labels, winner.label, text.cell)
            for turn in range(ends[place] - (ends[place - 1] if place else 0)):
                position = written[batch] = written.get(batch, -1) + 1
                if (batch, position) not in done:
                    shown = [*([near[turn % len(near)]] if near else []), text.text]
                    prefix, start = tuple(prompts.prefix(text.label, shown)), tuple(prompts.start(text.label))
                    yield BatchWork(batch, prefix, start, (), (position,))


def written_by_public(preparation: Preparation, works: Sequence[BatchWork]) -> Iterator[FinishedText]:
    """Candidates by the public model, every second one warmer: what nobody expects to win may."""
    for odd, warmth in ((0, 1.0), (1, WARMER)):
        own = [work for work in works if work.positions[0] % 2 == odd]
        # works of one prompt side by side: it is read once
        yield from public_writer(preparation, warmth).run(sorted(own, key=lambda work: (work.batch, work.prefix)))


@dataclass(frozen=True)
class Vote:
    """Every unit votes for the candidates that are nearest to its record; drawn and committed once (guarantee 8).

    Attributes:
        preparation: the run's.
        number: of the vote, from 0.
    """

    preparation: Preparation
    number: int

    @property
    def name(self) -> str:
        """See `Round`."""
        return f"vote {self.number + 1} of {self.preparation.config.parts.rounds}"

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        if self.preparation.directory.winners(self.number) is None:
            config = self.preparation.config
            labels = [released.label_of(text, len(config.label_set)) for text in released.texts]
            hold_vote(self.preparation, self.number, released.cells, released.texts, np.array(labels, dtype=np.int64))
        return iter(())


def _bootstrap_size(config: SynthesisConfig) -> int:
    """How many first texts of a cell are written before any of them is shown."""
    return BOOTSTRAP * config.parts.released_examples


def _works(
    preparation: Preparation, released: Released, places: set[Place], shown: Mapping[int, Sequence[str]]
) -> Iterator[BatchWork]:
    """The part of `places` that is still to be written. A batch's records become tokens only when its turn comes."""
    config, prompts, done = preparation.config, preparation.prompts, released.done
    members = preparation.directory.members()
    for batch in released.batches:
        missing = [place for place in range(batch.texts) if (batch.batch, place) not in done]
        positions = [place for place in missing if (batch.batch, place) in places]
        if positions:
            label = config.label_set[released.cells[batch.cell].label]
            own = members.get(batch.batch, [])
            yield BatchWork(
                batch.batch,
                tuple(prompts.prefix(label, shown.get(batch.cell, ()))),
                tuple(prompts.start(label)),
                [prompts.records([preparation.table[number].text for number in numbers], label) for numbers, _ in own],
                positions,
                (len(missing) - len(positions)) * config.max_tokens,
                np.array([spent for _, spent in own], dtype=np.float64),
            )
