"""The rounds of a run: each adds to what is released, or chooses from it.

A round depends only on its `Preparation` and on what is released when it starts. An interrupted run therefore starts
again with the round it was in and writes only what is missing. Besides the records of a batch, a round shows the model
only what an earlier round released (guarantee 8).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

import numpy as np

from plainchant.config import SynthesisConfig
from plainchant.data.nearest import nearest_text
from plainchant.generation.batching import allot_texts
from plainchant.generation.decoding import BatchWork, FinishedText
from plainchant.generation.executor import Executor
from plainchant.generation.prompting import EXPANDED_FROM, choose_examples
from plainchant.privacy.histograms import NO_CELL, Cell, kept_by_votes, noisy_votes
from plainchant.run.cells import public_writer
from plainchant.run.preparation import Preparation
from plainchant.run.store import Batch, RunDirectory

# First texts of a cell per text that is shown in its prompts.
BOOTSTRAP = 2

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
        return text.batch - len(self.batches) if self.is_expanded(text) else self.batches[text.batch].cell

    def labelled(self, text: FinishedText, config: SynthesisConfig) -> SyntheticText:
        """A text with its label, cell and source."""
        cell = self.cell_of(text)
        label = config.label_set[self.cells[cell].label]
        return SyntheticText(text.text, label, cell, "expanded" if self.is_expanded(text) else "private")


class Round(Protocol):
    """A step of a run."""

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
    if config.parts.released_examples:
        rounds.append(Bootstrap(preparation, executor))
    rounds.append(Main(preparation, executor))
    if config.further:
        rounds.append(Expansion(preparation))
    if config.votes:
        rounds.append(Vote(preparation))
    return rounds


@dataclass(frozen=True)
class Bootstrap:
    """The first texts of every cell that has many; later prompts of the cell show some of them (guarantee 8)."""

    preparation: Preparation
    executor: Executor

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        places = released.first_places(_bootstrap_size(self.preparation.config))
        return self.executor.run(_works(self.preparation, released, places, {}))


@dataclass(frozen=True)
class Main:
    """All other texts that records contribute to, with the chosen examples of their cell in the prompt."""

    preparation: Preparation
    executor: Executor

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

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        return public_writer(self.preparation).run(self._works(released))

    def _works(self, released: Released) -> Iterator[BatchWork]:
        config, prompts, done = self.preparation.config, self.preparation.prompts, released.done
        texts = released.texts_by_cell(released.places)
        # each cell gets texts in proportion to its noisy size
        for cell, counts in enumerate(allot_texts(released.cells, config.further, None)):
            # all usable texts, the most different first; each further text is written from the next few of them
            sound = choose_examples(texts.get(cell, []), len(released.texts))
            label, batch = config.label_set[released.cells[cell].label], len(released.batches) + cell
            for place in range(sum(counts)):
                if (batch, place) not in done:
                    shown = [sound[(place + turn) % len(sound)] for turn in range(min(EXPANDED_FROM, len(sound)))]
                    prefix, start = tuple(prompts.prefix(label, shown)), tuple(prompts.start(label))
                    yield BatchWork(batch, prefix, start, (), (place,))


@dataclass(frozen=True)
class Vote:
    """Every unit in a batch votes for the text of its label that is nearest to its record; drawn once (guarantee 8)."""

    preparation: Preparation

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        if self.preparation.directory.choice() is None:
            self._hold(released)
        return iter(())

    def _hold(self, released: Released) -> None:
        preparation, config = self.preparation, self.preparation.config
        texts = [released.labelled(text, config) for text in released.texts]
        candidates, embeddings = preparation.encode([text.text for text in texts]), preparation.embeddings()
        members = preparation.directory.members()
        voters = np.array([record for own in members.values() for records, _ in own for record in records])
        choice = np.full(len(voters), NO_CELL, dtype=np.int64)
        for label in config.label_set:
            own = np.array([text.label == label for text in texts])
            theirs = np.array(
                [not config.labels or preparation.table[record].label == label for record in voters], dtype=bool
            )
            if own.any() and theirs.any():
                others = [text.text for text in texts if text.label == label]
                ballots = nearest_text(embeddings[voters[theirs]], others, candidates[own])
                choice[theirs] = np.flatnonzero(own)[ballots]
        randomness = preparation.randomness
        votes = noisy_votes(choice[choice != NO_CELL], len(texts), preparation.plan.rho_vote, randomness)
        preparation.directory.save_choice(votes, kept_by_votes(votes, config.released, randomness))


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
