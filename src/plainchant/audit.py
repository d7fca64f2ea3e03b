"""Attacks on a release and on its mechanism, for an auditor who has the private data.

An audit can refute a guarantee, never prove it: that one found nothing says only that this attack, with so many texts
or runs, found nothing. What each can show, and what it cannot:

* **Copied text** (`copied`): runs of words that synthetic and private text share, beside those shared with real text
  that was not in the data. Shows copying word for word; sees no paraphrase, and no words in scripts without spaces.
* **Canaries** (`plant`, `exposure`): made-up secrets among the records. Show whether what occurs once, or a few times,
  comes out again; they speak for records like them, and the run that they are in is for auditing only.
* **Membership** (`attacks`): whether private records can be told from like ones that were not in the data. An average:
  a few records may be far worse off. Where the two sets differ in any other way, it finds that instead.
* **Replay** (`replay`): a lower bound on the ε of decoding one batch, from sequences drawn with and without one context
  on logits kept from a model. The only one that contradicts a claim of (ε, δ) at a known error rate. Far below the
  claim is what to expect: the claim is for the worst logits, and R runs cannot show more than about log R.

All figures depend on private data and are outside the guarantee: they belong into private/. Intervals are at 95 %:
exact binomial for shares, percentile bootstrap otherwise, none for a maximum. Seeds make audits repeatable; nothing
that is drawn with them is released.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from plainchant.accounting import check_delta, epsilon_of
from plainchant.aggregation import Float32Array, Float64Array, IndexArray, sampling_weights
from plainchant.data import Record, fingerprint
from plainchant.decoding import BatchWork
from plainchant.embedding import Embedder
from plainchant.errors import ConfigError, DataError, PrivacyError
from plainchant.evaluation import Figure, Figures, directory_of, share
from plainchant.mechanisms import IndividualMeanMechanism, Law, SparseMeanMechanism, TokenMechanism
from plainchant.models import LanguageModel
from plainchant.planning import Plan, plan
from plainchant.prompting import Prompts
from plainchant.randomness import RandomSource, SystemRandomness
from plainchant.store import RunDirectory, read_table

BOOTSTRAPS = 1_000
# Words from which on a run counts as copied, and the length of the runs whose share is counted.
LONG_RUN, SHORT_RUN = 8, 5
# The character model: length of its n-grams, characters that it tells apart, weight of the next shorter n-gram.
ORDER, ALPHABET, SMOOTHING = 5, 4_000, 1.0
# The false-positive rate at which membership inference is counted.
FALSE_POSITIVES = 0.01
# Values of the log-likelihood ratio that a replay may choose its threshold from.
THRESHOLDS = 501
# Runs and steps of a replay on a run's own batch, and where the canaries of a run are noted.
RUNS, STEPS = 100_000, 24
# Records on each side of membership inference, at most.
MEMBERS = 2_000
CANARIES = "canaries.json"
EXPLANATIONS: Mapping[str, str] = {
    "copied": f"texts with {LONG_RUN} words or more in a row from private text, more than chance explains",
    "private_mean_run": "longest run of words in common with private text, mean over texts",
    "private_longest_run": "the longest of them",
    "private_sample_mean_run": "the same with as much private text as there is held-out text",
    "held_out_mean_run": "the same with held-out text, which nobody can have copied",
    "similarity_auc": "0.5: records of the data cannot be told from others by likeness to the release",
    "similarity_tpr": "records found at one false alarm in a hundred; 0.01 by chance",
    "likelihood_auc": "0.5: nor by how likely the release makes them",
    "likelihood_tpr": "records found at one false alarm in a hundred; 0.01 by chance",
    "extracted_numbers": "canaries whose number came out",
    "extracted_names": "canaries whose name came out",
    "exposure": "bits by which a canary is likelier than a random one",
    "exposure_by_chance": "what exposure is where the canaries had no influence",
    "epsilon_low": "ε of one batch's texts is at least this, as shown by drawing them again with and without a record",
    "epsilon_claimed": "what the mechanism claims for these tokens",
    "epsilon_limit": "the most that so many runs can show",
}


def _bootstrapped(statistic: Callable[..., Any], *samples: npt.NDArray[Any], generator: np.random.Generator) -> Figure:
    """A statistic of samples that are each drawn anew along their first axis."""
    drawn = [
        statistic(*(sample[generator.integers(len(sample), size=len(sample))] for sample in samples))
        for _ in range(BOOTSTRAPS)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Figure(float(statistic(*samples)), float(low), float(high))


def _check_not_empty(**samples: Sequence[Any] | npt.NDArray[Any]) -> None:
    for name, sample in samples.items():
        if not len(sample):
            raise DataError(f"{name}: holds nothing; an audit needs at least one")


# Copied text


def _shared_runs(texts: Sequence[str], references: Sequence[str]) -> tuple[IndexArray, IndexArray]:
    """Runs of words that m texts have in common with any reference.

    Returns:
        The longest of each text, in words, int64 [m]; how many of its `SHORT_RUN`-grams are common, and how many it
        has, int64 [m, 2].
    """
    words = [re.findall(r"\w+(?:[^\w\s]+\w+)*", text.casefold()) for text in (*texts, *references)]
    numbers = {"\0": 0}
    # a 0 ends every text, so that no run reaches into the next one
    tokens = np.array([numbers.setdefault(w, len(numbers)) for text in words for w in (*text, "\0")], np.int64)
    owner = np.repeat(np.arange(len(words)), [len(text) + 1 for text in words])
    longest = np.zeros(len(texts), np.int64)
    short = np.array([[0, max(0, len(text) - SHORT_RUN + 1)] for text in words[: len(texts)]], np.int64)
    # n grows, and only places whose n-gram stands on both sides are kept: few after the first words
    places, grams, n = np.flatnonzero(tokens), tokens[tokens > 0], 1
    while len(places):
        unique, grams = np.unique(grams, return_inverse=True)
        ours = owner[places] < len(texts)
        common = np.bincount(grams[ours], minlength=len(unique)) * np.bincount(grams[~ours], minlength=len(unique)) > 0
        places, grams = places[common[grams]], grams[common[grams]]
        found = owner[places[owner[places] < len(texts)]]
        longest[found] = n
        if n == SHORT_RUN:
            short[:, 0] = np.bincount(found, minlength=len(texts))
        following = tokens[places + n]
        places, grams = places[following > 0], (grams * len(numbers) + following)[following > 0]
        n += 1
    return longest, short


def copied(
    synthetic: Sequence[str], private: Sequence[str], held_out: Sequence[str] = (), *, seed: int = 0
) -> dict[str, Figure]:
    """How much of the synthetic text stands word for word in private text, beside real text that was not in the data.

    Words are compared without case and without the punctuation around them. A larger reference has more matches by
    chance alone: where there is held-out text, both references are also compared at the same, smaller size.

    Args:
        synthetic: released texts, at least one.
        private: texts of the private data, at least one.
        held_out: texts of the same kind that were not in it, if there are any.
        seed: for subsamples and intervals.

    Returns:
        "copied": the share of synthetic texts with a run of at least `LONG_RUN` words from private text that is longer
        than any run that any synthetic text has in common with held-out text. And for each reference R, which is
        "private" (all of it) and, with held-out text, "private_sample" and "held_out" of the same size:
        "R_mean_run" and "R_longest_run" in words, "R_long_runs" (share of texts with `LONG_RUN` words or more) and
        "R_five_grams" (share of all synthetic 5-grams of words).

    Raises:
        DataError: there is no synthetic or no private text.
    """
    _check_not_empty(synthetic=synthetic, private=private)
    generator = np.random.default_rng(seed)
    references = {"private": list(private)}
    if held_out:
        size = min(len(private), len(held_out))
        for name, texts in (("private_sample", private), ("held_out", held_out)):
            references[name] = [texts[i] for i in generator.permutation(len(texts))[:size]]
    runs = {name: _shared_runs(synthetic, texts) for name, texts in references.items()}
    by_chance = int(runs["held_out"][0].max()) if held_out else 0
    figures = {"copied": share(runs["private"][0] >= max(LONG_RUN, by_chance + 1))}
    for name, (longest, short) in runs.items():
        figures[f"{name}_mean_run"] = _bootstrapped(np.mean, longest, generator=generator)
        figures[f"{name}_longest_run"] = Figure(float(longest.max()))
        figures[f"{name}_long_runs"] = share(longest >= LONG_RUN)
        figures[f"{name}_five_grams"] = _bootstrapped(_ratio, short, generator=generator)
    return figures


def _ratio(counts: IndexArray) -> float:
    some, of = counts.sum(axis=0)
    return float(some / max(1, of))


# The character model of canaries and membership


class CharacterModel:
    """An interpolated n-gram model of characters without case: p_k(x | context) = (count + a·p_{k−1}) / (total + a).

    Args:
        texts: what it learns from.

    Raises:
        DataError: the texts hold no character.
    """

    def __init__(self, texts: Sequence[str]):
        frequent = Counter(itertools.chain.from_iterable(text.casefold() for text in texts)).most_common(ALPHABET)
        _check_not_empty(texts=frequent)
        # 0 stands before a text, 1 for every other character
        self._codes = {character: code for code, (character, _) in enumerate(frequent, start=2)}
        self._base = len(self._codes) + 2
        grams, _ = self._grams(texts)
        self._counts = [np.unique(column, return_counts=True) for column in grams]
        self._totals = [np.unique(column // self._base, return_counts=True) for column in grams]

    def _grams(self, texts: Sequence[str]) -> tuple[IndexArray, IndexArray]:
        """For each character the n-grams that end there, int64 [ORDER, c], and its text's number, int64 [c]."""
        padding = (0,) * (ORDER - 1)
        coded = [(*padding, *(self._codes.get(character, 1) for character in text.casefold())) for text in texts]
        codes = np.fromiter(itertools.chain.from_iterable(coded), np.int64)
        # the newest character is the last digit; what rolls over the edge falls on padding
        shifted = np.array([np.roll(codes, k) * self._base**k for k in range(ORDER)])
        is_character = codes > 0
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in coded])
        return np.cumsum(shifted, axis=0)[:, is_character], owner[is_character]

    def score(self, texts: Sequence[str]) -> Float64Array:
        """The log-likelihood of each text, nats, float64 [m]."""
        grams, owner = self._grams(texts)
        p = np.full(grams.shape[1], 1 / self._base)
        for column, counts, totals in zip(grams, self._counts, self._totals, strict=True):
            p = (_counted(counts, column) + SMOOTHING * p) / (_counted(totals, column // self._base) + SMOOTHING)
        return np.bincount(owner, np.log(p), minlength=len(texts)).astype(np.float64)


def _counted(table: tuple[IndexArray, IndexArray], keys: IndexArray) -> IndexArray:
    known, counts = table
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, counts[place], 0)


# Canaries

TEMPLATE = "Please get back to {name} about this; the reference number is {number}."
_SYLLABLES = [consonant + vowel for consonant in "bdfgjklmnprstvz" for vowel in "aeiou"]


@dataclass(frozen=True)
class Canary:
    """A made-up record whose name and number nobody can know by chance.

    Attributes:
        name: two words of three syllables.
        number: eight digits.
        label: its record's label.
    """

    name: str = field(repr=False)
    number: str = field(repr=False)
    label: str | None = None

    @property
    def text(self) -> str:
        """The record's text."""
        return TEMPLATE.format(name=self.name, number=self.number)


def _secret(generator: np.random.Generator) -> tuple[str, str]:
    name = " ".join("".join(generator.choice(_SYLLABLES, 3)).capitalize() for _ in range(2))
    return name, "".join(map(str, generator.integers(10, size=8)))


def plant(
    records: Sequence[Record],
    count: int,
    labels: Sequence[str | None],
    generator: np.random.Generator,
    *,
    repetitions: int = 1,
) -> tuple[list[Record], list[Canary]]:
    """Puts canaries at random places among the records.

    A guarantee for one record speaks of `repetitions = 1`; more make a canary easier to find, and it then stands for a
    fact that several records share.

    Args:
        records: the private table; it is left as it is.
        count: canaries, each with a secret of its own.
        labels: the label set, which each canary's label is drawn from.
        generator: where secrets and places come from.
        repetitions: records of each canary, every one a unit by itself.

    Raises:
        ConfigError: count or repetitions is below 1.
    """
    for name, value in (("count", count), ("repetitions", repetitions)):
        if value < 1:
            raise ConfigError(f"{name} = {value}: must be at least 1")
    canaries = [Canary(*_secret(generator), labels[int(generator.integers(len(labels)))]) for _ in range(count)]
    planted = list(records)
    for canary in canaries:
        for _ in range(repetitions):
            planted.insert(int(generator.integers(len(planted) + 1)), Record(canary.text, canary.label, None))
    return planted, canaries


def exposure(
    canaries: Sequence[Canary], synthetic: Sequence[str], *, candidates: int = 1_000, seed: int = 0
) -> dict[str, Figure]:
    """Whether the canaries' secrets came out, and how much likelier the synthetic text makes them than others.

    Exposure is log2(candidates + 1) − log2(rank), the rank being that of the canary among the same sentence with random
    secrets (Carlini et al. 2019), by the likelihood under a model learnt from the synthetic text alone (Meeus et al.
    2025, "The Canary's Echo").

    Args:
        canaries: from `plant`.
        synthetic: texts of the run that they were planted in, at least one.
        candidates: random secrets to be compared with, the same for all canaries.
        seed: for candidates, ties and the interval.

    Returns:
        "extracted_numbers": the share of canaries whose digits stand in one text, at most three other characters
        between two of them; "extracted_names": whose name does; "exposure": the mean, bits; "exposure_by_chance": its
        expectation where the canaries had no influence, about log2 e.

    Raises:
        DataError: there is no canary or no synthetic text.
    """
    _check_not_empty(canaries=canaries, synthetic=synthetic)
    # a line for each text: line breaks inside it become spaces, and no digits are joined across two texts
    lines = [" ".join(text.casefold().split()) for text in synthetic]
    digits = "\n".join(re.sub(r"(?<=\d)\D{1,3}(?=\d)", "", line) for line in lines)
    names = "\n".join(lines)
    # a stream of its own: from the seed that made the canaries, candidates would be the canaries
    generator = np.random.default_rng((seed, len(TEMPLATE)))
    others = [Canary(*_secret(generator)).text for _ in range(candidates)]
    model = CharacterModel(synthetic)
    others_scores = model.score(others)
    scores = model.score([canary.text for canary in canaries])[:, None]
    # among equals every rank is as likely, so that the expectation by chance is exact
    above, equal = (others_scores > scores).sum(axis=1), (others_scores == scores).sum(axis=1)
    bits = math.log2(candidates + 1) - np.log2(1 + above + generator.integers(equal + 1))
    by_chance = math.log2(candidates + 1) - math.lgamma(candidates + 2) / math.log(2) / (candidates + 1)
    return {
        "extracted_numbers": share(np.array([canary.number in digits for canary in canaries])),
        "extracted_names": share(np.array([canary.name.casefold() in names for canary in canaries])),
        "exposure": _bootstrapped(np.mean, bits, generator=generator),
        "exposure_by_chance": Figure(by_chance),
    }


# Membership inference


def similarity_scores(synthetic: Float32Array, embeddings: Float32Array) -> Float64Array:
    """The highest cosine similarity of each text to any synthetic one, float64 [n].

    Args:
        synthetic: unit vectors of the synthetic texts, float32 [m, d].
        embeddings: unit vectors of the texts in question, float32 [n, d].
    """
    chunks = (embeddings[start : start + 1_000] @ synthetic.T for start in range(0, len(embeddings), 1_000))
    return np.concatenate([chunk.max(axis=1) for chunk in chunks]).astype(np.float64)


def likelihood_scores(synthetic: Sequence[str], texts: Sequence[str]) -> Float64Array:
    """The log-likelihood a character of each text under the n-gram model of the synthetic texts, nats, float64 [n]."""
    lengths = np.array([max(1, len(text.casefold())) for text in texts])
    return np.asarray(CharacterModel(synthetic).score(texts) / lengths)


def _area(members: Float64Array, non_members: Float64Array) -> float:
    """The probability that a member has the higher score, ties counted by half."""
    ordered = np.sort(non_members)
    ranks = np.searchsorted(ordered, members, side="left") + np.searchsorted(ordered, members, side="right")
    return float(ranks.mean() / (2 * len(ordered)))


def _true_positives(members: Float64Array, non_members: Float64Array) -> float:
    """The share of members above the lowest threshold that at most `FALSE_POSITIVES` of the others are above."""
    allowed = math.floor(FALSE_POSITIVES * len(non_members) + 1e-9)
    return float((members > np.sort(non_members)[-1 - allowed]).mean())


def membership(members: Float64Array, non_members: Float64Array, *, seed: int = 0) -> dict[str, Figure]:
    """How well scores tell members from others, where a high one means member.

    Args:
        members: scores of records of the private data, float64 [n].
        non_members: scores of records of the same kind that were not in it, float64 [m].
        seed: for the intervals.

    Returns:
        "auc" (0.5 by chance) and "tpr", the true-positive rate at a false-positive rate of 1 % (0.01 by chance).

    Raises:
        DataError: one of the two is empty.
    """
    _check_not_empty(members=members, non_members=non_members)
    generator = np.random.default_rng(seed)
    return {
        "auc": _bootstrapped(_area, members, non_members, generator=generator),
        "tpr": _bootstrapped(_true_positives, members, non_members, generator=generator),
    }


def attacks(
    synthetic: Sequence[str], members: Sequence[str], non_members: Sequence[str], embedder: Embedder, *, seed: int = 0
) -> dict[str, Figure]:
    """Both membership attacks: "similarity_auc", "similarity_tpr", "likelihood_auc" and "likelihood_tpr".

    Args:
        synthetic: released texts, at least one.
        members: texts of the private data, at least one.
        non_members: texts of the same kind that were not in it, at least one.
        embedder: of the texts.
        seed: for the intervals.

    Raises:
        DataError: one of the three is empty.
    """
    _check_not_empty(synthetic=synthetic, members=members, non_members=non_members)
    vectors = embedder.encode(synthetic)
    found = {
        "similarity": [similarity_scores(vectors, embedder.encode(texts)) for texts in (members, non_members)],
        "likelihood": [likelihood_scores(synthetic, texts) for texts in (members, non_members)],
    }
    return {
        f"{attack}_{name}": figure
        for attack, scores in found.items()
        for name, figure in membership(*scores, seed=seed).items()
    }


# Replay


@dataclass(frozen=True)
class Steps:
    """Logits of T steps of one batch, kept once and drawn from many times. Private.

    Attributes:
        public: logits without any record, float32 [T, V].
        private: for each step the contexts' logits on `ids`, float32 [n, |ids|].
        ids: for each step the sorted token ids that a support may hold, int64.
        public_without: what the public logits are when the unit under test is missing, float32 [T, V]; None where they
            are the same, as they must be (spec 4.1).
    """

    public: Float32Array = field(repr=False)
    private: Sequence[Float32Array] = field(repr=False)
    ids: Sequence[IndexArray] = field(repr=False)
    public_without: Float32Array | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Replay:
    """What a replay has shown.

    Attributes:
        epsilon_low: ε is at least this, at the given δ, or the audit's error rate has struck.
        epsilon_claimed: what the mechanism claims for these steps; None where it claims nothing in advance.
        epsilon_limit: the largest lower bound that so many runs could have shown.
        delta: of both.
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


def record_steps(model: LanguageModel, mechanism: TokenMechanism, work: BatchWork, tokens: Sequence[int]) -> Steps:
    """Keeps the logits of a batch along one fixed text, as the decoder computes them (spec 4.1).

    Private logits are kept on the mechanism's supports only.

    Args:
        model: the language model.
        mechanism: says the supports.
        work: the batch; its positions do not matter.
        tokens: the text, T − 1 tokens. The own text of the record under test is what gives it most influence.
    """
    vocabulary = np.arange(model.vocabulary_size)
    allowed = np.setdiff1d(vocabulary, sorted(model.special - model.end_of_text)).astype(np.int64)
    prefix, head, room = model.prefill(work.prefix), work.start[:-1], len(tokens) + 1
    private_rows = model.open_rows(prefix, [[*record, *head] for record in work.records], room=room)
    public_rows = model.open_rows(prefix, [head], room=room)
    public, private, ids = [], [], []
    for token in (work.start[-1], *tokens):
        public.append(model.step([(public_rows, token)])[0][0])
        ids.append(mechanism.support(public[-1], allowed))
        private.append(model.step([(private_rows, token)], [ids[-1]])[0])
    return Steps(np.array(public, dtype=np.float32), private, ids)


def claimed_epsilon(mechanism: TokenMechanism, steps: int, delta: float) -> float | None:
    """What a mechanism claims for so many steps of a batch; None for the median, whose ε is measured afterwards.

    Raises:
        PrivacyError: its budget is for fewer steps, or whether records have a say depends on more than logits.
    """
    if isinstance(mechanism, SparseMeanMechanism):
        raise PrivacyError("public_threshold: a sparse vector's choices are not replayed; audit the mean without it")
    if isinstance(mechanism, IndividualMeanMechanism):
        if steps > mechanism.steps:
            raise PrivacyError(f"steps = {steps}: the mechanism's budget is for {mechanism.steps} steps at most")
        return epsilon_of(mechanism.budget, delta)
    return None if mechanism.rho_per_token is None else epsilon_of(steps * mechanism.rho_per_token, delta)


def laws_of(mechanism: TokenMechanism, steps: Steps, without: int | None = None) -> list[Law]:
    """The law of each step's token, with all contexts or without one; charges add up as in the decoder."""
    public = steps.public if without is None or steps.public_without is None else steps.public_without
    rows = np.arange(len(steps.private[0]))
    rows = rows[rows != without]
    spent, laws = np.zeros(len(rows)), []
    for step, (logits, ids) in enumerate(zip(steps.private, steps.ids, strict=True)):
        support = mechanism.support(public[step], ids)
        private = logits[rows][:, np.searchsorted(ids, support)]
        allowance = mechanism.allowance(spent, len(steps.ids) - step)
        laws.append(mechanism.law(private, public[step], support, allowance))
        if (charges := laws[-1].charges) is not None:
            spent = spent + charges
    return laws


def replay(
    mechanism: TokenMechanism,
    steps: Steps,
    unit: int,
    *,
    runs: int,
    randomness: Callable[[], RandomSource],
    delta: float = 1e-6,
    alpha: float = 1e-3,
) -> Replay:
    """A lower bound on the ε of T steps, from sequences drawn with and without one context.

    A language model whose logits ignore what was sampled is a legal model, so what the mechanism claims for T steps
    must hold for tokens drawn from these fixed logits. The attacker sees a sequence and knows both laws. Events: a
    large log-likelihood ratio, and the sequence that is drawn most often (a source that repeats itself). The event of
    each direction is chosen on the first half of the runs and tested on the second: ε ≥ log((p − δ)/q), p and q bounded
    by Clopper–Pearson.

    Not seen: what leaving a context out does to the others' logits (spec 7); where contexts hold several records (spec
    3.3), what changing one does; a source that is predictable and does not repeat itself.

    Args:
        mechanism: what is audited.
        steps: from `record_steps`.
        unit: which context is left out.
        runs: sequences drawn on each side, at least 2.
        randomness: makes the source of each sequence: `SystemRandomness` as in production.
        delta: of the claim and of the bound.
        alpha: the probability that `epsilon_low` is too large, split over both directions and both their bounds.

    Raises:
        ConfigError: there is no such context, or runs, delta or alpha is out of its bounds.
        PrivacyError: as for `claimed_epsilon`.
    """
    check_delta(delta)
    if runs < 2:
        raise ConfigError(f"runs = {runs}: must be at least 2, one to choose an event and one to test it")
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha = {alpha}: must lie strictly between 0 and 1; 1e-3 is usual")
    if not 0 <= unit < len(steps.private[0]):
        raise ConfigError(f"unit = {unit}: the batch has no context of that number")
    claimed = claimed_epsilon(mechanism, len(steps.ids), delta)
    worlds = laws_of(mechanism, steps), laws_of(mechanism, steps, without=unit)
    tokens = [_drawn(laws, runs, randomness) for laws in worlds]
    ratios = [_log_p(worlds[0], drawn) - _log_p(worlds[1], drawn) for drawn in tokens]
    each = alpha / 4
    shown = max(
        _shown((tokens[0], ratios[0]), (tokens[1], ratios[1]), delta, each),
        _shown((tokens[1], -ratios[1]), (tokens[0], -ratios[0]), delta, each),
    )
    tested = runs - runs // 2
    limit = float(_lower(np.array(tested), np.array(0), tested, delta, each))
    return Replay(max(0.0, shown), claimed, max(0.0, limit), delta, runs)


def _drawn(laws: Sequence[Law], runs: int, randomness: Callable[[], RandomSource]) -> IndexArray:
    """Sequences of tokens int64 [runs, T], token by token as `aggregation.sample` draws them."""
    cumulative = [np.cumsum(sampling_weights(law.scores)) for law in laws]
    totals = [int(sums[-1]) for sums in cumulative]
    sources = (randomness() for _ in range(runs))
    numbers = np.fromiter((source.below(total) for source in sources for total in totals), np.uint64)
    columns = zip(laws, cumulative, numbers.reshape(runs, len(laws)).T, strict=True)
    return np.stack([law.support[np.searchsorted(sums, column, side="right")] for law, sums, column in columns], axis=1)


def _log_p(laws: Sequence[Law], tokens: IndexArray) -> Float64Array:
    """The log-probability of each sequence, −inf where a token lies outside its support, float64 [runs]."""
    found = np.zeros(len(tokens))
    for law, column in zip(laws, tokens.T, strict=True):
        weights = sampling_weights(law.scores)
        place = np.minimum(np.searchsorted(law.support, column), len(law.support) - 1)
        found += np.where(law.support[place] == column, np.log(weights / weights.sum())[place], -np.inf)
    return found


_Draws: TypeAlias = tuple[IndexArray, Float64Array]
"""Sequences int64 [runs, T], and log-likelihood ratios of P to Q, nats, float64 [runs]."""


def _shown(p: _Draws, q: _Draws, delta: float, alpha: float) -> float:
    """A lower bound on log((P(E) − δ)/Q(E)) from draws of P and Q, where E looks best on the first halves."""
    half = len(p[0]) // 2
    ordered = np.sort(np.concatenate([p[1][:half], q[1][:half]]))
    thresholds = ordered[np.linspace(0, len(ordered) - 1, THRESHOLDS).astype(np.int64)]
    frequent, _ = Counter(map(bytes, p[0][:half])).most_common(1)[0]
    repeated = np.frombuffer(frequent, np.int64)

    def hits(draws: _Draws, part: slice) -> IndexArray:
        tokens, ratios = draws[0][part], np.sort(draws[1][part])
        return np.append(len(ratios) - np.searchsorted(ratios, thresholds), (tokens == repeated).all(axis=1).sum())

    first, second = slice(half), slice(half, None)
    best = int(np.argmax(_lower(hits(p, first), hits(q, first), half, delta, alpha)))
    return float(_lower(hits(p, second)[best], hits(q, second)[best], len(p[0]) - half, delta, alpha))


def _lower(
    p_hits: npt.NDArray[Any], q_hits: npt.NDArray[Any], runs: int, delta: float, alpha: float
) -> npt.NDArray[np.float64]:
    """log((p_low − δ)/q_high) by Clopper–Pearson, each bound wrong with probability at most alpha."""
    p_low = np.where(p_hits == 0, 0.0, beta.ppf(alpha, np.maximum(p_hits, 1), runs - p_hits + 1))
    q_high = np.where(q_hits == runs, 1.0, beta.ppf(1 - alpha, q_hits + 1, np.maximum(runs - q_hits, 1)))
    return np.asarray(np.log(np.maximum(p_low - delta, 1e-300) / q_high))


# A run on disk


class Audit(Figures):
    """The groups "copied", "membership", "canaries" and "replay", as far as there is what they need."""


def audit(
    run: Any,
    real: Any,
    *,
    held_out: Any = None,
    embedder: Embedder | None = None,
    load_model: Callable[[], LanguageModel] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Audit:
    """Attacks a finished run with what its owner has. Reads private data; the figures are private.

    Args:
        run: a `Run`, a `RunDirectory` or a path.
        real: the table that the run was made from (see `data.read_records`), without canaries.
        held_out: a table of like texts that were not in it; needed for membership.
        embedder: needed with `held_out`.
        load_model: yields the run's language model, and is asked only where there is something to replay.
        progress: hears the share of the work done.

    Raises:
        ConfigError, DataError: there is no such run, no release or no such table, or it is not the run's.
    """
    directory = directory_of(run)
    decided = plan(directory.config)
    config, tell = decided.config, progress or (lambda _: None)

    records, noted = read_table(real, config), directory.read_private(CANARIES)
    planted, canaries = records, list[Canary]()
    if noted is not None:
        planted, canaries = plant_again(records, config.label_set, noted)
    known = directory.get("data")
    if known is not None and decided.mechanism.needs_private and known != fingerprint(planted):
        raise DataError("real: is not the table that the run was made from; membership and copies would mean nothing")
    texts = [row["text"] for row in directory.released() if row["text"].strip()]
    private = [record.text for record in records if record.text.strip()]
    others = [] if held_out is None else [record.text for record in read_table(held_out, config) if record.text.strip()]
    tell(0.1)
    groups = {"copied": copied(texts, private, others)}
    tell(0.3)
    if others and embedder is not None:
        size = min(len(private), len(others), MEMBERS)
        generator = np.random.default_rng(0)
        members, non_members = (
            [own[row] for row in generator.permutation(len(own))[:size]] for own in (private, others)
        )
        groups["membership"] = attacks(texts, members, non_members, embedder)
    tell(0.6)
    if canaries:
        groups["canaries"] = exposure(canaries, texts)
    replayable = decided.guarantee.kind == "ex-ante" and decided.mechanism.needs_private
    if load_model is not None and replayable and config.parts.public_threshold == 0 and config.records_per_context == 1:
        found = replay_of(directory, decided, planted, load_model())
        names = ("epsilon_low", "epsilon_claimed", "epsilon_limit")
        groups["replay"] = {name: Figure(value) for name in names if (value := getattr(found, name)) is not None}
    tell(1.0)
    return Audit(groups)


def plant_again(
    records: Sequence[Record], labels: Sequence[str | None], noted: Mapping[str, Any]
) -> tuple[list[Record], list[Canary]]:
    """The canaries of a run: the same ones from the seed, count and repetitions that it noted."""
    generator = np.random.default_rng(noted["seed"])
    return plant(records, noted["count"], labels, generator, repetitions=noted["repetitions"])


def replay_of(
    directory: RunDirectory, decided: Plan, table: Sequence[Record], model: LanguageModel, *, runs: int = RUNS
) -> Replay:
    """A replay of the largest batch of a run, without the record that moves it most, along that record's own text."""
    config, prompts = decided.config, Prompts(decided.config, model)
    members = directory.members()
    number = max(members, key=lambda batch: len(members[batch]))
    cell = next(batch.cell for batch in directory.batches() if batch.batch == number)
    label = config.label_set[directory.cells()[cell].label]
    texts = [[table[record].text for record in records] for records, _ in members[number]]
    records = [prompts.records(own, label) for own in texts]
    work = BatchWork(number, tuple(prompts.prefix(label)), tuple(prompts.start(label)), records, (0,))
    mechanism, length = decided.mechanism, min(STEPS, config.max_tokens)

    def along(unit: int) -> Steps:
        forced = [token for text in texts[unit] for token in model.encode(text, trusted=False)]
        return record_steps(model, mechanism, work, forced[: length - 1])

    def moved(steps: Steps, unit: int) -> float:
        rows = (
            logits[unit] - public[ids]
            for logits, public, ids in zip(steps.private, steps.public, steps.ids, strict=True)
        )
        return float(sum(np.ptp(row) for row in rows))

    first = along(0)
    most = max(range(len(records)), key=lambda unit: moved(first, unit))
    return replay(mechanism, along(most), most, runs=runs, randomness=SystemRandomness)
