"""Every output of a whole run enumerated, for a data set and all of its neighbours (guarantee 10, exact)."""

import itertools
from typing import Any

import numpy as np
import pytest
from doubles.broken import AsOthersDecide, DividesByN, ForgetsWhatIsSpent, Hasty, NarrowBox
from strategies import probabilities, renyi, settings, step_distribution

from plainchant.models.table import TableModel
from plainchant.privacy.accounting import ex_post, ville_bound
from plainchant.privacy.aggregation import Clipping
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism, MedianMechanism

V, T = 3, 3
OUTPUTS = list(itertools.product(range(V), repeat=T))
ORDERS = (1.01, 1.5, 2.0, 4.0, 16.0, 64.0)
# float32 logits and integer weights, T times
ROUNDING = T * 2e-5
EXTREME = range(90, 98)


def table(row):
    """Logits of a row, as good as random; records from 90 on want single tokens, as strongly as they can."""
    if row and row[0] in EXTREME:
        return [9.0 * (1 if (row[0] - 90) >> token & 1 else -1) for token in range(V)]
    return np.random.default_rng([len(row), *row]).normal(0, 2.5, V)


MODEL = TableModel(["a", "b", "c"], table)
DATA = [(), (10,), (10, 11), (12, 13, 14), (15, 16, 17, 18), (20, 20, 21, 21, 22), (97, 10, 90)]


def neighbours(data):
    yield from (data[:i] + data[i + 1 :] for i in range(len(data)))
    yield from ((*data, record) for record in (30, 31, *EXTREME))


def logits_after(data, prefix):
    """Private logits [n, V] and public ones [V] after a released prefix."""
    found = []
    for suffixes in ([[record] for record in data], [[]]):
        rows = MODEL.open_rows(MODEL.prefill(()), suffixes, room=T)
        for token in (0, *prefix):
            logits = MODEL.step([(rows, token)])[0]
        found.append(logits)
    return found[0], found[1][0]


def walk(mechanism, data):
    """For every output: its probability, Σ loss and Σ ρ, float64 [V**T] each."""
    steps = {}
    for prefix in (p for length in range(T) for p in itertools.product(range(V), repeat=length)):
        private, public = logits_after(data, prefix)
        distribution = step_distribution(mechanism, private, public)
        costs = dict(
            zip(
                distribution.support.tolist(),
                (mechanism.cost(distribution, i) for i in range(len(distribution.support))),
                strict=True,
            )
        )
        steps[prefix] = probabilities(distribution, V), costs
    p = np.array([np.prod([steps[y[:t]][0][y[t]] for t in range(T)]) for y in OUTPUTS])
    loss, rho = np.array([np.sum([steps[y[:t]][1][y[t]] for t in range(T)], axis=0) for y in OUTPUTS]).T
    return p, loss, rho


def mean_violations(mechanism, claim):
    """How often a Rényi divergence of a whole run passes α·T·ρ."""
    count = 0
    for data in DATA:
        p = walk(mechanism, data)[0]
        for neighbour in neighbours(data):
            q = walk(mechanism, neighbour)[0]
            count += sum(renyi(*pair, a) > a * T * claim + ROUNDING for a in ORDERS for pair in ((p, q), (q, p)))
    return count


def median_violations(mechanism):
    """How often a run's log-ratio passes Σ loss, or passes Ville's bound with more than probability δ."""
    count = 0
    for data in DATA:
        p, loss, rho = walk(mechanism, data)
        by_sum = np.array([ex_post([a], [b], 0.0, 0.5).by_sum for a, b in zip(loss, rho, strict=True)])
        for neighbour in neighbours(data):
            ratio = np.log(p) - np.log(walk(mechanism, neighbour)[0])
            count += np.sum(np.abs(ratio) > by_sum + ROUNDING)
            for delta in (0.5, 0.1, 1e-2, 1e-4):
                bound = np.array([ville_bound(x, delta) for x in rho])
                count += p[ratio > bound + ROUNDING].sum() > delta
    return count


MEANS = [
    pytest.param({}, id="logits"),
    pytest.param({"clipping": Clipping.DIFFERENCE, "guidance": 1.5, "clip": 0.8}, id="differences"),
    pytest.param({"clipping": Clipping.INCREASE, "guidance": 1.5, "clip": 0.8}, id="increases"),
]


@pytest.mark.parametrize("changes", MEANS)
def test_mean_a_whole_run_stays_within_its_rho(changes):
    mechanism = MeanMechanism(settings(**changes))
    assert mean_violations(mechanism, mechanism.cost_of(1).rho) == 0


@pytest.mark.parametrize("changes", MEANS)
def test_median_every_output_stays_within_its_loss_and_villes_bound(changes):
    assert median_violations(MedianMechanism(settings(**changes))) == 0


def test_power_a_mean_divided_by_the_true_size_is_caught():
    broken = DividesByN(settings())
    assert mean_violations(broken, broken.cost_of(1).rho) > 0


def test_power_a_box_that_is_too_small_is_caught():
    assert median_violations(NarrowBox(settings())) > 0


# every context pays by itself (guarantee 5.2): the budget is a fraction of what the worst case of T tokens would cost

BUDGETS = (0.02, 0.08, 0.25)
INDIVIDUAL = [
    pytest.param({}, id="logits"),
    pytest.param({"clipping": Clipping.DIFFERENCE, "guidance": 1.5, "clip": 2.5}, id="differences"),
    pytest.param({"clipping": Clipping.INCREASE, "guidance": 1.5, "clip": 2.5}, id="increases"),
    pytest.param({"clipping": Clipping.DIFFERENCE, "clip": 2.5, "slack": 0.01}, id="with slack"),
]


def individual(budget, kind=IndividualMeanMechanism, **changes):
    return kind(settings(**({"batch_size": 2} | changes)), budget, T)


def individual_walk(mechanism, data, forgets_after=None):
    """For every output its probability and what each context has paid, [V**T] and [V**T, n]."""
    spent: dict[tuple[int, ...], Any] = {(): np.zeros(len(data))}
    steps, full = {}, {}
    for prefix in (p for length in range(T) for p in itertools.product(range(V), repeat=length)):
        private, public = logits_after(data, prefix)
        paid = spent[prefix] * (0 if len(prefix) == forgets_after else 1)
        distribution = step_distribution(mechanism, private, public, mechanism.allowance(paid, T - len(prefix)))
        steps[prefix] = probabilities(distribution, V)
        for token in range(V):
            # a step may cost more for one token than for another only through what follows
            spent[(*prefix, token)] = paid + distribution.charges
            full[(*prefix, token)] = full.get(prefix, 0) + distribution.charges
    p = np.array([np.prod([steps[y[:t]][y[t]] for t in range(T)]) for y in OUTPUTS])
    return p, np.array([full[y] for y in OUTPUTS])


def individual_violations(mechanism, forgets_after=None):
    """How often the Rényi divergence of a whole run passes α times the budget."""
    count = 0
    for data in DATA:
        p = individual_walk(mechanism, data, forgets_after)[0]
        for neighbour in neighbours(data):
            q = individual_walk(mechanism, neighbour, forgets_after)[0]
            count += sum(renyi(*pair, a) > a * mechanism.budget + ROUNDING for a in ORDERS for pair in ((p, q), (q, p)))
    return count


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("changes", INDIVIDUAL)
def test_individual_a_whole_run_stays_within_the_budget(changes, budget):
    assert individual_violations(individual(budget, **changes)) == 0


@pytest.mark.parametrize("changes", INDIVIDUAL)
def test_individual_the_filter_bites_in_the_middle_of_a_text_and_never_overspends(changes):
    bites = 0
    mechanism = individual(0.08, **changes)
    free = individual(1e6, **changes)
    for data in DATA[1:]:
        paid, wanted = individual_walk(mechanism, data)[1], individual_walk(free, data)[1]
        assert paid.max() <= mechanism.budget + 1e-12
        bites += np.sum((wanted > 1.05 * paid) & (paid > 0))
    assert bites > 50


def test_power_a_filter_that_looks_at_other_contexts_is_caught():
    assert individual_violations(individual(0.02, AsOthersDecide)) > 0


def test_power_a_filter_that_forgets_what_is_spent_is_caught():
    assert individual_violations(individual(0.02, ForgetsWhatIsSpent)) > 0


def test_power_a_committed_sum_that_is_forgotten_on_resume_is_caught():
    # two tokens are committed, then a crash; the pace of the first ones is what a longer plan would allow
    assert individual_violations(individual(0.02, Hasty)) == 0
    assert individual_violations(individual(0.02, Hasty), forgets_after=2) > 0


# several units in a context (guarantee 3.3): a neighbour has another context in the place of one, or one more or less


def shared_violations(walk_of, budget):
    count = 0
    for data in DATA[1:]:
        p = walk_of(data)
        for place, record in itertools.product(range(len(data)), (30, *EXTREME)):
            q = walk_of((*data[:place], record, *data[place + 1 :]))
            count += sum(renyi(*pair, a) > a * budget + ROUNDING for a in ORDERS for pair in ((p, q), (q, p)))
    return count


@pytest.mark.parametrize("changes", INDIVIDUAL)
def test_a_unit_that_changes_a_context_stays_within_the_budget(changes):
    mechanism = individual(0.2, **changes, records_per_context=3)
    assert shared_violations(lambda data: individual_walk(mechanism, data)[0], mechanism.budget) == 0
    mean = MeanMechanism(settings(**changes, records_per_context=3))
    assert shared_violations(lambda data: walk(mean, data)[0], T * mean.cost_of(1).rho) == 0


def test_power_a_changed_context_without_the_factor_is_caught():
    mean = MeanMechanism(settings())
    assert shared_violations(lambda data: walk(mean, data)[0], T * mean.cost_of(1).rho) > 0
    alone = individual(0.02)
    assert shared_violations(lambda data: individual_walk(alone, data)[0], alone.budget) > 0
