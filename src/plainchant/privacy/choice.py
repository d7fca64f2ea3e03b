"""The closed set of token mechanisms: from the token settings of a configuration to the mechanism that draws tokens."""

import bisect
import dataclasses
import enum
import functools
import math
from dataclasses import dataclass
from typing import Literal

from plainchant.errors import PrivacyError
from plainchant.privacy.accounting import Budget, Cost
from plainchant.privacy.aggregation import Aggregate, Clipping, Support
from plainchant.privacy.deals import DealRule, Expected, best_order, make_rule, ways_of
from plainchant.privacy.histograms import batches_of
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


# Batches that a cell holds with deals: as the plan makes them, and the fewest for which one is kept. The more batches a
# cell has, the less its deals cost; the fewer, the more alike are its records.
USUAL_CELL, FEWEST_KEPT = 32, 8
# Batches of a cell if the number of units is unknown; each writes one text.
UNKNOWN_CELL = 10
# Factor between the batch sizes that are tried first.
STRIDE = 1.3


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
        labels: how many labels there are: the fewest cells.
        centres: for each label, the most cells; None: so many that each holds about `USUAL_CELL` batches.
        first: texts of a cell's first deal.
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
    labels: int
    centres: int | None
    first: int

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


def _made(request: TokenRequest, clip: float, batch_size: int, budget: Cost) -> TokenMechanism:
    """The mechanism of a request, clip and batch size decided; `budget`: what the tokens of a batch may cost a unit."""
    settings = request.settings(clip, batch_size)
    match request.accounting:
        case Accounting.INDIVIDUAL:
            return IndividualMeanMechanism(settings, budget.rho, 0, request.expected_range)
        case Accounting.EX_POST:
            return MedianMechanism(settings) if request.aggregate is Aggregate.MEDIAN else ExPostMeanMechanism(settings)
        case Accounting.PUBLIC:
            return PublicMechanism(settings)
        case Accounting.VOTES:
            return VotesOnlyMechanism(settings)
        case Accounting.MARGINALS:
            return MarginalsOnlyMechanism(settings)
        case Accounting.INFINITE:
            drawn_by = MedianMechanism if request.aggregate is Aggregate.MEDIAN else MeanMechanism
            return NonPrivateMechanism(drawn_by(settings))
        case Accounting.WORST_CASE if request.sparse_threshold > 0:
            return SparseMeanMechanism(
                settings, request.sparse_threshold, request.sparse_noise, request.private_tokens, request.max_tokens
            )
        case Accounting.WORST_CASE:
            return MeanMechanism(settings)


_BOTH_AUTO = "batch_size = auto and clip = auto: each is derived from the other, so set one of them to a number"


def choose_mechanism(request: TokenRequest, budget: Cost) -> TokenMechanism:
    """The mechanism of a request, clip and batch size decided by what the budget pays for (guarantee 6.2).

    Args:
        request: the token settings.
        budget: what the tokens of one batch may cost a unit.

    Raises:
        PrivacyError: both batch size and clip are "auto", or the budget leaves nothing for a clip.
    """
    if isinstance(request.batch_size, int):
        clip = request.clip if request.clip != "auto" else _derived_clip(request, budget, request.batch_size)
        return _made(request, clip, request.batch_size, budget)
    if request.clip == "auto":
        raise PrivacyError(_BOTH_AUTO)
    mechanism = _made(request, request.clip, 1, budget)
    if mechanism.affordable(budget) is None:
        even = UNPAID_BATCH if request.units is None else request.units // max(1, request.texts)
        return mechanism.resized(min(max(even, UNPAID_SMALLEST), UNPAID_LARGEST))
    return _first_sufficient(request, mechanism, budget)


@functools.lru_cache(maxsize=64)
def choose_with_deals(request: TokenRequest, budget: Budget, counts: Cost) -> tuple[TokenMechanism, DealRule, Expected]:
    """The mechanism of a request whose batches are drawn afresh for every deal, and the rule of the deals (13.7).

    Args:
        request: the token settings.
        budget: (ε, δ) of the whole run.
        counts: what a unit pays for everything but texts.

    Returns:
        The mechanism, which writes one text per batch; the rule; and the cells that the plan expects.

    Raises:
        PrivacyError: both batch size and clip are "auto", or the budget leaves nothing for texts.
    """
    if isinstance(request.batch_size, int):
        size, clip = request.batch_size, request.clip
        if clip == "auto":
            most = make_rule(budget, counts, expected_cells(request, size), request.first).payment
            clip = _clip_for(MeanMechanism(request.settings(1.0, size)), Cost(most), request.max_tokens)
        mechanism = _made(request, clip, size, budget.zcdp)
    elif request.clip == "auto":
        raise PrivacyError(_BOTH_AUTO)
    else:
        mechanism = _made(request, request.clip, 1, budget.zcdp)
        mechanism = mechanism.resized(_smallest_with_deals(request, mechanism, budget, counts)[0])
    mechanism = mechanism.for_steps(request.max_tokens)
    expected = expected_cells(request, mechanism.settings.batch_size)
    needed = mechanism.text_cost(request.max_tokens).rho
    rule = make_rule(budget, counts, expected, request.first, needed)
    rule = dataclasses.replace(rule, least=min(needed, mechanism.least_text_cost(request.max_tokens).rho))
    paid = max(rule.least, rule.payment_of(expected.batches, expected.texts))
    return mechanism.for_budget(paid), rule, expected


def expected_cells(request: TokenRequest, batch_size: int) -> Expected:
    """The cells that a plan expects with batches of a size, by public numbers alone."""
    size = batch_size * request.records_per_context
    if request.units is None:
        return Expected(None, UNKNOWN_CELL, UNKNOWN_CELL)
    cells = request.labels * planned_centres(request, batch_size)
    cells = max(request.labels, min(cells, request.units // (FEWEST_KEPT * size)))
    return Expected(cells, max(1, batches_of(request.units // cells, size)), -(-request.texts // cells))


def planned_centres(request: TokenRequest, batch_size: int) -> int:
    """The most public centres; where the request leaves them open, so many that a cell holds `USUAL_CELL` batches."""
    if request.centres is not None:
        return request.centres
    size = batch_size * request.records_per_context
    return LARGEST_BATCH if request.units is None else max(1, request.units // (request.labels * USUAL_CELL * size))


def _left_with_deals(request: TokenRequest, mechanism: TokenMechanism, budget: Budget, counts: Cost) -> float:
    """What the deals of expected cells leave of the budget, nats at the best order; below 0: too much."""
    expected = expected_cells(request, mechanism.settings.batch_size)
    ways = ways_of(expected.batches, expected.texts, request.first)
    payment = mechanism.text_cost(request.max_tokens).rho
    return best_order(budget, counts, expected.batches, ways, payment)[1]


def _smallest_with_deals(
    request: TokenRequest, mechanism: TokenMechanism, budget: Budget, counts: Cost
) -> tuple[int, float]:
    """The smallest batch size for which expected cells pay for the requested texts; the best one where none does.

    Returns:
        The size, and what it leaves of the budget, nats; below 0 where no size will do.
    """

    def left(size: int) -> float:
        return _left_with_deals(request, mechanism.resized(size), budget, counts)

    low = least = mechanism.least_batch[request.units is not None]
    tried = {least: left(least)}
    largest = LARGEST_BATCH if request.units is None else max(least, request.units // request.labels)
    high = best = least
    # larger batches make texts cheaper and leave a cell fewer of them: from some size on that only loses
    while tried[high] < 0 and high < min(largest, best * STRIDE**4):
        low, high = high, min(math.ceil(high * STRIDE), largest)
        tried[high] = left(high)
        best = max(tried, key=tried.__getitem__)
    if tried[high] < 0:
        return best, tried[best]
    while high - low > 1:
        middle = (low + high) // 2
        tried[middle] = left(middle)
        low, high = (low, middle) if tried[middle] >= 0 else (middle, high)
    return high, tried[high]


def _first_sufficient(request: TokenRequest, mechanism: TokenMechanism, budget: Cost) -> TokenMechanism:
    """The mechanism with the smallest batch that pays for one text or, if the number of units is known, for all."""
    largest = min(request.units or LARGEST_BATCH, LARGEST_BATCH)
    requested = 1 if request.units is None else request.texts
    smallest = mechanism.least_batch[request.units is not None]
    first = smallest_batch(mechanism, budget, request.max_tokens) or largest
    for batch_size in range(max(first, smallest), largest + 1):
        if (possible_texts(request, mechanism.resized(batch_size), budget) or 0) >= requested:
            return mechanism.resized(batch_size)
    # infeasible: the largest possible batch releases most, and the plan's check says how much
    return mechanism.resized(largest)


def _room_for_deals(request: TokenRequest, budget: Budget, counts: Cost) -> float:
    """What the deals of a request leave of the budget, nats; below 0 where it is infeasible."""
    if request.clip == "auto":
        return choose_with_deals(request, budget, counts)[1].budget
    size = request.batch_size if isinstance(request.batch_size, int) else 1
    mechanism = _made(request, request.clip, size, budget.zcdp)
    if isinstance(request.batch_size, int):
        return _left_with_deals(request, mechanism, budget, counts)
    return _smallest_with_deals(request, mechanism, budget, counts)[1]


def nearest_with_deals(request: TokenRequest, budget: Budget, counts: Cost) -> tuple[int, float | None]:
    """About the most texts that the data pays for at this ε, and the smallest ε that pays for those requested.

    Args:
        request: one that is infeasible.
        budget: (ε, δ) of the whole run.
        counts: what a unit pays for everything but texts; in proportion to ρ of the budget.

    Returns:
        Texts, 0 where there is no such number; ε, None where none up to 1,000 will do.
    """
    share = counts.rho / budget.zcdp.rho

    def feasible(epsilon: float, texts: int) -> bool:
        wished = dataclasses.replace(request, texts=texts)
        own = Budget(epsilon, budget.delta)
        try:
            return _room_for_deals(wished, own, Cost(share * own.zcdp.rho)) >= 0
        except PrivacyError:
            return False

    high = budget.epsilon
    while high <= 1000 and not feasible(high, request.texts):
        high *= 1.5
    low = high / 1.5
    while high <= 1000 and high > 1.02 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if feasible(middle, request.texts) else (middle, high)
    few, many = 0, request.texts
    while request.units is not None and many - few > max(1, few // 50):
        middle = (few + many) // 2
        few, many = (middle, many) if feasible(budget.epsilon, middle) else (few, middle)
    return few, high if high <= 1000 else None


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
    return _clip_for(mean, budget, texts * request.max_tokens)


def _clip_for(mean: MeanMechanism, budget: Cost, tokens: int) -> float:
    """The clip at which a budget pays for so many tokens of a batch."""
    clip = mean.widest_clip(budget, tokens)
    if not clip > 0:
        raise PrivacyError(
            f"clip = auto: the budget (ρ = {budget.rho:.4g}) leaves nothing for {tokens} tokens "
            "per batch; ask for fewer texts or tokens, or give a larger batch size"
        )
    # slightly below, so that rounding cannot cost the last token
    return clip * (1 - 1e-9)
