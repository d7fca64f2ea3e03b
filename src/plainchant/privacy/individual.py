"""The mean with individual accounting: each record has its own budget, fixed in advance (guarantee 5.2)."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.errors import PrivacyError
from plainchant.privacy.accounting import Cost, bounded_range_rho
from plainchant.privacy.mechanisms import MeanMechanism, TokenDistribution, clipped_rows
from plainchant.privacy.promises import CONVERTED

# A context pays per step at most PACE times an even share of its remaining budget, never more than half of the budget.
PACE = 8.0
# Root mean square range of a context's clipped row, nats, if it was not measured.
EXPECTED_RANGE = 3.0


@dataclass(frozen=True)
class IndividualMeanMechanism(MeanMechanism):
    """The mean in which each context pays only for its own influence: a Rényi filter ([FZ21]; guarantee 5.2).

    Context i moves the log-ratio of a step by a range of at most η_i = (g·w_i·r_i/s + 2ξ)/τ and pays η_i²/8. Here r_i
    is the range of its own clipped row and w_i ≤ 1 a weight: the largest, at most 1, for which the payment stays within
    the context's allowance, a fraction of its remaining budget.

    * r_i, w_i and the payment are functions of the context's own record and of released text, up to ξ.
    * Σ payments ≤ budget for every context and every output: `budget`-zCDP, known in advance.
    * Where a unit changes a context, (η + η′)² ≤ 2η² + 2η′²: four contexts' payments, so each may pay a quarter.
    * The aggregate depends continuously on every row. No context is cut off at a threshold, where the last bits of
      another row could decide (guarantee 7). The cost of numerical movement for a context with no budget left is set
      aside at the start.

    Attributes:
        budget: ρ that one unit of a batch may cost in total.
        steps: maximum steps of a batch.
        expected_range: root mean square range of a context's clipped row, nats; used to plan the number of texts, not
            part of the guarantee.
    """

    budget: float
    steps: int
    expected_range: float = EXPECTED_RANGE

    accountant = f"zCDP, a Rényi filter for every unit, {CONVERTED}"
    # if the size of the data is unknown, and the lower bound if it is known
    least_batch: ClassVar[tuple[int, int]] = (24, 8)
    about: ClassVar[str] = "about "

    def __post_init__(self) -> None:
        if not self._payable > 0:
            raise PrivacyError(
                f"numerical_slack = {self.settings.slack:g}: its cost over {self.steps} tokens is more than a batch's "
                f"budget of ρ = {self.budget:.4g}; ask for fewer texts, or run a dtype with less slack"
            )

    @property
    def per_token(self) -> Cost:
        s = self.settings
        moved = s.guidance * self.expected_range / s.batch_size
        return Cost(bounded_range_rho((moved + 2 * s.slack) / s.temperature))

    def affordable(self, budget: Cost) -> int | None:
        return self.per_token.times_in(Cost(budget.rho / self.settings.contexts_moved**2))

    def text_cost(self, max_tokens: int) -> Cost:
        return Cost(self.settings.contexts_moved**2 * max_tokens * self.per_token.rho)

    def least_text_cost(self, max_tokens: int) -> Cost:
        # with a quarter a text still has half of the records' influence, but rounding has to be paid in full
        rounding = self.settings.contexts_moved**2 * max_tokens * bounded_range_rho(self._numerical)
        return Cost(max(self.text_cost(max_tokens).rho / 4, 2 * rounding))

    def cost_of(self, tokens: int) -> Cost:
        # for any number of its steps: no unit pays more
        return Cost(self.budget)

    def claim(self, tokens: int, delta: float) -> float | None:
        if tokens > self.steps:
            raise PrivacyError(f"steps = {tokens}: the mechanism's budget is for at most {self.steps} steps")
        return super().claim(tokens, delta)

    def planned_figures(self) -> Mapping[str, float | None]:
        return {"rho_per_token": None, "rho_expected": self.per_token.rho}

    def status_rows(self, most: int, limit: int | None) -> Sequence[tuple[str, str]]:
        return ()

    def pays_for(self, limit: int | None) -> str:
        return "how much a unit may influence the tokens of its batch; a unit that has used it up is ignored"

    def paid(self, spent: Sequence[float]) -> Mapping[str, float] | None:
        middle = float(np.median(spent)) if len(spent) else 0.0
        return {"median": middle, "largest": max(spent, default=0.0), "budget": self.budget}

    def for_steps(self, steps: int) -> Self:
        return dataclasses.replace(self, steps=steps)

    def for_budget(self, rho: float) -> Self:
        return dataclasses.replace(self, budget=rho)

    @property
    def _numerical(self) -> float:
        """2ξ/τ: how far the log-ratio of a step may vary numerically, even if a context contributes nothing."""
        return 2 * self.settings.slack / self.settings.temperature

    @property
    def _payable(self) -> float:
        """What a context may pay, after subtracting the numerical cost of every step."""
        return self.budget / self.settings.contexts_moved**2 - self.steps * bounded_range_rho(self._numerical)

    def allowance(self, spent: Float64Array, steps_left: int) -> Float64Array | None:
        # rounding may leave slightly less than zero
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
        clipped, base, _ = clipped_rows(s, private, public, support)
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
