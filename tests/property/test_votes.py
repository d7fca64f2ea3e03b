"""A vote's sensitivity, exactly, over all neighbours (guarantee 8); and votes that are broken on purpose are caught."""

import math
from fractions import Fraction

import numpy as np
import pytest
from doubles.randomness import Repeatable

from plainchant.data.nearest import nearest_points
from plainchant.errors import ConfigError
from plainchant.privacy.histograms import (
    NO_CELL,
    VOTE_GRID,
    Ballot,
    count_votes,
    noise_sigma,
    noisy_votes,
    vote_weight,
)
from plainchant.run.votes import make_ballot

LABELS, UNITS, CANDIDATES, DIMENSIONS = 3, 24, 60, 48


def unit_rows(n, seed):
    rows = np.random.default_rng(seed).normal(size=(n, DIMENSIONS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# every second candidate is a twin of another one, in an order of its own
TWINS = np.random.default_rng(0).permutation(CANDIDATES) % (CANDIDATES // 2)
VECTORS = unit_rows(CANDIDATES // 2, seed=1)[TWINS]
ASKED = np.random.default_rng(2).integers(LABELS, size=CANDIDATES)
UNIT_VECTORS = unit_rows(UNITS, seed=3)
UNIT_LABELS = np.array([NO_CELL, *(np.arange(UNITS - 1) % LABELS)])


def with_twins(spread):
    """Every candidate, twins and all, for every label."""
    return Ballot((np.arange(CANDIDATES),) * LABELS, spread)


def distinct(spread, reach=2):
    """As a run makes it."""
    texts = [str(twin) for twin in TWINS]
    return make_ballot(texts, ASKED, VECTORS, np.arange(CANDIDATES), labels=LABELS, spread=spread, reach=reach)


def votes(keep, ballot):
    embeddings = UNIT_VECTORS[keep]
    return count_votes(
        UNIT_LABELS[keep],
        lambda units, candidates, count: nearest_points(embeddings[units], VECTORS[candidates], count),
        ballot,
    )


def centred(keep, ballot):
    """Broken: rows are centred by the mean of all voters, so that a unit's choice sees the others."""
    embeddings = UNIT_VECTORS[keep] - 2 * UNIT_VECTORS[keep].mean(axis=0)
    return count_votes(
        UNIT_LABELS[keep],
        lambda units, candidates, count: nearest_points(embeddings[units], VECTORS[candidates], count),
        ballot,
    )


def largest_change(voting, ballot):
    """The largest squared ℓ2-norm by which one unit more or less changes the votes: all neighbours, in integers."""
    everybody = np.arange(UNITS)
    whole = voting(everybody, ballot)
    changes = [whole - voting(np.delete(everybody, gone), ballot) for gone in everybody]
    return max(int((change.astype(object) ** 2).sum()) for change in changes)


@pytest.mark.parametrize("spread", [1, 4, 16])
@pytest.mark.parametrize("form", [with_twins, distinct])
def test_no_neighbour_changes_more_than_a_whole_vote_and_the_bound_is_nearly_reached(spread, form):
    worst = largest_change(votes, form(spread))
    assert 0.99 * VOTE_GRID**2 <= worst <= VOTE_GRID**2


@pytest.mark.parametrize("spread", [1, 4, 16])
def test_what_is_charged_is_what_the_noise_pays_for(spread):
    """ρ >= ‖Δ‖²/(2σ²) in exact rationals, with the σ that the noise was drawn with."""

    class Noting(Repeatable):
        cells, sigma = 0, 0.0

        def add_discrete_gaussian(self, counts, sigma):
            self.cells, self.sigma = len(counts), sigma
            return np.array(counts)

    ballot, source = distinct(spread), Noting(0)
    for rho in (0.02, 0.3, 0.9):
        noisy_votes(votes(np.arange(UNITS), ballot), rho, source)
        # noise in every cell of the public ballot, where nobody voted too
        assert source.cells == sum(map(len, ballot.candidates))
        charged = Fraction(largest_change(votes, ballot)) / (2 * Fraction(source.sigma) ** 2)
        assert charged <= Fraction(rho) * (1 + Fraction(1, 10**12))


def test_the_renyi_divergence_of_noisy_votes_is_within_what_is_charged():
    """D_α of the joint law before and after a unit, by summation over the noise's law in each of its cells."""
    rho = 0.4
    for spread in (1, 4, 16):
        sigma = VOTE_GRID * noise_sigma(rho)
        shift = vote_weight(spread)
        reach = np.arange(-int(9 * sigma), int(9 * sigma) + shift + 1, dtype=np.float64)
        log_p = -(reach**2) / (2 * sigma**2)
        log_p -= np.log(np.exp(log_p).sum())
        log_q = -((reach - shift) ** 2) / (2 * sigma**2)
        log_q -= np.log(np.exp(log_q).sum())
        for alpha in (1.5, 2, 8):
            own = np.log(np.exp(alpha * log_p + (1 - alpha) * log_q).sum()) / (alpha - 1)
            assert spread * own <= alpha * rho * (1 + 1e-9)


def test_weights_of_a_whole_vote_each_are_caught(monkeypatch):
    monkeypatch.setattr("plainchant.privacy.histograms.vote_weight", lambda chosen: VOTE_GRID)
    assert largest_change(votes, distinct(1)) == VOTE_GRID**2
    for spread in (4, 16):
        assert largest_change(votes, distinct(spread)) == spread * VOTE_GRID**2


@pytest.mark.parametrize("spread", [1, 4, 16])
def test_a_vote_that_sees_anothers_is_caught(spread):
    assert largest_change(centred, distinct(spread)) > VOTE_GRID**2


def test_a_weight_is_the_largest_integer_whose_vote_fits():
    for chosen in range(1, 2000):
        weight = vote_weight(chosen)
        assert chosen * weight**2 <= VOTE_GRID**2 < chosen * (weight + 1) ** 2
        assert weight >= 0.95 * VOTE_GRID / math.sqrt(chosen)


def test_a_unit_without_a_label_has_no_vote_and_few_candidates_take_a_whole_one():
    assert not votes(np.array([0]), distinct(4)).any()
    ballot = Ballot((np.array([7, 9]), np.array([], dtype=np.int64), np.arange(5)), 4)
    counts = votes(np.arange(UNITS), ballot)
    units = [np.count_nonzero(label == UNIT_LABELS) for label in range(LABELS)]
    assert counts.tolist()[:2] == [units[0] * vote_weight(2)] * 2
    assert counts[2:].sum() == units[2] * 4 * vote_weight(4)
    with pytest.raises(ConfigError, match="twice"):
        Ballot((np.array([1, 1]),), 1)


def test_a_ballot_holds_each_text_and_vector_once_and_its_nearest_labels_first():
    ballot = distinct(1, reach=LABELS)
    for own in ballot.candidates:
        assert len(own) == len(set(TWINS)) == len({VECTORS[place].tobytes() for place in own})
    # equal vectors under different texts are one candidate, too
    several = make_ballot(
        [str(place) for place in range(CANDIDATES)], ASKED, VECTORS, np.arange(CANDIDATES),
        labels=LABELS, spread=1, reach=LABELS,
    )  # fmt: skip
    assert [own.tolist() for own in several.candidates] == [own.tolist() for own in ballot.candidates]
    for label, own in enumerate(distinct(1, reach=1).candidates):
        assert set(ASKED[own]) == {label}
    # a label for which nothing was written may vote for all
    lonely = make_ballot(["a", "b"], np.array([0, 1]), np.eye(2, dtype=np.float32), np.arange(2), labels=3, spread=1,
                         reach=1)  # fmt: skip
    assert [own.tolist() for own in lonely.candidates] == [[0], [1], [0, 1]]
