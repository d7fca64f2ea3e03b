"""What a text costs does not grow with the table."""

import sqlite3

import numpy as np
import pytest

from plainchant import plan
from plainchant.config import SynthesisConfig
from plainchant.generation.decoding import FinishedText
from plainchant.privacy.histograms import Cell
from plainchant.run.store import Batch, Draw, RunDirectory

CONFIG = SynthesisConfig(clusters="none", batch_size=24, max_tokens=8, texts=4)
EVERY = 10  # database instructions between two ticks


def ticks_to_commit(path, units, monkeypatch):
    """Instructions of the database for one text of a batch of eight, by tens."""
    decided = plan(CONFIG)
    directory = RunDirectory.create(path, decided, decided.guarantee, data="x", private=True)
    batches = units // 8
    records = np.arange(units, dtype=np.int64)
    own = [Batch(batch, 0, 1) for batch in range(batches)]
    directory.save_batches((Cell(0, -1, units, batches),), own, [Draw(records, records // 8)])
    ticks, connect = [], sqlite3.connect

    def counting(*arguments):
        database = connect(*arguments)
        database.set_progress_handler(lambda: ticks.append(1), EVERY)
        return database

    with monkeypatch.context() as patch:
        patch.setattr("sqlite3.connect", counting)
        directory.commit(FinishedText(3, 0, "a", 2, "end", 0.5, 0.25, tuple(np.arange(8) / 8)))
    assert [spent for _, spent in directory.members()[3]] == (np.arange(8) / 8).tolist()
    return len(ticks)


@pytest.mark.parametrize("units", [800, 16_000])
def test_committing_a_text_looks_at_its_own_batch_only(units, tmp_path, monkeypatch):
    small = ticks_to_commit(tmp_path / "small", 80, monkeypatch)
    assert 10 < small <= ticks_to_commit(tmp_path / "large", units, monkeypatch) < 1.5 * small
