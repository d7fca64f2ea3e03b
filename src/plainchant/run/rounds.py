"""The rounds of a run: each adds to what is released, or chooses from it.

A round depends only on its `Preparation` and on what is released when it starts. An interrupted run therefore starts
again with the round it was in and writes only what is missing. Besides the records of a batch, a round shows the model
only what an earlier round released (guarantee 8).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from plainchant.config import BOOTSTRAP, SynthesisConfig
from plainchant.data.tables import Record
from plainchant.generation.decoding import BatchWork, FinishedText
from plainchant.generation.executor import Executor
from plainchant.generation.prompting import Prompts, choose_examples
from plainchant.randomness import RandomSource
from plainchant.run.attributes import AttributeRows
from plainchant.run.candidates import Expansion, Variation
from plainchant.run.preparation import Preparation
from plainchant.run.released import Place, Released
from plainchant.run.vocabulary import count_words
from plainchant.run.votes import hold_vote


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


def rounds_of(preparation: Preparation, executor: Executor | None) -> list[Round]:
    """The rounds of a run, in order; only its votes where it was told to write no more.

    Args:
        preparation: the run's.
        executor: writes the texts that records contribute to; None where there are none.
    """
    rounds = _all_rounds(preparation, executor)
    if preparation.directory.writes_no_more():
        return [round for round in rounds if isinstance(round, Vote)]
    return rounds


def _all_rounds(preparation: Preparation, executor: Executor | None) -> list[Round]:
    config = preparation.config
    rounds: list[Round] = []
    if executor is not None and preparation.plan.deals is not None:
        last = max((batch.deal for batch in preparation.directory.batches()), default=-1)
        rounds += [Deal(preparation, executor, number, last + 1) for number in range(last + 1)]
    elif executor is not None:
        if config.parts.released_examples:
            rounds.append(Bootstrap(preparation, executor))
        rounds.append(Main(preparation, executor))
    if not config.votes:
        return [*rounds, Expansion(preparation, config.further)] if config.further else rounds
    # a row without any candidate could not be released
    lacking = sum(Released.of(preparation.directory).rows_without_place)
    first, *others = shares(config.further, config.parts.rounds, least=lacking)
    if preparation.plan.rho_words:
        # the model by itself, whose words those of the records are compared with
        rounds += [Expansion(preparation, first // 2), Words(preparation)]
    rounds += [Expansion(preparation, first), Vote(preparation, 0)]
    for number, further in enumerate(others):
        rounds += [Variation(preparation, number, further), Vote(preparation, number + 1)]
    return rounds


def shares(further: int, rounds: int, least: int = 0) -> list[int]:
    """How many texts the public model writes before each vote: before the first twice as many as before another.

    Before the first they are at least `least`, and later ones so many fewer.
    """
    ends = [max(least, further * (number + 2) // (rounds + 1)) for number in range(rounds)]
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
        config = self.preparation.config
        count, like = config.parts.released_examples, config.prompt.examples
        first = released.first_places(_bootstrap_size(config)) if count else set()
        shown = {cell: choose_examples(own, count, like) for cell, own in released.texts_by_cell(first).items()}
        return self.executor.run(_works(self.preparation, released, released.places - first, shown))


@dataclass(frozen=True)
class Deal:
    """The texts of one deal, each by a batch of its own; prompts show texts of earlier deals (guarantee 13.1).

    Attributes:
        preparation: the run's.
        executor: writes the texts.
        number: of the deal, from 0.
        deals: how many there are.
    """

    preparation: Preparation
    executor: Executor
    number: int
    deals: int

    @property
    def name(self) -> str:
        """See `Round`."""
        return f"texts from records, deal {self.number + 1} of {self.deals}"

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        config = self.preparation.config
        count, like = config.parts.released_examples, config.prompt.examples
        deals = {batch.batch: batch.deal for batch in released.batches}
        earlier = {place for place in released.places if deals[place[0]] < self.number}
        # the latest texts first, so that what is shown changes from deal to deal
        shown = {cell: choose_examples(own[::-1], count, like) for cell, own in released.texts_by_cell(earlier).items()}
        places = {place for place in released.places if deals[place[0]] == self.number}
        return self.executor.run(_works(self.preparation, released, places, shown if count else {}))


@dataclass(frozen=True)
class Words:
    """The records' words are counted with noise; drawn and committed once (guarantee 8.5)."""

    preparation: Preparation
    name = "counting words"

    def write(self, released: Released) -> Iterator[FinishedText]:
        """See `Round`."""
        if not self.preparation.directory.words():
            count_words(self.preparation, released)
        return iter(())


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
            found = [released.row_of((text.batch, text.position)) for text in released.texts]
            rows = [-1 if row is None else row for row in found]
            hold_vote(
                self.preparation,
                self.number,
                released.cells,
                released.texts,
                np.array(labels, dtype=np.int64),
                None if released.rows is None else np.array(rows, dtype=np.int64),
            )
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
            starts = [tuple(prompts.start(label, released.lines_of((batch.batch, position)))) for position in positions]
            yield BatchWork(
                batch.batch,
                tuple(prompts.prefix(label, shown.get(batch.cell, ()), lines=released.lines_by_text)),
                starts[0],
                [
                    context_of(
                        prompts,
                        [preparation.table[number] for number in numbers],
                        released.rows,
                        label,
                        preparation.randomness,
                    )
                    for numbers, _ in own
                ],
                positions,
                (len(missing) - len(positions)) * config.head,
                np.array([spent for _, spent in own], dtype=np.float64),
                starts=starts if released.rows is not None else (),
                payment=batch.payment,
            )


def context_of(
    prompts: Prompts,
    records: Sequence[Record],
    rows: AttributeRows | None,
    label: str | None,
    randomness: RandomSource,
) -> list[int]:
    """The records' part of a context, with their own attributes. Secret.

    A function of these records alone and, where windows are shown, of what is drawn for each of them (guarantee 3.4).
    """
    attributes: list[str] = []
    if rows is not None:
        attributes = [rows.schema.shown(rows.schema.codes_of(record.attributes)) for record in records]
    return prompts.records([prompts.part(record.text, randomness.below) for record in records], label, attributes)
