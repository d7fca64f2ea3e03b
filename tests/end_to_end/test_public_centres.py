"""Centres are made from public texts, whatever the private table holds (guarantee 2.1)."""

import json
from pathlib import Path

import numpy as np
import pytest
from doubles.embedders import Hashing
from doubles.models import Spy

import plainchant as pc
from plainchant.data.centres import Centres
from plainchant.run.ledger import Ledger


def begin(path, records, *, resume=False, ledger=None, embedder=None, **changes):
    config = pc.SynthesisConfig(
        method="clustered-mean", support="top_k", top_k=4, clipping="difference", clip=1.0, batch_size=4, texts=2,
        max_tokens=5, min_tokens=1, max_record_tokens=8, epsilon=100, min_cell=1, **({"centres": 5} | changes),
    )  # fmt: skip
    return pc.synthesize(
        records, pc.plan(config), out=path, resume=resume, ledger=ledger, model=Spy(), embedder=embedder or Hashing(),
        performance=pc.PerformanceOptions(rows=8),
    )  # fmt: skip


def centres_of(path, corpus, records):
    with begin(path, records, public_corpus=corpus) as run:
        return Centres.load(run.directory.centres).vectors


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"a public text, number {n}"}) for n in range(40)), encoding="utf-8")
    return str(path)


def test_no_private_record_moves_a_centre(tmp_path, corpus):
    table = [{"text": " a b" if n % 3 else " c c a"} for n in range(60)]
    first = centres_of(tmp_path / "one", corpus, table)
    other = centres_of(tmp_path / "other", corpus, [{"text": " b b b"}] * 50)
    assert np.array_equal(first, other)


def test_power_a_centre_of_a_private_text_is_seen(tmp_path, corpus):
    # what the comparison above would show if a private text went into the corpus
    table = [{"text": text} for text in (" a b", " b b b", " c c a")] * 20
    first = centres_of(tmp_path / "one", corpus, table)
    with open(corpus, "a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"text": " a b"}))
    assert not np.array_equal(first, centres_of(tmp_path / "other", corpus, table))


def test_a_run_that_resumes_before_its_cells_are_formed_checks_its_public_inputs_again(tmp_path, corpus, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    table = [{"text": f" a b {n}"} for n in range(60)]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("plainchant.run.synthesis.form_batches", interrupted)
        begin(tmp_path / "run", table, public_corpus=corpus)
    honest = Path(corpus).read_text(encoding="utf-8")
    Path(corpus).write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
    with pytest.raises(pc.PrivacyError, match="most of the private table's texts"):
        begin(tmp_path / "run", table, public_corpus=corpus, resume=True)
    Path(corpus).write_text(honest, encoding="utf-8")
    begin(tmp_path / "run", table, public_corpus=corpus, resume=True).close()


class Refuses(Hashing):
    """Fails at a record, and quotes it."""

    def encode(self, texts, *, alone=False, progress=None):
        if alone:
            raise KeyError(texts[0])
        return super().encode(texts)


@pytest.mark.parametrize("mistake", ["another dimension", "few different texts", "a failing embedder"])
def test_what_fails_before_cells_are_formed_costs_nothing(tmp_path, corpus, mistake):
    Centres(np.eye(5, dtype=np.float32)).save(tmp_path / "five.npz")
    (tmp_path / "few.txt").write_text("one\ntwo\nthree\n" * 30, encoding="utf-8")
    changes, error, message = {
        "another dimension": ({"centres": str(tmp_path / "five.npz")}, pc.ConfigError, "have 5 dimensions.* have 3"),
        "few different texts": ({"public_corpus": str(tmp_path / "few.txt")}, pc.ConfigError, "different public texts"),
        "a failing embedder": ({"public_corpus": corpus, "embedder": Refuses()}, pc.RunError, "failed with KeyError"),
    }[mistake]
    ledger = Ledger.create(tmp_path / "data.ledger", 1000.0, 1e-6)
    with pytest.raises(error, match=message) as caught:
        begin(tmp_path / "run", [{"text": f" a secret {n}"} for n in range(60)], ledger=ledger.path, **changes)
    assert ledger.runs == []
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ == (error is pc.RunError)
