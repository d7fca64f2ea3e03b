"""The sparse vector: its sensitivity, and every output of a text with its exact probability (guarantee 5.4 and 10)."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import laplace
from strategies import additions, probabilities, removals, renyi, settings, step_distribution

from plainchant.errors import ConfigError
from plainchant.privacy.aggregation import Support
from plainchant.privacy.mechanisms import PublicMechanism
from plainchant.privacy.sparse_vector import SparseMeanMechanism, distance

V, T = 3, 3
OUTPUTS = list(itertools.product(range(V), repeat=T))
ORDERS = (1.01, 1.5, 2.0, 4.0, 16.0, 64.0)
STEP = settings(batch_size=20)


def logits_after(data, prefix):
    """Private logits [n, V] and public ones [V], as good as random functions of record and prefix."""

    def row(*key):
        return np.random.default_rng([len(prefix), *prefix, *key]).normal(0, 2.5, V).astype(np.float32)

    return np.array([row(record) for record in data], dtype=np.float32).reshape(-1, V), row()


def probability_of_text(mechanism, data):
    """The exact probability of every output, float64 [V**T]: an integral over each instance's noisy threshold."""
    public = PublicMechanism(mechanism.settings)
    steps = {}
    for prefix in (p for length in range(T) for p in itertools.product(range(V), repeat=length)):
        private, base = logits_after(data, prefix)
        steps[prefix] = (
            distance(mechanism.settings, private, base),
            probabilities(step_distribution(public, private, base), V),
            probabilities(step_distribution(mechanism, private, base), V),
        )
    # midpoints of equally likely pieces of the threshold's distribution
    noisy = mechanism.threshold + laplace.ppf((np.arange(4000) + 0.5) / 4000, scale=mechanism.noise)

    def rest(y, t, left):
        """The probability of y[t:], where an instance begins at t."""
        if t == T or not left:
            return np.prod([steps[y[:j]][1][y[j]] for j in range(t, T)])
        total, passed = 0.0, np.ones(len(noisy))
        for j in range(t, T):
            q, free, paid = steps[y[:j]]
            below = laplace.cdf(noisy - q, scale=2 * mechanism.noise)
            total += (passed * (1 - below)).mean() * paid[y[j]] * rest(y, j + 1, left - 1)
            passed = passed * below * free[y[j]]
        return total + passed.mean()

    return np.array([rest(y, 0, mechanism.private_tokens) for y in OUTPUTS])


DATA = [(), (1,), (1, 2, 3), tuple(range(8)), tuple(range(14))]


def violations(mechanism, claim):
    count = 0
    for data in DATA:
        p = probability_of_text(mechanism, data)
        assert p.sum() == pytest.approx(1, abs=1e-6)
        for neighbour in [data[:i] + data[i + 1 :] for i in range(len(data))] + [(*data, n) for n in (50, 51, 52)]:
            q = probability_of_text(mechanism, neighbour)
            count += sum(renyi(*pair, a) > a * claim + 1e-3 for a in ORDERS for pair in ((p, q), (q, p)))
    return count


@pytest.mark.parametrize(("threshold", "noise"), [(0.5, 0.2), (0.9, 0.05), (0.75, 0.4)])
def test_a_text_stays_within_its_rho(threshold, noise):
    mechanism = SparseMeanMechanism(STEP, threshold, noise, 2, 4)
    assert violations(mechanism, mechanism.rho_per_text) == 0


def test_power_less_noise_than_was_paid_for_is_caught():
    claimed = SparseMeanMechanism(STEP, 0.75, 0.4, 2, 4)
    assert violations(dataclasses.replace(claimed, noise=2e-4), claimed.rho_per_text) > 20


def test_power_a_comparison_that_costs_nothing_is_caught():
    mechanism = SparseMeanMechanism(STEP, 0.75, 0.02, 2, 4)
    assert violations(mechanism, 2 * mechanism.worst_case) > 0


rows = st.lists(st.lists(st.sampled_from([-8.0, -1.0, 0.0, 2.0, 9.0]), min_size=3, max_size=3), max_size=5)


@given(rows, st.sampled_from([0.7, 1.0, 2.0]))
def test_one_context_moves_the_distance_by_one_over_s_at_most(batch, temperature):
    step = settings(batch_size=4, temperature=temperature)
    private, public = np.array(batch, dtype=np.float32).reshape(-1, 3), np.array([0.3, -2.0, 1.0], dtype=np.float32)
    here = distance(step, private, public)
    grid = np.array([-9.0, 0.0, 9.0], dtype=np.float32)
    for other in itertools.chain(removals(private), additions(private, grid)):
        assert abs(distance(step, other, public) - here) <= 1 / 4 + 1e-6


def test_the_sensitivity_is_attained_and_rounding_is_paid_for():
    step = settings(batch_size=4, slack=1e-3)
    public = np.array([9.0, -9.0, -9.0], dtype=np.float32)
    far = np.array([[-9.0, 9.0, -9.0]], dtype=np.float32)
    moved = distance(step, far, public) - distance(step, far[:0], public)
    assert moved == pytest.approx(1 / 4, rel=1e-6)
    mechanism = SparseMeanMechanism(step, 0.5, 0.2, 4, 4)
    assert mechanism.sensitivity > 1 / 4 + 2e-3
    rng = np.random.default_rng(0)
    for _ in range(200):
        private, base = rng.normal(0, 4, (6, 3)).astype(np.float32), rng.normal(0, 4, 3).astype(np.float32)
        shaken = private + rng.choice([-1e-3, 1e-3], (6, 3)).astype(np.float32)
        # six rows in a batch of four: the numerical part is that of one and a half means
        assert abs(distance(step, shaken, base) - distance(step, private, base)) <= 1.5 * np.expm1(2e-3) + 1e-6


def test_a_context_that_changes_moves_the_distance_by_two_over_s_and_that_is_paid_for():
    step = settings(batch_size=4, records_per_context=2)
    public = np.array([0.0, 0.0, -30.0], dtype=np.float32)
    rows = np.array([[0.0, 0.0, -30.0]] * 3 + [[-30.0, -30.0, 0.0]], dtype=np.float32)
    # one unit fewer, and the last context says what the public model says
    changed = rows.copy()
    changed[3] = public
    moved = distance(step, rows, public) - distance(step, changed, public)
    assert moved == pytest.approx(2 / 4, rel=1e-6)
    assert moved <= SparseMeanMechanism(step, 0.5, 0.2, 4, 4).sensitivity <= 2 / 4 + 1e-6


def test_a_row_that_is_not_finite_counts_as_nothing():
    public = np.array([1.0, 0.0, -1.0], dtype=np.float32)
    odd = np.array([[np.nan, 0, 0], [np.inf, 0, 0]], dtype=np.float32)
    assert distance(STEP, odd, public) == pytest.approx(distance(STEP, odd[:0], public))


def test_bounds_are_checked():
    for threshold, noise, tokens in ((0, 0.2, 4), (0.5, 0, 4), (0.5, 0.2, 0), (float("nan"), 0.2, 4)):
        with pytest.raises(ConfigError):
            SparseMeanMechanism(settings(support=Support.FULL), threshold, noise, tokens, 8)
