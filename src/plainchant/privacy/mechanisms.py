"""Token mechanisms: the object that aggregates also says what a step costs (guarantee 4 and 5).

A closed set: a foreign implementation could break the guarantee. Every mechanism satisfies, for one batch:

* the token is a function of the batch's private logits, the public logits and fresh randomness only;
* `cost_of` bounds what the tokens of a batch cost under adding or removing one context, whatever the logits are (ex
  ante); it is unlimited where no such bound is known;
* `loss` and `rho` of a result bound, for every neighbour of *this* batch, the realised log-ratio of *this* token in
  both directions, and the zCDP of the step (ex post);
* where costs are individual, the result has `charges`, and a context's charges over all steps of its batch never add
  up to more than `budget`, whatever the other contexts are (ex ante).

All mechanisms allow each coordinate of the aggregate to move by `slack` nats for numerical reasons (guarantee 7).
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.errors import ConfigError, ModelError
from plainchant.privacy.accounting import Cost, bounded_range_rho
from plainchant.privacy.aggregation import (
    CLIPS_BY_PUBLIC,
    Clipping,
    Support,
    clip_logits,
    log_softmax,
    median_box,
    sample,
    support_indices,
)
from plainchant.privacy.promises import CONVERTED, CostOwner, ExAnte, ExPost, Free, NoPromise, Promised
from plainchant.randomness import RandomSource


@dataclass(frozen=True)
class TokenSettings:
    """The public numbers of a step (guarantee 1 and 4).

    Attributes:
        support: which tokens may be sampled.
        k: size of the `top_k` supports.
        clipping: how a context's influence is bounded.
        clip: c or C, nats.
        guidance: g; 1 where logits are clipped.
        temperature: τ.
        batch_size: s, the public number by which sums are divided.
        slack: ξ, nats by which a coordinate of the aggregate may move when other rows change (guarantee 7).
        records_per_context: q; with more than one a unit changes a context instead of adding one (guarantee 3.3).
    """

    support: Support
    k: int
    clipping: Clipping
    clip: float
    guidance: float
    temperature: float
    batch_size: int
    slack: float
    records_per_context: int = 1

    @property
    def units_per_batch(self) -> int:
        """Average number of units per batch: s contexts of q units."""
        return self.batch_size * self.records_per_context

    @property
    def contexts_moved(self) -> int:
        """Number of contexts that a unit affects: its own or, where it changes a context, the old and the new one."""
        return 1 if self.records_per_context == 1 else 2

    @property
    def span(self) -> float:
        """Length of the interval that clipped values lie in: [−C, C], or [0, C] where nothing is lowered."""
        return self.clip * (1 if self.clipping is Clipping.INCREASE else 2)

    def __post_init__(self) -> None:
        for name in ("k", "clip", "guidance", "temperature", "batch_size", "records_per_context"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} = {value}: must be a finite number > 0")
        if not (math.isfinite(self.slack) and self.slack >= 0):
            raise ConfigError(f"slack = {self.slack}: must be a finite number of nats, at least 0")
        if self.clipping is Clipping.LOGITS and self.guidance != 1:
            raise ConfigError(
                f"guidance = {self.guidance}: only 1 with clipping = logits; "
                "set clipping = difference to steer away from the public model"
            )
        if self.clipping is Clipping.LOGITS and self.support is Support.TOP_K_PLUS:
            raise ConfigError("support = top_k_plus: its margin is for clipping = difference; use top_k or full")


@dataclass(frozen=True)
class StepResult:
    """One released token and what it cost.

    Attributes:
        token: the token's id.
        loss: ε_t, nats: the realised loss against the worst neighbour of this batch. Private.
        rho: ρ_t: the zCDP of the step for this batch. Private unless it is the worst case.
        charges: what each context paid, float64 [n]; None where costs are not individual. Private.
    """

    token: int
    loss: float
    rho: float
    charges: Float64Array | None = None


class Gate(Protocol):
    """Decides for each token of a text whether the records contribute to it. Its state is secret."""

    @property
    def rho(self) -> float:
        """Σ ρ of its decisions so far."""

    @property
    def loss(self) -> float:
        """A bound on their realised loss, nats."""

    def opens(self, private: Float32Array, public: Float32Array) -> bool:
        """Whether the records contribute to this token; both logits on the support."""


class TokenMechanism(CostOwner, Protocol):
    """Draws one token from the logits of one batch, and owns its whole cost."""

    @property
    def settings(self) -> TokenSettings:
        """The public numbers of a step."""

    @property
    def needs_public(self) -> bool:
        """Whether a step uses public logits."""

    @property
    def needs_private(self) -> bool:
        """Whether a step uses private logits."""

    def amplification(self, contexts: float) -> float:
        """The factor by which a movement of every row may be amplified in the aggregate (guarantee 7)."""

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array | None:
        """The most that each context may pay for this step; None where costs are not individual.

        Args:
            spent: what each context of the batch has paid so far, float64 [n].
            steps_left: maximum steps that the batch still has, this one included: a function of released text only.
        """

    def gate(self, randomness: RandomSource) -> Gate | None:
        """A new gate for a text, which decides for each token whether the records contribute; None: they always do."""

    def support(self, public: Float32Array | None, allowed: IntArray) -> IntArray:
        """The tokens that may be sampled at this step (guarantee 4.2).

        Args:
            public: logits of the prompt without any record, float32 [V], or None where not needed.
            allowed: ids that may be released at this step, sorted: a function of released text only.

        Returns:
            Sorted token ids, int64 [|S|].
        """

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array | None,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> "TokenDistribution":
        """The distribution of this step's token.

        Args:
            private: logits of the batch's contexts on the support, float32 [n, |S|]; n is secret and may be 0.
            public: logits of the same prompt without any record, float32 [V], or None where not needed.
            support: from `support`.
            allowance: from `allowance`.
        """

    def cost(self, distribution: "TokenDistribution", index: int) -> tuple[float, float]:
        """(ε_t, ρ_t) of having drawn `distribution.support[index]`."""


def draw(mechanism: TokenMechanism, distribution: "TokenDistribution", randomness: RandomSource) -> StepResult:
    """Draws one token and counts its cost."""
    index = sample(distribution.scores, randomness)
    return StepResult(int(distribution.support[index]), *mechanism.cost(distribution, index), distribution.charges)


@dataclass(frozen=True)
class TokenDistribution:
    """The distribution of one token, p(x) ∝ exp(scores[x]), and what its cost is computed from. Private.

    Attributes:
        support: token ids, int64 [|S|].
        scores: aggregate divided by τ, float64 [|S|].
        low, high: a box for the scores of all neighbours that `removals` does not cover (guarantee 5.3), float64 [|S|].
        removals: −g·z_i/(sτ), how removing each context changes the scores, where that is exact, float32 [n, |S|].
        charges: what each context pays for this step, float64 [n]; None where costs are not individual.
    """

    support: IntArray
    scores: Float64Array
    low: Float64Array
    high: Float64Array
    removals: Float32Array | None = None
    charges: Float64Array | None = None


def clipped_rows(
    settings: TokenSettings, private: Float32Array, public: Float32Array | None, support: IntArray
) -> tuple[Float32Array, Float64Array | float, Float32Array]:
    """The clipped rows on the support, the base to which the aggregate is added, and the result of an empty batch."""
    if settings.clipping is Clipping.LOGITS:
        # an empty batch yields the public logits, clipped like any other row, if the mechanism requested them
        empty = (
            np.zeros(len(support), np.float32)
            if public is None
            else clip_logits(public[support][None], settings.clip)[0]
        )
        return clip_logits(private, settings.clip), 0.0, empty
    if public is None:
        raise ModelError(f"clipping = {settings.clipping}: needs the public logits")
    base = public[support]
    if not np.isfinite(base).all():
        raise ModelError("the model's public logits are not finite; another dtype (float32) may help")
    return (
        CLIPS_BY_PUBLIC[settings.clipping](private, base, settings.clip),
        base.astype(np.float64),
        np.zeros_like(base),
    )


@dataclass(frozen=True)
class _Base:
    """Defaults of most mechanisms: the support from the settings (guarantee 4.2), no budgets, no gate."""

    settings: TokenSettings

    def resized(self, batch_size: int) -> Self:
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, batch_size=batch_size))

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array | None:
        return None

    def gate(self, randomness: RandomSource) -> Gate | None:
        return None

    def support(self, public: Float32Array | None, allowed: IntArray) -> IntArray:
        s = self.settings
        return support_indices(s.support, public, allowed, k=s.k, margin=s.span / s.batch_size)


def _log_sum_exp_with(scores: Float64Array, index: int, value: float) -> float:
    """The log Σ exp of the scores with the one at `index` replaced."""
    replaced = scores.copy()
    replaced[index] = value
    top = float(replaced.max())
    return top + float(np.log(np.exp(replaced - top).sum()))


def box_loss(distribution: TokenDistribution, index: int) -> float:
    """The largest |log p(x) − log p'(x)| at x = index over all score vectors in the box (guarantee 5.3)."""
    low, high = float(distribution.low[index]), float(distribution.high[index])
    log_p = float(log_softmax(distribution.scores)[index])
    log_p_min = low - _log_sum_exp_with(distribution.high, index, low)
    log_p_max = high - _log_sum_exp_with(distribution.low, index, high)
    return max(log_p - log_p_min, log_p_max - log_p)


@dataclass(frozen=True)
class MeanMechanism(_Base, ExAnte):
    """The mean of clipped logits ([Amin24]) or of differences ([InvInk]), worst case ex ante (guarantee 4.4, 5.1).

    Clipped values lie in an interval of length L, 2C or C. Adding or removing one context moves the coordinates of the
    aggregate by values in an interval of length g·L/s, and by ξ for numerical reasons: the log-ratio has range at most
    η = (g·L/s + 2ξ)/τ, and a token is (η²/8)-zCDP.
    """

    needs_private = True
    accountant: ClassVar[str] = f"zCDP at its worst case, {CONVERTED}"

    @property
    def replayable(self) -> bool:
        # a replay leaves a context out; with several units per context, a unit changes it (guarantee 3.3)
        return self.settings.contexts_moved == 1

    @property
    def needs_public(self) -> bool:
        return self.settings.support is not Support.FULL or self.settings.clipping is not Clipping.LOGITS

    @property
    def worst_case(self) -> float:
        """The zCDP of a step for the worst context that clipping allows."""
        s = self.settings
        moved = s.contexts_moved * s.guidance * s.span / s.batch_size
        return bounded_range_rho((moved + 2 * s.slack) / s.temperature)

    def cost_of(self, tokens: int) -> Cost:
        return Cost(self.worst_case).scaled(tokens)

    def amplification(self, contexts: float) -> float:
        # with several units per context there are s contexts, whatever the number of units
        s = self.settings
        return s.guidance * (contexts / s.batch_size if s.contexts_moved == 1 else 1.0)

    def widest_clip(self, budget: Cost, tokens: int) -> float:
        """The clip at which a budget pays for exactly `tokens` ([InvInk]); not above 0 if no clip does."""
        s = self.settings
        moved = s.span / s.clip * s.guidance * s.contexts_moved
        return (math.sqrt(8 * budget.rho / tokens) * s.temperature - 2 * s.slack) * s.batch_size / moved

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array | None,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> TokenDistribution:
        clipped, base, _ = clipped_rows(self.settings, private, public, support)
        return self._mean(support, clipped, base)

    def _mean(
        self,
        support: IntArray,
        rows: Float32Array | Float64Array,
        base: Float64Array | float,
        charges: Float64Array | None = None,
    ) -> TokenDistribution:
        s = self.settings
        weight = s.guidance / s.batch_size
        scores = (base + weight * rows.sum(axis=0, dtype=np.float64)) / s.temperature
        # measured like the median (guarantee 5.3): additions through a box, removals exactly
        up = down = weight * s.contexts_moved * s.span / 2
        if s.clipping is Clipping.INCREASE and s.contexts_moved == 1:
            # an added context lowers no token
            up, down = weight * s.clip, 0.0
        low, high = scores - (down + s.slack) / s.temperature, scores + (up + s.slack) / s.temperature
        removals = (rows * np.float32(-weight / s.temperature)).astype(np.float32)
        return TokenDistribution(support, scores, low, high, removals, charges)

    def cost(self, distribution: TokenDistribution, index: int) -> tuple[float, float]:
        loss = box_loss(distribution, index)
        if distribution.removals is not None and len(distribution.removals):
            probabilities = np.exp(log_softmax(distribution.scores)).astype(np.float32)
            # log p(x) − log p'(x) = log E_p exp(change) − change(x)
            removal = np.log(np.exp(distribution.removals) @ probabilities) - distribution.removals[:, index]
            loss = max(loss, float(np.abs(removal).max()) + 2 * self.settings.slack / self.settings.temperature)
        return loss, self.worst_case


@dataclass(frozen=True)
class ExPostMeanMechanism(ExPost, MeanMechanism):
    """The mean with its cost measured after the run, like the median's (guarantee 5.3), for comparison."""

    replayable = False

    def cost_of(self, tokens: int) -> Cost:
        # the worst case is known nevertheless, and no budget limits it
        return Cost(self.worst_case).scaled(tokens)


@dataclass(frozen=True)
class MedianMechanism(_Base, ExPost):
    """The coordinate-wise median, whose cost is what neighbours of this batch could change (guarantee 4.4, 5.3).

    [Amin25]: where the contexts agree, the middle values lie close together and one context moves little.
    """

    needs_private = True
    # an empty batch uses the public model, and the amount of work must not reveal whether a batch is empty
    needs_public = True

    def amplification(self, contexts: float) -> float:
        # no order statistic moves further than the rows, for any number of rows
        return self.settings.guidance

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array | None,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> TokenDistribution:
        s = self.settings
        clipped, base, empty = clipped_rows(s, private, public, support)
        box = median_box(clipped, s.clip, empty)

        def scores(values: Float32Array, slack: float) -> Float64Array:
            return np.asarray((base + s.guidance * values.astype(np.float64) + slack) / s.temperature)

        return TokenDistribution(support, scores(box.median, 0.0), scores(box.low, -s.slack), scores(box.high, s.slack))

    def cost(self, distribution: TokenDistribution, index: int) -> tuple[float, float]:
        span = float((distribution.scores - distribution.low).max() + (distribution.high - distribution.scores).max())
        return box_loss(distribution, index), bounded_range_rho(span)


@dataclass(frozen=True)
class PublicMechanism(_Base, Free):
    """The public model alone: no private context, ρ = 0 (guarantee 5.5)."""

    needs_public = True
    needs_private = False

    def amplification(self, contexts: float) -> float:
        return 0.0

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array | None,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> TokenDistribution:
        if public is None:
            raise ModelError("the public mechanism needs the public logits")
        scores = public[support].astype(np.float64) / self.settings.temperature
        return TokenDistribution(support, scores, scores, scores)

    def cost(self, distribution: TokenDistribution, index: int) -> tuple[float, float]:
        return 0.0, 0.0


class VotesOnlyMechanism(PublicMechanism):
    """The public model by itself, in a run whose records vote: tokens are free, and the votes are the whole cost."""

    accountant: ClassVar[str] = f"zCDP of the noisy votes, {CONVERTED}"

    def promised(self, total: Cost, epsilon: float, delta: float, unit: str) -> Promised:
        return ExAnte.promised(self, total, epsilon, delta, unit)


class MarginalsOnlyMechanism(VotesOnlyMechanism):
    """No token at all: a release of labels and attributes alone, whose noisy marginals are the whole cost."""

    accountant: ClassVar[str] = f"zCDP of the noisy marginals, {CONVERTED}"


@dataclass(frozen=True)
class NonPrivateMechanism(NoPromise):
    """Another mechanism's tokens with no limit on how many are drawn: accounted as infinite (guarantee 5.5).

    Attributes:
        drawn_by: the mechanism that aggregates and draws.
    """

    drawn_by: MeanMechanism | MedianMechanism

    @property
    def settings(self) -> TokenSettings:
        return self.drawn_by.settings

    @property
    def needs_public(self) -> bool:
        return self.drawn_by.needs_public

    @property
    def needs_private(self) -> bool:
        return self.drawn_by.needs_private

    def amplification(self, contexts: float) -> float:
        # there is no promise that a movement could break
        return 0.0

    def resized(self, batch_size: int) -> Self:
        return dataclasses.replace(self, drawn_by=self.drawn_by.resized(batch_size))

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array | None:
        return self.drawn_by.allowance(spent, steps_left)

    def gate(self, randomness: RandomSource) -> Gate | None:
        return self.drawn_by.gate(randomness)

    def support(self, public: Float32Array | None, allowed: IntArray) -> IntArray:
        return self.drawn_by.support(public, allowed)

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array | None,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> TokenDistribution:
        return self.drawn_by.distribution(private, public, support, allowance)

    def cost(self, distribution: TokenDistribution, index: int) -> tuple[float, float]:
        return self.drawn_by.cost(distribution, index)
