"""The closed set of token mechanisms: from the token settings of a configuration to the mechanism that draws tokens."""

import bisect
import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from plainchant.errors import PrivacyError
from plainchant.privacy.accounting import Cost
from plainchant.privacy.aggregation import Aggregate, Clipping, Support
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import (
    ExPostMeanMechanism,
    MarginalsOnlyMechanism,
    MeanMechanism,
    MedianMechanism,
    NonPrivateMechanism,
    PublicMechanism,
    TokenMechanism,
    TokenSettings,
    VotesOnlyMechanism,
)
from plainchant.privacy.sparse_vector import SparseMeanMechanism

# Larger batch sizes are not searched: no machine holds that many contexts.
LARGEST_BATCH = 100_000
# Where tokens are not paid from a budget: the batch size if the number of units is unknown, and its bounds if known.
UNPAID_BATCH, UNPAID_SMALLEST, UNPAID_LARGEST = 32, 8, 64


class Accounting(enum.StrEnum):
    """How the cost is counted (guarantee 5)."""

    WORST_CASE = "worst-case"
    INDIVIDUAL = "individual"
    EX_POST = "ex-post"
    PUBLIC = "public"
    INFINITE = "infinite"
    VOTES = "votes"
    MARGINALS = "marginals"


@dataclass(frozen=True)
class TokenRequest:
    """The token settings of a configuration; with a budget they determine the mechanism. Public.

    Attributes:
        accounting: how the cost is counted.
        aggregate: how the predictions of a batch are combined.
        support, k, clipping, guidance, temperature, slack, records_per_context: as in `TokenSettings`.
        clip: nats, or "auto": what the budget leaves for the texts requested.
        batch_size: contexts per batch, or "auto": the smallest that pays for the texts requested.
        sparse_threshold, sparse_noise, private_tokens: as in `SparseMeanMechanism`; a threshold of 0 turns it off.
        expected_range: as in `IndividualMeanMechanism`.
        texts: number of texts requested.
        max_tokens: maximum tokens per text.
        units: about how many units the data has; None where that is not public.
    """

    accounting: Accounting
    aggregate: Aggregate
    support: Support
    k: int
    clipping: Clipping
    clip: float | Literal["auto"]
    guidance: float
    temperature: float
    slack: float
    records_per_context: int
    batch_size: int | Literal["auto"]
    sparse_threshold: float
    sparse_noise: float
    private_tokens: int
    expected_range: float
    texts: int
    max_tokens: int
    units: int | None

    def settings(self, clip: float, batch_size: int) -> TokenSettings:
        """The numbers of a step, clip and batch size decided."""
        return TokenSettings(
            support=self.support,
            k=self.k,
            clipping=self.clipping,
            clip=clip,
            guidance=self.guidance,
            temperature=self.temperature,
            batch_size=batch_size,
            slack=self.slack,
            records_per_context=self.records_per_context,
        )


def _worst_case(request: TokenRequest, settings: TokenSettings, budget: Cost) -> TokenMechanism:
    if request.sparse_threshold > 0:
        return SparseMeanMechanism(
            settings, request.sparse_threshold, request.sparse_noise, request.private_tokens, request.max_tokens
        )
    return MeanMechanism(settings)


def _individual(request: TokenRequest, settings: TokenSettings, budget: Cost) -> TokenMechanism:
    return IndividualMeanMechanism(settings, budget.rho, 0, request.expected_range)


def _ex_post(request: TokenRequest, settings: TokenSettings, budget: Cost) -> TokenMechanism:
    return MedianMechanism(settings) if request.aggregate is Aggregate.MEDIAN else ExPostMeanMechanism(settings)


def _public(request: TokenRequest, settings: TokenSettings, budget: Cost) -> TokenMechanism:
    return PublicMechanism(settings)


def _votes_only(request: TokenRequest, settings: TokenSettings, budget: Cost) -> TokenMechanism:
    return VotesOnlyMechanism(settings)


def _marginals_only(request: TokenRequest, settings: TokenSettings, budget: Cost) -> TokenMechanism:
    return MarginalsOnlyMechanism(settings)


def _non_private(request: TokenRequest, settings: TokenSettings, budget: Cost) -> TokenMechanism:
    drawn_by = MedianMechanism if request.aggregate is Aggregate.MEDIAN else MeanMechanism
    return NonPrivateMechanism(drawn_by(settings))


_MAKERS: Mapping[Accounting, Callable[[TokenRequest, TokenSettings, Cost], TokenMechanism]] = {
    Accounting.WORST_CASE: _worst_case,
    Accounting.INDIVIDUAL: _individual,
    Accounting.EX_POST: _ex_post,
    Accounting.PUBLIC: _public,
    Accounting.INFINITE: _non_private,
    Accounting.VOTES: _votes_only,
    Accounting.MARGINALS: _marginals_only,
}


def choose_mechanism(request: TokenRequest, budget: Cost) -> TokenMechanism:
    """The mechanism of a request, clip and batch size decided by what the budget pays for (guarantee 6.2).

    Args:
        request: the token settings.
        budget: what the tokens of one batch may cost a unit.

    Raises:
        PrivacyError: both batch size and clip are "auto", or the budget leaves nothing for a clip.
    """
    make = _MAKERS[request.accounting]
    if isinstance(request.batch_size, int):
        clip = request.clip if request.clip != "auto" else _derived_clip(request, budget, request.batch_size)
        return make(request, request.settings(clip, request.batch_size), budget)
    if request.clip == "auto":
        raise PrivacyError(
            "batch_size = auto and clip = auto: each is derived from the other, so set one of them to a number"
        )
    mechanism = make(request, request.settings(request.clip, 1), budget)
    if mechanism.affordable(budget) is None:
        even = UNPAID_BATCH if request.units is None else request.units // request.texts
        return mechanism.resized(min(max(even, UNPAID_SMALLEST), UNPAID_LARGEST))
    return _first_sufficient(request, mechanism, budget)


def _first_sufficient(request: TokenRequest, mechanism: TokenMechanism, budget: Cost) -> TokenMechanism:
    """The mechanism with the smallest batch that pays for one text or, if the number of units is known, for all."""
    largest = request.units or LARGEST_BATCH
    requested = 1 if request.units is None else request.texts
    smallest = mechanism.least_batch[request.units is not None]
    first = smallest_batch(mechanism, budget, request.max_tokens) or largest
    for batch_size in range(max(first, smallest), largest + 1):
        if (possible_texts(request, mechanism.resized(batch_size), budget) or 0) >= requested:
            return mechanism.resized(batch_size)
    # infeasible: the largest possible batch releases most, and the plan's check says how much
    return mechanism.resized(largest)


def smallest_batch(mechanism: TokenMechanism, budget: Cost, tokens: int) -> int | None:
    """The smallest batch size at which a budget pays for `tokens`; None beyond LARGEST_BATCH."""
    # a larger batch is cheaper, so the first that is affordable is found by bisection
    sizes = range(1, LARGEST_BATCH + 1)
    place = bisect.bisect_left(
        sizes, True, key=lambda size: (mechanism.resized(size).affordable(budget) or 0) >= tokens
    )
    return sizes[place] if place < len(sizes) else None


def possible_texts(request: TokenRequest, mechanism: TokenMechanism, budget: Cost) -> int | None:
    """Texts that one batch pays for or, if the number of units is known, all batches; None without a bound."""
    tokens = mechanism.affordable(budget)
    batches = 1 if request.units is None else request.units // mechanism.settings.units_per_batch
    return None if tokens is None else tokens // request.max_tokens * batches


def _derived_clip(request: TokenRequest, budget: Cost, batch_size: int) -> float:
    """The clip at which a batch pays for exactly the texts that it is to write ([InvInk])."""
    mean, texts = MeanMechanism(request.settings(1.0, batch_size)), 1
    units = mean.settings.units_per_batch
    if request.units is not None and request.units >= units:
        texts = math.ceil(request.texts / (request.units // units))
    clip = mean.widest_clip(budget, texts * request.max_tokens)
    if not clip > 0:
        raise PrivacyError(
            f"clip = auto: the budget (ρ = {budget.rho:.4g}) leaves nothing for {texts * request.max_tokens} tokens "
            "per batch; ask for fewer texts or tokens, or give a larger batch size"
        )
    # slightly below, so that rounding cannot cost the last token
    return clip * (1 - 1e-9)
