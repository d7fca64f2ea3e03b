"""The secret draw of batches: the bounds against sums by hand, and at their edges (guarantee 13)."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from plainchant.errors import ConfigError
from plainchant.privacy.accounting import LARGEST_ORDER, Budget, Cost, epsilon_at, rho_of
from plainchant.privacy.amplification import _by_exponentials, deal_cost, log_moments

DELTA = 1e-6


def largest_payment(budget, t, w, deals, other, *, rate=1.0, order=None):
    """The largest r (rounded down) at which the deals of a cell and all other costs stay within a budget.

    By one `order`, or by the best one where t, w and the number of deals are fixed in advance (guarantee 13.7).
    """
    # twice the order that suits plain zCDP; deals need less, since their curves are steeper
    suits = 2 * (1 + math.sqrt(math.log(1 / budget.delta) / rho_of(budget.epsilon, budget.delta)))
    largest_order = order or min(512, max(LARGEST_ORDER, math.ceil(suits)))

    def fits(r):
        run = deal_cost(t, w, r, largest_order=largest_order).scaled(deals) + other
        total = run.sampled(rate).as_curve(largest_order)
        if order is None:
            return total.fits(budget)
        return epsilon_at(total.at(order), order, budget.delta) * (1 + 1e-12) <= budget.epsilon

    assert fits(0.0)
    low, high = 0.0, budget.zcdp.rho
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@pytest.mark.parametrize(("t", "w", "q"), [(1, 1, 0.3), (2, 2, 1.0), (3, 2, 1.0), (4, 1, 1.0), (3, 3, 0.5)])
@pytest.mark.parametrize("r", [0.01, 0.2, 1.5])
def test_moments_are_the_sum_over_all_ways_to_spread_an_order_over_batches(t, w, q, r):
    found = log_moments(t, w, r, q, 6)
    for order in range(2, 7):
        # every factor of the power is either "in no writing batch" or one of the w batches
        total = 0.0
        for choice in itertools.product(range(w + 1), repeat=order):
            k = [choice.count(batch) for batch in range(1, w + 1)]
            weight = (1 - q * w / t) ** choice.count(0) * (q / t) ** sum(k)
            total += weight * math.exp(r * sum(x * (x - 1) for x in k))
        assert found[order] == pytest.approx(math.log(total), rel=1e-9, abs=1e-10)
        assert found[order] >= math.log(total) - 1e-15


@given(t=st.integers(1, 60), share=st.floats(0, 1), r=st.floats(1e-9, 400), q=st.floats(1e-6, 1))
@limits(max_examples=60)
def test_a_deal_costs_something_and_never_more_than_a_batch_that_everybody_knows(t, share, r, q):
    w = max(1, round(share * t))
    cost = deal_cost(t, w, r, q)
    for order in (2, 3, 17, 64):
        assert 0 < cost.at(order) <= order * r * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("r", [0.01, 0.3, 2.0])
def test_more_secrecy_costs_less(r):
    for order in (2, 5, 20, 64):
        by_batches = [deal_cost(t, t, r).at(order) for t in (1, 2, 5, 20)]
        by_writers = [deal_cost(20, w, r).at(order) for w in (20, 10, 5, 1)]
        by_sample = [deal_cost(5, 5, r, q).at(order) for q in (1.0, 0.5, 0.1, 0.01)]
        for falling in (by_batches, by_writers, by_sample):
            assert falling == sorted(falling, reverse=True)


def test_one_batch_that_everybody_knows_is_zcdp_and_nothing_costs_nothing():
    assert deal_cost(1, 1, 0.3) == Cost(0.3)
    assert deal_cost(7, 3, 0.0).is_zero


# the largest payment of one text, all batches writing, δ = 1e-6
FIGURES = {
    1.0: {1: 0.024, 5: 0.097, 10: 0.145, 20: 0.195, 50: 0.29},
    3.0: {1: 0.185, 5: 0.39, 10: 0.49, 20: 0.62, 50: 0.77},
    8.0: {1: 1.05, 5: 1.44, 10: 1.61, 20: 1.78, 50: 2.01},
}


@pytest.mark.parametrize(("epsilon", "t"), [(epsilon, t) for epsilon in FIGURES for t in FIGURES[epsilon]])
def test_largest_payments_are_those_of_the_proof_page(epsilon, t):
    budget = Budget(epsilon, DELTA)
    r = largest_payment(budget, t, t, 1, Cost())
    assert r == pytest.approx(FIGURES[epsilon][t], abs=0.006)
    assert deal_cost(t, t, r).fits(budget)
    assert not deal_cost(t, t, r * 1.001).fits(budget)


def test_the_largest_payment_is_exact_where_nothing_is_secret():
    budget = Budget(3.0, DELTA)
    other = Cost(0.02)
    found = largest_payment(budget, 1, 1, 3, other)
    assert found == pytest.approx((rho_of(3.0, DELTA) - 0.02) / 3, rel=1e-8)
    assert (Cost(found).scaled(3) + other).fits(budget)


def test_deals_share_a_budget_with_everything_else():
    budget = Budget(3.0, DELTA)
    alone = largest_payment(budget, 10, 10, 1, Cost())
    assert alone > largest_payment(budget, 10, 10, 4, Cost()) > largest_payment(budget, 10, 10, 4, Cost(0.05)) > 0


def test_small_budgets_use_orders_above_64():
    budget = Budget(0.2, DELTA)
    assert largest_payment(budget, 1, 1, 1, Cost()) == pytest.approx(budget.zcdp.rho, rel=1e-8)
    r = largest_payment(budget, 2, 2, 1, Cost())
    assert r > budget.zcdp.rho
    assert deal_cost(2, 2, r, largest_order=64).epsilon(DELTA) > 0.2
    assert deal_cost(2, 2, r, largest_order=300).epsilon(DELTA) <= 0.2


@pytest.mark.parametrize("order", [8, 14, 20])
def test_one_order_fixed_beforehand_certifies_every_cell(order):
    budget, other = Budget(3.0, DELTA), Cost(0.01)
    for t in (5, 10, 20):
        r = largest_payment(budget, t, t, 2, other, order=order)
        total = deal_cost(t, t, r).scaled(2) + other
        assert epsilon_at(total.at(order), order, DELTA) <= 3.0
        assert 0 < r <= largest_payment(budget, t, t, 2, other) * (1 + 1e-6)


@pytest.mark.parametrize(("t", "w", "q"), [(50, 50, 1.0), (20, 20, 1.0), (5, 2, 1.0), (10, 1, 0.1), (1, 1, 0.2)])
@pytest.mark.parametrize("r", [0.001, 0.04, 0.4])
def test_the_third_bound_holds_for_texts_of_many_small_steps(t, w, q, r):
    # ratios of a limit of many small steps are log-normal: E_Q (P/Q)^−β with the sum over batches drawn by lot
    rng = np.random.default_rng(1)
    log_ratio = rng.normal(-r, math.sqrt(2 * r), (200_000, w))
    m = 1 - q * w / t + q / t * np.exp(log_ratio).sum(axis=1)
    for order in (2, 4, 9):
        sample = m ** (1.0 - order)
        low = sample.mean() - 4 * sample.std() / math.sqrt(len(sample))
        bound = float(_by_exponentials(np.array([float(order)]), t, w, r, q)[0])
        assert math.log(low) / (order - 1) <= bound
    # at order 2 cost and variance are the same to first order: the bound is near where no single text is worth much
    if r < 0.01 and w >= 20:
        variance = w * (q / t) ** 2 * math.expm1(2 * r)
        assert float(_by_exponentials(np.array([2.0]), t, w, r, q)[0]) <= 1.1 * variance


def test_the_third_bound_is_what_makes_many_deals_of_large_cells_cheap():
    deal = deal_cost(50, 50, 0.04)
    by_means = 0.04 * (1 + 1 / 50)
    assert deal.at(2) < by_means / 20
    assert largest_payment(Budget(1.0, DELTA), 50, 50, 10, Cost()) > 0.08


# a secret sample of the units


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_a_sample_in_front_of_one_known_batch_costs_no_less_than_a_deal_with_that_rate(rate, rho):
    fresh, once = deal_cost(1, 1, rho, rate), Cost(rho).sampled(rate).as_curve()
    for order in (2, 3, 9, 33, 64):
        # the fresh one has a bound more for the reverse direction, where all batches are seen at once
        assert fresh.at(order) <= once.at(order) * (1 + 1e-9)
        assert once.at(order) <= order * rho


def test_a_sample_that_deals_share_costs_more_than_samples_of_their_own():
    # P/Q of two deals whose unit is in both or in none, a log-normal ratio each: α = 2 by hand
    r, q = 1.0, 0.1
    truth = math.log(1 + q * q * math.expm1(4 * r))
    fresh = deal_cost(1, 1, r, q).scaled(2)
    shared = Cost(r).scaled(2).sampled(q).as_curve()
    assert fresh.at(2) < truth <= shared.at(2) * (1 + 1e-9)
    assert log_moments(1, 1, r, q, 2)[2] == pytest.approx(math.log(1 + q * q * math.expm1(2 * r)), rel=1e-9)


def test_a_whole_sample_is_no_sample():
    cost = deal_cost(3, 3, 0.2)
    assert cost.sampled(1.0).as_curve() == cost == cost.sampled(1.0)
    assert Cost().sampled(0.5).is_zero
    assert not Cost.unlimited().sampled(0.5).is_limited
    rates = [cost.sampled(rate).as_curve().epsilon(DELTA) for rate in (0.01, 0.1, 0.5, 0.999)]
    assert rates == sorted(rates)
    budget = Budget(1.0, DELTA)
    assert largest_payment(budget, 5, 5, 2, Cost(0.01), rate=0.05) > largest_payment(budget, 5, 5, 2, Cost(0.01))


@pytest.mark.parametrize("values", [(1, 2, 0.1), (2, 0, 0.1), (2, 2, -1), (2, 2, math.nan), (2, 2, math.inf)])
def test_what_is_no_deal_is_refused(values):
    with pytest.raises(ConfigError):
        deal_cost(*values)


@pytest.mark.parametrize("q", [0.0, -1.0, 1.1, math.nan])
def test_what_is_no_rate_is_refused(q):
    with pytest.raises(ConfigError, match="q = "):
        deal_cost(2, 2, 0.1, q)
    with pytest.raises(ConfigError, match="rate = "):
        Cost(0.1).sampled(q)
    with pytest.raises(ConfigError, match="order"):
        deal_cost(2, 2, 0.1, largest_order=1)


def test_nothing_overflows():
    for cost in (deal_cost(50, 49, 300.0), deal_cost(1000, 999, 1e-12), Cost(400.0).sampled(0.999).as_curve()):
        assert np.isfinite([value for _, value in cost.curve]).all()
