"""From a configuration to a plan that carries mechanism, numbers and guarantee; reads no private data (guarantee 6)."""

import bisect
import dataclasses
import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from plainchant.config import Accounting, Clusters, Method, SynthesisConfig
from plainchant.errors import PrivacyError
from plainchant.privacy.accounting import bounded_range_rho, epsilon_of, rho_of, steps_affordable
from plainchant.privacy.mechanisms import (
    IndividualMeanMechanism,
    MeanMechanism,
    PublicMechanism,
    SparseMeanMechanism,
    TokenMechanism,
    TokenSettings,
    private_mechanism,
)

# Batch sizes beyond this are not searched: no machine holds so many contexts.
LARGEST_BATCH = 100_000
# Above this ε a plan warns.
WEAK_EPSILON = 20.0
# Below this derived clip, nats, a plan warns.
SMALL_CLIP = 1.0
# Batch size of an individual method where nothing is known of the data's size, and its bound below.
INDIVIDUAL_BATCH, INDIVIDUAL_SMALLEST = 24, 8
# Batch size of an ex-post method where nothing is known of the data's size, and the bounds where it is.
EX_POST_BATCH, EX_POST_SMALLEST, EX_POST_LARGEST = 32, 8, 64


@dataclass(frozen=True)
class Guarantee:
    """What a release promises (guarantee 6.1).

    Attributes:
        kind: "ex-ante" (known before the run), "ex-post" (measured after it, itself private) or "none".
        epsilon, delta, rho: the figures; None where there is none, or none that may be released.
        unit: what is protected.
        relation: the neighbouring relation.
        method: the preset it was made by.
        version: plainchant's.
        statement: all of it in one sentence.
    """

    kind: Literal["ex-ante", "ex-post", "none"]
    epsilon: float | None
    delta: float | None
    rho: float | None
    unit: str
    relation: str
    method: str
    version: str
    statement: str


@dataclass(frozen=True)
class Plan:
    """Everything about a run that is decided before it reads private data.

    Attributes:
        config: what was asked for.
        settings: the numbers of a step, batch size and clip decided.
        guarantee: derived from all of it.
        rho_select, rho_size: zCDP of the noisy counts of cells; 0 where there are none.
        rho_vote: zCDP of the records' votes on the texts, all rounds together; 0 where there are none.
        rho_batch: what is left for the tokens of a batch; None where tokens are not paid from a budget.
        rho_expected: what a token is expected to cost a record where costs are individual, else None.
        tokens_per_batch: the most tokens that a batch releases; None where there is no such bound.
        texts_per_batch: the most texts of `max_tokens` that a batch pays for; None where there is no such bound.
            An estimate where costs are individual: a record that has paid all it can then has no more say.
    """

    config: SynthesisConfig
    settings: TokenSettings
    guarantee: Guarantee
    rho_select: float
    rho_size: float
    rho_vote: float
    rho_batch: float | None
    rho_expected: float | None
    tokens_per_batch: int | None
    texts_per_batch: int | None

    @property
    def mechanism(self) -> TokenMechanism:
        """The token mechanism, which also says what a step costs."""
        if self.config.parts.accounting in (Accounting.PUBLIC, Accounting.VOTES):
            return PublicMechanism(self.settings)
        if self.rho_expected is not None and self.rho_batch is not None and self.texts_per_batch is not None:
            steps = self.texts_per_batch * self.config.max_tokens
            return IndividualMeanMechanism(self.settings, self.rho_batch, steps)
        if self.config.parts.sparse_threshold > 0:
            return _sparse(self.config, self.settings)
        return private_mechanism(self.config.parts.aggregate, self.settings)

    @property
    def rho_round(self) -> float:
        """The zCDP of one vote."""
        return self.rho_vote / self.config.parts.rounds

    @property
    def rho_rebalance(self) -> float:
        """The zCDP of both noisy counts of cells."""
        return self.rho_select + self.rho_size

    @property
    def rho_counts(self) -> float:
        """The zCDP of everything but tokens."""
        return self.rho_rebalance + self.rho_vote

    @property
    def batches_needed(self) -> int | None:
        """How many batches write the requested texts; None where one batch may write any number."""
        return None if self.texts_per_batch is None else math.ceil(self.config.written / self.texts_per_batch)

    @property
    def units_needed(self) -> int | None:
        """About how many units the data must have for that."""
        return None if self.batches_needed is None else self.batches_needed * self.settings.units_per_batch

    @property
    def notes(self) -> list[str]:
        """What the user should know before running."""
        config, notes = self.config, []
        if config.parts.clip == "auto" and self.settings.clip < SMALL_CLIP:
            notes.append(
                f"clip = {self.settings.clip:.2g} nats is what the budget leaves, so small that the text will be "
                "almost the public model's; ask for fewer texts, or give a larger batch size"
            )
        if self.guarantee.kind == "ex-ante" and config.epsilon > WEAK_EPSILON:
            notes.append(f"epsilon = {config.epsilon:g}: above {WEAK_EPSILON:g} the guarantee says next to nothing")
        if config.expected_units is not None and config.delta * config.expected_units > 1:
            notes.append(
                f"delta = {config.delta:g}: above 1 / expected_units = {1 / config.expected_units:.2g} a "
                "release may give single units away; take a smaller delta"
            )
        if config.expected_units is not None and self.rho_select and isinstance(config.centres, int):
            average = config.expected_units / (len(config.label_set) * config.centres)
            if average < self.settings.batch_size / 8:
                notes.append(
                    f"centres = {config.centres}: {average:.1f} units a cell on average, for batches of "
                    f"{self.settings.batch_size}; few cells will be kept, fewer centres would keep more"
                )
        return notes

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for plan.json and for showing."""
        parts = self.config.parts
        return {
            "guarantee": dataclasses.asdict(self.guarantee),
            "method": self.config.method.value,
            "clusters": parts.clusters.value,
            "aggregate": parts.aggregate.value,
            "accounting": parts.accounting.value,
            "step": {name: getattr(value, "value", value) for name, value in dataclasses.asdict(self.settings).items()},
            "rho_select": self.rho_select,
            "rho_size": self.rho_size,
            "rho_vote": self.rho_vote if self.config.votes else None,
            "rounds": self.config.parts.rounds if self.config.votes else None,
            "rho_batch": self.rho_batch,
            "rho_per_token": self.mechanism.rho_per_token,
            "rho_expected": self.rho_expected,
            "texts": self.config.texts,
            "private_texts": self.config.written,
            "max_tokens": self.config.max_tokens,
            "tokens_per_batch": self.tokens_per_batch,
            "texts_per_batch": self.texts_per_batch,
            "batches_needed": self.batches_needed,
            "units_needed": self.units_needed,
        }


def unit_name(config: SynthesisConfig) -> str:
    """What is protected, in words."""
    return f"all records that share a value of {config.unit_column!r}" if config.unit_column else "one record"


def _guarantee(config: SynthesisConfig, rho: float) -> Guarantee:
    kind: Literal["ex-ante", "ex-post", "none"]
    unit = unit_name(config)
    accounting = config.parts.accounting
    if accounting is Accounting.INFINITE:
        return not_private(config, "it was made by the non-private method, without any limit on what a record may move")
    if accounting is Accounting.PUBLIC:
        kind, epsilon, delta, total = "ex-ante", 0.0, 0.0, 0.0
        statement = "No private data was read: the text comes from the public model alone (ε = 0)."
    elif accounting is Accounting.EX_POST:
        kind, epsilon, delta, total = "ex-post", None, config.delta, None
        statement = (
            f"Every token was drawn with its privacy loss measured (ex post, data-dependent, δ = {config.delta:g}, "
            f"adding or removing {unit}): no figure was fixed beforehand, and the one measured is itself private."
        )
    else:
        # ρ is at most rho_of(ε, δ), which is rounded down, and epsilon_of rounds up: both figures hold
        kind, epsilon, delta, total = "ex-ante", min(epsilon_of(rho, config.delta), config.epsilon), config.delta, rho
        statement = (
            f"(ε = {epsilon:.6g}, δ = {config.delta:g})-differentially private under adding or removing {unit}, "
            "as known before the run."
        )
    return Guarantee(kind, epsilon, delta, total, unit, "add_remove", config.method.value, _version(), statement)


def not_private(config: SynthesisConfig, why: str) -> Guarantee:
    """The guarantee of a run that has none."""
    return Guarantee(
        "none", None, None, None, unit_name(config), "add_remove", config.method.value, _version(),
        f"NOT PRIVATE: there is no guarantee, because {why}; do not release.",
    )  # fmt: skip


def _version() -> str:
    return importlib.metadata.version("plainchant")


def make_plan(config: SynthesisConfig) -> Plan:
    """Decides batch size, clip, tokens and texts from (ε, δ) and a configuration (guarantee 6.2).

    Raises:
        PrivacyError: the budget does not pay for what is asked; says what it would pay for.
    """
    parts = config.parts
    rho = rho_of(config.epsilon, config.delta)
    if parts.accounting is Accounting.VOTES:
        settings = _settings(config, 1.0, 1)
        return Plan(config, settings, _guarantee(config, rho), 0.0, 0.0, rho, None, None, None, None)
    rho_rebalance = 0.0 if config.method is Method.PUBLIC else config.rebalance_share * rho
    rho_select = rho_rebalance / 2 if parts.clusters is Clusters.PUBLIC_CENTRES else 0.0
    rho_size = rho_rebalance - rho_select
    rho_vote = config.vote_share * rho if config.votes else 0.0
    if parts.accounting in (Accounting.WORST_CASE, Accounting.INDIVIDUAL):
        rho_batch = rho - rho_rebalance - rho_vote
        individual = parts.accounting is Accounting.INDIVIDUAL
        settings = _individual_settings(config, rho_batch) if individual else _worst_case_settings(config, rho_batch)
        tokens = _tokens(config, settings, rho_batch)
        texts = tokens // config.max_tokens
        _check_feasible(config, settings, rho_batch, tokens, texts)
        spent = rho if individual else min(rho, rho_rebalance + rho_vote + _worst_case(config, settings, tokens))
        expected = _rho_expected(config, settings) if individual else None
        return Plan(
            config, settings, _guarantee(config, spent), rho_select, rho_size, rho_vote, rho_batch, expected, tokens,
            texts,
        )  # fmt: skip
    if isinstance(parts.batch_size, int):
        batch_size = parts.batch_size
    else:
        requested = EX_POST_BATCH if config.expected_units is None else config.expected_units // config.written
        batch_size = min(max(requested, EX_POST_SMALLEST), EX_POST_LARGEST)
    if parts.clip == "auto":
        raise PrivacyError("clip = auto: is derived from a budget for tokens, and this method has none; give a number")
    settings = _settings(config, parts.clip, batch_size)
    return Plan(config, settings, _guarantee(config, 0.0), rho_select, rho_size, rho_vote, None, None, None, None)


def _rho_expected(config: SynthesisConfig, settings: TokenSettings) -> float:
    """What a token costs a record of the expected range (guarantee 5.2)."""
    moved = settings.guidance * config.expected_range / settings.batch_size
    return bounded_range_rho((moved + 2 * settings.slack) / settings.temperature)


def _tokens(config: SynthesisConfig, settings: TokenSettings, rho_batch: float) -> int:
    """Tokens that a batch pays for: for certain in the worst case, as expected where costs are individual."""
    if config.parts.accounting is Accounting.INDIVIDUAL:
        return steps_affordable(rho_batch / settings.contexts_moved**2, _rho_expected(config, settings))
    if config.parts.sparse_threshold > 0:
        return steps_affordable(rho_batch, _sparse(config, settings).rho_per_text) * config.max_tokens
    return steps_affordable(rho_batch, MeanMechanism(settings).worst_case)


def _worst_case(config: SynthesisConfig, settings: TokenSettings, tokens: int) -> float:
    """The most that so many tokens of a batch can cost; with a sparse vector, that so many whole texts can."""
    if config.parts.sparse_threshold > 0:
        return tokens // config.max_tokens * _sparse(config, settings).rho_per_text
    return tokens * MeanMechanism(settings).worst_case


def _sparse(config: SynthesisConfig, settings: TokenSettings) -> SparseMeanMechanism:
    private = config.private_tokens or math.ceil(config.max_tokens / 2)
    return SparseMeanMechanism(settings, config.parts.sparse_threshold, config.sparse_noise, private)


def smallest_batch(settings: TokenSettings, rho: float, tokens: int) -> int | None:
    """The smallest batch size at which the worst-case mean pays for so many tokens; None beyond LARGEST_BATCH."""
    return _smallest(lambda size: steps_affordable(rho, MeanMechanism(_sized(settings, size)).worst_case) >= tokens)


def _sized(settings: TokenSettings, batch_size: int) -> TokenSettings:
    return dataclasses.replace(settings, batch_size=batch_size)


def _smallest(pays: Callable[[int], bool]) -> int | None:
    """The smallest batch size that pays, None beyond LARGEST_BATCH."""
    # a larger batch is cheaper, so the first that pays is found by halving
    sizes = range(1, LARGEST_BATCH + 1)
    place = bisect.bisect_left(sizes, True, key=pays)
    return sizes[place] if place < len(sizes) else None


def _settings(config: SynthesisConfig, clip: float, batch_size: int) -> TokenSettings:
    parts = config.parts
    return TokenSettings(
        support=parts.support,
        k=parts.top_k,
        clipping=parts.clipping,
        clip=clip,
        guidance=parts.guidance,
        temperature=config.temperature,
        batch_size=batch_size,
        slack=config.numerical_slack,
        records_per_context=config.records_per_context,
    )


def _worst_case_settings(config: SynthesisConfig, rho_batch: float) -> TokenSettings:
    parts = config.parts
    if isinstance(parts.batch_size, int):
        clip = _derived_clip(config, rho_batch, parts.batch_size) if parts.clip == "auto" else parts.clip
        return _settings(config, clip, parts.batch_size)
    if parts.clip == "auto":
        raise PrivacyError(
            "batch_size = auto and clip = auto: one follows from the other, so give one of them a number"
        )
    return _first_sufficient(config, _settings(config, parts.clip, 1), rho_batch, 1)


def _first_sufficient(
    config: SynthesisConfig, settings: TokenSettings, rho_batch: float, smallest: int
) -> TokenSettings:
    """The smallest batch that pays for one text, or, where the number of units is known, for all (guarantee 6.2)."""
    largest = config.expected_units or LARGEST_BATCH
    requested = 1 if config.expected_units is None else config.written
    first = _smallest(lambda size: _tokens(config, _sized(settings, size), rho_batch) >= config.max_tokens) or largest
    for batch_size in range(max(first, smallest), largest + 1):
        if _texts(config, _sized(settings, batch_size), rho_batch) >= requested:
            return _sized(settings, batch_size)
    # infeasible: the largest batch there can be releases the most, and the check says how much
    return _sized(settings, largest)


def _individual_settings(config: SynthesisConfig, rho_batch: float) -> TokenSettings:
    """The smallest batch that is expected to pay for the wish (guarantee 6.2), within reason."""
    parts = config.parts
    if parts.clip == "auto":
        raise PrivacyError("clip = auto: individual accounting needs none; give a number of nats, such as 10")
    settings = _settings(config, parts.clip, 1)
    if isinstance(parts.batch_size, int):
        return _sized(settings, parts.batch_size)
    smallest = INDIVIDUAL_BATCH if config.expected_units is None else INDIVIDUAL_SMALLEST
    return _first_sufficient(config, settings, rho_batch, smallest)


def _texts(config: SynthesisConfig, settings: TokenSettings, rho_batch: float) -> int:
    """Texts that a batch, or, where the number of units is known, that all batches pay for."""
    per_batch = _tokens(config, settings, rho_batch) // config.max_tokens
    return per_batch * (1 if config.expected_units is None else config.expected_units // settings.units_per_batch)


def _derived_clip(config: SynthesisConfig, rho_batch: float, batch_size: int) -> float:
    """The clip at which a batch pays for just the texts that it is to write ([InvInk])."""
    texts = 1
    settings = _settings(config, 1.0, batch_size)
    units = settings.units_per_batch
    if config.expected_units is not None and config.expected_units >= units:
        texts = math.ceil(config.written / (config.expected_units // units))
    eta = math.sqrt(8 * rho_batch / (texts * config.max_tokens))
    moved = settings.span / settings.clip * config.parts.guidance * settings.contexts_moved
    clip = (eta * config.temperature - 2 * config.numerical_slack) * batch_size / moved
    if not clip > 0:
        raise PrivacyError(
            f"clip = auto: ε = {config.epsilon:g} leaves nothing for {texts * config.max_tokens} tokens a batch; "
            "ask for fewer texts or tokens, or give a larger batch size"
        )
    # a hair below, so that rounding cannot cost the last token
    clip *= 1 - 1e-9
    return clip


def _check_feasible(
    config: SynthesisConfig, settings: TokenSettings, rho_batch: float, tokens: int, texts: int
) -> None:
    if texts == 0:
        smallest = _smallest(lambda size: _tokens(config, _sized(settings, size), rho_batch) >= config.max_tokens)
        raise PrivacyError(
            f"batch_size = {settings.batch_size}: at ε = {config.epsilon:g}, δ = {config.delta:g} a batch pays for "
            f"{tokens} token{'' if tokens == 1 else 's'}, less than one text of max_tokens = {config.max_tokens}; "
            + (f"the smallest batch size that pays for one is {smallest}" if smallest else "no batch size pays for one")
            + (f", or set max_tokens to {tokens} or less" if tokens else "")
            + (", or ask for fewer private_tokens" if config.parts.sparse_threshold > 0 else "")
        )
    if config.expected_units is not None:
        possible = _texts(config, settings, rho_batch)
        if possible < config.written:
            name = "texts" if config.written == config.texts else "private_texts"
            raise PrivacyError(
                f"{name} = {config.written}: about {config.expected_units} units in batches of {settings.batch_size} "
                f"pay for at most {possible} texts of {config.max_tokens} tokens at ε = {config.epsilon:g}; ask for "
                "that many, for shorter texts, or let batch_size = auto find a larger batch"
            )
