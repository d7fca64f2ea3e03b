"""What a mechanism promises and costs, in numbers and words. Planning, report, audit and cli ask it and decide nothing.

How a token is drawn is in `mechanisms`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, TypeAlias

from plainchant.privacy.accounting import Cost, rounded_up

Promise: TypeAlias = Literal["ex-ante", "ex-post", "none"]
"""Whether the figure is known before the run, measured after it, or does not exist."""
CONVERTED = "converted to (ε, δ) by Canonne, Kamath and Steinke (2020)"


@dataclass(frozen=True)
class Promised:
    """What a whole release promises (guarantee 6.1).

    Attributes:
        kind: known before the run, measured after it, or nothing.
        epsilon, delta: the figures; None where there is none, or none that may be released.
        cost: what (ε, δ) were converted from; unlimited where no figure may be released.
        statement: all of it in one sentence.
    """

    kind: Promise
    epsilon: float | None
    delta: float | None
    cost: Cost
    statement: str


def nothing_promised(why: str) -> Promised:
    """The statement of a release without a guarantee."""
    return Promised(
        "none", None, None, Cost.unlimited(), f"NOT PRIVATE: there is no guarantee, because {why}; do not release."
    )  # fmt: skip


class CostOwner(Protocol):
    """The part of a token mechanism that knows what tokens cost. All tokens here are those of one batch."""

    @property
    def promise(self) -> Promise:
        """When the figure is known."""

    @property
    def accountant(self) -> str:
        """How the cost is counted, for card and page."""

    @property
    def measured(self) -> bool:
        """Whether a run's cost is measured on its output (guarantee 5.3)."""

    @property
    def replayable(self) -> bool:
        """Whether an audit can draw tokens again from saved logits and test `claim` on them."""

    @property
    def least_batch(self) -> tuple[int, int]:
        """The smallest batch size that is tried: if the number of units is unknown, and if it is known."""

    @property
    def cheaper(self) -> str:
        """Another way to make a text cheaper, as the end of a sentence; empty if there is none."""

    @property
    def about(self) -> str:
        """Prefix for estimates: "about ", or nothing where `affordable` and `per_token` are exact."""

    @property
    def per_token(self) -> Cost:
        """The cost of a token to a record: the maximum or, where it depends on the record, the expectation."""

    def affordable(self, budget: Cost) -> int | None:
        """Tokens that a batch may release for a budget; None where tokens are not paid from a budget."""

    def cost_of(self, tokens: int) -> Cost:
        """The maximum cost of tokens to one unit, known before the run; unlimited where no bound is known."""

    def text_cost(self, max_tokens: int) -> Cost:
        """What a text costs one unit or, where costs are individual, about what it takes to write one."""

    def least_text_cost(self, max_tokens: int) -> Cost:
        """What a text is still worth writing for; less than `text_cost` where that is an estimate."""

    def claim(self, tokens: int, delta: float) -> float | None:
        """The ε that an audit tests at delta; None where nothing is claimed in advance.

        Raises:
            PrivacyError: there are more tokens than the budget covers, or they cannot be replayed.
        """

    def promised(self, total: Cost, epsilon: float, delta: float, unit: str) -> Promised:
        """The promise of a release.

        Args:
            total: its whole cost to a unit, as far as it is known.
            epsilon: ε of the requested guarantee; total is within it.
            delta: δ of the requested guarantee.
            unit: what is protected, in words.
        """

    def planned_figures(self) -> Mapping[str, float | None]:
        """ρ per token for plan.json: "rho_per_token" if it is exact, "rho_expected" if it is an estimate."""

    def plan_rows(self) -> Sequence[tuple[str, str]]:
        """Further rows of a printed plan: name and value."""

    def status_rows(self, most: int, limit: int | None) -> Sequence[tuple[str, str]]:
        """Rows about the most expensive batch so far: its tokens, out of those that a batch may release."""

    def pays_for(self, limit: int | None) -> str:
        """What the token part of the budget pays for; `limit` tokens per batch, if there is such a bound."""

    def paid(self, spent: Sequence[float]) -> Mapping[str, float] | None:
        """What records have paid: median, largest and budget; None where costs are not individual."""

    def for_steps(self, steps: int) -> Self:
        """The same mechanism for batches of at most `steps` tokens."""

    def for_budget(self, rho: float) -> Self:
        """The same for texts of which each may cost a unit ρ, where costs are individual; otherwise the same."""

    def resized(self, batch_size: int) -> Self:
        """The same with another batch size."""


class _Words:
    """Defaults of most mechanisms."""

    measured: ClassVar[bool] = True
    least_batch: ClassVar[tuple[int, int]] = (1, 1)
    cheaper: ClassVar[str] = ""
    about: ClassVar[str] = ""

    def plan_rows(self) -> Sequence[tuple[str, str]]:
        return ()

    def status_rows(self, most: int, limit: int | None) -> Sequence[tuple[str, str]]:
        return ()

    def pays_for(self, limit: int | None) -> str:
        return "measured after the run, and not released"

    def paid(self, spent: Sequence[float]) -> Mapping[str, float] | None:
        return None

    def for_steps(self, steps: int) -> Self:
        return self

    def for_budget(self, rho: float) -> Self:
        return self

    def text_cost(self, max_tokens: int) -> Cost:
        return self.cost_of(max_tokens)

    def least_text_cost(self, max_tokens: int) -> Cost:
        return self.text_cost(max_tokens)

    def cost_of(self, tokens: int) -> Cost:
        raise NotImplementedError


class ExAnte(_Words):
    """Known before the run, whatever the data: `cost_of` bounds every unit's cost."""

    promise: ClassVar[Promise] = "ex-ante"

    @property
    def per_token(self) -> Cost:
        return self.cost_of(1)

    def affordable(self, budget: Cost) -> int | None:
        return self.per_token.times_in(budget)

    def claim(self, tokens: int, delta: float) -> float | None:
        return self.cost_of(tokens).epsilon(delta)

    def promised(self, total: Cost, epsilon: float, delta: float, unit: str) -> Promised:
        # total is at most the cost of (ε, δ), which is rounded down; its ε is rounded up, so both figures hold
        known = min(rounded_up(total.epsilon(delta)), epsilon)
        statement = (
            f"(ε = {rounded_up(known):.6g}, δ = {delta:g})-differentially private under adding or removing {unit}, "
            "fixed before the run."
        )
        return Promised(self.promise, known, delta, total, statement)

    def planned_figures(self) -> Mapping[str, float | None]:
        return {"rho_per_token": self.per_token.rho, "rho_expected": None}

    def status_rows(self, most: int, limit: int | None) -> Sequence[tuple[str, str]]:
        return (("tokens of the most expensive batch", f"{most} of {limit} that the budget pays for"),)

    def pays_for(self, limit: int | None) -> str:
        return f"at most {limit} tokens per batch"


class ExPost(_Words):
    """Measured after the run, for its data and its output: no figure is fixed beforehand (guarantee 5.3)."""

    promise: ClassVar[Promise] = "ex-post"
    accountant: ClassVar[str] = "privacy loss measured token by token; noisy counts in zCDP"
    replayable: ClassVar[bool] = False

    @property
    def per_token(self) -> Cost:
        return self.cost_of(1)

    def affordable(self, budget: Cost) -> int | None:
        return None

    def cost_of(self, tokens: int) -> Cost:
        return Cost.unlimited().scaled(tokens)

    def claim(self, tokens: int, delta: float) -> float | None:
        return None

    def promised(self, total: Cost, epsilon: float, delta: float, unit: str) -> Promised:
        statement = (
            f"Every token was drawn with its privacy loss measured (ex post, data-dependent, δ = {delta:g}, "
            f"adding or removing {unit}): no figure was fixed beforehand, and the measured figure is itself private."
        )
        return Promised(self.promise, None, delta, Cost.unlimited(), statement)

    def planned_figures(self) -> Mapping[str, float | None]:
        return {"rho_per_token": self.per_token.as_dict()["rho"], "rho_expected": None}


class NoPromise(ExPost):
    """Nothing limits a record's influence: its cost is infinite, never 0 (guarantee 5.5)."""

    promise: ClassVar[Promise] = "none"
    accountant: ClassVar[str] = "none"
    # a cost without limit needs no measurement
    measured: ClassVar[bool] = False

    def promised(self, total: Cost, epsilon: float, delta: float, unit: str) -> Promised:
        return nothing_promised("it was made by the non-private method, without any limit on a record's influence")


class Free(ExAnte):
    """No private data is read: nothing is spent (guarantee 5.5)."""

    accountant: ClassVar[str] = "none needed"
    measured: ClassVar[bool] = False
    replayable: ClassVar[bool] = False

    def affordable(self, budget: Cost) -> int | None:
        return None

    def cost_of(self, tokens: int) -> Cost:
        return Cost()

    def promised(self, total: Cost, epsilon: float, delta: float, unit: str) -> Promised:
        statement = "No private data was read: the text comes from the public model alone (ε = 0)."
        return Promised(self.promise, 0.0, 0.0, Cost(), statement)

    def status_rows(self, most: int, limit: int | None) -> Sequence[tuple[str, str]]:
        return ()
