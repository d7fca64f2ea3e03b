"""From records to secret batches: public centres, noisy cells, one record per unit (guarantee 2 and 3)."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from plainchant.arrays import BoolArray, Float32Array, IntArray
from plainchant.config import Clusters
from plainchant.data.centres import Centres, fit_centres
from plainchant.data.tables import Record
from plainchant.generation.batching import NO_BATCH, allot_texts, draw_batches, draw_contexts, share_deals
from plainchant.privacy.histograms import WHOLE_LABEL, Cell, rebalance
from plainchant.randomness import RandomSource
from plainchant.run.attributes import Law, drawn_rows, noisy_law, row_counts
from plainchant.run.choosing import numbers_asked
from plainchant.run.preparation import Preparation
from plainchant.run.speed import SAMPLED_CORPUS, samples_corpus
from plainchant.run.store import Batch, Draw
from plainchant.run.writers import LocalWriter, public_requests

# Minimum number of public texts per centre.
TEXTS_PER_CENTRE = 4


def prepare_cells(preparation: Preparation) -> IntArray:
    """What may fail before cells are formed and spends nothing: public centres, and the embeddings of the records.

    Returns:
        The record of each unit, drawn at random, int64 [units]; none where no record is used. Secret.
    """
    config = preparation.config
    record_of_unit = np.empty(0, dtype=np.int64)
    if config.reads_records:
        record_of_unit = choose_records(preparation.table, preparation.randomness)
    if config.clustered:
        public_centres(preparation)
    if config.clustered or config.votes:
        preparation.embeddings(record_of_unit)
    return record_of_unit


def form_batches(preparation: Preparation, record_of_unit: IntArray) -> None:
    """Draws cells, batches and places and commits them at once: noise and secrets are never drawn twice.

    Args:
        preparation: the run's.
        record_of_unit: what `prepare_cells` returned.
    """
    if not preparation.config.reads_records:
        _form_public_batches(preparation)
    elif not preparation.config.written:
        _form_no_batches(preparation, record_of_unit)
    elif preparation.config.parts.clusters is Clusters.PUBLIC_CENTRES:
        centres = public_centres(preparation)
        _form_secret_batches(preparation, record_of_unit, centres, preparation.embeddings(record_of_unit))
    else:
        _form_secret_batches(preparation, record_of_unit, None, None)


def _form_public_batches(preparation: Preparation) -> None:
    """One text per batch, the labels in turn; no private record is used."""
    texts, labels = preparation.config.texts, len(preparation.config.label_set)
    counts = [texts // labels + (label < texts % labels) for label in range(labels)]
    cells = tuple(Cell(label, WHOLE_LABEL, 0, count) for label, count in enumerate(counts))
    batches = _numbered([[1] * count for count in counts])
    preparation.directory.save_batches(cells, batches, [])


def _form_no_batches(preparation: Preparation, record_of_unit: IntArray) -> None:
    """Records write nothing: a cell for each label, counted only where there are attributes."""
    config = preparation.config
    cells = tuple(Cell(label, WHOLE_LABEL, 0, 1) for label in range(len(config.label_set)))
    rows = None
    law = _law(preparation, record_of_unit, preparation.labels_of(record_of_unit), len(cells))
    if law is not None:
        cells = tuple(
            dataclasses.replace(cell, noisy_size=size) for cell, size in zip(cells, law.sizes.tolist(), strict=True)
        )
        rows = drawn_rows(law, row_counts(config, cells, [0] * len(cells)), preparation.randomness)
    voters = record_of_unit if config.votes else None
    preparation.directory.save_batches(cells, [], [], voters=voters, rows=rows)


def _law(preparation: Preparation, record_of_unit: IntArray, cell_of_unit: IntArray, cells: int) -> Law | None:
    """The noisy joint law of cells and attributes; None where there are no attributes (guarantee 14)."""
    if not preparation.config.columns.attributes:
        return None
    table, cost = preparation.table, preparation.plan.table
    preparation.progress.stage("counting the attributes", 0.0)
    records = [table[number] for number in record_of_unit]
    law = noisy_law(preparation.config, cost.rho, cost.delta, records, cell_of_unit, cells, preparation.randomness)
    preparation.progress.stage("counting the attributes", 1.0)
    return law


def _form_secret_batches(
    preparation: Preparation, record_of_unit: IntArray, centres: Centres | None, embeddings: Float32Array | None
) -> None:
    """Counts cells with noise and draws every unit's batch; `embeddings` are those of `record_of_unit`."""
    plan, config, randomness = preparation.plan, preparation.config, preparation.randomness
    labels = preparation.labels_of(record_of_unit)
    nearest = None
    if centres is not None and embeddings is not None:
        nearest = functools.partial(_nearest, centres, embeddings)
    outcome = rebalance(
        labels,
        nearest,
        labels=len(config.label_set),
        centres=0 if centres is None else len(centres.vectors),
        batch_size=plan.settings.units_per_batch,
        kept=None if config.kept == "auto" else config.kept,
        min_cell=plan.least_cell,
        rho_select=plan.rho_select,
        rho_size=plan.rho_size,
        randomness=randomness,
    )
    asked = numbers_asked(config)
    # a label that is released in no text needs none
    cells = [
        dataclasses.replace(cell, batches=0) if asked is not None and not asked[cell.label] else cell
        for cell in outcome.cells
    ]
    if plan.deals is None:
        writing: list[list[int] | None] = [None]
        batches = _numbered(allot_texts(cells, config.written, plan.texts_per_batch))
    else:
        dealt, payments = share_deals(plan.deals, cells, config.written)
        writing, batches = list(dealt), _dealt(dealt, payments)
    draws = _draws(preparation, outcome.cell_of_unit, cells, record_of_unit, writing)
    law = _law(preparation, record_of_unit, outcome.cell_of_unit, len(cells))
    rows = None
    if law is not None:
        written = [0] * len(cells)
        for batch in batches:
            written[batch.cell] += batch.texts
        rows = drawn_rows(law, row_counts(config, cells, written), randomness)
    voters = record_of_unit if config.votes else None
    preparation.directory.save_batches(cells, batches, draws, voters=voters, rows=rows)


def _draws(
    preparation: Preparation,
    cell_of_unit: IntArray,
    cells: Sequence[Cell],
    records: IntArray,
    writing: Sequence[Sequence[int] | None],
) -> Iterator[Draw]:
    """The draws of every deal, made once and committed together, long before the texts of most are written.

    `cells` are those by which the batches were numbered.
    """
    randomness, settings, first = preparation.randomness, preparation.plan.settings, 0
    for own in writing:
        batch_of_unit = draw_batches(cell_of_unit, cells, randomness, own)
        batch_of_unit[batch_of_unit != NO_BATCH] += first
        contexts = None
        if settings.records_per_context > 1:
            contexts = draw_contexts(batch_of_unit, settings.batch_size, randomness)
        yield Draw(records, batch_of_unit, contexts)
        first += sum(own or ())


def _numbered(allotted: Sequence[Sequence[int]]) -> list[Batch]:
    """Batches with their numbers: for each cell, for each of its batches, how many texts it writes."""
    texts = [(cell, count) for cell, counts in enumerate(allotted) for count in counts]
    return [Batch(number, *entry) for number, entry in enumerate(texts)]


def _dealt(dealt: Sequence[Sequence[int]], payments: Sequence[float]) -> list[Batch]:
    """The batches that write, deal by deal and cell by cell, each of them one text."""
    places = [
        (cell, 1, deal, payments[cell])
        for deal, writing in enumerate(dealt)
        for cell, count in enumerate(writing)
        for _ in range(count)
    ]
    return [Batch(number, *place) for number, place in enumerate(places)]


def _nearest(centres: Centres, embeddings: Float32Array, units: BoolArray, among: IntArray | None) -> IntArray:
    return centres.nearest(embeddings[units], among)


def choose_records(table: Sequence[Record], randomness: RandomSource) -> IntArray:
    """One record of each unit, drawn uniformly: a unit with many records is as safe as a unit with one.

    Returns:
        Record numbers, int64 [units], in the order of each unit's first record.
    """
    units: dict[Any, list[int]] = {}
    for number, record in enumerate(table):
        # a row without a unit is its own unit; a tuple cannot collide with a name
        units.setdefault(("row", number) if record.unit is None else record.unit, []).append(number)
    return np.array([rows[randomness.below(len(rows))] for rows in units.values()], dtype=np.int64)


def public_centres(preparation: Preparation) -> Centres:
    """Centres of the public corpus, kept in the run's directory for use by path (guarantee 2.1)."""
    directory, progress = preparation.directory, preparation.progress
    if isinstance(preparation.corpus, Centres):
        return preparation.corpus
    if directory.centres.exists():
        return Centres.load(directory.centres)
    texts = preparation.corpus
    if texts is None:
        # a single centre is the nearest of every record, wherever it lies
        texts = sample_corpus(preparation) if samples_corpus(preparation.plan) else ["A public text."]
    embeddings = preparation.encode(texts, stage="embedding public texts")
    progress.stage("finding public centres", 0.0)
    # a small corpus supports few centres; the corpus is public, so its size may decide
    most = preparation.plan.centres or 1
    centres = fit_centres(embeddings, min(most, max(1, len(texts) // TEXTS_PER_CENTRE)))
    centres.save(directory.centres)
    progress.stage("finding public centres", 1.0)
    return centres


def sample_corpus(preparation: Preparation) -> list[str]:
    """Texts by the public model with the public prompts, the labels in turn."""
    texts: list[str] = []
    tokens = [0, 0]

    def report(drawn: int, ended: int = 0) -> None:
        # a text that is being written counts by its tokens
        tokens[0], tokens[1] = tokens[0] + drawn, tokens[1] + ended
        begun = (tokens[0] - tokens[1]) / preparation.config.max_tokens
        share = min(1.0, (len(texts) + begun) / SAMPLED_CORPUS)
        preparation.progress.stage("sampling a public corpus from the model", share)

    plan, width = preparation.plan, preparation.performance.width
    writer = LocalWriter(preparation.loaded, plan.settings, width, on_tokens=report)
    for text in writer.write(public_requests(preparation.config, SAMPLED_CORPUS)):
        texts.append(text.text)
        report(0, text.tokens)
    return texts
