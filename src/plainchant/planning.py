"""Makes a plan from a configuration: mechanism, numbers and guarantee; reads no private data (guarantee 6)."""

import contextlib
import dataclasses
import importlib.metadata
import math
from dataclasses import dataclass
from typing import Any

from plainchant.config import Clusters, Method, SynthesisConfig, is_loopback
from plainchant.display import html_table
from plainchant.errors import PrivacyError
from plainchant.privacy.accounting import Budget, Cost, rho_of
from plainchant.privacy.aggregation import ROUNDING_RANGE
from plainchant.privacy.choice import (
    FEWEST_KEPT,
    TokenRequest,
    choose_mechanism,
    choose_with_deals,
    nearest_with_deals,
    planned_centres,
    possible_texts,
    smallest_batch,
)
from plainchant.privacy.deals import DealRule, Expected
from plainchant.privacy.histograms import most_contexts, noise_sigma
from plainchant.privacy.marginals import Shares
from plainchant.privacy.mechanisms import TokenMechanism, TokenSettings
from plainchant.privacy.promises import Promise, Promised, nothing_promised
from plainchant.privacy.sampling import epsilon_outside

# Above this ε a plan warns.
WEAK_EPSILON = 20.0
# How far a single row may move numerically, nats: 3e-5, as measured in float32 (guarantee 7).
ROW_MOVEMENT = 2**-15
# As a share of δ: the probability that a batch holds more contexts than the slack covers. It comes on top of δ.
UNLIKELY = 1e-3
# A model is measured with no more private rows in a pass, unless passes are usually that wide.
LARGEST_PASS = 2**14
# Batches are not made larger than this because of noise in the sizes.
LARGEST_COVERED = 256
# Where it is open how many texts records write: no more than batches of this size pay for, since a token costs as many
# model rows.
LARGEST_AFFORDED = 40
# Units for each candidate, divided by σ of a whole vote, below which a plan warns: such votes chose no better texts
# than the first ones of the pool (docs/candidates.md).
FAINT = 0.02
# By what share a sum may differ from the whole because its parts were added up again.
ADDED_AGAIN = 1e-9
# Units for each value of an attribute, divided by σ of its noisy count, below which a plan warns: the positive noise on
# values that no record has would weigh as much as four in ten of the units.
LEAST_HEARD = 1.0
# Characters per token of English prose, about. Other text has fewer, and then a note about lengths comes late.
PROSE_CHARACTERS = 4
# Public centres where their number is decided here: the most, and where nothing is known of the data's size. A hundred
# to three hundred predicted best from 7,600 records of four labels, which is about one batch per cell (docs/study.md).
MOST_CENTRES, UNKNOWN_CENTRES = 1000, 100
# The most ρ that the records' words get where no share is given: a tenth of it does half as much (docs/candidates.md).
ENOUGH_FOR_WORDS = 0.02
# Units of a label, divided by σ of a whole word's count, below which hardly a word stands out: at 30 two prepositions
# did, at 128 the words brought half of what they bring at most (docs/candidates.md).
HEARD_WORDS = 50
# How strong votes have to be, as units for each candidate, divided by σ of a whole vote: from here on all labels'
# candidates may be open to a unit, and more votes choose hardly better (docs/candidates.md). Where a label has few
# candidates, those of others are many beside them, and it takes more: twice as much for SCARCE of them.
STRONG, SCARCE = 1.5, 12
# Where no share is given, votes get as much as makes them strong, but no more than this part of what counts leave:
# texts that records write bring what no candidate has.
MOST_FOR_VOTES = 0.5
# Below this derived clip, nats, a plan warns.
SMALL_CLIP = 1.0
# Where the rate of a sample is decided here: about how many units it holds, and how many times as many the data must
# have. What a sample saves is time, and more than so many records hardly better what is written (docs/how-to).
SAMPLE_UNITS, WORTH_SAMPLING = 100_000, 2
# Share of δ for the values of attributes that are found in the data, all columns together.
DELTA_FOUND = 0.1


@dataclass(frozen=True)
class Guarantee:
    """What a release promises (guarantee 6.1).

    Attributes:
        kind: "ex-ante" (known before the run), "ex-post" (measured after it, itself private) or "none".
        epsilon, delta: the figures; None where there is none, or none that may be released.
        rho: what they were converted from, where the cost is plain zCDP and known before the run.
        curve: what they were converted from where it is a Rényi curve (guarantee 6.1): zCDP, orders and values.
        unit: what is protected.
        relation: the neighbouring relation.
        method: the preset it was made by.
        version: plainchant's.
        statement: the guarantee in one sentence.
        delta_found: the part of δ that is spent on finding values of attributes; 0 where all are named.
    """

    kind: Promise
    epsilon: float | None
    delta: float | None
    rho: float | None
    unit: str
    relation: str
    method: str
    version: str
    statement: str
    curve: dict[str, Any] | None = None
    delta_found: float = 0.0

    @property
    def cost(self) -> Cost:
        """What the release costs a unit; unlimited if no figure was known before the run."""
        return Cost.from_dict({"rho": self.rho, "curve": self.curve})


@dataclass(frozen=True)
class Plan:
    """Everything about a run that is decided before it reads private data.

    Attributes:
        config: the configuration.
        mechanism: draws the tokens and knows their cost; its batch size and clip are decided.
        guarantee: what the release promises.
        rho_select, rho_size: zCDP of the noisy counts of cells; 0 where there are none.
        rho_vote: zCDP of the records' votes on the texts, all rounds together; 0 where there are none.
        rho_words: zCDP of the noisy count of the records' words; 0 where there is none.
        table: what the attributes cost; nothing where there are none.
        batch: what the tokens of a batch, or of all deals of a cell, may cost a unit; unlimited where they are not paid
            from a budget.
        tokens_per_batch: maximum tokens of a batch that records contribute to; None where there is no such bound.
        texts_per_batch: maximum texts of `max_tokens` that a batch pays for; None where there is no such bound. An
            estimate where costs are individual: a record that has used up its budget is then ignored. With deals one.
        deals: the rule of the deals; None where a unit stays in its batch.
        expected: the cells that the plan expects; None without deals.
        sample_rate: of the secret sample of units that the run looks at; 1: all of them (guarantee 13.6).
    """

    config: SynthesisConfig
    mechanism: TokenMechanism
    guarantee: Guarantee
    rho_select: float
    rho_size: float
    rho_vote: float
    rho_words: float
    table: Cost
    batch: Cost
    tokens_per_batch: int | None
    texts_per_batch: int | None
    deals: DealRule | None = None
    expected: Expected | None = None
    sample_rate: float = 1.0

    @property
    def units(self) -> int | None:
        """About how many units the run looks at; None where nobody knows."""
        return _units(self.config, self.sample_rate)

    @property
    def settings(self) -> TokenSettings:
        """The numbers of a step."""
        return self.mechanism.settings

    @property
    def rho_batch(self) -> float | None:
        """ρ that the tokens of a batch may cost a unit; None without limit, and with deals, whose cost is a curve."""
        return self.batch.rho if self.batch.is_limited and self.batch.is_zcdp else None

    @property
    def least_cell(self) -> int | None:
        """The smallest noisy count of a cell that is kept; None: a batch and 2σ of the noise (guarantee 2.3)."""
        if self.config.min_cell is not None or self.deals is None or not self.rho_select:
            return self.config.min_cell
        return math.ceil(FEWEST_KEPT * self.settings.units_per_batch + 2 * noise_sigma(self.rho_select))

    @property
    def unlikely(self) -> float:
        """The probability that a batch of a unit holds more contexts than the slack covers, on top of δ."""
        return _unlikely(self.config)

    @property
    def row_movement(self) -> float:
        """How far a row may move when others are added or removed, nats: what the numerical slack covers (guarantee 7).

        A run refuses a model whose rows move further. Infinite where the model sees no record.
        """
        if not self.mechanism.needs_private:
            return math.inf
        s = self.settings
        contexts = most_contexts(s.batch_size, self.rho_size, self.unlikely)
        amplification = self.mechanism.amplification(contexts)
        return (s.slack - _rounding(self.mechanism)) / amplification if amplification else math.inf

    def most_rows(self, rows: int) -> int:
        """How many private rows a forward pass may hold that usually holds about `rows`; 0 where none (guarantee 7).

        True sizes are random: this is exceeded with a probability of at most δ · `UNLIKELY`.

        Raises:
            PrivacyError: more than a run can measure.
        """
        if not self.mechanism.needs_private:
            return 0
        s = self.settings
        batches = max(1, rows // s.batch_size)
        if s.records_per_context > 1:
            # s contexts, whatever the number of units
            return batches * s.batch_size
        most = math.ceil(most_contexts(s.batch_size, self.rho_size, self.unlikely, batches))
        largest = max(LARGEST_PASS, 8 * batches * s.batch_size)
        if most > largest:
            raise PrivacyError(
                f"rebalance_share = {self.config.rebalance_share:g}: noisy sizes with a standard deviation of "
                f"{noise_sigma(self.rho_size):.3g} may put {most:,} rows into one pass, and a model is measured with "
                f"at most {largest:,}; raise rebalance_share or epsilon"
            )
        return most

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
        return self.rho_rebalance + self.rho_vote + self.rho_words + self.table.rho

    @property
    def batches_needed(self) -> int | None:
        """How many batches write the requested texts; None where one may write any number, or is drawn many times."""
        if self.texts_per_batch is None or self.deals is not None:
            return None
        return math.ceil(self.config.written / self.texts_per_batch)

    @property
    def units_needed(self) -> int | None:
        """About how many units the data must have for those batches."""
        return None if self.batches_needed is None else self.batches_needed * self.settings.units_per_batch

    @property
    def centres(self) -> int | None:
        """Maximum number of public centres to compute; None where there are none, or saved ones are used."""
        if not self.config.clustered or self.config.centres_file is not None:
            return None
        if self.deals is not None and self.config.expected_units is not None:
            return planned_centres(_request(self.config, self.sample_rate), self.settings.batch_size)
        return number_of_centres(self.config, self.settings.units_per_batch, self.units)

    @property
    def notes(self) -> list[str]:
        """What the user should know before running."""
        config, notes = self.config, []
        if config.parts.clip == "auto" and self.settings.clip < SMALL_CLIP:
            notes.append(
                f"clip = {self.settings.clip:.2g} nats is all that the budget leaves; the texts will hardly differ "
                "from the public model's. Ask for fewer texts, or give a larger batch size"
            )
        if self.guarantee.cost.is_limited and config.epsilon > WEAK_EPSILON:
            notes.append(f"epsilon = {config.epsilon:g}: above {WEAK_EPSILON:g} the guarantee means next to nothing")
        if config.expected_units is not None and config.delta * config.expected_units > 1:
            notes.append(
                f"delta = {config.delta:g}: above 1 / expected_units = {1 / config.expected_units:.2g} a "
                "release may reveal single units; use a smaller delta"
            )
        if config.expected_units is not None and config.released > config.expected_units:
            notes.append(
                f"texts = {config.released}: more than the {config.expected_units} units that they are made from. "
                "Further texts bring little that is new, and may read as repetitions; plainchant evaluate measures it"
            )
        if self.units is not None and self.rho_select and isinstance(config.centres, int):
            average = self.units / (len(config.label_set) * config.centres)
            if average < self.settings.batch_size / 8:
                notes.append(
                    f"centres = {config.centres}: on average {average:.1f} units per cell, for batches of "
                    f"{self.settings.batch_size}; few cells will be kept. Use fewer centres to keep more"
                )
        candidates = config.parts.candidates * config.texts
        if config.votes and self.units is not None and self.units < FAINT * candidates * noise_sigma(self.rho_round):
            notes.append(
                f"votes of about {self.units:,} units on {candidates:,} candidates are lost in their noise at ε = "
                f"{config.epsilon:g}: the texts will hardly differ from the public model's own. Raise epsilon, ask for "
                "fewer texts, or gather more units"
            )
        return [*notes, *self._notes_on_attributes, *_form_notes(config), *self._notes_on_endpoint]

    @property
    def _notes_on_attributes(self) -> list[str]:
        """What prompts lack, and what the noise of a single column drowns."""
        attributes, examples = self.config.columns.attributes, self.config.prompt.examples
        notes = []
        if attributes and examples and self.config.has_text and not any(own.attributes for own in examples):
            notes.append(
                "prompt.examples: none has attributes, so the public model sees no text with its columns; add them"
            )
        if not attributes or self.units is None:
            return notes
        single = Shares.of(self.table.rho, len(self.config.columns.found)).single / (len(attributes) + 1)
        sigma = noise_sigma(single)
        drowned = [
            name
            for name, kind in attributes.items()
            if name not in self.config.columns.found and self.units < LEAST_HEARD * sigma * (kind.size - 1)
        ]
        if drowned:
            notes.append(
                f"columns.attributes.{', '.join(drowned)}: about {self.units:,} units on so many values are lost in "
                f"noise of σ = {sigma:.3g}: values will come back that hardly any record has. Name fewer values, or "
                "raise epsilon"
            )
        return notes

    @property
    def budget_shares(self) -> dict[str, float]:
        """What part of the budget goes where, by zCDP, from 0 to 1; empty where nothing is promised beforehand."""
        config = self.config
        if not self.guarantee.cost.is_limited or not config.reads_records:
            return {}
        whole = Budget(config.epsilon, config.delta).in_sample(self.sample_rate)
        total = rho_of(whole.epsilon, whole.delta - self.table.delta)
        parts = {
            "noisy counts": self.rho_rebalance,
            "attributes": self.table.rho,
            "words": self.rho_words,
            "votes": self.rho_vote,
        }
        shares = {name: rho / total for name, rho in parts.items() if rho}
        return {**shares, "texts by records": 1 - sum(shares.values())} if config.written else shares

    @property
    def _notes_on_endpoint(self) -> list[str]:
        config, notes = self.config, []
        if config.sends_released:
            what = "texts from records and what the votes chose" if config.written else "what the votes chose"
            if config.columns.attributes:
                what = f"the rows, {what}"
            notes.append(
                f"candidate_endpoint: {what} will be released the moment they are sent. So the whole cost of the run "
                "counts from its first noise, even if the run is given up. Only a ledger keeps count of that: run with "
                "--ledger FILE (plainchant account --ledger FILE makes one)"
            )
        address = config.candidate_endpoint or ""
        if address.startswith("http://") and not is_loopback(address):
            notes.append(
                "candidate_endpoint: http:// is not encrypted; whoever is on the way reads the requests and the key. "
                "Use https:// outside of a network that you trust"
            )
        return notes

    def _repr_html_(self) -> str:
        batches = "any" if self.units_needed is None else f"about {self.units_needed} units"
        if self.expected is not None:
            batches = f"cells of about {self.expected.batches * self.settings.units_per_batch} units"
        rows = [
            ("guarantee", self.guarantee.statement),
            ("unit", self.guarantee.unit),
            ("method", self.config.method.value),
            ("texts", f"{self.config.released}, at most {self.config.max_tokens} tokens each"),
            ("batch size", self.settings.batch_size),
            ("data needed", batches),
            *(("note", note) for note in self.notes),
        ]
        return html_table("Plan", rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for plan.json and for display."""
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
            "rho_words": self.rho_words if self.config.votes else None,
            "rounds": self.config.parts.rounds if self.config.votes else None,
            **(
                {"rho_table": self.table.rho, "delta_found": self.table.delta} if self.config.columns.attributes else {}
            ),
            "rho_batch": self.rho_batch,
            "deals": None if self.deals is None else dataclasses.asdict(self.deals),
            "sample_rate": self.sample_rate,
            "expected_cells": None if self.expected is None else dataclasses.asdict(self.expected),
            **self.mechanism.planned_figures(),
            "texts": self.config.texts,
            "private_texts": self.config.written,
            "max_tokens": self.config.max_tokens,
            "stop": self.config.stop,
            "tokens_per_batch": self.tokens_per_batch,
            "texts_per_batch": self.texts_per_batch,
            "batches_needed": self.batches_needed,
            "units_needed": self.units_needed,
            "centres": self.centres,
        }


def delta_found(config: SynthesisConfig) -> float:
    """The part of δ for the values of attributes that are found in the data (guarantee 14.3)."""
    return DELTA_FOUND * config.delta if config.columns.found else 0.0


def _form_notes(config: SynthesisConfig) -> list[str]:
    """What of the form of the public examples a text cannot have."""
    examples, stop, notes = [example.text.strip() for example in config.prompt.examples], config.stop, []
    ended = sum(stop in example for example in examples) if stop is not None else 0
    if ended and stop == "\n":
        notes.append(
            f"prompt.example: ends a text at a line break, which {ended} of {len(examples)} examples contain; the "
            "texts will be single lines. End it with a line of its own after {text}, such as ###, or leave it unset"
        )
    elif ended:
        notes.append(
            f"prompt.examples: {ended} of {len(examples)} contain {stop!r}, which ends a text; set prompt.example so "
            "that {text} is followed by something that no text contains"
        )
    longest = max(map(len, examples), default=0)
    for name, effect in (("max_tokens", "texts will be cut off"), ("max_record_tokens", "records are shown in part")):
        if longest / PROSE_CHARACTERS > (most := getattr(config, name)):
            notes.append(
                f"{name} = {most}: the longest public example has {longest} characters, about "
                f"{longest / PROSE_CHARACTERS:.0f} tokens; where texts are as long as that, {effect}. Raise it"
            )
    return notes


def number_of_centres(config: SynthesisConfig, units_per_batch: int, units: int | None) -> int:
    """How many public centres a run without deals asks for; auto: as many as leave a cell one batch on average.

    >>> number_of_centres(SynthesisConfig(labels=tuple("abcd"), label_column="label"), 18, units=7600)
    105
    """
    if isinstance(config.centres, int):
        return config.centres
    if units is None:
        return UNKNOWN_CENTRES
    return min(MOST_CENTRES, max(1, units // (len(config.label_set) * units_per_batch)))


def unit_name(config: SynthesisConfig) -> str:
    """What is protected, in words.

    >>> unit_name(SynthesisConfig(unit_column="customer"))
    "all records that share a value of 'customer'"
    """
    return f"all records that share a value of {config.unit_column!r}" if config.unit_column else "one record"


def _guarantee(config: SynthesisConfig, promised: Promised) -> Guarantee:
    return Guarantee(
        kind=promised.kind,
        epsilon=promised.epsilon,
        delta=promised.delta,
        rho=promised.cost.as_dict()["rho"],
        curve=promised.cost.as_dict().get("curve"),
        unit=unit_name(config),
        relation="add_remove",
        method=config.method.value,
        version=importlib.metadata.version("plainchant"),
        statement=promised.statement,
        delta_found=promised.cost.delta,
    )


def not_private(config: SynthesisConfig, why: str) -> Guarantee:
    """The guarantee of a run that has none."""
    return _guarantee(config, nothing_promised(why))


def guarantee_of(plan: Plan, *, private: bool) -> Guarantee:
    """The guarantee of a run with this plan; none unless nobody can predict its randomness."""
    return plan.guarantee if private else not_private(plan.config, "its randomness came from a seed")


def _units(config: SynthesisConfig, rate: float) -> int | None:
    """About how many units a run with a sample of this rate looks at."""
    return None if config.expected_units is None else max(1, round(rate * config.expected_units))


def _request(config: SynthesisConfig, rate: float) -> TokenRequest:
    """The token settings of a configuration, for the units of a sample."""
    return dataclasses.replace(config.token_request, units=_units(config, rate))


def make_plan(config: SynthesisConfig) -> Plan:
    """Decides sample, batch size, clip, tokens and texts from (ε, δ) and a configuration (guarantee 6.2, 13.6).

    Raises:
        PrivacyError: the budget does not pay for the request; the message says what it would pay for.

    >>> plan = make_plan(SynthesisConfig(method="clustered-mean", texts=100, max_tokens=32))
    >>> plan.guarantee.statement
    '(ε = 7.95518, δ = 1e-06)-differentially private under adding or removing one record, fixed before the run.'
    """
    if config.sample_rate != "auto":
        return _plan_at(config, config.sample_rate)
    units = config.expected_units
    # without text nothing takes long, and noisy counts of all units are better ones
    worth = config.samples and config.has_text
    if units is None or units < WORTH_SAMPLING * SAMPLE_UNITS or not worth:
        return _plan_at(config, 1.0)
    rate = SAMPLE_UNITS / units
    while rate < 1:
        # a sample that is too small for the texts is doubled
        with contextlib.suppress(PrivacyError):
            made = _plan_at(config, rate)
            if made.config.only_votes == config.only_votes:
                return made
        rate *= 2
    made = _plan_at(config, 1.0)
    # the plan of the configuration that the run keeps, from which it is made again
    return made if made.config.only_votes == config.only_votes else make_plan(made.config)


def _plan_at(config: SynthesisConfig, rate: float) -> Plan:
    """The plan of a run that looks at a secret sample of this rate; what the sample is worth is spent inside it."""
    found = delta_found(config)
    whole = Budget(config.epsilon, config.delta).in_sample(rate)
    total = Cost(rho_of(whole.epsilon, whole.delta - found), delta=found)
    # a method whose records write nothing counts none
    writes = config.reads_records and config.written > 0
    rho_rebalance = config.rebalance_share * total.rho if writes else 0.0
    rho_select = rho_rebalance / 2 if config.parts.clusters is Clusters.PUBLIC_CENTRES else 0.0
    rho_size = rho_rebalance - rho_select
    table = Cost(config.attribute_share * total.rho, delta=found)
    units = _units(config, rate)
    rho_words = _rho_of_words(config, units, total.rho)
    left = max(0.0, total.rho - rho_rebalance - rho_words - table.rho)
    rho_vote = (_rho_of_votes(config, units, total.rho, left) if writes else left) if config.votes else 0.0
    rhos = (rho_select, rho_size, rho_vote, rho_words)
    counts = Cost(rho_rebalance) + Cost(rho_vote) + Cost(rho_words) + table
    if config.parts.deals and writes:
        return _plan_with_deals(config, rate, counts, rhos, table)
    budget, request = Cost(max(0.0, left - rho_vote)), _request(config, rate)
    chosen = choose_mechanism(request, budget)
    tokens = chosen.affordable(budget)
    texts = None if tokens is None else tokens // config.head
    _check_feasible(config, request, chosen, budget)
    _check_contexts(config, chosen, rho_size)
    mechanism = chosen.for_steps(config.head * (texts or 0))
    spent = _spent(total, counts, budget, mechanism.cost_of(tokens or 0)).sampled(rate)
    promised = mechanism.promised(spent, config.epsilon, config.delta, unit_name(config))
    batch = Cost.unlimited() if tokens is None else budget
    guarantee = _guarantee(config, promised)
    return Plan(config, mechanism, guarantee, *rhos, table, batch, tokens, texts, sample_rate=rate)


def _rho_of_words(config: SynthesisConfig, units: int | None, total: float) -> float:
    """The zCDP of the noisy count of words: the share asked for, or what the rule makes of it."""
    rho = config.share_of_words * total
    if config.word_share != "auto" or not rho:
        return rho
    rho = min(rho, ENOUGH_FOR_WORDS)
    is_heard = units is None or units / len(config.label_set) >= HEARD_WORDS * noise_sigma(rho)
    return rho if is_heard else 0.0


def strong_votes(candidates: int, labels: int) -> float:
    """Units for each candidate, divided by σ of a whole vote, from which votes are strong.

    >>> strong_votes(6600, 4), strong_votes(906, 151)
    (1.510909090909091, 4.5)
    """
    return STRONG * (1 + SCARCE * labels / max(candidates, labels))


def _rho_of_votes(config: SynthesisConfig, units: int | None, total: float, left: float) -> float:
    """The zCDP of all votes of a run whose records write too: the share asked for, or what the rule makes of it."""
    least = config.least_vote_share * total
    if config.vote_share != "auto" or units is None:
        return least
    candidates = config.parts.candidates * config.texts
    sigma = units / candidates / strong_votes(candidates, len(config.label_set))
    needed = config.parts.rounds / (2 * sigma**2)
    return max(least, min(needed, MOST_FOR_VOTES * left))


def _plan_with_deals(
    config: SynthesisConfig, rate: float, counts: Cost, rhos: tuple[float, float, float, float], table: Cost
) -> Plan:
    """A plan whose batches are drawn afresh for every deal; `rhos`: of selection, sizes, votes, words."""
    # what finding values takes of δ is gone for all else (guarantee 14.3)
    whole = Budget(config.epsilon, config.delta).in_sample(rate)
    budget, zcdp = Budget(whole.epsilon, whole.delta - counts.delta), dataclasses.replace(counts, delta=0.0)
    config = _with_affordable_texts(config, rate, budget, zcdp, rhos[1])
    if config.only_votes:
        return _plan_at(config, rate)
    request = _request(config, rate)
    mechanism, rule, expected = _choose_covered(config, request, budget, zcdp, rhos[1])
    promised = mechanism.promised((counts + rule.cost).sampled(rate), config.epsilon, config.delta, unit_name(config))
    made = Plan(
        config, mechanism, _guarantee(config, promised), *rhos, table, rule.cost, config.head, 1, rule, expected,
        rate,
    )  # fmt: skip
    _check_deals(made, budget, zcdp)
    _check_contexts(config, mechanism, made.rho_size)
    return made


def _choose_covered(
    config: SynthesisConfig, request: TokenRequest, budget: Budget, counts: Cost, rho_size: float
) -> tuple[TokenMechanism, DealRule, Expected]:
    """What writes, by which deals: in batches that the slack covers, where their size is open.

    Deals pay for batches so small that noise in the sizes may overfill them; what is not covered is refused later.
    """
    chosen = choose_with_deals(request, budget, counts)
    if request.batch_size != "auto":
        return chosen
    size, unlikely = chosen[0].settings.batch_size, _unlikely(config)
    while size < LARGEST_COVERED and _slack_needed(chosen[0].resized(size), rho_size, unlikely)[0] > request.slack:
        size += 1
    if size == chosen[0].settings.batch_size:
        return chosen
    return choose_with_deals(dataclasses.replace(request, batch_size=size), budget, counts)


def _with_affordable_texts(
    config: SynthesisConfig, rate: float, budget: Budget, counts: Cost, rho_size: float
) -> SynthesisConfig:
    """The configuration with fewer texts from records, where half of them would need large batches.

    Halved until moderate batches pay; where they do not pay for one of each label, records only vote. Public candidates
    take the place of the others, so that as many texts are released. Only public numbers decide.
    """
    request = _request(config, rate)
    is_open = config.private_texts is None and config.written < config.texts and request.batch_size == "auto"
    if not is_open or request.units is None or request.clip == "auto":
        return config
    texts, fewest = config.written, min(config.written, len(config.label_set))
    while texts >= fewest:
        fewer = config if texts == config.written else config.with_private_texts(texts)
        # what not even the rounding fits into is refused for itself
        with contextlib.suppress(PrivacyError):
            mechanism, rule, expected = _choose_covered(fewer, _request(fewer, rate), budget, counts, rho_size)
            is_paid = rule.most_texts(expected.batches, expected.texts) >= expected.texts
            if is_paid and mechanism.settings.batch_size <= LARGEST_AFFORDED:
                return fewer
        # the last try is one text of each label
        texts = max(texts // 2, fewest) if texts > fewest else 0
    return config.with_private_texts(0) if config.method is Method.PLAINCHANT else config


def _check_deals(made: Plan, budget: Budget, counts: Cost) -> None:
    """Refuses what expected cells do not pay for, and says what they would pay for: fewer texts, or a larger ε."""
    config, rule, expected = made.config, made.deals, made.expected
    if rule is None or expected is None:
        raise ValueError("the plan has no deals")
    possible = rule.most_texts(expected.batches, expected.texts)
    if possible >= (1 if config.expected_units is None else expected.texts):
        return
    size = made.settings.batch_size
    texts, epsilon = nearest_with_deals(_request(config, made.sample_rate), budget, counts)
    batches = counted(expected.batches, "batch", "batches")
    if expected.cells is None:
        what = f"batch_size = {size}: cells of {batches} do not pay for one text of each"
    else:
        most = f"at most {possible * expected.cells} texts" if possible else "no text"
        what = (
            f"{_wish(config)}: about {_units_in_words(made.units, config)} in {counted(expected.cells, 'cell')} of "
            f"{batches} of {size} pay for {most}"
        )
    ways = [
        *([f"set {_fewer(config, texts)}"] if texts and texts < config.written else []),
        *([f"set epsilon to {epsilon_outside(epsilon, made.sample_rate):.3g} or more"] if epsilon else []),
        *(["set a larger sample_rate"] if made.sample_rate < 1 else []),
        "ask for shorter texts",
        *(
            ["set private_tokens, so that records pay for the beginning of a text alone"]
            * (config.private_tokens is None)
        ),
        *(["set batch_size = auto"] if isinstance(config.parts.batch_size, int) else []),
        *(["take method = private-evolution, where the records only vote"] if config.votes else []),
    ]
    raise PrivacyError(
        f"{what} of {_length(config)} at ε = {config.epsilon:g}, δ = {config.delta:g}; {', or '.join(ways)}"
        + made.mechanism.cheaper
    )


def _wish(config: SynthesisConfig) -> str:
    """What a user asked for, and how many texts of that are written from records."""
    if config.private_texts is not None:
        return f"private_texts = {config.private_texts}"
    half = "" if config.written == config.texts else f", {config.written} of them from records"
    return f"texts = {config.texts}{half}"


def _fewer(config: SynthesisConfig, written: int) -> str:
    """What to set so that records write no more than so many texts."""
    if config.private_texts is not None:
        return f"private_texts to {written} or less"
    return f"texts to {written if config.written == config.texts else 2 * written} or less"


def counted(count: int | None, one: str, many: str = "") -> str:
    """A number of things in words."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def _length(config: SynthesisConfig) -> str:
    """How long a text is, for messages about what it costs."""
    tail = "" if config.head == config.max_tokens else f", {config.head} of them paid for"
    return f"{config.max_tokens} tokens{tail}"


def _spent(total: Cost, counts: Cost, budget: Cost, tokens: Cost) -> Cost:
    """Counts and tokens together, which are never more than the total.

    Raises:
        PrivacyError: they are, which a plan rules out.
    """
    together = counts + tokens
    if tokens != budget and together.fits(total):
        return together
    # the whole budget: its parts, added up again, may differ from it by rounding
    if together.is_limited and together.rho > total.rho * (1 + ADDED_AGAIN):
        raise PrivacyError(
            f"a plan costs ρ = {together.rho:g}, more than its budget of {total.rho:g}; please report it"
        )
    return total


def _rounding(mechanism: TokenMechanism) -> float:
    """The part of the numerical slack that the rounding of sampling weights uses, nats (guarantee 4.5)."""
    return mechanism.settings.temperature * ROUNDING_RANGE / 2


def _unlikely(config: SynthesisConfig) -> float:
    # a unit may be in a batch of every deal, and there are no more deals than texts
    return config.delta * UNLIKELY / (config.written if config.parts.deals else 1)


def _slack_needed(mechanism: TokenMechanism, rho_size: float, unlikely: float) -> tuple[float, float]:
    """The numerical slack, nats, for as many rows as a batch may hold, and how many these are (guarantee 7)."""
    contexts = most_contexts(mechanism.settings.batch_size, rho_size, unlikely)
    return mechanism.amplification(contexts) * ROW_MOVEMENT + _rounding(mechanism), contexts


def _check_contexts(config: SynthesisConfig, mechanism: TokenMechanism, rho_size: float) -> None:
    """Checks that the numerical slack covers movements of as many rows as a batch may hold (guarantee 7)."""
    if not mechanism.needs_private:
        return
    s = mechanism.settings
    needed, contexts = _slack_needed(mechanism, rho_size, _unlikely(config))
    if mechanism.amplification(contexts) and needed > s.slack:
        raise PrivacyError(
            f"numerical_slack = {s.slack:g}: noisy sizes with a standard deviation of {noise_sigma(rho_size):.3g} may "
            f"put {contexts:.0f} contexts into a batch of {s.batch_size}, which needs {needed:.2g}; set that, or raise "
            "rebalance_share, epsilon or batch_size"
        )


def _units_in_words(units: int | None, config: SynthesisConfig) -> str:
    return f"{units} units" + ("" if units == config.expected_units else " of a sample")


def _check_feasible(config: SynthesisConfig, request: TokenRequest, mechanism: TokenMechanism, budget: Cost) -> None:
    tokens = mechanism.affordable(budget)
    if tokens is not None and tokens < config.head:
        smallest = smallest_batch(mechanism, budget, config.head)
        name = "max_tokens" if config.head == config.max_tokens else "private_tokens"
        raise PrivacyError(
            f"batch_size = {mechanism.settings.batch_size}: at ε = {config.epsilon:g}, δ = {config.delta:g} a batch "
            f"pays for {tokens} token{'' if tokens == 1 else 's'}, less than one text of {name} = "
            f"{config.head}; "
            + (f"the smallest batch size that pays for one is {smallest}" if smallest else "no batch size pays for one")
            + (f", or set {name} to {tokens} or less" if tokens else "")
            + mechanism.cheaper
        )
    possible = possible_texts(request, mechanism, budget)
    if config.expected_units is not None and possible is not None and possible < config.written:
        raise PrivacyError(
            f"{_wish(config)}: about {_units_in_words(request.units, config)} in batches of "
            f"{mechanism.settings.batch_size} pay for at most {possible} texts of {_length(config)} at "
            f"ε = {config.epsilon:g}; "
            + (f"set {_fewer(config, possible)}, or " if possible else "")
            + "ask for shorter texts"
            + (", or let batch_size = auto find a larger batch" if config.parts.batch_size != "auto" else "")
            + (", or set a larger sample_rate" if request.units != config.expected_units else "")
        )
