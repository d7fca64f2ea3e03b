"""The Rényi filter of the individual mean: what a context pays, and what rounding can do to it (guarantee 5.2, 7)."""

import dataclasses

import numpy as np
import pytest
from doubles.broken import Cuts
from strategies import settings, step_distribution

from plainchant.errors import PrivacyError
from plainchant.privacy.aggregation import Clipping, clip_increases
from plainchant.privacy.individual import PACE, IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism

V, N, STEPS = 40, 16, 80
STEP = settings(clipping=Clipping.DIFFERENCE, guidance=2.0, clip=10.0, batch_size=N, slack=1e-3)


def logits(seed):
    generator = np.random.default_rng(seed)
    public = generator.normal(0, 2, V).astype(np.float32)
    return public, (public + generator.normal(0, 1.2, (N, V))).astype(np.float32)


def walk(mechanism, noise=0.0):
    """Aggregates, nats, and what everybody has paid in the end, with rows moved at random by at most `noise`."""
    generator, spent, found = np.random.default_rng(5), np.zeros(N), []
    for step in range(STEPS):
        public, rows = logits(step)
        rows = rows + (noise * generator.uniform(-1, 1, rows.shape)).astype(np.float32)
        distribution = step_distribution(mechanism, rows, public, mechanism.allowance(spent, STEPS - step))
        spent = spent + distribution.charges
        found.append(distribution.scores * mechanism.settings.temperature)
    return np.array(found), spent


# a third of what the batch would pay without a filter
BUDGET = float(np.median(walk(IndividualMeanMechanism(STEP, 1e9, STEPS))[1]) / 3)


def test_rounding_moves_the_aggregate_by_less_than_the_slack_while_budgets_run_dry():
    mechanism = IndividualMeanMechanism(STEP, BUDGET, STEPS)
    exact, spent = walk(mechanism)
    assert (spent > 0.9 * BUDGET).all()
    for noise in (3e-5, 1e-4):
        assert np.abs(walk(mechanism, noise)[0] - exact).max() < STEP.slack


def test_power_a_cut_lets_rounding_move_the_aggregate_by_a_contexts_whole_reach():
    mechanism = Cuts(STEP, BUDGET, STEPS)
    exact, _ = walk(mechanism)
    assert max(np.abs(walk(mechanism, noise)[0] - exact).max() for noise in (1e-4, 3e-4, 1e-3)) > 50 * STEP.slack


def test_a_rich_context_pays_for_its_own_range_only():
    mechanism = IndividualMeanMechanism(STEP, 1e9, STEPS)
    public, rows = logits(1)
    distribution = step_distribution(mechanism, rows, public, mechanism.allowance(np.zeros(N), STEPS))
    own = np.ptp(rows - public, axis=1)
    moved, numerical = 2.0 * own / N, 2 * STEP.slack
    assert distribution.charges == pytest.approx(((moved + numerical) ** 2 - numerical**2) / 8, rel=1e-5)
    assert distribution.scores == pytest.approx(step_distribution(MeanMechanism(STEP), rows, public).scores)
    # a context like the public row moves nothing and pays nothing
    still = step_distribution(mechanism, np.tile(public, (N, 1)), public, mechanism.allowance(np.zeros(N), STEPS))
    assert still.charges.max() == 0


def test_a_poor_context_moves_what_it_can_pay_for():
    mechanism = IndividualMeanMechanism(STEP, 1.0, STEPS)
    public, rows = logits(2)
    allowance = np.linspace(0, 1e-3, N)
    distribution = step_distribution(mechanism, rows, public, allowance)
    assert distribution.charges == pytest.approx(np.minimum(allowance, distribution.charges.max()), abs=1e-12)
    assert np.ptp(distribution.removals[0]) == 0
    assert (np.ptp(distribution.removals.astype(np.float64), axis=1) + 2e-3) ** 2 / 8 - (
        2e-3
    ) ** 2 / 8 == pytest.approx(distribution.charges, rel=1e-4, abs=1e-9)


def test_pace_leaves_something_for_later_texts():
    mechanism = IndividualMeanMechanism(STEP, 1.0, 1000)
    left = mechanism.allowance(np.zeros(1), 1000)[0] / (PACE / 1000)
    assert left == pytest.approx(1.0 - 1000 * (2e-3) ** 2 / 8)
    # nobody can pay everything at once, not even with the last token
    assert mechanism.allowance(np.zeros(1), 1)[0] == pytest.approx(left / 2)
    assert mechanism.allowance(np.array([5.0]), 1)[0] == 0


def test_no_allowance_is_no_permission():
    public, rows = logits(3)
    with pytest.raises(PrivacyError, match="allowance"):
        step_distribution(IndividualMeanMechanism(STEP, 1.0, STEPS), rows, public)
    with pytest.raises(PrivacyError, match="allowance"):
        step_distribution(IndividualMeanMechanism(STEP, 1.0, STEPS), rows, public, np.ones(N - 1))


def test_a_slack_that_eats_the_budget_is_refused():
    with pytest.raises(PrivacyError, match="numerical_slack"):
        IndividualMeanMechanism(dataclasses.replace(STEP, slack=1.0), 1.0, STEPS)


def test_an_increase_is_what_lies_above_the_rows_own_public_mean():
    """By hand: p_0 = (4, 1)/5 up to a constant, weights (2, 1)/3."""
    public = np.log(np.array([4.0, 1.0], dtype=np.float32))
    rows = public + np.array([[0.0, 3.0], [3.0, 0.0], [0.0, 30.0], [np.nan, 0.0]], dtype=np.float32)
    clipped = clip_increases(rows, public, 10.0)
    assert np.allclose(clipped, [[0.0, 2.0], [1.0, 0.0], [0.0, 10.0], [0.0, 0.0]], atol=1e-6)


def test_an_increase_costs_at_most_half_the_range_of_a_difference():
    worst = [
        MeanMechanism(settings(clipping=clipping, clip=3.0, batch_size=10)).worst_case
        for clipping in (Clipping.INCREASE, Clipping.DIFFERENCE)
    ]
    assert worst[1] == pytest.approx(4 * worst[0])
