"""A run directory fills each place once, for one process, and goes on only with what it was begun with."""

import json
import subprocess
import sys

import numpy as np
import pytest

from plainchant import plan, synthesize
from plainchant.config import SynthesisConfig
from plainchant.errors import ConfigError, DataError, RunError
from plainchant.generation.decoding import FinishedText
from plainchant.models.table import TableModel
from plainchant.privacy.histograms import Cell
from plainchant.run.store import Batch, RunDirectory, Winner

CONFIG = SynthesisConfig(
    method="clustered-mean",
    clusters="none",
    clip=1.0,
    batch_size=4,
    max_tokens=3,
    min_tokens=1,
    texts=6,
    max_record_tokens=4,
)
RECORDS = [{"text": " a b"}, {"text": " b"}, {"text": ""}] * 16


def text(position=0, **changes):
    return FinishedText(**({"batch": 0, "position": position, "text": "a", "tokens": 2, "finish": "end"} | changes
                           | {"loss": 0.5, "rho": 0.25}))  # fmt: skip


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run", plan(CONFIG), plan(CONFIG).guarantee, data="x", private=True)


@pytest.fixture
def model():
    return TableModel(["<eos>", "Text:", " a", " b", "\n"], lambda _: np.array([-3.0, -9, 0, 0, -9]), end_of_text={0})


def go(tmp_path, model, records=RECORDS, config=CONFIG, **rest):
    return synthesize(records, plan(config), out=tmp_path / "out", model=model, **rest)


def test_a_second_draw_for_a_place_is_refused_and_stores_nothing(directory):
    directory.commit(text())
    directory.commit(text(1))
    with pytest.raises(RunError, match="already filled"):
        directory.commit(text(text="another"))
    assert directory.texts() == [text(), text(1)]
    assert directory.batch_costs() == [(0, 4, 1.0, 0.5)]


def test_batches_are_formed_once_and_kept_as_they_were(directory):
    cells = (Cell(0, 2, 9, 2), Cell(0, 5, 1, 0))
    draw = (cells, [[2, 1], []], np.array([4, 1, 7]), np.array([1, -1, 0]))
    directory.save_batches(*draw)
    assert directory.is_formed()
    with pytest.raises(RunError):
        directory.save_batches(*draw)
    assert tuple(directory.cells()) == cells
    assert directory.batches() == [Batch(0, 0, 2), Batch(1, 0, 1)]
    assert directory.members() == {1: [([4], 0.0)], 0: [([7], 0.0)]}


def test_what_a_run_was_begun_with_comes_back(directory):
    assert (directory.origin.data, directory.origin.private) == ("x", True)
    assert "data" not in repr(directory.origin)


def test_a_vote_is_written_once(directory):
    assert directory.winners(0) is None and directory.facts() == []
    votes, winners = [(0, 2, 0, 3), (1, 2, 0, -1)], [Winner(1, 2, 0), Winner(0, 0, 5)]
    directory.save_vote(0, votes, winners, {"round": 1})
    assert directory.votes(0) == votes and directory.winners(0) == winners and directory.facts() == [{"round": 1}]
    assert directory.winners(1) is None
    with pytest.raises(RunError):
        directory.save_vote(0, [(0, 0, 0, 7)], [], {})


def test_the_configuration_comes_back_as_it_was(directory):
    assert directory.config == RunDirectory.open(directory.path).config == CONFIG


def test_private_files_are_for_their_owner_alone(directory):
    directory.save_embeddings(np.ones((2, 3), dtype=np.float32))
    directory.write_private("costs.json", {"a": 1})
    assert directory.embeddings().shape == (2, 3)
    assert directory.private.stat().st_mode & 0o777 == 0o700
    for name in ("embeddings.npy", "costs.json", "run.sqlite"):
        assert (directory.private / name).stat().st_mode & 0o777 == 0o600


def test_a_directory_that_holds_something_is_refused(directory, tmp_path):
    with pytest.raises(ConfigError, match="--resume"):
        RunDirectory.create(directory.path, plan(CONFIG), plan(CONFIG).guarantee, data="x", private=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="choose another"):
        RunDirectory.create(tmp_path / "other", plan(CONFIG), plan(CONFIG).guarantee, data="x", private=True)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="not a run directory"):
        RunDirectory.open(tmp_path / "other")


def test_a_second_process_is_refused(directory):
    code = (
        "import pathlib, sys\nfrom plainchant.run.store import RunDirectory\n"
        "with RunDirectory.open(pathlib.Path(sys.argv[1])).locked(): print('free')"
    )
    again = [sys.executable, "-c", code, str(directory.path)]
    with directory.locked():
        held = subprocess.run(again, capture_output=True, text=True)
        assert held.returncode and "another process is working" in held.stderr
    assert subprocess.run(again, capture_output=True, text=True).stdout == "free\n"


def test_a_damaged_database_is_named(directory):
    (directory.private / "run.sqlite").write_bytes(b"not a database, by no means " * 99)
    with pytest.raises(RunError, match="cannot be used"):
        directory.texts()


def test_resume_goes_on_with_what_is_missing(tmp_path, model):
    with go(tmp_path, model) as made:
        first = next(iter(made))
    committed = made.directory.texts()
    batches, members = made.directory.batches(), made.directory.members()
    with go(tmp_path, model, resume=True) as made:
        texts = made.finish()
    assert len(texts) == made.requested and first in texts and {*committed} <= {*made.directory.texts()}
    assert (made.directory.batches(), made.directory.members()) == (batches, members)


def test_resume_with_other_data_or_configuration_is_refused(tmp_path, model):
    with go(tmp_path, model) as made:
        next(iter(made))
    for changes in ({"epsilon": 9.0}, {"texts": 7}, {"min_tokens": 2}):
        with pytest.raises(ConfigError, match=f"resume: {next(iter(changes))} differ"):
            go(tmp_path, model, config=CONFIG.model_copy(update=changes), resume=True)
    for records in (RECORDS[1:], [*RECORDS, RECORDS[0]], RECORDS[::-1]):
        with pytest.raises(DataError, match="resume: the data"):
            go(tmp_path, model, records, resume=True)
    with go(tmp_path, model, resume=True) as made:
        assert len(made.finish()) == made.requested


def test_nothing_is_released_before_the_end(tmp_path, model):
    with go(tmp_path, model) as made:
        next(iter(made))
        assert not made.directory.release.exists()
    with go(tmp_path, model, resume=True) as made:
        assert made.finish() and made.directory.release.exists()


def test_resume_under_another_plan_is_refused(tmp_path, model):
    file = (
        RunDirectory.create(tmp_path / "out", plan(CONFIG), plan(CONFIG).guarantee, data="x", private=True).path
        / "plan.json"
    )
    told = json.loads(file.read_text(encoding="utf-8"))
    for changed in ({"rho_batch": 0.5}, {"guarantee": told["guarantee"] | {"version": "0.0.1"}}):
        file.write_text(json.dumps(told | changed), encoding="utf-8")
        with pytest.raises(RunError, match="another plan"):
            go(tmp_path, model, resume=True)
    file.unlink()
    with pytest.raises(RunError, match=r"plan\.json"):
        go(tmp_path, model, resume=True)
