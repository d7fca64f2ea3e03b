"""Replay contradicts broken mechanisms and never real ones (guarantee 9, 10).

False alarms: a real mechanism fails a test by chance with probability at most ALPHA = 1e-6 each, by the Clopper–Pearson
bounds that replay itself splits it over. The tests of power fail with a probability far below that: their bounds lie
well above the claims.
"""

import dataclasses

import numpy as np
import pytest
from doubles.broken import AlwaysFullWeight, ForgetsWhatIsSpent, NoClipping, shared_padding
from doubles.randomness import Stuck
from scipy.stats import binom, binomtest
from strategies import settings

from plainchant.auditing.replay import Steps, _lower, distributions_of, replay, replay_deal
from plainchant.errors import ConfigError
from plainchant.privacy.accounting import epsilon_of
from plainchant.privacy.aggregation import Clipping, Support, sampling_weights
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism, MedianMechanism, PublicMechanism
from plainchant.randomness import SeededRandomness, SystemRandomness

ALPHA = 1e-6
V, N, T = 30, 6, 8
RUNS = 20_000
UNIT = 2
STEP = settings(support=Support.TOP_K, k=8, clipping=Clipping.DIFFERENCE, clip=1.0, batch_size=N, slack=1e-3)
BUDGET = 0.05


def steps(strength=9.0, count=T, seed=1):
    """Contexts a little apart from the public model; the unit wants some tokens as strongly as it can."""
    generator = np.random.default_rng(seed)
    public = generator.normal(0, 1.5, (count, V)).astype(np.float32)
    private = public[:, None] + generator.normal(0, 0.7, (count, N, V)).astype(np.float32)
    private[:, UNIT] = public + strength * generator.choice([-1, 1], (count, V))
    return Steps(public, list(private), [np.arange(V)] * count)


STEPS = steps()


def audited(mechanism, instance=STEPS, runs=RUNS, randomness=SystemRandomness, **changes):
    return replay(mechanism, instance, UNIT, runs=runs, randomness=randomness, **({"alpha": ALPHA} | changes))


# real mechanisms

REAL = [
    pytest.param(MeanMechanism(STEP), id="mean of differences"),
    pytest.param(MeanMechanism(dataclasses.replace(STEP, guidance=2.0, temperature=0.8)), id="guided"),
    pytest.param(MeanMechanism(dataclasses.replace(STEP, support=Support.TOP_K_PLUS)), id="top_k_plus"),
    pytest.param(MeanMechanism(settings(clip=1.0, batch_size=N)), id="mean of logits"),
    pytest.param(IndividualMeanMechanism(STEP, BUDGET, T), id="individual"),
    pytest.param(IndividualMeanMechanism(dataclasses.replace(STEP, clip=9.0, guidance=2.0), BUDGET, T), id="wide clip"),
]


@pytest.mark.parametrize("mechanism", REAL)
def test_a_real_mechanism_stays_below_its_claim_and_is_not_invisible(mechanism):
    found = audited(mechanism)
    assert not found.refuted
    assert 0 < found.epsilon_low <= found.epsilon_claimed < found.epsilon_limit


class Known(SystemRandomness):
    """Everybody knows that the unit is in the first batch."""

    def below(self, bound):
        return 0 if bound == AMONG else super().below(bound)


AMONG = 12
# steps of two batches that the unit moves as far as it can; one is enough to tell nearly all of it
DEAL = MeanMechanism(dataclasses.replace(STEP, clip=2.5))


def dealt(mechanism=DEAL, randomness=SystemRandomness, **changes):
    payment = DEAL.cost_of(T).rho
    two = [steps(), steps(seed=4)]
    values = {"among": AMONG, "payment": payment, "runs": RUNS, "alpha": ALPHA, "randomness": randomness}
    return replay_deal(mechanism, two, [UNIT, UNIT], **values | changes)


def test_a_real_deal_stays_below_its_claim_which_is_below_that_of_a_known_batch():
    found = dealt()
    assert not found.refuted
    assert 0 < found.epsilon_low <= found.epsilon_claimed < epsilon_of(DEAL.cost_of(T).rho, 1e-6)


def test_power_a_draw_that_everybody_knows_is_caught():
    assert dealt(delta=0.01).epsilon_low < dealt(delta=0.01).epsilon_claimed
    assert dealt(randomness=Known, delta=0.01).refuted


def test_power_a_deal_without_clipping_is_caught():
    assert dealt(NoClipping(DEAL.settings), delta=0.01).refuted


def test_a_deal_has_no_more_batches_than_a_unit_draws_from():
    with pytest.raises(ConfigError, match="among = 1"):
        dealt(among=1)


def test_the_public_mechanism_claims_nothing_is_seen_and_nothing_is():
    found = audited(PublicMechanism(STEP))
    assert found.epsilon_low == found.epsilon_claimed == 0
    assert not found.refuted


def test_the_median_has_no_claim_to_contradict():
    found = audited(MedianMechanism(STEP))
    assert found.epsilon_claimed is None
    assert not found.refuted
    assert found.epsilon_low > 0


def test_a_context_like_the_public_model_is_invisible():
    found = audited(IndividualMeanMechanism(STEP, BUDGET, T), steps(strength=0.0))
    assert found.epsilon_low == 0 < found.epsilon_claimed


# broken ones


def test_power_no_clipping_is_caught():
    assert audited(NoClipping(STEP)).refuted


@pytest.mark.parametrize("kind", [ForgetsWhatIsSpent, AlwaysFullWeight])
def test_power_a_forgotten_filter_is_caught(kind):
    mechanism = kind(dataclasses.replace(STEP, clip=10.0, guidance=2.0), 0.1, 32)
    assert audited(mechanism, steps(count=32), runs=10_000, delta=1e-3).refuted


def test_the_filter_holds_over_many_steps():
    mechanism = IndividualMeanMechanism(dataclasses.replace(STEP, clip=10.0, guidance=2.0), 0.1, 32)
    assert not audited(mechanism, steps(count=32), runs=10_000, delta=1e-3).refuted


def test_power_public_logits_that_a_shared_pass_moves_are_caught():
    mechanism = MeanMechanism(dataclasses.replace(STEP, batch_size=24))
    shared = shared_padding(STEPS)
    supports = [
        [distribution.support.tolist() for distribution in distributions_of(mechanism, shared, unit)]
        for unit in (None, UNIT)
    ]
    assert supports[0] != supports[1]
    found = audited(mechanism, shared)
    assert found.refuted
    assert found.epsilon_low > 2 * found.epsilon_claimed
    assert not audited(mechanism).refuted


def test_power_one_seed_for_every_sequence_is_caught():
    found = audited(MeanMechanism(STEP), runs=5_000, randomness=lambda: SeededRandomness(42))
    assert found.refuted
    assert found.epsilon_low == found.epsilon_limit
    # drawn from one after the other, the same source is no worse than that of production
    source = SeededRandomness(42)
    assert not audited(MeanMechanism(STEP), runs=5_000, randomness=lambda: source).refuted


def test_power_a_repeated_sequence_is_caught_where_the_likelihoods_are_equal():
    # the unit wants the third token a little, which moves the border of the other two, alike in likelihood
    private = np.zeros((3, 3), np.float32)
    private[UNIT, 2] = 1e-3
    instance = Steps(np.zeros((1, 3), np.float32), [private], [np.arange(3)])
    mechanism = MeanMechanism(settings(clip=1.0, batch_size=100))
    p = [sampling_weights(distribution.scores) for distribution in distributions_of(mechanism, instance)]
    q = [sampling_weights(distribution.scores) for distribution in distributions_of(mechanism, instance, UNIT)]
    border = float(np.mean([w[0][0] / w[0].sum() for w in (p, q)]))
    assert p[0][0] == p[0][1]
    assert q[0][0] == q[0][1]
    assert audited(mechanism, instance, randomness=lambda: Stuck(border)).refuted
    assert not audited(mechanism, instance).refuted


# the bound itself


def test_the_bound_is_that_of_clopper_and_pearson():
    p, q, runs, delta, alpha = np.array([40, 0, 100]), np.array([3, 0, 100]), 100, 0.01, 0.005
    low = [binomtest(k, runs).proportion_ci(1 - 2 * alpha).low for k in p]
    high = [binomtest(k, runs).proportion_ci(1 - 2 * alpha).high for k in q]
    bound = _lower(p, q, runs, delta, alpha)
    assert bound[0] == pytest.approx(np.log((low[0] - delta) / high[0]))
    assert bound[1] < -100
    assert bound[2] == pytest.approx(np.log(low[2] - delta))


def test_the_bound_is_too_large_no_more_often_than_it_says():
    # one token, so that the true ε at δ ≈ 0 is the largest log-ratio of the two distributions
    mechanism, one = MeanMechanism(dataclasses.replace(STEP, batch_size=2)), steps(count=1)
    pair = [sampling_weights(distributions_of(mechanism, one, unit)[0].scores).astype(float) for unit in (None, UNIT)]
    log_p, log_q = (np.log(weights / weights.sum()) for weights in pair)
    true = np.abs(log_p - log_q).max()
    alpha, repeats = 0.2, 150
    found = [audited(mechanism, one, runs=2_000, delta=1e-12, alpha=alpha).epsilon_low for _ in range(repeats)]
    # false alarm 1e-6; without power the test would say nothing
    assert (np.array(found) > true).sum() <= binom.ppf(1 - ALPHA, repeats, alpha)
    assert np.median(found) > true / 3


def test_an_event_that_looks_good_by_chance_is_tested_on_other_runs():
    # of 300 tokens alike, one is always drawn more often on one side than on the other
    alike = Steps(np.zeros((1, 300), np.float32), [np.zeros((N, 300), np.float32)], [np.arange(300)])
    mechanism, alpha, repeats = PublicMechanism(settings()), 0.4, 60
    found = [audited(mechanism, alike, runs=10_000, alpha=alpha).refuted for _ in range(repeats)]
    # false alarm 1e-6; chosen and tested on the same runs, about 50 of 60 would be refuted
    assert sum(found) <= binom.ppf(1 - ALPHA, repeats, alpha)


def test_the_claim_is_that_of_all_steps_and_delta_weakens_the_bound():
    mechanism = MeanMechanism(STEP)
    found = audited(mechanism, runs=2_000)
    assert found.epsilon_claimed == epsilon_of(T * mechanism.cost_of(1).rho, 1e-6)
    assert audited(NoClipping(STEP), runs=2_000, delta=0.9).epsilon_low == 0


@pytest.mark.parametrize(
    "wrong", [{"runs": 1}, {"alpha": 0.0}, {"alpha": 1.0}, {"delta": 0.0}, {"unit": N}, {"unit": -1}]
)
def test_senseless_arguments_are_refused_without_the_batch_size(wrong):
    arguments = {"unit": 0, "runs": 10, "randomness": SystemRandomness}
    with pytest.raises(ConfigError, match=next(iter(wrong))) as caught:
        replay(MeanMechanism(STEP), STEPS, **(arguments | wrong))
    assert "unit" not in wrong or str(wrong["unit"]) in str(caught.value)
