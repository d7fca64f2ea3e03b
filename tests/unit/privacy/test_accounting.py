"""Conversions between ρ and (ε, δ), against dp-accounting and against themselves (guarantee 5, 6.1)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from plainchant.errors import ConfigError
from plainchant.privacy.accounting import (
    LAMBDA_GRID,
    bounded_range_rho,
    check_delta,
    check_epsilon,
    delta_of,
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
