"""Centres are made from public texts, whatever the private table holds (guarantee 2.1)."""

import json
from pathlib import Path

import numpy as np
import pytest
from doubles.embedders import Hashing
from doubles.models import Spy

import plainchant as pc
from plainchant.data.centres import Centres


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
    def interrupted(_):
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
