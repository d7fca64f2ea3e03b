"""A run directory fills each place once, for one process, and goes on only with what it was begun with."""

import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
from doubles.randomness import Draws

from plainchant import plan, synthesize
from plainchant.config import SynthesisConfig
from plainchant.data.files import atomic_write
from plainchant.errors import ConfigError, DataError, ModelError, PrivacyError, RunError
from plainchant.generation.decoding import FinishedText
from plainchant.models.table import TableModel
from plainchant.privacy.histograms import Cell
from plainchant.run.ledger import Ledger
from plainchant.run.store import Batch, Draw, RunDirectory, Winner

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


def test_a_release_is_sealed_by_its_checksums(directory):
    with pytest.raises(ConfigError, match="no release yet"):
        directory.seal()
    directory.write_release([{"text": "a", "cell": 0}], {"kind": "ex-ante"}, "card")
    seal = directory.seal()
    assert sorted(seal.files) == ["README.md", "guarantee.json", "synthetic.jsonl", "synthetic.parquet"]
    assert seal.files["README.md"] == hashlib.sha256(b"card").hexdigest()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", seal.date)
    assert directory.sealed_release()["README.md"] == b"card"
    # the first day counts, also when a finished run is resumed
    directory.write_private("release.json", {"date": "2020-02-29", "files": seal.files})
    directory.write_release([{"text": "a", "cell": 0}], {"kind": "ex-ante"}, "card")
    assert directory.seal().date == "2020-02-29"


@pytest.mark.parametrize("spoil", ["changed", "missing", "link"])
def test_a_release_that_was_changed_is_not_taken_for_sealed(directory, tmp_path, spoil):
    directory.write_release([{"text": "a", "cell": 0}], {}, "card")
    file = directory.release / "synthetic.jsonl"
    content = file.read_bytes()
    file.unlink()
    if spoil == "changed":
        file.write_bytes(content + b"\n")
    elif spoil == "link":
        (tmp_path / "same").write_bytes(content)
        file.symlink_to(tmp_path / "same")
    with pytest.raises(RunError, match=r"synthetic\.jsonl: is not as the run wrote it"):
        directory.sealed_release()


def test_a_damaged_seal_is_told(directory):
    directory.write_private("release.json", {"date": "2020-02-29", "files": None})
    with pytest.raises(RunError, match=r"release\.json"):
        directory.seal()


def test_a_run_goes_on_only_with_the_model_that_it_was_started_with(tmp_path, model, monkeypatch):
    monkeypatch.setattr("plainchant.models.load", lambda *_: model)
    monkeypatch.setattr("plainchant.models.revision_of", lambda _: "sha256 one")
    options = {"out": tmp_path / "out"}
    synthesize(RECORDS, plan(CONFIG), **options).close()
    assert RunDirectory.open(tmp_path / "out").origin.model == "sha256 one"
    monkeypatch.setattr("plainchant.models.revision_of", lambda _: "sha256 two")
    with pytest.raises(ModelError, match="is sha256 two now, and the run was started with sha256 one"):
        synthesize(RECORDS, plan(CONFIG), resume=True, **options)
    # of a model that is handed over loaded, no version is known
    synthesize(RECORDS, plan(CONFIG), resume=True, model=model, **options).close()


def test_a_second_draw_for_a_place_is_refused_and_stores_nothing(directory):
    directory.commit(text())
    directory.commit(text(1))
    with pytest.raises(RunError, match="already filled"):
        directory.commit(text(text="another"))
    assert directory.texts() == [text(), text(1)]
    assert directory.batch_costs() == [(0, 4, 1.0, 0.5)]


def test_batches_are_formed_once_and_kept_as_they_were(directory):
    cells = (Cell(0, 2, 9, 2), Cell(0, 5, 1, 0))
    batches = [Batch(0, 0, 2), Batch(1, 0, 1)]
    draw = (cells, batches, [Draw(np.array([4, 1, 7]), np.array([1, -1, 0]))])
    directory.save_batches(*draw)
    assert directory.is_formed()
    with pytest.raises(RunError):
        directory.save_batches(*draw)
    assert tuple(directory.cells()) == cells
    assert directory.batches() == batches
    assert directory.members() == {1: [([4], 0.0)], 0: [([7], 0.0)]}


def test_deals_and_contexts_of_several_records_come_back_with_what_was_paid(directory):
    batches = [Batch(0, 0, 1, 0, 0.5), Batch(1, 0, 1, 1, 0.5)]
    records, contexts = np.array([4, 1, 7, 3]), np.array([2, 0, 2, 5])
    first = Draw(records, np.array([0, 0, 0, -1]), contexts)
    second = Draw(records, np.array([-1, 1, -1, 1]), contexts)
    directory.save_batches((Cell(0, -1, 9, 3),), batches, [first, second])
    assert directory.batches() == batches
    assert directory.members() == {0: [([1], 0.0), ([4, 7], 0.0)], 1: [([1], 0.0), ([3], 0.0)]}
    directory.commit(dataclasses.replace(text(), batch=1, position=0, spent=(0.25, 0.125)))
    assert directory.members() == {0: [([1], 0.0), ([4, 7], 0.0)], 1: [([1], 0.25), ([3], 0.125)]}
    with pytest.raises(RunError, match="another number of contexts"):
        directory.commit(dataclasses.replace(text(), batch=0, position=0, spent=(0.5, 0.5, 0.5)))
    # nothing of it is kept
    assert [place.batch for place in directory.texts()] == [1]


def test_what_a_run_was_begun_with_comes_back(directory):
    assert (directory.origin.data, directory.origin.private) == ("x", True)
    assert "data" not in repr(directory.origin)


def test_a_vote_is_written_once(directory):
    assert directory.winners(0) is None
    assert directory.facts() == []
    votes, winners = [(0, 2, 0, 3), (1, 2, 0, -1)], [Winner(1, 2, 0), Winner(0, 0, 5)]
    directory.save_vote(0, votes, winners, {"round": 1})
    assert directory.votes(0) == votes
    assert directory.winners(0) == winners
    assert directory.facts() == [{"round": 1}]
    assert directory.winners(1) is None
    with pytest.raises(RunError):
        directory.save_vote(0, [(0, 0, 0, 7)], [], {})


def test_counts_of_words_are_written_once(directory):
    assert directory.words() == {}
    assert directory.word_votes().size == 0
    votes = [(0, 7, -3, 2), (0, 3, 5, 0), (1, 3, 8, 1), (1, 7, 0, 9)]
    directory.save_words({7: "tea", 3: "é"}, votes)
    assert directory.words() == {3: "é", 7: "tea"}
    assert list(directory.words()) == [3, 7]
    assert directory.word_votes().tolist() == [[[5, 0], [-3, 2]], [[8, 1], [0, 9]]]
    with pytest.raises(RunError):
        directory.save_words({9: "a", 3: "é"}, [])
    assert directory.words() == {3: "é", 7: "tea"}


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
        assert held.returncode
        assert "another process is working" in held.stderr
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
    assert len(texts) == made.requested
    assert first in texts
    assert {*committed} <= {*made.directory.texts()}
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
        assert made.finish()
        assert made.directory.release.exists()


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


# copies of a directory whose run a ledger has paid for


class Stopped(KeyboardInterrupt):
    """Stands for a process that is stopped."""


@pytest.mark.parametrize("when", ["before batches are formed", "after one text"])
def test_three_resumes_of_three_copies_give_one_release(tmp_path, model, monkeypatch, when):
    ledger = Ledger.create(tmp_path / "data.ledger", 10.0, 1e-6).path
    with monkeypatch.context() as patch:
        if when == "before batches are formed":

            def stop(*_):
                raise Stopped

            patch.setattr("plainchant.run.synthesis.form_batches", stop)
            with pytest.raises(Stopped):
                go(tmp_path, model, ledger=ledger)
        else:
            with go(tmp_path, model, ledger=ledger) as run:
                next(iter(run))
    copies = [tmp_path / f"copy{number}" for number in range(3)]
    for copy in copies:
        shutil.copytree(tmp_path / "out", copy)
    refused = 0
    for copy in copies:
        try:
            with synthesize(RECORDS, plan(CONFIG), out=copy, model=model, resume=True, ledger=ledger) as run:
                assert len(run.finish()) > 0
        except PrivacyError as error:
            assert "start a new run" in str(error)
            refused += 1
    assert (refused, sum((copy / "release").exists() for copy in copies)) == (2, 1)
    assert len(Ledger(ledger).runs) == 1


def test_a_run_at_work_does_not_release_beside_its_copy(tmp_path, model):
    ledger = Ledger.create(tmp_path / "data.ledger", 10.0, 1e-6).path
    with go(tmp_path, model, ledger=ledger) as run:
        texts = iter(run)
        next(texts)
        shutil.copytree(tmp_path / "out", tmp_path / "copy")
        with synthesize(
            RECORDS, plan(CONFIG), out=tmp_path / "copy", model=model, resume=True, ledger=ledger
        ) as another:
            assert len(another.finish()) > 0
        with pytest.raises(PrivacyError, match="copy"):
            list(texts)
    assert not (tmp_path / "out" / "release").exists()


def test_a_run_that_a_ledger_pays_for_does_not_go_on_without_it(tmp_path, model):
    ledger = Ledger.create(tmp_path / "data.ledger", 30.0, 1e-6).path
    with go(tmp_path, model, ledger=ledger) as run:
        next(iter(run))
    with pytest.raises(PrivacyError, match="name the ledger: --ledger "):
        go(tmp_path, model, resume=True)
    # and one that was begun without a ledger may be entered late, once
    with synthesize(RECORDS, plan(CONFIG), out=tmp_path / "late", model=model) as run:
        next(iter(run))
    with synthesize(RECORDS, plan(CONFIG), out=tmp_path / "late", model=model, resume=True, ledger=ledger):
        pass
    assert len(Ledger(ledger).runs) == 2


def test_editing_the_directory_raises_no_epsilon(tmp_path, model):
    """Both files agree with the configuration that is asked for; the ledger knows what was entered."""
    ledger = Ledger.create(tmp_path / "data.ledger", 100.0, 1e-6).path
    with go(tmp_path, model, ledger=ledger) as run:
        next(iter(run))
    dearer = plan(CONFIG.model_copy(update={"epsilon": 2 * CONFIG.epsilon}))
    directory = RunDirectory.open(tmp_path / "out")
    edited = directory.plan | dearer.as_dict()
    file = tmp_path / "out" / "config.toml"
    before, after = (f"epsilon = {config.epsilon}" for config in (CONFIG, dearer.config))
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    (tmp_path / "out" / "plan.json").write_text(json.dumps(edited))
    with pytest.raises(PrivacyError, match=r"was entered with .*epsilon"):
        synthesize(RECORDS, dearer, out=tmp_path / "out", model=model, resume=True, ledger=ledger)


# what a killed process leaves behind, what others may read and write

MAKE = """
import os, pathlib, signal, sys
from plainchant import plan
from plainchant.config import SynthesisConfig
from plainchant.run import store
def kill(*_): os.kill(os.getpid(), signal.SIGKILL)
where, moment, umask = sys.argv[1:]
os.umask(int(umask, 8))
if moment == "half": store.write_json = kill
if moment == "whole": pathlib.Path.rename = kill
decided = plan(SynthesisConfig(method="public"))
store.RunDirectory.create(pathlib.Path(where), decided, decided.guarantee, data="x", private=True)
"""


def make(where, moment="", umask="022"):
    return subprocess.run([sys.executable, "-c", MAKE, str(where), moment, umask]).returncode


@pytest.mark.parametrize("moment", ["half", "whole"])
def test_what_a_killed_process_left_of_a_directory_is_removed(tmp_path, moment):
    (tmp_path / ".run.backup").mkdir()
    (tmp_path / ".running.unfinished-x").mkdir()
    assert make(tmp_path / "run", moment) == -signal.SIGKILL
    [left] = tmp_path.glob(".run.unfinished-*")
    (tmp_path / ".run.unfinished-empty").mkdir()
    assert make(tmp_path / "run") == 0
    assert {path.name for path in tmp_path.iterdir()} == {".run.backup", ".running.unfinished-x", "run"}
    assert not left.exists()


def test_what_another_process_is_making_stays(tmp_path, directory):
    other = tmp_path / ".second.unfinished-1"
    shutil.copytree(directory.path, other)
    decided = plan(CONFIG)
    with RunDirectory(other).locked():
        RunDirectory.create(tmp_path / "second", decided, decided.guarantee, data="x", private=True)
    assert other.is_dir()


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_nobody_else_writes_a_run_whatever_the_umask(tmp_path, umask):
    where = tmp_path / "over" / "run"
    assert make(where, umask=umask) == 0
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (where.parent, *where.rglob("*"), where)}
    assert not [path for path, mode in modes.items() if mode & 0o022]
    assert not [path for path, mode in modes.items() if "private" in path.parts and mode & 0o077 and path.is_dir()]
    assert modes[where / "private"] == 0o700
    assert modes[where / "private" / "run.sqlite"] == 0o600


def test_a_release_touches_its_own_files_only(tmp_path, directory):
    outside, beside = tmp_path / "outside", directory.release / "notes.txt"
    directory.release.mkdir()
    (directory.release / f".README.md.{'0' * 32}.tmp").write_text("left by a killed process")
    for path in (outside, beside):
        path.write_text("private")
        path.chmod(0o600)
    (directory.release / "link").symlink_to(outside)
    directory.write_release([{"text": "a"}], {}, "card")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (outside, beside)} == {0o600}
    names = {path.name for path in directory.release.iterdir() if stat.S_IMODE(path.stat().st_mode) == 0o644}
    assert names == {"synthetic.jsonl", "synthetic.parquet", "guarantee.json", "README.md"}
    assert not list(directory.release.glob(".*"))


@pytest.mark.parametrize("name", ["synthetic.jsonl", "README.md", ""])
def test_a_release_is_written_into_no_link(tmp_path, directory, name):
    outside = tmp_path / "outside"
    if name:
        directory.release.mkdir()
        outside.write_text("mine")
    else:
        outside.mkdir()
    (directory.release / name if name else directory.release).symlink_to(outside)
    with pytest.raises(ConfigError, match="is a link"):
        directory.write_release([{"text": "a"}], {}, "card")
    assert outside.read_text() == "mine" if name else not list(outside.iterdir())


def test_private_files_are_private_from_their_first_moment(tmp_path, directory):
    path = directory.write_private("figures.json", {"a": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "file", mode=0o600) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        raise ZeroDivisionError
    assert not list(tmp_path.glob(".file*"))


# the order of a release


def test_the_order_of_a_release_is_uniform_and_stays(tmp_path):
    """Every order of three rows comes from equally many draws, and a second call draws nothing."""
    found = []
    for first, second in itertools.product(range(3), range(2)):
        directory = RunDirectory.create(
            tmp_path / f"{first}{second}", plan(CONFIG), plan(CONFIG).guarantee, data="x", private=True
        )
        order = directory.order_of_release(3, Draws([first, second]))
        assert directory.order_of_release(3, Draws([])) == order
        found.append(tuple(order))
    assert sorted(found) == sorted(itertools.permutations(range(3)))


def test_a_kept_order_of_other_rows_is_refused(directory):
    directory.order_of_release(3, Draws([0, 0]))
    with pytest.raises(RunError, match="not the order"):
        directory.order_of_release(4, Draws([]))


def test_a_transaction_is_on_the_disk_when_it_ends(directory):
    # FULL leaves a moment in which a journal that is gone may come back with the power
    with directory._connect() as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (3,)


def test_what_a_new_run_is_to_note_stands_there_from_its_first_moment(tmp_path, monkeypatch):
    def fails(self, path):
        raise OSError(28, "full")

    made = RunDirectory.create(
        tmp_path / "a", plan(CONFIG), plan(CONFIG).guarantee, data="x", private=True, notes={"note.json": {"n": 1}}
    )
    assert made.read_private("note.json") == {"n": 1}
    monkeypatch.setattr("pathlib.Path.rename", fails)
    with pytest.raises(ConfigError, match="cannot be made"):
        RunDirectory.create(
            tmp_path / "b", plan(CONFIG), plan(CONFIG).guarantee, data="x", private=True, notes={"note.json": {}}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
