"""A model's version is the checksum that anybody can compute with sha256sum, or the Hub's commit."""

import subprocess

import pytest

from plainchant import models
from plainchant.data.checkpoints import weights_sha256


def sums(folder, *command):
    return subprocess.run(
        command, cwd=folder, shell=len(command) == 1, check=True, capture_output=True, text=True
    ).stdout


def test_one_file_has_its_own_checksum(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    assert sums(tmp_path, "sha256sum", "model.safetensors").split()[0] == weights_sha256(tmp_path)


def test_several_files_have_that_of_their_list(tmp_path):
    for number in (2, 1, 3):
        (tmp_path / f"model-{number}.safetensors").write_bytes(bytes([number]))
    assert sums(tmp_path, "sha256sum *.safetensors | sha256sum").split()[0] == weights_sha256(tmp_path)
    before = weights_sha256(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(b"other")
    assert weights_sha256(tmp_path) != before


def test_a_folder_is_known_by_its_weights_and_a_cached_model_by_its_commit(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    found = {"a/b": snapshot}
    monkeypatch.setattr("plainchant.models.transformers.load._cached", found.get)
    assert models.revision_of("a/b") == "commit 0123abc"
    assert models.revision_of("a/c") is None
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    assert models.revision_of(str(folder)) == f"sha256 {weights_sha256(folder)}"


def test_of_another_backend_no_version_is_known(monkeypatch):
    monkeypatch.setitem(models._LOADERS, "mine", lambda *_: pytest.fail("nothing is loaded"))
    assert models.revision_of("mine:model") is None
