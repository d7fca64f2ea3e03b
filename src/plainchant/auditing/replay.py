"""Replay: a lower bound on the ε of one batch, or of the batches of a deal."""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.errors import ConfigError
from plainchant.generation.decoding import BatchWork
from plainchant.models import LanguageModel
from plainchant.privacy.accounting import check_delta
from plainchant.privacy.aggregation import sampling_weights
from plainchant.privacy.amplification import deal_cost
from plainchant.privacy.mechanisms import TokenDistribution, TokenMechanism
from plainchant.randomness import RandomSource

# Number of values of the log-likelihood ratio from which a replay chooses its threshold.
THRESHOLDS = 501


# Replay


@dataclass(frozen=True)
class Steps:
    """Logits of T steps of one batch, kept once and used for many draws. Private.

    Attributes:
        public: logits without any record, float32 [T, V].
        private: for each step the contexts' logits on `ids`, float32 [n, |ids|].
        ids: for each step the sorted token ids that a support may hold, int64.
        public_without: the public logits when the unit under test is missing, float32 [T, V]; None where they are the
            same, as they must be (guarantee 4.1).
    """

    public: Float32Array = field(repr=False)
    private: Sequence[Float32Array] = field(repr=False)
    ids: Sequence[IntArray] = field(repr=False)
    public_without: Float32Array | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Replay:
    """The result of a replay.

    Attributes:
        epsilon_low: a lower bound on ε at the given δ; wrong with probability at most the audit's error rate.
        epsilon_claimed: what the mechanism claims for these steps; None where it claims nothing in advance.
        epsilon_limit: the largest lower bound that this many runs could have shown.
        delta: δ of all three.
        runs: sequences drawn on each side.
    """

    epsilon_low: float
    epsilon_claimed: float | None
    epsilon_limit: float
    delta: float
    runs: int

    @property
    def refuted(self) -> bool:
        """Whether the claim is contradicted."""
        return self.epsilon_claimed is not None and self.epsilon_low > self.epsilon_claimed


def part_of(progress: Callable[[float], None], low: float, high: float, share: float) -> None:
    """Reports the share of a part that lies between `low` and `high` of the whole."""
    progress(low + (high - low) * share)


def record_steps(
    model: LanguageModel,
    mechanism: TokenMechanism,
    work: BatchWork,
    tokens: Sequence[int],
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> Steps:
    """Keeps the logits of a batch along one fixed text, as the decoder computes them (guarantee 4.1).

    Private logits are kept on the mechanism's supports only.

    Args:
        model: the language model.
        mechanism: chooses the supports.
        work: the batch; its positions do not matter.
        tokens: the text, T − 1 tokens. The text of the record under test gives that record the most influence.
        progress: receives the share of the steps that are done.
    """
    vocabulary = np.arange(model.vocabulary_size)
    allowed = np.setdiff1d(vocabulary, sorted(model.special - model.end_of_text)).astype(np.int64)
    prefix, head, room = model.prefill(work.prefix), work.start[:-1], len(tokens) + 1
    private_rows = model.open_rows(prefix, [[*record, *head] for record in work.records], room=room)
    public_rows = model.open_rows(prefix, [head], room=room)
    public, private, ids = [], [], []
    for number, token in enumerate((work.start[-1], *tokens)):
        progress(number / room)
        public.append(model.step([(public_rows, token)])[0][0])
        ids.append(mechanism.support(public[-1], allowed))
        private.append(model.step([(private_rows, token)], [ids[-1]])[0])
    return Steps(np.array(public, dtype=np.float32), private, ids)


def distributions_of(mechanism: TokenMechanism, steps: Steps, without: int | None = None) -> list[TokenDistribution]:
    """The distribution of each step's token, with all contexts or without one; charges add up as in the decoder."""
    public = steps.public if without is None or steps.public_without is None else steps.public_without
    rows = np.arange(len(steps.private[0]))
    rows = rows[rows != without]
    spent, distributions = np.zeros(len(rows)), []
    for step, (logits, ids) in enumerate(zip(steps.private, steps.ids, strict=True)):
        support = mechanism.support(public[step], ids)
        private = logits[rows][:, np.searchsorted(ids, support)]
        allowance = mechanism.allowance(spent, len(steps.ids) - step)
        distributions.append(mechanism.distribution(private, public[step], support, allowance))
        if (charges := distributions[-1].charges) is not None:
            spent = spent + charges
    return distributions


def replay(
    mechanism: TokenMechanism,
    steps: Steps,
    unit: int,
    *,
    runs: int,
    randomness: Callable[[], RandomSource],
    delta: float = 1e-6,
    alpha: float = 1e-3,
    progress: Callable[[float], None] = lambda _: None,
) -> Replay:
    """A lower bound on the ε of T steps, from sequences drawn with and without one context.

    A language model whose logits ignore what was sampled is allowed, so the mechanism's claim for T steps must hold for
    tokens drawn from these fixed logits. The attacker sees a sequence and knows both distributions. Two kinds of events
    are tested: a large log-likelihood ratio, and the sequence that is drawn most often (which shows a source that
    repeats itself). The event of each direction is chosen on the first half of the runs and tested on the second:
    ε ≥ log((p − δ)/q), p and q bounded by Clopper–Pearson.

    A replay does not see:

    * how leaving a context out changes the logits of the others (guarantee 7);
    * where contexts hold several records (guarantee 3.3), how changing one record matters;
    * a source that is predictable and does not repeat itself.

    Args:
        mechanism: the mechanism to audit.
        steps: from `record_steps`.
        unit: which context is left out.
        runs: sequences drawn on each side, at least 2.
        randomness: makes the source of each sequence: `SystemRandomness` as in production.
        delta: of the claim and of the bound.
        alpha: the probability that `epsilon_low` is too large, split over both directions and both their bounds.
        progress: receives the share of the sequences that are drawn.

    Raises:
        ConfigError: there is no such context, or runs, delta or alpha is out of its bounds.
        PrivacyError: as for the mechanism's `claim`.
    """
    _check(runs, delta, alpha)
    if not 0 <= unit < len(steps.private[0]):
        raise ConfigError(f"unit = {unit}: the batch has no context with that number")
    claimed = mechanism.claim(len(steps.ids), delta)
    worlds = distributions_of(mechanism, steps), distributions_of(mechanism, steps, without=unit)
    tokens = []
    for place, distributions in enumerate(worlds):
        progress(place / 2)
        tokens.append(_drawn(distributions, runs, randomness))
    ratios = [_log_p(worlds[0], drawn) - _log_p(worlds[1], drawn) for drawn in tokens]
    return _bounded(tokens, ratios, claimed, runs, delta, alpha)


def replay_deal(
    mechanism: TokenMechanism,
    batches: Sequence[Steps],
    unit: Sequence[int],
    *,
    among: int,
    payment: float,
    runs: int,
    randomness: Callable[[], RandomSource],
    delta: float = 1e-6,
    alpha: float = 1e-3,
    progress: Callable[[float], None] = lambda _: None,
) -> Replay:
    """A lower bound on the ε of one deal's texts, the secret draw of the unit's batch included (guarantee 13.2).

    As `replay`, but in every run with the unit its batch is drawn first, and it takes part in that batch alone. The
    attacker sees the texts of some of the deal's batches and averages over the draw.

    Args:
        mechanism: the mechanism to audit, as it writes one text of the deal.
        batches: for each of w batches the logits of T steps with the unit in it.
        unit: for each of them which context the unit is.
        among: t, how many batches the unit draws from; at least w.
        payment: r, ρ that a unit's payments for one text never exceed.
        runs: texts of the deal drawn on each side, at least 2.
        randomness: makes the source of each run.
        delta: of the claim and of the bound.
        alpha: the probability that `epsilon_low` is too large.
        progress: receives the share of the texts that are drawn.

    Raises:
        ConfigError: there are more batches than the unit draws from, or a number is out of its bounds.
    """
    _check(runs, delta, alpha)
    if not 1 <= len(batches) <= among:
        raise ConfigError(f"among = {among}: {len(batches)} batches write, and a unit draws from all of them")
    claimed = deal_cost(among, len(batches), payment).epsilon(delta)
    worlds = [
        (distributions_of(mechanism, steps), distributions_of(mechanism, steps, without=own))
        for steps, own in zip(batches, unit, strict=True)
    ]
    halves = [functools.partial(part_of, progress, side / 2, (side + 1) / 2) for side in range(2)]
    tokens = [
        _dealt(worlds, among if present else None, runs, randomness, half)
        for present, half in zip((True, False), halves, strict=True)
    ]
    ratios = []
    for drawn in tokens:
        columns = np.split(drawn, len(batches), axis=1)
        each = [_log_p(own[0], part) - _log_p(own[1], part) for own, part in zip(worlds, columns, strict=True)]
        with np.errstate(divide="ignore"):
            elsewhere = np.full(runs, np.log(1 - len(batches) / among))
        ratios.append(np.logaddexp.reduce([elsewhere, *(part - np.log(among) for part in each)]))
    return _bounded(tokens, ratios, claimed, runs, delta, alpha)


def _check(runs: int, delta: float, alpha: float) -> None:
    check_delta(delta)
    if runs < 2:
        raise ConfigError(f"runs = {runs}: must be at least 2, one to choose an event and one to test it")
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha = {alpha}: must lie strictly between 0 and 1; 1e-3 is usual")


def _bounded(
    tokens: Sequence[IntArray],
    ratios: Sequence[Float64Array],
    claimed: float | None,
    runs: int,
    delta: float,
    alpha: float,
) -> Replay:
    """The bound from sequences drawn with and without the unit, and their log-likelihood ratios."""
    each = alpha / 4
    shown = max(
        _shown((tokens[0], ratios[0]), (tokens[1], ratios[1]), delta, each),
        _shown((tokens[1], -ratios[1]), (tokens[0], -ratios[0]), delta, each),
    )
    tested = runs - runs // 2
    limit = float(_lower(np.array(tested), np.array(0), tested, delta, each))
    return Replay(max(0.0, shown), claimed, max(0.0, limit), delta, runs)


def _drawn(distributions: Sequence[TokenDistribution], runs: int, randomness: Callable[[], RandomSource]) -> IntArray:
    """Sequences of tokens int64 [runs, T], token by token as `aggregation.sample` draws them."""
    cumulative = [np.cumsum(sampling_weights(distribution.scores)) for distribution in distributions]
    totals = [int(sums[-1]) for sums in cumulative]
    sources = (randomness() for _ in range(runs))
    numbers = np.fromiter((source.below(total) for source in sources for total in totals), np.uint64)
    columns = zip(distributions, cumulative, numbers.reshape(runs, len(distributions)).T, strict=True)
    return np.stack(
        [distribution.support[np.searchsorted(sums, column, side="right")] for distribution, sums, column in columns],
        axis=1,
    )


def _dealt(
    worlds: Sequence[tuple[Sequence[TokenDistribution], Sequence[TokenDistribution]]],
    among: int | None,
    runs: int,
    randomness: Callable[[], RandomSource],
    progress: Callable[[float], None],
) -> IntArray:
    """Texts of w batches side by side, int64 [runs, w·T]; the unit draws one of `among` batches, or is in none."""
    sums = [[[np.cumsum(sampling_weights(step.scores)) for step in kind] for kind in own] for own in worlds]
    tokens = np.empty((runs, sum(len(own[0]) for own in worlds)), dtype=np.int64)
    for run in range(runs):
        if run % 1000 == 0:
            progress(run / runs)
        source = randomness()
        place = None if among is None else source.below(among)
        column = 0
        for batch, own in enumerate(worlds):
            kind = 0 if batch == place else 1
            for step, cumulative in zip(own[kind], sums[batch][kind], strict=True):
                number = np.uint64(source.below(int(cumulative[-1])))
                tokens[run, column] = step.support[np.searchsorted(cumulative, number, side="right")]
                column += 1
    return tokens


def _log_p(distributions: Sequence[TokenDistribution], tokens: IntArray) -> Float64Array:
    """The log-probability of each sequence, −inf where a token lies outside its support, float64 [runs]."""
    found = np.zeros(len(tokens))
    for distribution, column in zip(distributions, tokens.T, strict=True):
        weights = sampling_weights(distribution.scores)
        place = np.minimum(np.searchsorted(distribution.support, column), len(distribution.support) - 1)
        found += np.where(distribution.support[place] == column, np.log(weights / weights.sum())[place], -np.inf)
    return found


_Draws: TypeAlias = tuple[IntArray, Float64Array]
"""Sequences int64 [runs, T], and log-likelihood ratios of P to Q, nats, float64 [runs]."""


def _shown(p: _Draws, q: _Draws, delta: float, alpha: float) -> float:
    """A lower bound on log((P(E) − δ)/Q(E)) from draws of P and Q; E is the best event on the first halves."""
    half = len(p[0]) // 2
    ordered = np.sort(np.concatenate([p[1][:half], q[1][:half]]))
    thresholds = ordered[np.linspace(0, len(ordered) - 1, THRESHOLDS).astype(np.int64)]
    frequent, _ = Counter(map(bytes, p[0][:half])).most_common(1)[0]
    repeated = np.frombuffer(frequent, np.int64)

    def hits(draws: _Draws, part: slice) -> IntArray:
        tokens, ratios = draws[0][part], np.sort(draws[1][part])
        return np.append(len(ratios) - np.searchsorted(ratios, thresholds), (tokens == repeated).all(axis=1).sum())

    first, second = slice(half), slice(half, None)
    best = int(np.argmax(_lower(hits(p, first), hits(q, first), half, delta, alpha)))
    return float(_lower(hits(p, second)[best], hits(q, second)[best], len(p[0]) - half, delta, alpha))


def _lower(p_hits: npt.NDArray[Any], q_hits: npt.NDArray[Any], runs: int, delta: float, alpha: float) -> Float64Array:
    """log((p_low − δ)/q_high) by Clopper–Pearson, each bound wrong with probability at most alpha."""
    p_low = np.where(p_hits == 0, 0.0, beta.ppf(alpha, np.maximum(p_hits, 1), runs - p_hits + 1))
    q_high = np.where(q_hits == runs, 1.0, beta.ppf(1 - alpha, q_hits + 1, np.maximum(runs - q_hits, 1)))
    return np.asarray(np.log(np.maximum(p_low - delta, 1e-300) / q_high))
