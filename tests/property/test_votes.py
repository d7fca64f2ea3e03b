"""A vote's sensitivity, exactly, over all neighbours (guarantee 8); and votes that are broken on purpose are caught."""

import dataclasses
import functools
import math
import tracemalloc
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
    return Ballot((np.arange(CANDIDATES),) * LABELS, (spread,) * LABELS)


def distinct(spread, reach=2):
    """As a run makes it."""
    texts = [str(twin) for twin in TWINS]
    forms = [(spread, reach)] * LABELS
    return make_ballot(texts, ASKED, VECTORS, np.arange(CANDIDATES), forms)


def mixed(_):
    """Each label with a form of its own, as labels of different sizes have."""
    texts = [str(twin) for twin in TWINS]
    return make_ballot(texts, ASKED, VECTORS, np.arange(CANDIDATES), [(1, 3), (4, 2), (16, 1)])


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


def changes(voting, ballot):
    """By how much one unit more changes the votes of each cell, for all neighbours, in integers."""
    everybody = np.arange(UNITS)
    whole = voting(everybody, ballot)
    return [whole - voting(np.delete(everybody, gone), ballot) for gone in everybody]


def largest_change(voting, ballot):
    """The largest squared ℓ2-norm of such a change."""
    return max(int((change.astype(object) ** 2).sum()) for change in changes(voting, ballot))


@functools.cache
def divergence(shift, sigma, alpha):
    """D_α of one cell's noisy votes from the same with `shift` more, by summation over the noise's law."""
    reach = np.arange(-int(9 * sigma), int(9 * sigma) + shift + 1, dtype=np.float64)
    logs = [-((reach - moved) ** 2) / (2 * sigma**2) for moved in (0, shift)]
    log_p, log_q = (own - np.log(np.exp(own).sum()) for own in logs)
    return float(np.log(np.exp(alpha * log_p + (1 - alpha) * log_q).sum()) / (alpha - 1))


def worst_divergence(voting, ballot, rho, alpha):
    """D_α of all cells together, with the σ of a vote of this ρ; the largest over all neighbours.

    The law is symmetric, so that both directions are one.
    """
    sigma = VOTE_GRID * noise_sigma(rho)
    return max(
        sum(divergence(abs(int(moved)), sigma, alpha) for moved in change[change != 0])
        for change in changes(voting, ballot)
    )


@pytest.mark.parametrize("spread", [1, 4, 16])
@pytest.mark.parametrize(
    "form", [with_twins, mixed, *(functools.partial(distinct, reach=reach) for reach in (1, 2, LABELS))]
)
def test_no_neighbour_changes_more_than_a_whole_vote_and_the_bound_is_nearly_reached(spread, form):
    worst = largest_change(votes, form(spread))
    assert 0.99 * VOTE_GRID**2 <= worst <= VOTE_GRID**2


def test_each_label_votes_in_its_own_form():
    ballot = mixed(None)
    own = np.repeat(np.arange(LABELS), [len(candidates) for candidates in ballot.candidates])
    for label, change in zip(UNIT_LABELS, changes(votes, ballot), strict=True):
        spread = 0 if label == NO_CELL else (1, 4, 16)[label]
        moved = change[change != 0]
        assert moved.tolist() == [vote_weight(spread)] * spread if spread else not len(moved)
        assert set(own[change != 0]) <= {label}
    # K = 3, 2, 1
    assert [len(set(ASKED[candidates])) for candidates in ballot.candidates] == [3, 2, 1]


@pytest.mark.parametrize("spread", [1, 4, 16])
@pytest.mark.parametrize("form", [with_twins, distinct])
def test_a_unit_moves_cells_of_its_own_label_alone(spread, form):
    ballot = form(spread)
    own = np.repeat(np.arange(LABELS), [len(candidates) for candidates in ballot.candidates])
    for label, change in zip(UNIT_LABELS, changes(votes, ballot), strict=True):
        moved = change[change != 0]
        assert set(own[change != 0]) == (set() if label == NO_CELL else {label})
        assert moved.tolist() == [] if label == NO_CELL else [vote_weight(spread)] * spread


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


@pytest.mark.parametrize("spread", [1, 4, 16])
@pytest.mark.parametrize("form", [with_twins, distinct])
def test_the_renyi_divergence_of_noisy_votes_is_within_what_is_charged(spread, form):
    rho = 0.4
    for alpha in (1.5, 2, 8):
        assert 0.98 * alpha * rho <= worst_divergence(votes, form(spread), rho, alpha) <= alpha * rho * (1 + 1e-9)


def test_weights_of_a_whole_vote_each_are_caught(monkeypatch):
    monkeypatch.setattr("plainchant.privacy.histograms.vote_weight", lambda chosen: VOTE_GRID)
    assert largest_change(votes, distinct(1)) == VOTE_GRID**2
    for spread in (4, 16):
        assert largest_change(votes, distinct(spread)) == spread * VOTE_GRID**2
        assert worst_divergence(votes, distinct(spread), 0.4, 2) > 0.9 * spread * 2 * 0.4


def test_weights_that_sum_to_a_whole_vote_would_waste_it(monkeypatch):
    """ℓ1-norm 1 is safe and pays √Q times too much: what is charged is the ℓ2-norm."""
    monkeypatch.setattr("plainchant.privacy.histograms.vote_weight", lambda chosen: VOTE_GRID // chosen)
    for spread in (4, 16):
        assert largest_change(votes, distinct(spread)) == VOTE_GRID**2 // spread


@pytest.mark.parametrize("spread", [1, 4, 16])
def test_a_vote_that_sees_anothers_is_caught(spread):
    assert largest_change(centred, distinct(spread)) > VOTE_GRID**2


@pytest.mark.parametrize("spread", [1, 4, 16])
def test_a_unit_that_votes_under_two_labels_is_caught(spread):
    def twice(keep, ballot):
        embeddings, labels = UNIT_VECTORS[keep], UNIT_LABELS[keep]
        other = np.where(labels == NO_CELL, NO_CELL, (labels + 1) % LABELS)
        return sum(
            count_votes(
                own,
                lambda units, candidates, count: nearest_points(embeddings[units], VECTORS[candidates], count),
                ballot,
            )
            for own in (labels, other)
        )

    assert largest_change(twice, distinct(spread)) > 1.9 * VOTE_GRID**2


def test_a_spread_from_the_true_number_of_voters_is_caught():
    def adapted(keep, ballot):
        return votes(keep, dataclasses.replace(ballot, spread=(max(1, len(keep) - UNITS + 5),) * LABELS))

    assert largest_change(adapted, distinct(1)) > VOTE_GRID**2


def test_a_ballot_of_what_somebody_voted_for_is_caught():
    """Broken: a candidate that nobody is nearest to is taken off the ballot, and its number of cells follows."""

    def sizes(keep):
        own = votes(keep, distinct(1))
        return np.count_nonzero(own)

    everybody = np.arange(UNITS)
    assert len({sizes(np.delete(everybody, gone)) for gone in everybody}) > 1
    # the real one has the same cells whoever votes
    assert len({len(votes(np.delete(everybody, gone), distinct(1))) for gone in everybody}) == 1


def test_votes_are_counted_in_memory_that_does_not_grow_with_the_units(monkeypatch):
    monkeypatch.setattr("plainchant.privacy.histograms._UNITS", 512)
    monkeypatch.setattr("plainchant.data.nearest._SCORES", 64 * CANDIDATES)
    ballot = with_twins(16)

    def peak(units):
        rows, labels = unit_rows(units, seed=5), np.zeros(units, dtype=np.int64)

        def nearest(own, candidates, count):
            return nearest_points(rows[own], VECTORS[candidates], count)

        tracemalloc.start()
        try:
            found = count_votes(labels, nearest, ballot)
            return tracemalloc.get_traced_memory()[1], found
        finally:
            tracemalloc.stop()

    (few, _), (many, found) = peak(1_000), peak(20_000)
    # beside the blocks, the list of a label's units: 8 bytes a unit, and a mark
    assert many - few < 10 * 19_000
    assert found.sum() == 20_000 * 16 * vote_weight(16)
    monkeypatch.undo()
    whole, blocks = peak(20_000)
    assert blocks.tolist() == found.tolist()
    assert whole - few > 10 * 19_000


def test_a_weight_is_the_largest_integer_whose_vote_fits():
    for chosen in range(1, 2000):
        weight = vote_weight(chosen)
        assert chosen * weight**2 <= VOTE_GRID**2 < chosen * (weight + 1) ** 2
        assert weight >= 0.95 * VOTE_GRID / math.sqrt(chosen)


def test_a_unit_without_a_label_has_no_vote_and_few_candidates_take_a_whole_one():
    assert not votes(np.array([0]), distinct(4)).any()
    ballot = Ballot((np.array([7, 9]), np.array([], dtype=np.int64), np.arange(5)), (4, 4, 4))
    counts = votes(np.arange(UNITS), ballot)
    units = [np.count_nonzero(label == UNIT_LABELS) for label in range(LABELS)]
    assert counts.tolist()[:2] == [units[0] * vote_weight(2)] * 2
    assert counts[2:].sum() == units[2] * 4 * vote_weight(4)
    with pytest.raises(ConfigError, match="one each"):
        Ballot((np.arange(5), np.arange(5)), (1,))
    with pytest.raises(ConfigError, match="twice"):
        Ballot((np.array([1, 1]),), (1,))


def test_a_ballot_holds_each_text_and_vector_once_and_its_nearest_labels_first():
    ballot = distinct(1, reach=LABELS)
    for own in ballot.candidates:
        assert len(own) == len(set(TWINS)) == len({VECTORS[place].tobytes() for place in own})
    # equal vectors under different texts are one candidate, too
    several = make_ballot(
        [str(place) for place in range(CANDIDATES)], ASKED, VECTORS, np.arange(CANDIDATES), [(1, LABELS)] * LABELS
    )
    assert [own.tolist() for own in several.candidates] == [own.tolist() for own in ballot.candidates]
    for label, own in enumerate(distinct(1, reach=1).candidates):
        assert set(ASKED[own]) == {label}
    # a label for which nothing was written has nothing of its own, and all where all are open to it
    for reach, eligible in ((1, []), (3, [0, 1])):
        forms = [(1, 1), (1, 1), (1, reach)]
        lonely = make_ballot(["a", "b"], np.array([0, 1]), np.eye(2, dtype=np.float32), np.arange(2), forms)
        assert [own.tolist() for own in lonely.candidates] == [[0], [1], eligible]
