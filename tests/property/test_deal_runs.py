"""Every output of whole runs with deals, through the code that runs use, against what they are charged (guarantee 13).

Cells, draws, rounds and the decoder are the real ones (`doubles.dealing`); every draw of batches and every token is
followed along each of its branches, and the probabilities of equal releases are added up.
"""

import dataclasses

import numpy as np
import pytest
from doubles.dealing import SHOWN, Run
from scipy.special import logsumexp
from strategies import settings

from plainchant.generation.batching import draw_batches
from plainchant.generation.decoding import _Session
from plainchant.privacy.aggregation import Clipping
from plainchant.privacy.amplification import deal_cost
from plainchant.privacy.deals import DealRule
from plainchant.privacy.histograms import WHOLE_LABEL, Cell
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism
from plainchant.run import cells
from plainchant.run.store import Draw

ORDERS = np.arange(2, 33)
# float32 logits and integer weights move a divergence by this much, nats
ROUNDING = 1e-4
# records that want one token, as strongly as they can; 99 wants nothing
WANTS, SILENT = {90: 0, 91: 1}, 99
CELL = [Cell(0, WHOLE_LABEL, 2, 2)]


def adversarial(lean):
    def table(row):
        logits = np.array([-lean, 0.0])
        for record in row:
            if record in WANTS:
                logits[WANTS[record]] += 18.0
            # whoever is shown a text is drawn to its tokens
            if SHOWN <= record < SHOWN + 2:
                logits[record - SHOWN] += 0.5
        return logits

    return table


def random_table(seed):
    return lambda row: np.random.default_rng([seed, *row]).normal(0, 2.5, 2)


def worst_case(clip):
    return MeanMechanism(settings(clipping=Clipping.DIFFERENCE, clip=clip, batch_size=1))


def individual(budget, length, clip=2.5):
    return IndividualMeanMechanism(settings(clipping=Clipping.DIFFERENCE, clip=clip, batch_size=1), budget, length)


def run_of(mechanism, table, *, batches, texts, first=0, length=1, order=4):
    """A run whose rule lets a unit pay exactly r for a text: the mechanism's own budget, or its worst case."""
    r = mechanism.budget if isinstance(mechanism, IndividualMeanMechanism) else mechanism.cost_of(length).rho
    ways = DealRule(order, 1.0, r, r, first)
    budget = ways.spent_by(batches, texts, r) * (1 + 1e-6)
    # batches of one record: the noisy size is the number of batches
    return Run(mechanism, table, batches, texts, DealRule(order, budget, r, r, first), 2, length)


def claim(run):
    """What the deals cost at every order, and the budget of the order that the plan names."""
    deals = run.rule.deals(run.noisy, run.texts)
    r = run.rule.payment_of(run.noisy, run.texts)
    cost = sum((deal_cost(run.noisy, w, r) for w in deals[1:]), deal_cost(run.noisy, deals[0], r))
    bound = np.array([cost.at(float(order)) for order in ORDERS])
    assert bound[run.rule.order - 2] <= run.rule.budget * (1 + 1e-9)
    return bound


def use(run, units, patch, without=None):
    """The largest share of the claim that a divergence takes, over both directions and all orders."""
    without = units[1:] if without is None else without
    p, q = run.outcomes(units, patch), run.outcomes(without, patch)
    assert sum(p.values()) == pytest.approx(1, abs=1e-9)
    keys = sorted({*p, *q})
    with np.errstate(divide="ignore"):
        log_p, log_q = (np.log([law.get(key, 0.0) for key in keys]) for law in (p, q))
    worst = 0.0
    for a, b in ((log_p, log_q), (log_q, log_p)):
        with np.errstate(invalid="ignore"):
            terms = ORDERS[:, None] * a - (ORDERS[:, None] - 1) * b
        terms = np.where(np.isneginf(a), -np.inf, terms)
        found = logsumexp(terms, axis=1) / (ORDERS - 1)
        worst = max(worst, float(((found - ROUNDING) / claim(run)).max()))
    return worst


RUNS = [
    pytest.param(lambda table: run_of(worst_case(0.3), table, batches=2, texts=1), id="one of two batches writes"),
    pytest.param(lambda table: run_of(worst_case(0.3), table, batches=2, texts=2), id="both write"),
    pytest.param(lambda table: run_of(worst_case(0.3), table, batches=3, texts=2, first=1), id="a second deal"),
    pytest.param(lambda table: run_of(individual(0.1, 2), table, batches=2, texts=2, length=2), id="individual"),
    pytest.param(
        lambda table: run_of(individual(0.4, 1), table, batches=2, texts=3, first=1), id="individual, two deals"
    ),
]


@pytest.mark.parametrize("make", RUNS)
@pytest.mark.parametrize("lean", [0.0, 0.6])
@pytest.mark.parametrize("units", [(90,), (90, 91), (91, SILENT)])
def test_no_run_with_deals_costs_more_than_it_is_charged(make, lean, units, monkeypatch):
    assert 0 < use(make(adversarial(lean)), units, monkeypatch) <= 1 + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_no_run_on_a_random_table_costs_more_than_it_is_charged(seed, monkeypatch):
    chance = np.random.default_rng(seed)
    batches, texts, length = int(chance.integers(1, 4)), int(chance.integers(1, 4)), int(chance.integers(1, 3))
    length = 1 if texts == 3 else length
    mechanism = (
        worst_case(float(chance.choice([0.1, 0.3, 1.0])))
        if seed % 3
        else individual(float(chance.choice([0.03, 0.1, 0.5])), length)
    )
    run = run_of(mechanism, random_table(seed), batches=batches, texts=texts, first=seed % 2, length=length)
    units = tuple(int(unit) for unit in chance.choice([10, 11, 12], int(chance.integers(1, 3))))
    assert use(run, units, monkeypatch) <= 1 + 1e-9


@pytest.mark.parametrize("units", [(90,), (90, 91)])
def test_batches_of_a_deal_may_share_a_pass_of_public_rows(units, monkeypatch):
    """One public pass for several private ones changes no release's odds, so no deal's cost."""
    alone = run_of(individual(0.4, 1), adversarial(0.6), batches=2, texts=3, first=1)
    together = dataclasses.replace(alone, rows=1, passes=4)
    p, q = alone.outcomes(units, monkeypatch), together.outcomes(units, monkeypatch)
    assert p.keys() == q.keys()
    assert [q[key] for key in p] == pytest.approx(list(p.values()), rel=1e-5, abs=1e-9)
    assert 0 < use(together, units, monkeypatch) <= 1 + 1e-9


def test_the_bound_is_no_idle_one(monkeypatch):
    assert use(run_of(worst_case(0.15), adversarial(0.15), batches=2, texts=1), (90,), monkeypatch) > 0.8


@pytest.mark.parametrize(("rows", "passes"), [(64, 1), (1, 1), (1, 4)])
def test_prompts_show_texts_of_earlier_deals_alone(rows, passes, monkeypatch):
    seen = []

    def table(row):
        seen.append(sum(SHOWN <= token < SHOWN + 2 for token in row))
        return np.zeros(2)

    run = dataclasses.replace(run_of(worst_case(0.1), table, batches=2, texts=3, first=1), rows=rows, passes=passes)
    assert run.rule.deals(2, 3) == [1, 2]
    assert len(run.outcomes((90,), monkeypatch)) == 8
    # of each run one text of the first deal without, and two of the second with the first one's
    assert seen.count(1) == 2 * seen.count(0)
    assert set(seen) == {0, 1}


# broken twins


def test_power_batches_that_are_not_redrawn_are_caught(monkeypatch):
    run = run_of(worst_case(0.8), adversarial(1.6), batches=3, texts=2, first=1, length=2)
    assert run.rule.deals(3, 2) == [1, 1]
    assert use(run, (90,), monkeypatch) <= 1

    def once(cell_of_unit, own, randomness, writing=None):
        # path by path: the first deal's draw is every deal's
        if not hasattr(randomness, "kept"):
            randomness.kept = draw_batches(cell_of_unit, own, randomness, writing)
        return randomness.kept.copy()

    monkeypatch.setattr("plainchant.run.cells.draw_batches", once)
    assert use(run, (90,), monkeypatch) > 1.2


def test_power_a_draw_that_depends_on_other_units_is_caught(monkeypatch):
    run = run_of(worst_case(0.3), adversarial(0.3), batches=2, texts=2)
    units = (SILENT, 90, 90, 90)
    assert use(run, units[:3], monkeypatch) <= 1

    def cut_list(cell_of_unit, own, randomness, writing=None):
        return np.array([place * 2 // len(cell_of_unit) for place in range(len(cell_of_unit))], dtype=np.int64)

    monkeypatch.setattr("plainchant.run.cells.draw_batches", cut_list)
    assert use(run, units, monkeypatch) > 1.5


def test_power_a_number_of_batches_from_the_true_size_is_caught(monkeypatch):
    run = run_of(worst_case(0.3), adversarial(0.3), batches=2, texts=1)
    assert use(run, (90, 90), monkeypatch) <= 1
    broken = dataclasses.replace(run, sizes=lambda counts: [int(counts[0])])
    # two units are two batches, one unit one: each text is written by everybody
    assert use(broken, (90, 90), monkeypatch) > 1.5


def test_power_more_texts_than_are_paid_for_are_caught(monkeypatch):
    run = run_of(individual(0.3, 1), adversarial(1.0), batches=2, texts=1)
    assert use(run, (90,), monkeypatch) <= 1
    real, begin = cells._dealt, _Session.begin

    def more(dealt, payments):
        return [dataclasses.replace(batch, texts=4) for batch in real(dealt, payments)]

    def forgetful(self, gate):
        begin(self, gate)
        self.spent = np.zeros_like(self.spent)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "_dealt", more)
        # what was paid goes on from text to text of a batch, which by itself keeps to the budget
        assert use(run, (90,), patch) <= 1
        patch.setattr(_Session, "begin", forgetful)
        assert use(run, (90,), patch) > 1.2


def test_power_a_payment_above_the_cells_is_caught(monkeypatch):
    run = run_of(individual(0.1, 2), adversarial(0.4), batches=2, texts=1, length=2)
    assert use(run, (90,), monkeypatch) <= 1
    real = cells._dealt
    monkeypatch.setattr(cells, "_dealt", lambda dealt, payments: real(dealt, [4 * r for r in payments]))
    assert use(run, (90,), monkeypatch) > 1.5


def test_power_a_deal_that_is_drawn_again_after_its_first_text_is_caught(monkeypatch):
    run = run_of(worst_case(0.8), adversarial(2.0), batches=2, texts=2, length=3)
    assert run.rule.deals(2, 2) == [2]
    assert use(run, (90,), monkeypatch) <= 1

    class Redrawn(Draw):
        """The second text's batch comes from a draw of its own, as in a resumed run that has forgotten its batches."""

        def members(self):
            yield from ((batch, *rest) for batch, *rest in super().members() if batch == 0)
            again = draw_batches(np.zeros_like(self.records), CELL, randomness[-1])
            yield from ((batch, *rest) for batch, *rest in Draw(self.records, again).members() if batch == 1)

    randomness = []

    def remembered(cell_of_unit, own, source, writing=None):
        randomness.append(source)
        return draw_batches(cell_of_unit, own, source, writing)

    monkeypatch.setattr("plainchant.run.cells.draw_batches", remembered)
    monkeypatch.setattr("plainchant.run.cells.Draw", Redrawn)
    assert use(run, (90,), monkeypatch) > 1.05
