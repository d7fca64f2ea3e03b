"""The rule of deals keeps to one order and one budget, whatever the noisy sizes come out as (guarantee 13.7)."""

import numpy as np
import pytest

from plainchant.errors import PrivacyError
from plainchant.generation.batching import share_deals
from plainchant.privacy.accounting import Budget, Cost, epsilon_at
from plainchant.privacy.amplification import deal_cost, deal_divergences
from plainchant.privacy.deals import DealRule, Expected, make_rule, ways_of
from plainchant.privacy.histograms import Cell, batches_of

COUNTS = 0.05


def rule_for(epsilon, batches, texts, first=4, payment=None):
    budget = Budget(epsilon, 1e-6)
    counts = Cost(COUNTS * budget.zcdp.rho)
    return budget, counts, make_rule(budget, counts, Expected(4, batches, texts), first, payment)


@pytest.mark.parametrize(("epsilon", "batches", "texts"), [(0.3, 30, 10), (1.0, 35, 25), (3.0, 60, 125), (8.0, 4, 9)])
def test_whatever_the_sizes_come_out_as_the_cells_stay_within_the_plans_budget(epsilon, batches, texts):
    budget, counts, rule = rule_for(epsilon, batches, texts)
    rule = DealRule(rule.order, rule.budget, rule.payment / 2, rule.payment / 8, 4)
    generator = np.random.default_rng(1)
    for _ in range(6):
        sizes = generator.integers(-50, 20 * 80, 5).tolist()
        cells = [Cell(label, -1, size, batches_of(size, 20)) for label, size in enumerate(sizes)]
        dealt, payments = share_deals(rule, cells, texts)
        written = np.array(dealt, dtype=np.int64).sum(axis=0) if dealt else np.zeros(5, dtype=np.int64)
        assert written.sum() <= texts
        for cell, count, payment in zip(cells, written.tolist(), payments, strict=True):
            assert count == 0 or cell.batches
            if count:
                # what was dealt, at full price, from the theorem itself
                own = [deal[cell.label] for deal in dealt if deal[cell.label]]
                cost = sum(
                    (deal_cost(cell.batches, w, payment) for w in own[1:]), deal_cost(cell.batches, own[0], payment)
                )
                total = cost + counts
                assert epsilon_at(total.at(rule.order), rule.order, budget.delta) <= epsilon
                assert payment >= rule.least * (1 - 1e-5)
                assert count == 1 or payment >= rule.payment * (1 - 1e-5)


def test_the_plans_curve_is_within_its_budget_and_uses_nearly_all_of_it():
    for epsilon in (0.3, 1.0, 3.0, 8.0, 20.0):
        budget, counts, rule = rule_for(epsilon, 30, 40)
        found = (counts + rule.cost).epsilon(budget.delta)
        assert epsilon * (1 - 1e-9) <= found <= epsilon


def test_a_larger_cell_pays_more_for_each_text_and_more_texts_pay_less():
    rule = rule_for(1.0, 30, 30)[2]
    payments = [rule.payment_of(batches, 10) for batches in (1, 5, 20, 80)]
    assert payments == sorted(payments)
    assert payments[-1] > 4 * payments[0]
    payments = [rule.payment_of(30, texts) for texts in (1, 10, 40, 200)]
    assert payments == sorted(payments, reverse=True)


@pytest.mark.parametrize("batches", [1, 2, 7, 40])
@pytest.mark.parametrize("texts", [1, 3, 4, 5, 40, 333])
@pytest.mark.parametrize("first", [0, 4])
def test_every_way_writes_every_text_once_and_no_batch_twice_in_a_deal(batches, texts, first):
    for way in ways_of(batches, texts, first):
        assert sum(way) == texts
        assert all(1 <= writing <= batches for writing in way)
        if 0 < first < texts:
            assert way[0] == min(first, batches)


def test_what_a_cell_may_write_is_what_it_pays_for():
    rule = rule_for(3.0, 30, 60, payment=0.4)[2]
    most = rule.most_texts(30, 10_000)
    assert rule.spent_by(30, most, rule.payment) <= rule.budget
    assert rule.spent_by(30, 2 * most, rule.payment) > rule.budget
    assert rule.most_texts(30, most - 1) == most - 1
    assert rule.most_texts(0, 10) == rule.most_texts(30, 0) == 0
    # a cell that is too small for the payment writes one text for what it has, or none
    assert not rule.spent_by(1, 1, rule.payment) <= rule.budget
    assert rule.most_texts(1, 10) == 0
    poor = DealRule(rule.order, rule.budget, rule.payment, rule.payment / 10, 4)
    assert poor.most_texts(1, 10) == 1
    assert poor.least <= poor.payment_of(1, 1) < poor.payment


def test_fewer_texts_are_written_where_their_number_happens_to_be_more_expensive():
    rule = rule_for(3.0, 30, 60, payment=0.4)[2]
    for texts in range(1, rule.most_texts(30, 10_000) + 1):
        assert rule.spent_by(30, rule.fewer(30, texts), rule.payment) <= rule.budget


def test_one_batch_is_no_secret():
    rule = rule_for(8.0, 10, 10)[2]
    assert rule.payment_of(1, 3) == pytest.approx(rule.budget / rule.order / 3, rel=1e-5)


def test_bounds_at_single_orders_are_those_of_the_whole_curve():
    for t, w, r, q in ((1, 1, 0.3, 1.0), (10, 10, 0.2, 1.0), (40, 7, 0.9, 1.0), (5, 2, 0.4, 0.3), (3, 1, 0.0, 1.0)):
        orders = np.array([2, 5, 11])
        cost = deal_cost(t, w, r, q)
        assert deal_divergences(t, w, r, orders, q) == pytest.approx([cost.at(float(order)) for order in orders])


def test_a_budget_that_does_not_pay_for_the_counts_is_refused():
    with pytest.raises(PrivacyError, match="deals = false"):
        make_rule(Budget(0.005, 1e-6), Cost(1e-7), Expected(1, 10, 10), 0)
