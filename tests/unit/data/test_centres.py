"""Public centres: k-means, nearest centre, file."""

from pathlib import Path

import numpy as np
import pytest

from plainchant.data.centres import Centres, fit_centres
from plainchant.errors import ConfigError


def unit_rows(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_finds_separate_clusters():
    directions = np.eye(4, 16, dtype=np.float32)
    rows = (np.repeat(directions, 50, axis=0) + 0.05 * unit_rows(200)).astype(np.float32)
    centres = fit_centres(rows, 4)
    cells = centres.nearest(rows).reshape(4, 50)
    assert (cells == cells[:, :1]).all()
    assert set(cells[:, 0]) == {0, 1, 2, 3}


def test_same_texts_same_centres():
    rows = unit_rows(300)
    assert np.array_equal(fit_centres(rows, 20).vectors, fit_centres(rows, 20).vectors)
    assert not np.array_equal(fit_centres(rows, 20).vectors, fit_centres(unit_rows(300, seed=1), 20).vectors)


def test_more_centres_than_different_texts_are_refused():
    rows = np.tile(unit_rows(5), (3, 1))
    assert fit_centres(rows, 5).vectors.shape == (5, 16)
    for k in (0, 6):
        with pytest.raises(ConfigError, match=rf"centres = {k}.*1, \.\.\., 5"):
            fit_centres(rows, k)


def test_nearest_is_the_euclidean_one():
    # inner products alone would send everything to the longest centre
    centres = Centres(np.array([[1.0, 0.0], [5.0, 0.0], [0.0, 0.3]]))
    rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    expected = np.argmin(np.linalg.norm(rows[:, None] - centres.vectors[None], axis=2), axis=1)
    assert centres.nearest(rows).tolist() == expected.tolist() == [0, 2, 2]


def test_nearest_among_some_gives_indices_into_all():
    centres, rows = Centres(unit_rows(40)), unit_rows(200, seed=1)
    allowed = np.array([31, 7, 7, 12])
    cells = centres.nearest(rows, allowed)
    distances = np.linalg.norm(rows[:, None] - centres.vectors[None], axis=2)
    kept = np.array([7, 12, 31])
    assert cells.dtype == np.int64
    assert np.array_equal(cells, kept[np.argmin(distances[:, kept], axis=1)])


def test_ties_go_to_the_lowest_index():
    vectors = unit_rows(6)
    centres = Centres(vectors[[0, 1, 2, 1, 0]])
    assert centres.nearest(vectors[:3]).tolist() == [0, 1, 2]
    assert centres.nearest(vectors[:2], np.array([4, 3, 0])).tolist() == [0, 3]


def test_a_cell_depends_on_its_own_row_only(monkeypatch: pytest.MonkeyPatch):
    centres, rows = Centres(unit_rows(64)), unit_rows(500, seed=2)
    whole = centres.nearest(rows)
    assert np.array_equal(centres.nearest(rows[::-1])[::-1], whole)
    assert [centres.nearest(row[None])[0] for row in rows] == whole.tolist()
    monkeypatch.setattr("plainchant.data.nearest._CHUNK", 7)
    assert np.array_equal(centres.nearest(rows), whole)


def test_no_rows_no_cells():
    assert Centres(unit_rows(3)).nearest(np.empty((0, 16), dtype=np.float32)).shape == (0,)


@pytest.mark.parametrize("among", [[], [-1], [0, 3]])
def test_bad_among_is_refused(among: list[int]):
    with pytest.raises(ConfigError, match="among"):
        Centres(unit_rows(3)).nearest(unit_rows(2), np.array(among))


def test_another_dimension_is_refused():
    with pytest.raises(ConfigError, match="centres have 16 dimensions"):
        Centres(unit_rows(3)).nearest(unit_rows(2, d=8))


@pytest.mark.parametrize("vectors", [np.empty((0, 4)), np.ones(4), np.array([[np.nan, 1.0]])])
def test_bad_vectors_are_refused(vectors: np.ndarray):
    with pytest.raises(ConfigError, match="centres"):
        Centres(vectors)


def test_vectors_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        Centres(unit_rows(3)).vectors[0] = 0.0


def test_file_round_trip(tmp_path):
    centres = Centres(unit_rows(10))
    centres.save(tmp_path / "centres")  # the very path, no suffix added
    loaded = Centres.load(tmp_path / "centres")
    assert np.array_equal(loaded.vectors, centres.vectors)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"centres = .*no such file"):
        Centres.load(tmp_path / "none.npz")
    path = tmp_path / "foreign.npz"
    for write in (
        lambda file: file.write(b""),
        lambda file: file.write(b"PK\x03\x04 not a zip"),
        lambda file: np.save(file, np.ones((2, 2))),
        lambda file: np.savez(file, other=np.ones((2, 2))),
    ):
        with open(path, "wb") as file:
            write(file)
        with pytest.raises(ConfigError, match=r"centres = .*foreign"):
            Centres.load(path)


def test_a_file_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    np.savez(tmp_path / "trap.npz", vectors=np.array([Trap()], dtype=object))
    with pytest.raises(ConfigError, match="centres = "):
        Centres.load(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()
