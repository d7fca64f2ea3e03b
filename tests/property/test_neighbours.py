"""No neighbour of a batch moves a token further than the mechanism says (guarantee 10, exact)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from strategies import additions, distribution_of, probabilities, removals, renyi, settings

from plainchant.privacy.aggregation import (
    Aggregate,
    Clipping,
    Support,
    clip_differences,
    clip_increases,
    clip_logits,
    median_box,
)
from plainchant.privacy.mechanisms import MeanMechanism, MedianMechanism

VOCABULARY = 3
GRID = np.array([-4.0, -1.0, 0.0, 2.5], dtype=np.float32)
LOGITS = st.floats(-6, 6, width=32)
BATCHES = st.integers(0, 6).flatmap(lambda n: arrays(np.float32, (n, VOCABULARY), elements=LOGITS))
PUBLIC = arrays(np.float32, VOCABULARY, elements=LOGITS)
ORDERS = (1.01, 1.5, 2.0, 4.0, 16.0, 64.0)
# float32 logits and integer weights: what exact arithmetic would not have
ROUNDING = 2e-5
BY_PUBLIC = (clip_differences, clip_increases)

VARIANTS = [
    pytest.param(Aggregate.MEAN, {}, id="mean of logits"),
    pytest.param(Aggregate.MEAN, {"support": Support.TOP_K}, id="mean of logits, top-k"),
    pytest.param(Aggregate.MEAN, {"clipping": Clipping.DIFFERENCE, "guidance": 1.7}, id="mean of differences"),
    pytest.param(Aggregate.MEAN, {"clipping": Clipping.INCREASE, "guidance": 1.7}, id="mean of increases"),
    pytest.param(
        Aggregate.MEAN, {"clipping": Clipping.DIFFERENCE, "support": Support.TOP_K_PLUS, "clip": 0.8}, id="top-k-plus"
    ),
    pytest.param(Aggregate.MEDIAN, {}, id="median of logits"),
    pytest.param(Aggregate.MEDIAN, {"temperature": 0.7}, id="median, cooler"),
    pytest.param(Aggregate.MEDIAN, {"clipping": Clipping.DIFFERENCE, "guidance": 1.7}, id="median of differences"),
]


@pytest.mark.parametrize(("aggregate", "changes"), VARIANTS)
@given(rows=BATCHES, public=PUBLIC)
def test_every_neighbour_stays_within_loss_and_rho(aggregate, changes, rows, public):
    kind: type[MeanMechanism | MedianMechanism] = MedianMechanism if aggregate is Aggregate.MEDIAN else MeanMechanism
    mechanism = kind(settings(**changes))
    distribution = distribution_of(mechanism, rows, public)
    p = probabilities(distribution, VOCABULARY)
    costs = [mechanism.cost(distribution, index) for index in range(len(distribution.support))]
    for neighbour in [*removals(rows), *additions(rows, GRID)]:
        q = probabilities(distribution_of(mechanism, neighbour, public), VOCABULARY)
        for token, (loss, rho) in zip(distribution.support, costs, strict=True):
            assert abs(np.log(p[token]) - np.log(q[token])) <= loss + ROUNDING
            for order in ORDERS:
                assert renyi(p, q, order) <= order * rho + ROUNDING
                assert renyi(q, p, order) <= order * rho + ROUNDING


@pytest.mark.parametrize("clipping", list(Clipping))
@given(rows=BATCHES, public=PUBLIC)
def test_worst_case_covers_what_is_measured(clipping, rows, public):
    mechanism = MeanMechanism(settings(clipping=clipping))
    distribution = distribution_of(mechanism, rows, public)
    for index in range(VOCABULARY):
        loss, rho = mechanism.cost(distribution, index)
        assert rho == mechanism.cost_of(1).rho
        # the realised loss never passes the range of the worst case: sqrt(8ρ)
        assert loss <= np.sqrt(8 * mechanism.cost_of(1).rho) + ROUNDING


@given(rows=st.integers(3, 7).flatmap(lambda n: arrays(np.float32, (n, 2), elements=LOGITS)))
def test_median_box_is_attained(rows):
    """Tight: in each coordinate some neighbour's median is each end of the box."""
    clip = 6.0
    box = median_box(rows, clip, np.zeros(2, dtype=np.float32))
    medians = [np.median(rows[np.arange(len(rows)) != i], axis=0) for i in range(len(rows))]
    medians += [np.median(np.vstack([rows, np.full((1, 2), v, dtype=np.float32)]), axis=0) for v in (-clip, clip)]
    assert np.allclose(np.min(medians, axis=0), box.low, atol=1e-5)
    assert np.allclose(np.max(medians, axis=0), box.high, atol=1e-5)


@given(rows=st.integers(3, 6).flatmap(lambda n: arrays(np.float32, (n, VOCABULARY), elements=LOGITS)), public=PUBLIC)
def test_box_of_the_law_holds_every_neighbour(rows, public):
    mechanism = MedianMechanism(settings(clip=2.0))
    distribution = distribution_of(mechanism, rows, public)
    for neighbour in [*removals(rows), *additions(rows, GRID)]:
        scores = distribution_of(mechanism, neighbour, public).scores
        assert np.all(scores >= distribution.low - 1e-5)
        assert np.all(scores <= distribution.high + 1e-5)


@given(rows=BATCHES, public=PUBLIC, clip=st.floats(0.1, 5))
def test_clipping_keeps_its_bounds_whatever_the_row_is(rows, public, clip):
    for bad in (np.nan, np.inf, -np.inf, 3e38):
        spoiled = np.vstack([rows, np.full((1, VOCABULARY), 0.5, dtype=np.float32)])
        spoiled[-1, 0] = bad
        for clipped in (clip_logits(spoiled, clip), *(own(spoiled, public, clip) for own in BY_PUBLIC)):
            assert np.isfinite(clipped).all()
            assert np.abs(clipped).max() <= np.float32(clip)
        assert clip_increases(spoiled, public, clip).min() >= 0
        # a bad row is treated by itself: the others are what they were
        assert np.array_equal(clip_logits(spoiled, clip)[:-1], clip_logits(rows, clip))
        for own in BY_PUBLIC:
            assert np.array_equal(own(spoiled, public, clip)[:-1], own(rows, public, clip))


def test_the_bound_has_power():
    """A mechanism that forgets to clip breaks the bound that the real one keeps."""
    real = MeanMechanism(settings(clip=1.0))
    forgetful = MeanMechanism(settings(clip=8.0))
    rows = np.empty((0, 3), dtype=np.float32)
    neighbour = np.array([[8.0, -8.0, 0.0]], dtype=np.float32)
    public = np.zeros(3)

    def divergence(mechanism):
        return renyi(
            probabilities(distribution_of(mechanism, rows, public), 3),
            probabilities(distribution_of(mechanism, neighbour, public), 3),
            2,
        )

    assert divergence(real) <= 2 * real.cost_of(1).rho
    assert divergence(forgetful) > 2 * real.cost_of(1).rho
