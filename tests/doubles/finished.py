"""A run directory as a finished run leaves it, without a model."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plainchant import plan
from plainchant.config import SynthesisConfig
from plainchant.planning import not_private
from plainchant.privacy.histograms import WHOLE_LABEL, Cell
from plainchant.run.card import data_set_card
from plainchant.run.store import Batch, RunDirectory

CELLS = (Cell(0, 3, 143, 3), Cell(1, WHOLE_LABEL, 77, 2))


def finished(path: Path, rows: Sequence[Mapping[str, Any]], *, private: bool = True, **fields: Any) -> RunDirectory:
    """A finished run with these rows, two labels and two cells; seeded where it is not private."""
    of = plan(SynthesisConfig(**({"labels": ("red", "blue"), "label_column": "label"} | fields)))
    guarantee = of.guarantee if private else not_private(of.config, "its randomness came from a seed")
    directory = RunDirectory.create(path, of, guarantee, data="", private=private, model="sha256 0123abc")
    directory.save_batches(CELLS, [Batch(0, 0, 1), Batch(1, 1, 2)], [])
    card = data_set_card(of, guarantee, CELLS, len(rows), date=directory.release_date(), model="sha256 0123abc")
    directory.write_release([dict(row) for row in rows], dataclasses.asdict(guarantee), card)
    return directory
