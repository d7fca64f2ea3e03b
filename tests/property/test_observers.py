"""Whom the ex-post figure covers: all secret draws of batches averaged, on a model of three tokens (guarantee 5.3)."""

import functools
import itertools

import numpy as np
import pytest

from plainchant.privacy.accounting import ex_post
from plainchant.privacy.aggregation import Clipping, Support, log_softmax
from plainchant.privacy.mechanisms import MeanMechanism, MedianMechanism, TokenSettings

V, BATCHES, CLIP, ROUNDING = 3, 2, 5.0, 1e-9
SUPPORT = np.arange(V)
A, B, C = ((0.0, -2 * CLIP, -2 * CLIP), (-2 * CLIP, 0.0, -2 * CLIP), (-2 * CLIP, -2 * CLIP, 0.0))
# records that want one token each
TABLES = {"three kinds": (A, B, B, B, C, C), "pairs": (A, A, B, B, C, C), "one against six": (A, *[B] * 6)}
SETTINGS = TokenSettings(
    support=Support.FULL,
    k=1,
    clipping=Clipping.LOGITS,
    clip=CLIP,
    guidance=1.0,
    temperature=1.0,
    batch_size=2,
    slack=0.0,
)
MECHANISMS = {"median": MedianMechanism(SETTINGS), "mean": MeanMechanism(SETTINGS)}
DELTAS = (0.5, 0.2, 0.05, 1e-3)


@functools.cache
def batch(name, rows):
    """Of one batch's token: log-probabilities, losses and the step's ρ, each float64 [V]."""
    mechanism = MECHANISMS[name]
    logits = np.array(rows, dtype=np.float32).reshape(-1, V)
    # the public model, which an empty batch falls back to, wants b
    found = mechanism.distribution(logits, np.array(B, dtype=np.float32), SUPPORT)  # type: ignore[attr-defined]
    costs = np.array([mechanism.cost(found, token) for token in SUPPORT])  # type: ignore[attr-defined]
    return log_softmax(found.scores), costs[:, 0], costs[:, 1]


def drawn(name, records, draw):
    """log p [V, V] of both batches' tokens for one draw, and the batches' losses and ρ, each [BATCHES, V, V]."""
    own = [tuple(r for r, b in zip(records, draw, strict=True) if b == number) for number in range(BATCHES)]
    (p0, loss0, rho0), (p1, loss1, rho1) = (batch(name, rows) for rows in own)
    grid = functools.partial(np.meshgrid, indexing="ij")
    return p0[:, None] + p1[None, :], np.array(grid(loss0, loss1)), np.array(grid(rho0, rho1))


def draws(units):
    return list(itertools.product(range(BATCHES), repeat=units))


def worlds(records):
    """Neighbours: their records, and how a draw of ours and the odd unit's own batch make one of theirs."""
    for unit in range(len(records)):
        yield records[:unit] + records[unit + 1 :], lambda draw, own, unit=unit: draw[:unit] + draw[unit + 1 :]
    for other in (A, B, C):
        yield (*records, other), lambda draw, own: (*draw, own)


def figures(name, records, delta):
    """The figure for every draw and output, with and without what the secret draw adds, each [draws, V, V]."""
    found = np.zeros((2, BATCHES ** len(records), V, V))
    for number, draw in enumerate(draws(len(records))):
        _, loss, rho = drawn(name, records, draw)
        for x in np.ndindex(V, V):
            measured = ex_post(loss[:, *x], rho[:, *x], 0.0, delta)
            found[:, number, *x] = measured.epsilon, min(measured.by_sum, measured.by_ville)
    return found


def released(name, records):
    """p [V, V] of the release alone: the mean over all draws."""
    return np.mean([np.exp(drawn(name, records, draw)[0]) for draw in draws(len(records))], axis=0)


def passed_by(name, records, delta):
    """How probably the figure is passed, at most over neighbours: for a stranger, and for who knows the draw."""
    whole, _ = figures(name, records, delta)
    ours = np.array([drawn(name, records, draw)[0] for draw in draws(len(records))])
    weight = np.exp(ours) / len(ours)
    stranger = insider = 0.0
    for theirs, match in worlds(records):
        ratio = np.broadcast_to(np.abs(np.log(released(name, records) / released(name, theirs))), weight.shape)
        # who knows the draw knows the odd unit's own batch too
        given = [[drawn(name, theirs, match(draw, own))[0] for draw in draws(len(records))] for own in range(BATCHES)]
        informed = np.abs(ours - np.array(given)).max(axis=0)
        stranger = max(stranger, weight[ratio > whole + ROUNDING].sum())
        insider = max(insider, weight[informed > whole + ROUNDING].sum())
    return stranger, insider


def surprise(name, records, nats):
    """The largest probability over neighbours that a stranger's log-ratio passes the losses' sum by so many nats."""
    _, known = figures(name, records, 1e-6)
    weight = np.exp([drawn(name, records, draw)[0] for draw in draws(len(records))]) / BATCHES ** len(records)
    ratios = [np.log(released(name, records) / released(name, theirs))[None] for theirs, _ in worlds(records)]
    return max(weight[ratio > known + nats].sum() for ratio in ratios)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", MECHANISMS)
def test_the_figure_holds_for_whoever_sees_the_release_with_the_draw_or_without(name, table):
    for delta in DELTAS:
        stranger, insider = passed_by(name, TABLES[table], delta)
        assert stranger <= delta
        assert insider <= delta


def test_power_the_sum_of_losses_is_passed_by_what_a_stranger_learns():
    # given the draw the sum bounds the log-ratio for sure; where a lone record is outvoted it says that nobody moved
    # anything, and who averages over the draws still takes its token for its own
    odd = TABLES["one against six"]
    assert surprise("median", odd, 0.1) > 0.3
    assert surprise("median", odd, 6.0) > 2.8e-5
    # and no more often than the lemma allows: with probability e^-nats
    assert surprise("median", odd, 6.0) < np.exp(-6.0)
