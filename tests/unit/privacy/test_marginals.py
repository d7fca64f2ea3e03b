"""Noisy marginals and found values: what one unit changes, and what the noise pays for (guarantee 14.2, 14.3)."""

import itertools
import math

import numpy as np
import pytest
from doubles.randomness import Noise

from plainchant.privacy.accounting import Cost
from plainchant.privacy.histograms import NO_CELL, noise_sigma
from plainchant.privacy.marginals import Shares, counted_pairs, found_values, noisy_marginals, rare_noise
from plainchant.randomness import SystemRandomness

SIZES = [2, 3, 2]
ROWS = np.array([*itertools.product(range(2), range(3), range(2)), [NO_CELL, 1, 1]], dtype=np.int64)


def _gaussian(sigma: float, reach: int = 400) -> np.ndarray:
    k = np.arange(-reach, reach + 1)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    return weights / weights.sum()


def test_every_neighbour_changes_each_marginal_by_one_at_most_and_a_row_without_a_cell_changes_none() -> None:
    shares = Shares.of(1.0, found=0)
    whole = Noise()
    noisy_marginals(ROWS, SIZES, shares, whole)
    for gone in range(len(ROWS)):
        without = Noise()
        noisy_marginals(np.delete(ROWS, gone, axis=0), SIZES, shares, without)
        for (one, sigma), (other, again) in zip(whole.asked, without.asked, strict=True):
            assert sigma == again
            assert np.linalg.norm(np.subtract(one, other)) == (ROWS[gone] != NO_CELL).all()


@pytest.mark.parametrize("sizes", [SIZES, [1, 4, 3], [40_000, 4, 3], [7], [40_000, 40_000]])
@pytest.mark.parametrize("found", [0, 2])
def test_all_marginals_together_cost_what_the_shares_name(sizes: list[int], found: int) -> None:
    noise, shares = Noise(), Shares.of(0.3, found)
    noisy_marginals(np.zeros((1, len(sizes)), dtype=np.int64), sizes, shares, noise)
    assert len(noise.asked) == len(sizes) + len(counted_pairs(sizes))
    assert sum(1 / (2 * sigma**2) for _, sigma in noise.asked) == pytest.approx(shares.single + shares.pairs)
    assert found * shares.found + shares.single + shares.pairs == pytest.approx(0.3)
    # noise on empty combinations too
    assert [len(counts) for counts, _ in noise.asked][: len(sizes)] == sizes


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0, 20.0])
@pytest.mark.parametrize("delta", [0.3, 1e-4, 1e-9])
def test_noise_reaches_the_threshold_no_more_often_than_allowed_and_not_much_less(sigma: float, delta: float) -> None:
    law, t = _gaussian(sigma), rare_noise(sigma, delta)
    assert law[400 + t :].sum() <= delta * (1 + 1e-9)
    assert law[400 + t - 1 :].sum() > delta * (1 - 1e-5)


def _probability_of_finding(count: int, rho: float, delta: float) -> float:
    """Of a value that so many units have, by the exact law of the noise and the code's own threshold."""
    found = [bool(found_values(["v"] * count, rho, delta, Noise(noise))) for noise in range(-60, 61)]
    return float(_gaussian(noise_sigma(rho), 60)[found].sum()) if count else 0.0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_unit_more_changes_what_is_found_by_no_more_than_is_paid_for(count: int) -> None:
    rho, delta = 0.05, 1e-3
    epsilon = Cost(rho, delta=delta).epsilon(2 * delta)
    more, fewer = (_probability_of_finding(own, rho, delta) for own in (count, count - 1))
    for one, other in ((more, fewer), (1 - more, 1 - fewer)):
        assert one <= math.exp(epsilon) * other + 2 * delta
        assert other <= math.exp(epsilon) * one + 2 * delta


def test_power_a_threshold_that_forgets_the_unit_itself_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plainchant.privacy.marginals.rare_noise", lambda sigma, delta: rare_noise(sigma, delta) - 1)
    assert _probability_of_finding(1, 0.05, 1e-3) > 1e-3


def test_values_are_found_in_the_order_of_their_names_and_missing_ones_never() -> None:
    values = ["b"] * 500 + [None] * 900 + ["a"] * 600 + ["rare"]
    assert found_values(values, 0.5, 1e-6, SystemRandomness()) == ["a", "b"]
    assert found_values([], 0.5, 1e-6, SystemRandomness()) == []
