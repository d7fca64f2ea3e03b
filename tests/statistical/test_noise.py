"""Noise and tokens are drawn from the distributions that the guarantee speaks of (guarantee 10, statistical).

False alarms: each test of a right distribution fails by chance with probability at most 1e-6.
"""

import numpy as np
import pytest
from scipy.stats import beta, chisquare
from strategies import distribution_of, settings

from plainchant.errors import PrivacyError
from plainchant.privacy.accounting import delta_of
from plainchant.privacy.aggregation import ROUNDING_RANGE, WEIGHT_FLOOR, sample, sampling_weights
from plainchant.privacy.mechanisms import MeanMechanism
from plainchant.randomness import SeededRandomness, SystemRandomness

FALSE_ALARM = 1e-6
DRAWS = 20_000
SIGMA = 3.0
SOURCES = [pytest.param(SystemRandomness(), id="system"), pytest.param(SeededRandomness(5), id="seeded")]


def fits(counts, distribution):
    """Chi-square of counts against a distribution, cells of fewer than ten expected put together."""
    rare = distribution * counts.sum() < 10
    counts = np.append(counts[~rare], counts[rare].sum())
    distribution = np.append(distribution[~rare], distribution[rare].sum())
    if distribution[-1] * counts.sum() < 1:
        counts, distribution = counts[:-1], distribution[:-1] / distribution[:-1].sum()
    return chisquare(counts, distribution * counts.sum()).pvalue > FALSE_ALARM


def noise_fits(noise, sigma):
    support = np.arange(-60, 61)
    distribution = np.exp(-(support**2) / (2 * sigma**2))
    return fits(np.bincount(noise + 60, minlength=len(support)), distribution / distribution.sum())


@pytest.mark.parametrize("source", SOURCES)
def test_noise_is_discrete_gaussian_of_the_right_sigma_and_no_other(source):
    noise = source.add_discrete_gaussian([7] * DRAWS, SIGMA) - 7
    assert noise_fits(noise, SIGMA)
    assert not noise_fits(noise, SIGMA * 2 / 3)
    assert not noise_fits(noise, SIGMA * 1.5)


@pytest.mark.parametrize("source", SOURCES)
def test_laplace_noise_has_the_right_scale_and_no_other(source):
    noise = np.array([source.discrete_laplace(SIGMA) for _ in range(DRAWS)])
    support = np.arange(-60, 61)
    counts = np.bincount(np.clip(noise, -60, 60) + 60, minlength=len(support))

    def distribution(scale):
        weights = np.exp(-np.abs(support) / scale)
        return weights / weights.sum()

    assert fits(counts, distribution(SIGMA))
    assert not fits(counts, distribution(SIGMA * 2 / 3))
    assert not fits(counts, distribution(SIGMA * 1.5))


def test_laplace_noise_of_a_fine_grid_is_fine():
    noise = np.array([SystemRandomness().discrete_laplace(0.4 * 2**32) for _ in range(2000)]) / 2**32
    assert len(set(noise.tolist())) == 2000
    # the mean of |x| is the scale, with a deviation of 0.009
    assert 0.35 < np.abs(noise).mean() < 0.45


def test_noise_of_no_size_is_refused():
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(PrivacyError):
            SystemRandomness().add_discrete_gaussian([1], sigma)
        with pytest.raises(PrivacyError):
            SystemRandomness().discrete_laplace(sigma)


@pytest.mark.parametrize("source", SOURCES)
def test_sample_draws_by_its_weights_and_no_others(source):
    scores = np.array([0.0, -1.3, 2.0, 0.4, -6.0])
    drawn = np.bincount([sample(scores, source) for _ in range(DRAWS)], minlength=5)
    weights = sampling_weights(scores).astype(np.float64)
    assert fits(drawn, weights / weights.sum())
    cooler = np.exp(1.1 * scores)
    assert not fits(drawn, cooler / cooler.sum())


def epsilon_at_least(mechanism, delta):
    """What an attacker proves from single tokens with and without one context (confidence 1 − 1e-6)."""
    source = SystemRandomness()
    rows = np.array([[0.0, 0.0, 0.0]] * 2)
    with_one = np.vstack([rows, [[9.0, -9.0, -9.0]]])
    distributions = [distribution_of(mechanism, data, np.zeros(3)) for data in (with_one, rows)]
    hits = [sum(sample(distribution.scores, source) == 0 for _ in range(DRAWS)) for distribution in distributions]
    low = beta.ppf(FALSE_ALARM / 2, hits[0], DRAWS - hits[0] + 1)
    high = beta.ppf(1 - FALSE_ALARM / 2, hits[1] + 1, DRAWS - hits[1])
    return np.log(max(low - delta, 1e-300) / high)


def test_empirical_epsilon_stays_under_the_claim_and_exceeds_it_without_clipping():
    real, forgetful = MeanMechanism(settings(clip=0.4)), MeanMechanism(settings(clip=4.0))
    claim = np.sqrt(8 * real.cost_of(1).rho)
    assert 0 < epsilon_at_least(real, 0.0) <= claim
    assert epsilon_at_least(forgetful, 0.0) > claim
    # the same as (ε, δ): the claim of zCDP at that ε
    assert epsilon_at_least(real, delta_of(real.cost_of(1).rho, claim)) <= claim


def test_rounding_of_weights_widens_a_log_ratio_by_no_more_than_is_covered():
    # scores down to below the floor, where rounding counts most; the exact weights as `sampling_weights` scales them
    scores = np.append(0.0, np.linspace(-26.0, -20.0, 20_001))
    bits = 62 - len(scores).bit_length()
    exact = np.maximum(np.exp(scores) * 2.0**bits, WEIGHT_FLOOR)
    moved = np.log(sampling_weights(scores).astype(np.float64)) - np.log(exact)
    # either neighbour's weights may be rounded up at one token and down at another
    assert 2 * np.ptp(moved) <= ROUNDING_RANGE
    assert 2 * np.ptp(moved) > 0.9 * ROUNDING_RANGE
