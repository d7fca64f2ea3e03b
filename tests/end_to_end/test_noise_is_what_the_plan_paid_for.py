"""Whole runs on neighbours: which noise is asked for, on which counts, and what the plan paid (guarantee 2, 6.1)."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from doubles.embedders import Hashing
from doubles.models import Spy
from doubles.randomness import Noise

from plainchant import plan, synthesize
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.errors import ModelError
from plainchant.privacy.accounting import epsilon_at
from plainchant.privacy.amplification import deal_cost
from plainchant.privacy.histograms import VOTE_GRID

UNITS = 20
# a unit has one to four records of different labels, z among them, which is not in the public set
RECORDS = [
    {"text": " a" * (1 + unit % 4) + (" c" if label == "x" else " b") * (turn % 3), "unit": f"u{unit}", "label": label}
    for unit in range(UNITS)
    for turn, label in enumerate("xyzxy"[unit % 3 : unit % 3 + 1 + unit % 4])
]
VALUES: dict[str, Any] = {
    "unit_column": "unit", "label_column": "label", "labels": ("x", "y"), "max_tokens": 3, "min_tokens": 1,
    "max_record_tokens": 8, "top_k": 4, "texts": 6, "candidates": 2, "epsilon": 8.0,
}  # fmt: skip
MEAN: dict[str, Any] = {
    "method": "clustered-mean", "clipping": "difference", "support": "top_k", "clip": 1.0, "batch_size": 4,
    "rebalance_share": 0.4, "vote_share": 0.2, "min_cell": 1, "guidance": 1.0,
}  # fmt: skip
EVOLUTION: dict[str, Any] = {
    "method": "private-evolution", "rounds": 3, "candidates": 4, "prompt": {"example": "Text: {text}\n"},
}  # fmt: skip


class Recorded(Noise):
    """Notes the counts and σ of all noise. What it answers is the same on neighbours: so is all that follows."""

    def below(self, bound):
        # a unit is represented by its first record, whoever comes before it
        return 0 if bound < 10**6 else super().below(bound)

    def add_discrete_gaussian(self, counts, sigma):
        self.asked.append((list(counts), sigma))
        return 8 + np.arange(len(counts)) % 3


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("plainchant.models.checked", lambda *_, **__: True)
    # more centres than kinds of texts: some cells are empty
    centres = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    Centres(centres / np.linalg.norm(centres, axis=1, keepdims=True)).save(tmp_path / "centres.npz")

    def go(records, name, **values):
        if values["method"] == "clustered-mean":
            values["centres"] = str(tmp_path / "centres.npz")
        places = iter(range(10**6))
        # the same tokens whatever the records are
        monkeypatch.setattr("plainchant.privacy.mechanisms.sample", lambda scores, _: next(places) ** 2 % len(scores))
        noise = Recorded()
        with synthesize(
            records, plan(SynthesisConfig(**VALUES | values)), out=tmp_path / name, model=Spy(), embedder=Hashing(),
            performance=PerformanceOptions(rows=64), randomness=noise,
        ) as made:  # fmt: skip
            made.finish()
        return noise.asked, made

    return go


def paid(made):
    """ρ and the largest change of the counts that it pays for, of each noisy histogram of a run, in order."""
    decided, rounds = made.plan, made.plan.config.parts.rounds
    counts = [(decided.rho_select, 1), (decided.rho_size, 1)] if decided.rho_size else []
    words = [(decided.rho_words, VOTE_GRID)] if decided.rho_words else []
    return counts + words + [(decided.rho_vote / rounds, VOTE_GRID)] * rounds


FORMS = [MEAN, MEAN | {"rounds": 2, "vote_spread": 3}, MEAN | {"word_share": 0.1}, EVOLUTION]


@pytest.mark.parametrize("values", FORMS, ids=map(str, range(len(FORMS))))
def test_all_noise_together_costs_what_the_guarantee_names(run, values):
    asked, made = run(RECORDS, "whole", **values)
    charged = paid(made)
    assert [sigma for _, sigma in asked] == pytest.approx([most / math.sqrt(2 * rho) for rho, most in charged])
    decided = made.plan
    tokens = decided.mechanism.cost_of(decided.tokens_per_batch or 0).rho if decided.rho_size else 0.0
    assert bool(decided.rho_words) == (values is EVOLUTION or "word_share" in values)
    together = sum((most / sigma) ** 2 / 2 for (_, sigma), (_, most) in zip(asked, charged, strict=True))
    assert together + tokens <= made.guarantee.rho * (1 + 1e-9)


def test_noise_and_deals_together_cost_what_the_guarantee_names(run):
    asked, made = run(RECORDS, "whole", **MEAN | {"deals": True, "sparse_threshold": 0.0, "numerical_slack": 4e-3})
    decided = made.plan
    order, delta = decided.deals.order, decided.config.delta
    charged = paid(made)
    together = sum((most / sigma) ** 2 / 2 for (_, sigma), (_, most) in zip(asked, charged, strict=True))
    # what was dealt, from the theorem itself: for each cell all its deals, at the worst case of a whole text
    r, cells = decided.mechanism.cost_of(decided.config.max_tokens).rho, made.directory.cells()
    writing = Counter((batch.cell, batch.deal) for batch in made.directory.batches())
    costs = np.zeros(len(cells))
    for (cell, _), count in writing.items():
        costs[cell] += deal_cost(cells[cell].batches, count, r).at(order)
    assert 0 < costs.max() <= decided.deals.budget
    total = order * together + costs.max()
    assert total <= made.guarantee.cost.at(order) * (1 + 1e-9)
    assert epsilon_at(total, order, delta) <= made.guarantee.epsilon * (1 + 1e-9) <= decided.config.epsilon * (1 + 1e-9)
    assert all(batch.texts == 1 for batch in made.directory.batches())


@pytest.mark.parametrize("values", FORMS, ids=map(str, range(len(FORMS))))
def test_a_unit_with_many_records_moves_no_counts_by_more_than_is_paid_for(run, values):
    whole, made = run(RECORDS, "whole", **values)
    charged, largest = paid(made), np.zeros(len(whole))
    for gone in range(0, UNITS, 3):
        without, _ = run([row for row in RECORDS if row["unit"] != f"u{gone}"], f"without-{gone}", **values)
        assert [(len(counts), sigma) for counts, sigma in without] == [(len(counts), sigma) for counts, sigma in whole]
        moved = [np.linalg.norm(np.subtract(one, other)) for (one, _), (other, _) in zip(whole, without, strict=True)]
        largest = np.maximum(largest, moved)
        assert (np.array(moved) <= [most for _, most in charged]).all()
    # the bound is nearly reached, so more noise would be waste and a unit without any influence no test
    assert (largest >= [0.98 * most for _, most in charged]).all()


def test_a_unit_counts_once_whatever_its_records_are(run):
    asked, _ = run(RECORDS, "whole", **MEAN)
    first = {}
    for row in RECORDS:
        first.setdefault(row["unit"], row["label"])
    known = sum(label != "z" for label in first.values())
    assert len(first) == UNITS > known
    assert [sum(counts) for counts, _ in asked[:2]] == [known, known]


def test_empty_cells_are_noised_and_kept_by_their_noisy_counts(run):
    asked, made = run(RECORDS, "whole", **MEAN)
    select = asked[0][0]
    assert len(select) == 2 * 12
    assert 0 in select
    # the noise put every cell above the floor
    assert len(made.directory.cells()) == 2 * 12


class WideOnly(Spy):
    """Rows move in passes that are wider than usual, as noise in the sizes may make them."""

    numerical_slack = 1e-3

    def step(self, groups, supports=None):
        wide = sum(rows.count for rows, _ in groups) > 65
        return [logits + np.float32(0.5 * wide) for logits in super().step(groups, supports)]


def test_a_run_refuses_a_model_whose_rows_move_in_passes_as_wide_as_noise_may_make_them(tmp_path):
    decided = plan(SynthesisConfig(**VALUES | MEAN | {"clusters": "none", "candidates": 1, "batch_size": 8}))
    assert decided.most_rows(64) > 65 > decided.most_rows(8)
    values: dict[str, Any] = {"embedder": Hashing(), "randomness": Noise()}
    with pytest.raises(ModelError, match=f"in passes of 64 to {decided.most_rows(64)} rows"):
        synthesize(
            RECORDS, decided, out=tmp_path / "run", model=WideOnly(), performance=PerformanceOptions(rows=64), **values
        )


class Moving(Spy):
    """Rows move each other by less than the numerical slack allows a model."""

    numerical_slack = 1e-3
    moves = 2e-4

    def step(self, groups, supports=None):
        wide = sum(rows.count for rows, _ in groups) > 10
        return [logits + np.float32(self.moves * wide) for logits in super().step(groups, supports)]


def test_a_run_refuses_a_model_whose_rows_move_more_than_its_plan_covers(tmp_path):
    decided = plan(SynthesisConfig(**VALUES | MEAN | {"clusters": "none", "candidates": 1}))
    covered = decided.row_movement
    assert covered < Moving.moves < Moving.numerical_slack / 3
    values: dict[str, Any] = {"performance": PerformanceOptions(rows=12), "embedder": Hashing(), "randomness": Noise()}
    with pytest.raises(ModelError, match=f"allowed: {covered:.2g}"):
        synthesize(RECORDS, decided, out=tmp_path / "refused", model=Moving(), **values)
    model = Moving()
    model.moves = covered / 2
    with synthesize(RECORDS, decided, out=tmp_path / "taken", model=model, **values) as made:
        made.finish()
