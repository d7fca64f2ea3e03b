"""Conversions between ρ and (ε, δ), against dp-accounting and against themselves (guarantee 5, 6.1)."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from scipy.stats import norm

from plainchant.errors import ConfigError, PrivacyError
from plainchant.privacy.accounting import (
    LAMBDA_GRID,
    Budget,
    Cost,
    Filter,
    bounded_range_rho,
    check_delta,
    check_epsilon,
    delta_of,
    epsilon_at,
    epsilon_of,
    ex_post,
    loss_tail,
    rho_of,
    steps_affordable,
    ville_bound,
)

RHOS = st.floats(1e-4, 50)
DELTAS = st.floats(1e-12, 0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rho", [0.001, 0.01, 0.1, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3])
def test_epsilon_agrees_with_dp_accounting(rho, delta):
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    orders = 1 + np.geomspace(1e-2, 1e5, 4000)
    accountant = RdpAccountant(orders).compose(dp_accounting.ZCDpEvent(rho))
    assert epsilon_of(rho, delta) == pytest.approx(accountant.get_epsilon(delta), rel=0.01)


@given(rho=RHOS, delta=DELTAS)
def test_round_trips_never_spend_more(rho, delta):
    epsilon = epsilon_of(rho, delta)
    assert delta_of(rho, epsilon) <= delta
    if epsilon > 1e-6:
        back = rho_of(epsilon, delta)
        assert back == pytest.approx(rho, rel=1e-6)
        assert epsilon_of(back, delta) <= epsilon * (1 + 1e-9)


@given(rho=RHOS, delta=DELTAS, more=st.floats(1.01, 10))
def test_more_rho_is_more_epsilon_and_more_delta_is_less(rho, delta, more):
    assert epsilon_of(rho * more, delta) >= epsilon_of(rho, delta)
    assert epsilon_of(rho, min(0.5, delta * more)) <= epsilon_of(rho, delta)
    # never worse than the textbook conversion [BS16]
    assert epsilon_of(rho, delta) <= rho + 2 * math.sqrt(rho * math.log(1 / delta))


@given(rho=RHOS, epsilon=st.floats(0.01, 50), alpha=st.floats(1.001, 500))
def test_delta_is_the_minimum_over_orders(rho, epsilon, alpha):
    at_alpha = (alpha - 1) * (alpha * rho - epsilon) - math.log(alpha - 1) + alpha * math.log1p(-1 / alpha)
    assert delta_of(rho, epsilon) <= math.exp(min(0.0, at_alpha)) * (1 + 1e-9)


def test_nothing_is_zero_and_everything_is_infinite():
    assert epsilon_of(0.0, 1e-6) == 0.0
    assert delta_of(0.0, 1.0) == 0.0
    assert epsilon_of(math.inf, 1e-6) == math.inf
    assert delta_of(math.inf, 1.0) == 1.0


@pytest.mark.parametrize("value", [0, 1, -0.1, 2, math.nan])
def test_bad_deltas_are_refused(value):
    for check in (check_delta, lambda d: epsilon_of(1.0, d), lambda d: rho_of(1.0, d), lambda d: ex_post([], [], 0, d)):
        with pytest.raises(ConfigError, match="delta"):
            check(value)


@pytest.mark.parametrize("value", [0, 0.0, -1, math.inf, math.nan])
def test_bad_epsilons_are_refused(value):
    for check in (check_epsilon, lambda e: rho_of(e, 1e-6)):
        with pytest.raises(ConfigError, match="epsilon"):
            check(value)


@pytest.mark.parametrize("value", [-1e-9, math.nan])
def test_bad_rhos_are_refused(value):
    with pytest.raises(ConfigError, match="rho"):
        epsilon_of(value, 1e-6)


@given(rho=st.floats(1e-6, 100), share=st.floats(1e-5, 3))
def test_affordable_steps_are_never_over_and_never_one_short(rho, share):
    per_step = rho * share
    steps = steps_affordable(rho, per_step)
    assert steps * per_step <= rho
    assert (steps + 1) * per_step > rho * (1 - 1e-12)


def test_bounded_range_is_an_eighth_of_the_square():
    assert bounded_range_rho(2.0) == 0.5


def test_ex_post_is_the_smaller_bound_of_the_most_expensive_batch_and_what_the_secret_draw_adds():
    found = ex_post([1.0, 3.0], [0.4, 0.1], 0.0, 1e-6)
    assert found.by_sum == 3.0
    assert found.by_ville == ville_bound(0.4, 2.5e-7)
    assert found.draws == math.log(4e6)
    assert found.epsilon == min(found.by_sum, found.by_ville) + found.draws
    with_counts = ex_post([1.0, 3.0], [0.4, 0.1], 0.05, 1e-6)
    assert with_counts.by_sum == 3.0 + loss_tail(0.05, 2.5e-7)
    assert ville_bound(0.4, 1e-6) >= min((1 + x) * 0.4 + math.log(1e6) / x for x in LAMBDA_GRID)


@pytest.mark.parametrize(("epsilon", "times"), [(8.0, 1.69), (1.0, 10.8), (0.5, 20.6)])
def test_the_counts_loss_passes_its_tail_bound_no_more_often_than_allowed_as_a_conversion_to_dp_would(epsilon, times):
    # the loss of Gaussian noise with zCDP ρ is itself Gaussian, N(ρ, 2ρ); the counts have 5 % of the budget
    delta = 1e-6
    rho = 0.05 * rho_of(epsilon, delta)

    def passed(bound):
        return float(norm.sf((bound - rho) / math.sqrt(2 * rho)))

    assert passed(ex_post([], [], rho, delta).by_sum) <= delta / 4
    # power: ε of (ε, δ/2)-DP in its place, which claimed δ/2
    assert passed(epsilon_of(rho, delta / 2)) == pytest.approx(times * delta, rel=0.01)


# curves (guarantee 6.1)

INTEGERS = tuple(float(order) for order in range(2, 65))


def as_curve(rho, orders=INTEGERS):
    return Cost(0.0, tuple((order, order * rho) for order in orders))


curves = st.builds(
    lambda rho, steps: Cost(rho, tuple(zip(INTEGERS[: len(steps)], itertools.accumulate(steps), strict=True))),
    st.floats(0, 2),
    st.lists(st.floats(0, 3), min_size=1, max_size=63),
)


@pytest.mark.filterwarnings("ignore")
@given(cost=curves, delta=DELTAS)
def test_a_curve_is_converted_as_dp_accounting_does(cost, delta):
    from dp_accounting.rdp import rdp_privacy_accountant as oracle

    orders = [order for order, _ in cost.curve]
    known = [cost.at(order) for order in orders]
    # the oracle has a second way to find 0, by total variation, which is not used here
    theirs = min(oracle.compute_epsilon([order], [value], delta)[0] for order, value in zip(orders, known, strict=True))
    ours = cost.epsilon(delta)
    if theirs > 0:
        assert ours <= theirs * (1 + 1e-9)
        # and a chord between two orders is all that may make it smaller
        fine = np.linspace(1.0, orders[-1], 50 * len(orders) + 1)[1:]
        assert ours >= min(epsilon_at(cost.at(order), order, delta) for order in fine) - 0.02


@given(rho=RHOS, delta=DELTAS)
def test_zcdp_written_as_a_curve_never_costs_less_than_it_does(rho, delta):
    exact, curve = Cost(rho).epsilon(delta), as_curve(rho)
    assert curve.epsilon(delta) >= exact * (1 - 1e-9)
    if 3 < 1 + math.sqrt(math.log(1 / delta) / rho) < 60 and delta < 1e-3:
        assert curve.epsilon(delta) <= exact * 1.02


@given(cost=curves, order=st.floats(1.001, 70))
def test_a_bound_between_orders_is_the_chord_of_the_moments(cost, order):
    known = dict(cost.curve)
    last = max(known)
    if order > last:
        assert cost.at(order) == math.inf
        return
    low, high = math.floor(order), math.ceil(order)
    share = order - low
    moment = (1 - share) * (low - 1) * known.get(low, 0.0) + share * (high - 1) * known.get(high, 0.0)
    assert cost.at(order) == pytest.approx(order * cost.rho + moment / (order - 1), rel=1e-9, abs=1e-12)


@given(curves, curves)
def test_curves_add_up_order_by_order_as_far_as_both_are_known(one, other):
    both = one + other
    assert both.rho == one.rho + other.rho
    last = min(one.curve[-1][0], other.curve[-1][0])
    assert both.curve[-1][0] == last
    for order in (1.5, 2.0, 2.75, last):
        if order <= last:
            assert both.at(order) == pytest.approx(one.at(order) + other.at(order), rel=1e-12)
    assert (one + one) == one.scaled(2)
    assert one + Cost() == one == Cost() + one
    assert one.scaled(0) == Cost()


@given(curves)
def test_a_curve_survives_json(cost):
    content = json.loads(json.dumps(cost.as_dict()))
    assert Cost.from_dict(content) == cost
    # whoever reads ρ alone takes it for unlimited, never for less
    assert content["rho"] is None


def test_what_is_no_cost_is_refused():
    good = as_curve(0.1).as_dict()["curve"]
    for changes in (
        {"rho": None},
        {"rho": "1"},
        {"orders": good["orders"][:-1]},
        {"orders": good["orders"][::-1]},
        {"values": [True] * 63},
        {"values": [-1.0] * 63},
        {"values": [math.inf] * 63},
        {"orders": [], "values": []},
    ):
        with pytest.raises(ConfigError):
            Cost.from_dict({"rho": None, "curve": good | changes})
    for content in ({"rho": None, "curve": 3}, {"rho": 0.1, "curve": good}, {"rho": None, "curve": {"rho": 0}}):
        with pytest.raises(ConfigError):
            Cost.from_dict(content)
    with pytest.raises(ConfigError, match="order"):
        Cost(1.0).at(1.0)


@given(rho=st.floats(1e-4, 2), epsilon=st.floats(0.05, 10), delta=DELTAS)
@limits(max_examples=20)
def test_a_budget_pays_for_what_implies_it_and_no_more(rho, epsilon, delta):
    budget = Budget(epsilon, delta)
    assert Cost(rho).fits(budget) == (rho <= rho_of(epsilon, delta))
    curve = as_curve(rho)
    assert curve.fits(budget) == (curve.epsilon(delta) <= epsilon)
    times = Cost(rho).times_in(budget.zcdp)
    assert times == steps_affordable(budget.zcdp.rho, rho)
    assert not times or Cost(rho).scaled(times).fits(budget)
    assert not Cost(rho).scaled(times + 1).fits(budget)


def test_a_curve_is_not_compared_with_another_cost():
    curve = as_curve(0.1)
    with pytest.raises(PrivacyError, match="Budget"):
        curve.fits(Cost(1.0))
    with pytest.raises(PrivacyError, match="not in another cost"):
        curve.times_in(Cost(1.0))
    for cost, budget in ((Cost(), Cost(1.0)), (Cost(1.0), Cost.unlimited())):
        with pytest.raises(ConfigError, match="any number of times"):
            cost.times_in(budget)
    assert curve.fits(Cost.unlimited())
    assert not (curve + Cost.unlimited()).fits(Budget(8.0, 1e-6))
    assert (curve + Cost.unlimited()).as_dict() == {"rho": None}


@pytest.mark.parametrize("delta", [1e-100, 1e-6, 0.99])
@pytest.mark.parametrize("epsilon", [1e-9, 1e-3, 8.0, 1e4, 1e9])
def test_the_bounds_of_epsilon_and_delta_leave_nothing_that_rounding_undoes(epsilon, delta):
    rho = rho_of(epsilon, delta)
    assert 0 < rho < math.inf
    assert epsilon_of(rho, delta) <= epsilon * (1 + 1e-9)


@pytest.mark.parametrize(("epsilon", "delta"), [(1e-10, 1e-6), (1e10, 1e-6), (8.0, 5e-324), (8.0, 1 - 2**-53)])
def test_what_the_conversions_cannot_hold_is_refused(epsilon, delta):
    with pytest.raises(ConfigError, match="must be from"):
        rho_of(epsilon, delta)


@given(st.data(), st.floats(0.05, 10), DELTAS)
@limits(max_examples=60)
def test_a_filter_pays_for_nothing_that_its_budget_does_not(data, epsilon, delta):
    budget = Budget(epsilon, delta)
    costs = data.draw(
        st.lists(
            st.builds(
                lambda rho, steep, found: as_curve(rho * steep) if steep > 1.5 else Cost(rho, delta=found * delta),
                st.floats(1e-5, 1), st.floats(1, 2), st.sampled_from([0.0, 0.1, 0.6]),
            ), min_size=1, max_size=4,
        )
    )  # fmt: skip
    known = Filter.beginning_with(budget, costs[0])
    assert math.fsum(part for _, part in known.orders) + known.kept == pytest.approx(delta)
    # whatever fits by itself may be the first
    assert known.covers(costs[0]) or not costs[0].fits(budget)
    spent = sum(costs, Cost())
    if known.covers(spent):
        assert spent.epsilon(delta) <= epsilon * (1 + 1e-8)
    left = known.left_after(spent)
    assert left.is_zero or known.covers(spent + left)
    assert not known.covers(spent + Cost(left.rho * (1 + 1e-6) + 1e-9))


# An adaptive pair of steps whose exact δ is known: what is spent second depends on the first output.
ADAPTIVE = Budget(2.0, 0.01)
FIRST = np.array([0.1309, 0.8691]), np.array([0.0995, 0.9005])
# After the first output something likely, which is cheap at high orders; after the second something rare.
MASSES = (0.977, 0.0319)
ORDERS = [float(order) for order in np.linspace(1.1, 32, 310)]


def _renyi(p, q, orders):
    at = np.array(orders)[:, None]
    return np.log(np.exp(at * np.log(p) - (at - 1) * np.log(q)).sum(axis=1)) / (at[:, 0] - 1)


def _step(mass, gain):
    """Two outputs under P and under Q, of which the first has so much mass under P, and is e^gain times likelier."""
    return np.array([mass, 1 - mass]), np.array([mass * math.exp(-gain), 1 - mass * math.exp(-gain)])


def _exact_delta(orders):
    """The δ at ε of the pair where each second step spends all that fits at the best of (order, part of δ) pairs."""
    spent, total = _renyi(*FIRST, [order for order, _ in orders]), 0.0
    for p, q, mass in zip(*FIRST, MASSES, strict=True):

        def epsilon(gain, mass=mass):
            own, other = _step(mass, gain)
            sums = spent + _renyi(own, other, [order for order, _ in orders])
            return min(epsilon_at(value, *pair) for value, pair in zip(sums, orders, strict=True))

        low, high = 0.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if epsilon(middle) <= ADAPTIVE.epsilon else (low, middle)
        own, other = _step(mass, low)
        total += np.maximum(p * own - math.exp(ADAPTIVE.epsilon) * q * other, 0).sum()
    return total


def test_power_sums_at_the_best_order_of_each_path_break_the_promise():
    assert _exact_delta([(order, ADAPTIVE.delta) for order in ORDERS]) > 1.5 * ADAPTIVE.delta


@pytest.mark.parametrize("cost", [Cost(0.01), ADAPTIVE.zcdp, Cost(0.0, ((2.0, 0.5), (6.0, 1.0)))])
def test_a_filter_keeps_the_promise_where_steps_are_chosen_after_seeing_others(cost):
    assert 0.05 * ADAPTIVE.delta < _exact_delta(Filter.beginning_with(ADAPTIVE, cost).orders) <= ADAPTIVE.delta


def _largest_gain(mass, spent, orders):
    """The largest gain of a step with this mass that fits after what is spent at (order, part of δ) pairs."""
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        p, q = _step(mass, middle)
        sums = spent + _renyi(p, q, [order for order, _ in orders])
        fits = min(epsilon_at(value, *pair) for value, pair in zip(sums, orders, strict=True)) <= ADAPTIVE.epsilon
        low, high = (middle, high) if fits else (low, middle)
    return low


def _delta_of_finders(found, with_values, without):
    """The exact δ at ε where values are found at δ = `found` after the likely output of a first step only.

    Args:
        found: that part of δ; a step with it shows a unit with this probability, and nothing otherwise.
        with_values: (order, part of δ) pairs at which the sum of that path has to fit.
        without: those for the rare output, after which all that is left is spent.
    """
    rare = 0.0139
    orders = [order for order, _ in without]
    p, q = _step(rare, _largest_gain(rare, np.zeros(len(orders)), with_values))
    own, other = _step(0.99, _largest_gain(0.99, _renyi(p, q, orders), without))
    after_rare = np.maximum(p[0] * own - math.exp(ADAPTIVE.epsilon) * q[0] * other, 0).sum()
    return after_rare + p[1] * found + max(0.0, p[1] * (1 - found) - math.exp(ADAPTIVE.epsilon) * q[1])


def test_power_values_found_at_parts_of_each_path_break_the_promise():
    orders = [order for order, _ in Filter.beginning_with(ADAPTIVE, Cost(0.01)).orders]
    whole = [(order, ADAPTIVE.delta / 2) for order in orders]
    left = [(order, part * 0.1) for order, part in whole]
    assert _delta_of_finders(0.9 * ADAPTIVE.delta, left, whole) > 1.2 * ADAPTIVE.delta
    for first in (Cost(0.01), Cost(0.01, delta=0.1 * ADAPTIVE.delta)):
        known = Filter.beginning_with(ADAPTIVE, first)
        assert known.finds(Cost(delta=known.kept))
        assert not known.finds(Cost(delta=known.kept * 1.001))
        assert 0.1 * ADAPTIVE.delta < _delta_of_finders(known.kept, known.orders, known.orders) <= ADAPTIVE.delta
