"""A mechanism owns its whole cost: what planning, report, audit and cli ask it (guarantee 5 and 6)."""

import doctest
import math

import pytest

from plainchant.config import SynthesisConfig
from plainchant.errors import ConfigError, PrivacyError
from plainchant.planning import make_plan
from plainchant.privacy import accounting
from plainchant.privacy.accounting import Cost, epsilon_of, rho_of
from plainchant.privacy.aggregation import Aggregate

METHODS = {
    "clustered-mean": "ex-ante",
    "plainchant": "ex-ante",
    "amin2024": "ex-ante",
    "invisibleink": "ex-ante",
    "clustered-median": "ex-post",
    "public": "ex-ante",
    "non-private": "none",
}


def planned(method, **fields):
    small = {"method": method, "texts": 6, "max_tokens": 8, "epsilon": 20, "delta": 1e-5}
    return make_plan(SynthesisConfig(**small | fields))


def test_the_examples_in_the_docstrings_run():
    found = doctest.testmod(accounting)
    assert found.attempted > 5
    assert found.failed == 0


def test_costs_add_scale_and_convert_exactly_as_zcdp_does():
    assert (Cost(0.25) + Cost(0.5)).rho == 0.75
    assert sum([Cost(0.25)] * 3, Cost()) == Cost(0.25).scaled(3)
    assert Cost(0.3).epsilon(1e-6) == epsilon_of(0.3, 1e-6)
    assert Cost.of(3.0, 1e-6).rho == rho_of(3.0, 1e-6)
    assert Cost(0.1).times_in(Cost(0.35)) == 3
    assert Cost(0.2).fits(Cost(0.2))
    assert not Cost(0.2).fits(Cost(0.1))


def test_a_cost_without_limit_fits_nothing_and_stays_so():
    endless = Cost.unlimited()
    assert (endless + Cost(1.0)).rho == endless.scaled(2).rho == math.inf
    assert endless.epsilon(1e-6) == math.inf
    assert not endless.is_limited
    assert not endless.is_zero
    assert endless.scaled(0).is_zero
    assert endless.fits(endless)
    assert not endless.fits(Cost(1e300))


@pytest.mark.parametrize("cost", [Cost(), Cost(0.1), Cost.unlimited()])
def test_a_cost_survives_being_written(cost):
    assert Cost.from_dict(cost.as_dict()) == cost


@pytest.mark.parametrize("rho", [-0.1, math.nan])
def test_a_cost_is_a_number_from_zero_up(rho):
    with pytest.raises(ConfigError, match="rho"):
        Cost(rho)
    with pytest.raises(ConfigError, match="rho"):
        Cost.from_dict({"rho": "0.1"})
    with pytest.raises(ConfigError, match="times"):
        Cost(0.1).scaled(-1)


@pytest.mark.parametrize(("method", "promise"), METHODS.items())
def test_promise_guarantee_and_accountant_come_from_the_mechanism(method, promise):
    plan = planned(method)
    assert plan.mechanism.promise == plan.guarantee.kind == promise
    assert plan.mechanism.accountant
    assert plan.guarantee.cost.is_limited is (promise == "ex-ante")


@pytest.mark.parametrize("method", ["clustered-mean", "plainchant", "amin2024", "invisibleink"])
def test_what_a_mechanism_can_afford_costs_no_more_than_the_budget(method):
    plan = planned(method, deals=False)
    tokens = plan.mechanism.affordable(plan.batch)
    assert tokens == plan.tokens_per_batch >= plan.config.max_tokens
    assert plan.mechanism.cost_of(tokens).fits(plan.batch)
    # a larger batch is cheaper, a smaller budget pays for less
    assert plan.mechanism.resized(2 * plan.settings.batch_size).affordable(plan.batch) >= tokens
    assert plan.mechanism.affordable(Cost(plan.batch.rho / 2)) < tokens


def test_what_reads_no_records_is_free_and_what_has_no_limit_never_is():
    public, endless = planned("public").mechanism, planned("non-private").mechanism
    assert public.cost_of(10**6).is_zero
    assert public.claim(10**6, 1e-6) == 0
    assert public.affordable(Cost()) is None
    assert not endless.cost_of(1).is_limited
    assert endless.claim(1, 1e-6) is None
    assert not public.measured
    assert not endless.measured


@pytest.mark.parametrize("aggregate", list(Aggregate))
def test_the_non_private_method_keeps_its_aggregate(aggregate):
    assert planned("non-private", aggregate=aggregate.value).mechanism.promise == "none"


def test_an_ex_post_mean_promises_nothing_beforehand_though_its_worst_case_is_known():
    plan = planned("clustered-mean", accounting="ex-post", clip=1.0)
    assert plan.mechanism.promise == "ex-post"
    assert plan.mechanism.claim(1, 1e-6) is None
    assert plan.mechanism.affordable(Cost(1.0)) is None
    assert 0 < plan.mechanism.cost_of(1).rho < math.inf
    assert plan.guarantee.epsilon is None


def test_a_text_of_the_sparse_vector_is_paid_for_whole():
    mechanism = planned("amin2024").mechanism
    one = mechanism.cost_of(1)
    assert one == mechanism.cost_of(8) == Cost(mechanism.rho_per_text)
    assert mechanism.cost_of(9) == one.scaled(2)
    assert not mechanism.replayable
    with pytest.raises(PrivacyError, match="not replayed"):
        mechanism.claim(8, 1e-6)


def test_only_individual_accounting_knows_what_each_record_paid():
    plan = planned("plainchant", deals=False)
    assert plan.mechanism.paid([0.1, 0.2, 0.4]) == {"median": 0.2, "largest": 0.4, "budget": plan.batch.rho}
    assert plan.mechanism.paid([]) == {"median": 0.0, "largest": 0.0, "budget": plan.batch.rho}
    for method in METHODS.keys() - {"plainchant"}:
        assert planned(method).mechanism.paid([0.1]) is None


def test_where_a_unit_changes_a_context_nothing_is_replayed():
    assert planned("plainchant").mechanism.replayable
    assert not planned("plainchant", records_per_context=2, epsilon=200).mechanism.replayable
