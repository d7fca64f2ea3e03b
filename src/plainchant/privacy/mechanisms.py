"""Token mechanisms: who aggregates also says what a step costs (guarantee 4 and 5).

A closed set: a foreign implementation could break the guarantee. Every mechanism satisfies, for one batch:

* the token is a function of the batch's private logits, the public logits and fresh randomness only;
* `rho_per_token`, where it is not None, bounds the zCDP of one step under adding or removing one context, whatever the
  logits are (ex ante);
* `loss` and `rho` of a result bound, for every neighbour of *this* batch, the realised log-ratio of *this* token in
  both directions, and the zCDP of the step (ex post);
* where costs are individual, `charges` of a result, and a context's charges over all steps of its batch never add up
  to more than `budget`, whatever the other contexts are (ex ante).

All allow each coordinate of the aggregate to move by `slack` nats for numerical reasons alone (guarantee 7).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.errors import ConfigError, ModelError, PrivacyError
from plainchant.privacy.accounting import bounded_range_rho
from plainchant.privacy.aggregation import (
    CLIPS_BY_PUBLIC,
    Aggregate,
    Clipping,
    Support,
    clip_logits,
    log_softmax,
    median_box,
    sample,
    support_indices,
)
from plainchant.randomness import RandomSource

# A context pays at most so many times its even share of what it has left, and never more than half of that.
PACE = 8.0


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
        batch_size: s, the public size that sums are divided by.
        slack: ξ, nats by which a coordinate of the aggregate may move when other rows change (guarantee 7).
        records_per_context: q; with more than one a unit changes a context in the place of adding one (guarantee 3.3).
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
        """Units a batch, on average: s contexts of q units."""
        return self.batch_size * self.records_per_context

    @property
    def contexts_moved(self) -> int:
        """How many contexts' reach one unit has: its own, or, where it changes a context, the old and the new one."""
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
            raise ConfigError("support = top_k_plus: its margin is made for clipping = difference; take top_k or full")


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


class TokenMechanism(Protocol):
    """Draws one token from the logits of one batch."""

    @property
    def settings(self) -> TokenSettings:
        """The public numbers of a step."""

    @property
    def needs_public(self) -> bool:
        """Whether a step looks at public logits."""

    @property
    def needs_private(self) -> bool:
        """Whether a step looks at private logits."""

    @property
    def rho_per_token(self) -> float | None:
        """The zCDP of a step, known in advance; None where it depends on the data."""

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array | None:
        """The most that each context may pay for this step; None where costs are not individual.

        Args:
            spent: what each context of the batch has paid so far, float64 [n].
            steps_left: the most steps that the batch still has, this one included: a function of released text only.
        """

    def gate(self, randomness: RandomSource) -> "Gate | None":
        """Opened for every text: decides at each step whether the records have a say; None where they always have."""

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
        """What a token of this step is drawn from.

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
        low, high: the box in which every neighbour's scores lie, as far as boxes say it (guarantee 5.3), float64 [|S|].
        removals: −g·z_i/(sτ), how removing each context changes the scores, where that is exact, float32 [n, |S|].
        charges: what each context pays for this step, float64 [n]; None where costs are not individual.
    """

    support: IntArray
    scores: Float64Array
    low: Float64Array
    high: Float64Array
    removals: Float32Array | None = None
    charges: Float64Array | None = None


def _clipped(
    settings: TokenSettings, private: Float32Array, public: Float32Array | None, support: IntArray
) -> tuple[Float32Array, Float64Array | float, Float32Array]:
    """The clipped rows on the support, what the aggregate is added to, and what an empty batch yields."""
    if settings.clipping is Clipping.LOGITS:
        # an empty batch yields the public logits, clipped like any other row, where the mechanism has asked for them
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


class _Base:
    """What most mechanisms share: the support that the settings name (guarantee 4.2), no budgets, no gate."""

    settings: TokenSettings

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array | None:
        return None

    def gate(self, randomness: RandomSource) -> "Gate | None":
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
class MeanMechanism(_Base):
    """The mean of clipped logits ([Amin24]) or of differences ([InvInk]), worst case ex ante (guarantee 4.4, 5.1).

    Clipped values lie in an interval of length L, 2C or C. Adding or removing one context moves the coordinates of the
    aggregate by values in an interval of length g·L/s, and by ξ for numerical reasons: the log-ratio has range at most
    η = (g·L/s + 2ξ)/τ, and a token is (η²/8)-zCDP.
    """

    settings: TokenSettings

    needs_private = True

    @property
    def needs_public(self) -> bool:
        return self.settings.support is not Support.FULL or self.settings.clipping is not Clipping.LOGITS

    @property
    def rho_per_token(self) -> float | None:
        return self.worst_case

    @property
    def worst_case(self) -> float:
        """The zCDP of a step for the worst context that clipping lets pass."""
        s = self.settings
        moved = s.contexts_moved * s.guidance * s.span / s.batch_size
        return bounded_range_rho((moved + 2 * s.slack) / s.temperature)

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array | None,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> TokenDistribution:
        clipped, base, _ = _clipped(self.settings, private, public, support)
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
        # the same currency as the median (guarantee 5.3): additions through a box, removals exactly
        up = down = weight * s.contexts_moved * s.span / 2
        if s.clipping is Clipping.INCREASE and s.contexts_moved == 1:
            # a context that comes lowers nothing
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


# Distances are compared with noise on a grid of this many steps a unit, where discrete Laplace noise is exact.
GRID = 2**32


@dataclass(frozen=True)
class SparseMeanMechanism(MeanMechanism):
    """The worst-case mean with a sparse vector: what the public model predicts as the batch does is free ([Amin24]).

    At each step the distance q = ‖(1/s) Σ_i softmax(φ_i/τ) − softmax(φ_0/τ)‖₁ with noise is compared with a noisy
    threshold; below it the token comes from the public model alone, else from the batch (guarantee 5.4).

    * One context moves q by at most 1/s, numerical movement of ξ in the logits by e^(2ξ/τ) − 1 more.
    * An instance, from a fresh threshold up to the first distance above it, is 2Δ/σ-DP (noise σ on the threshold, 2σ on
      the distance), hence (2Δ/σ)²/2-zCDP, whatever number of public tokens it lets pass.
    * A text has at most `private_tokens` tokens from the batch and one more instance than that; after them it goes on
      with the public model, and private records are not looked at.

    Attributes:
        threshold: θ, an L1 distance from 0 to 2.
        noise: σ, the scale of the Laplace noise on the threshold.
        private_tokens: the most tokens of a text in which records have a say.
    """

    threshold: float
    noise: float
    private_tokens: int

    # the gate compares with the public logits whatever the support is
    needs_public = True

    def __post_init__(self) -> None:
        for name in ("threshold", "noise", "private_tokens"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} = {value}: must be a finite number > 0")

    @property
    def sensitivity(self) -> float:
        """Δ: how far one unit, and rounding, can move the distance."""
        s = self.settings
        return s.contexts_moved / s.batch_size + math.expm1(2 * s.slack / s.temperature) + 1 / GRID

    @property
    def epsilon_per_instance(self) -> float:
        """ε of one instance of the sparse vector: pure, so that it bounds every realised loss too."""
        return 2 * self.sensitivity / self.noise

    @property
    def rho_per_instance(self) -> float:
        """Its zCDP."""
        return self.epsilon_per_instance**2 / 2

    @property
    def rho_per_text(self) -> float:
        """The most that a text can cost."""
        return self.private_tokens * (self.worst_case + self.rho_per_instance) + self.rho_per_instance

    def gate(self, randomness: RandomSource) -> "Gate | None":
        return Gate(self, randomness)


class Gate:
    """The sparse vector of one text. Its state is secret; nothing of it outlives the text.

    Attributes:
        instances: how many thresholds were drawn, each of which is paid for.
    """

    def __init__(self, mechanism: SparseMeanMechanism, randomness: RandomSource):
        self._mechanism = mechanism
        self._randomness = randomness
        self._left = mechanism.private_tokens
        self.instances = 0
        self._draw()

    def _draw(self) -> None:
        scale = self._mechanism.noise * GRID
        self._threshold = round(self._mechanism.threshold * GRID) + self._randomness.discrete_laplace(scale)
        self.instances += 1

    def opens(self, private: Float32Array, public: Float32Array) -> bool:
        """Whether the records have a say in this token; both logits on the support."""
        if not self._left:
            return False
        noise = self._randomness.discrete_laplace(2 * self._mechanism.noise * GRID)
        if round(distance(self._mechanism.settings, private, public) * GRID) + noise < self._threshold:
            return False
        self._left -= 1
        self._draw()
        return True

    @property
    def rho(self) -> float:
        """Σ ρ of the instances so far."""
        return self.instances * self._mechanism.rho_per_instance

    @property
    def loss(self) -> float:
        """A bound on their realised loss, nats."""
        return self.instances * self._mechanism.epsilon_per_instance


def distance(settings: TokenSettings, private: Float32Array, public: Float32Array) -> float:
    """‖(1/s) Σ_i softmax(φ_i/τ) − softmax(φ_0/τ)‖₁, from 0 to 1 + n/s; a row that is not finite counts as nothing."""
    together = np.zeros(private.shape[1])
    for row in private:
        if np.isfinite(row.max()):
            together += np.exp(log_softmax(row.astype(np.float64) / settings.temperature))
    base = np.exp(log_softmax(public.astype(np.float64) / settings.temperature))
    return float(np.abs(together / settings.batch_size - base).sum())


@dataclass(frozen=True)
class IndividualMeanMechanism(MeanMechanism):
    """The mean, where every context pays for what it moves by itself: a Rényi filter ([FZ21]; guarantee 5.2).

    Context i moves the log-ratio of a step by a range of at most η_i = (g·w_i·r_i/s + 2ξ)/τ, where r_i is the range of
    its own clipped row and w_i ≤ 1 a weight, and pays η_i²/8. The weight is the largest, at most 1, at which the
    payment stays within its allowance, a fraction of what it has left.

    * r_i, w_i and the payment are functions of the context's own record and of released text, up to ξ.
    * Σ payments ≤ budget for every context and every output: `budget`-zCDP, known in advance.
    * Where a unit changes a context, (η + η′)² ≤ 2η² + 2η′²: four contexts' payments, so each may pay a quarter.
    * The aggregate moves continuously with every row: nobody is cut off at a threshold, where the last bits of another
      row could decide (guarantee 7). What numerical movement costs one that has nothing left is put aside at the start.

    Attributes:
        budget: ρ that one unit of a batch may cost in all.
        steps: the most steps of a batch.
    """

    budget: float
    steps: int

    def __post_init__(self) -> None:
        if not self._payable > 0:
            raise PrivacyError(
                f"numerical_slack = {self.settings.slack:g}: its cost over {self.steps} tokens is more than a batch's "
                f"budget of ρ = {self.budget:.4g}; ask for fewer texts, or run a dtype with less slack"
            )

    @property
    def rho_per_token(self) -> float | None:
        return None

    @property
    def _numerical(self) -> float:
        """2ξ/τ: by how much the log-ratio of a step may vary though a context takes no part in it."""
        return 2 * self.settings.slack / self.settings.temperature

    @property
    def _payable(self) -> float:
        """What a context may pay, without what every step costs for numerical reasons."""
        return self.budget / self.settings.contexts_moved**2 - self.steps * bounded_range_rho(self._numerical)

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array | None:
        # rounding may leave a hair less than nothing
        left = np.maximum(self._payable - spent, 0.0)
        return np.asarray(left * min(0.5, PACE / steps_left))

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array | None,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> TokenDistribution:
        if allowance is None or len(allowance) != len(private):
            raise PrivacyError("individual accounting needs the allowance of every context")
        s = self.settings
        clipped, base, _ = _clipped(s, private, public, support)
        if not len(clipped):
            return self._mean(support, clipped, base, np.zeros(0))
        own = clipped.max(axis=1).astype(np.float64) - clipped.min(axis=1)
        reach = s.guidance / (s.batch_size * s.temperature) * own
        # guarantee 5.2 beyond the part put aside: ((w·reach + 2ξ/τ)² − (2ξ/τ)²)/8 ≤ allowance
        numerical = self._numerical
        affordable = np.sqrt(numerical**2 + 8 * allowance) - numerical
        weight = np.ones_like(reach)
        np.divide(affordable, reach, out=weight, where=reach > affordable)
        moved = np.minimum(reach, affordable)
        charges = moved * (moved + 2 * numerical) / 8
        return self._mean(support, clipped * weight[:, None], base, charges)


@dataclass(frozen=True)
class MedianMechanism(_Base):
    """The coordinate-wise median, whose cost is what neighbours of this batch could change (guarantee 4.4, 5.3).

    [Amin25]: where the contexts agree, the middle values lie close together and one context moves little.
    """

    settings: TokenSettings

    needs_private = True
    # an empty batch falls back to the public model, and whether a batch is empty must not show in the work done
    needs_public = True
    rho_per_token = None

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array | None,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> TokenDistribution:
        s = self.settings
        clipped, base, empty = _clipped(s, private, public, support)
        box = median_box(clipped, s.clip, empty)

        def scores(values: Float32Array, slack: float) -> Float64Array:
            return np.asarray((base + s.guidance * values.astype(np.float64) + slack) / s.temperature)

        return TokenDistribution(support, scores(box.median, 0.0), scores(box.low, -s.slack), scores(box.high, s.slack))

    def cost(self, distribution: TokenDistribution, index: int) -> tuple[float, float]:
        span = float((distribution.scores - distribution.low).max() + (distribution.high - distribution.scores).max())
        return box_loss(distribution, index), bounded_range_rho(span)


@dataclass(frozen=True)
class PublicMechanism(_Base):
    """The public model by itself: no private context, ρ = 0 (guarantee 5.5)."""

    settings: TokenSettings

    needs_public = True
    needs_private = False
    rho_per_token = 0.0

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


def private_mechanism(aggregate: Aggregate, settings: TokenSettings) -> TokenMechanism:
    """The mechanism of an aggregate, where costs are not individual."""
    return MedianMechanism(settings) if aggregate is Aggregate.MEDIAN else MeanMechanism(settings)
