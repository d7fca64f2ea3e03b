"""Attribute rows: from the records' codes to synthetic rows, and what prompts show of both (guarantee 14)."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plainchant.arrays import IntArray
from plainchant.config import SynthesisConfig
from plainchant.data.schema import Schema, Value
from plainchant.data.tables import Record
from plainchant.generation.batching import allot_texts
from plainchant.privacy.histograms import NO_CELL, Cell
from plainchant.privacy.marginals import Shares, found_values, noisy_marginals
from plainchant.randomness import RandomSource
from plainchant.run.joint import Joint, fit

# A release has missing values in a column if their noisy count is at least so many deviations of its noise.
CLEAR_MISSING = 3.0


@dataclass(frozen=True)
class Law:
    """The joint law of cells and attributes, as released.

    Attributes:
        schema: the configuration's, with the values that were found in the data.
        joint: columns are the cell, then the attributes; column 0 has one code at least.
        sizes: a noisy count of units for each cell, int64 [cells].
    """

    schema: Schema
    joint: Joint
    sizes: IntArray


@dataclass(frozen=True)
class AttributeRow:
    """A synthetic row.

    Attributes:
        cell: number of its cell.
        codes: the code of each attribute.
        values: what the release shows for them.
    """

    cell: int
    codes: tuple[int, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True)
class AttributeRows:
    """The synthetic rows of a run; released.

    Attributes:
        schema: the configuration's, with the values that were found in the data.
        rows: all of them, cell by cell.
    """

    schema: Schema
    rows: Sequence[AttributeRow]

    def shown(self, number: int | None) -> str:
        """The attributes of a row as a prompt shows them, a line each; nothing without a row."""
        return "" if number is None else self.schema.shown(self.rows[number].codes)

    def values(self, number: int | None) -> dict[str, Value]:
        """The attributes of a row as the release shows them, by name; nothing without a row."""
        return {} if number is None else dict(zip(self.schema.attributes, self.rows[number].values, strict=True))


def resolved(schema: Schema, found: Mapping[str, Sequence[str]]) -> Schema:
    """A schema with the values that were found in the data, which are public from then on."""
    attributes = {
        name: kind.model_copy(update={"values": tuple(found[name])}) if name in found else kind
        for name, kind in schema.attributes.items()
    }
    return schema.model_copy(update={"attributes": attributes})


def noisy_law(
    config: SynthesisConfig, rho: float, delta: float, records: Sequence[Record], cell_of_unit: IntArray, cells: int,
    randomness: RandomSource,
) -> Law:  # fmt: skip
    """The joint law of cells and attributes, under delta-approximate rho-zCDP (guarantee 14).

    Args:
        config: the configuration.
        rho: zCDP of everything that is counted here.
        delta: for values that are found in the data, all columns together.
        records: the record of each unit. Secret.
        cell_of_unit: its cell, NO_CELL for a unit that takes no part, int64 [n]. Secret.
        cells: number of cells.
        randomness: source of all noise.
    """
    schema, names = config.columns, config.columns.found
    shares, found = Shares.of(rho, len(names)), {}
    taking_part = [record for record, cell in zip(records, cell_of_unit.tolist(), strict=True) if cell != NO_CELL]
    for name in names:
        place = list(schema.attributes).index(name)
        values = (str(value) if (value := record.attributes[place]) is not None else None for record in taking_part)
        found[name] = found_values(values, shares.found, delta / len(names), randomness)
    schema = resolved(schema, found)
    sizes = [cells, *(kind.size for kind in schema.attributes.values())]
    own = zip(cell_of_unit.tolist(), records, strict=True)
    rows = [(cell, *schema.codes_of(record.attributes)) for cell, record in own]
    codes = np.array(rows, dtype=np.int64).reshape(len(records), len(sizes))
    marginals = noisy_marginals(codes, sizes, shares, randomness)
    joint = fit(sizes, marginals)
    for column, (size, single) in enumerate(zip(sizes, marginals, strict=False)):
        # a column without missing values stays one, as far as the noise can tell
        if column and size > 1 and single.counts[-1] < CLEAR_MISSING * single.sigma:
            joint = joint.without(column, size - 1)
    return Law(schema, joint, marginals[0].counts)


def drawn_rows(law: Law, counts: Sequence[int], randomness: RandomSource) -> AttributeRows:
    """Synthetic rows, so many for each cell: post-processing of the law.

    Args:
        law: from `noisy_law`.
        counts: number of rows of each cell.
        randomness: source of what chance is left.
    """
    cells = np.repeat(np.arange(len(counts)), counts)
    codes = law.joint.draw(cells, np.random.default_rng(randomness.below(2**128)))[:, 1:]
    kinds = list(law.schema.attributes.values())
    rows = [
        AttributeRow(
            cell, tuple(own), tuple(kind.drawn(code, randomness.below) for kind, code in zip(kinds, own, strict=True))
        )
        for cell, own in zip(cells.tolist(), codes.tolist(), strict=True)
    ]
    return AttributeRows(law.schema, rows)


def row_counts(config: SynthesisConfig, cells: Sequence[Cell], written: Sequence[int]) -> list[int]:
    """How many rows each cell gets: as many as texts are released of it. Public and released numbers decide.

    Args:
        config: the configuration.
        cells: with noisy sizes.
        written: how many texts records write in each of them.
    """
    open_cells = [dataclasses.replace(cell, batches=1) for cell in cells]
    if config.has_text and not config.votes:
        further = allot_texts(cells, config.further, None)
        return [own + sum(more) for own, more in zip(written, further, strict=True)]
    labels = range(len(config.label_set))
    if isinstance(config.quotas, dict):
        wanted = [config.quotas.get(label, 0) for label in config.labels]
    elif config.quotas == "balanced":
        wanted = [config.released // len(labels) + (label < config.released % len(labels)) for label in labels]
    else:
        return [sum(own) for own in allot_texts(open_cells, config.released, None)]
    counts = [0] * len(cells)
    for label, texts in enumerate(wanted):
        own = [number for number, cell in enumerate(cells) if cell.label == label]
        for number, count in zip(own, allot_texts([open_cells[number] for number in own], texts, None), strict=True):
            counts[number] = sum(count)
    return counts
