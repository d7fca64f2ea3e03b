"""Centres are made from public texts, whatever the private table holds (guarantee 2.1)."""

import json

import numpy as np
import pytest
from doubles.embedders import Hashing
from doubles.models import Spy

import plainchant as pc
from plainchant.data.centres import Centres


def centres_of(path, corpus, records):
    config = pc.SynthesisConfig(
        method="clustered-mean", support="top_k", top_k=4, clipping="difference", clip=1.0, batch_size=4, texts=2,
        max_tokens=5, min_tokens=1, max_record_tokens=8, epsilon=100, public_corpus=corpus, centres=5, min_cell=1,
    )  # fmt: skip
    options = pc.PerformanceOptions(rows=8)
    with pc.synthesize(records, pc.plan(config), out=path, model=Spy(), embedder=Hashing(), performance=options) as run:
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
