"""The audits of a release: each finds what was put there, and nothing where nothing is."""

import dataclasses
import math
import time

import numpy as np
import pytest
from doubles.embedders import Counts
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve
from strategies import settings

from plainchant.auditing import attacks as audit
from plainchant.auditing.attacks import (
    LONG_RUN,
    attacks,
    copied,
    likelihood_scores,
    membership,
    similarity_scores,
)
from plainchant.auditing.canaries import Canary, exposure, plant
from plainchant.auditing.replay import distributions_of, record_steps
from plainchant.auditing.runs import Audit
from plainchant.auditing.statistics import CharacterModel
from plainchant.data.tables import Record
from plainchant.errors import ConfigError, DataError, PrivacyError
from plainchant.evaluation.figures import Figure
from plainchant.generation import decoding
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.models.table import TableModel
from plainchant.privacy.aggregation import Clipping, Support
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism, MedianMechanism, draw
from plainchant.privacy.sparse_vector import SparseMeanMechanism
from plainchant.randomness import SeededRandomness

WORDS = [f"w{i}" for i in range(400)]


def texts(count, seed, length=50):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, length)) for _ in range(count)]


def longest_by_hand(text, references):
    """Every run of words looked up as a string, in words that have no punctuation."""
    words, padded = text.split(), [f" {reference} " for reference in references]
    runs = [
        j - i
        for i in range(len(words))
        for j in range(i + 1, len(words) + 1)
        if any(f" {' '.join(words[i:j])} " in reference for reference in padded)
    ]
    return max(runs, default=0)


# copied text


def test_runs_are_those_found_by_hand():
    generator = np.random.default_rng(3)
    few = [[" ".join(generator.choice(list("abcd"), generator.integers(0, 14))) for _ in range(30)] for _ in range(2)]
    longest, short = audit._shared_runs(*few)
    assert longest.tolist() == [longest_by_hand(text, few[1]) for text in few[0]]
    grams = [[" ".join(w[i : i + 5]) for i in range(len(w) - 4)] for w in map(str.split, few[0])]
    assert short.tolist() == [[sum(any(g in r for r in few[1]) for g in own), len(own)] for own in grams]


def test_words_are_compared_without_case_and_punctuation_and_never_across_texts():
    private = ["»One« two, three... Don't (four).", "five six"]
    longest, _ = audit._shared_runs(["one TWO three don't four five six", "four five", "", "!"], private)
    assert longest.tolist() == [5, 1, 0, 0]


def test_copied_text_is_found_and_its_share_has_an_exact_interval():
    private, synthetic = texts(200, 1), texts(100, 2)
    for i in range(10):
        # a run of eight words and one of seven
        synthetic[i] = " ".join([*synthetic[i].split()[:20], *private[i].split()[3 : 3 + LONG_RUN], "end"])
        synthetic[50 + i] = " ".join([*synthetic[i].split()[:20], *private[i].split()[9 : 9 + LONG_RUN - 1], "end"])
    figures = copied(synthetic, private, texts(50, 3))
    interval = binomtest(10, 100).proportion_ci(0.95, method="exact")
    assert figures["copied"] == Figure(0.1, interval.low, interval.high)
    assert figures["private_long_runs"].value == 0.1
    assert figures["private_longest_run"] == Figure(8.0)
    assert figures["held_out_long_runs"].value == 0
    assert figures["held_out_mean_run"].value == pytest.approx(figures["private_sample_mean_run"].value, abs=0.5)
    assert figures["private_five_grams"].low < figures["private_five_grams"].value < figures["private_five_grams"].high
    assert copied(synthetic, private, texts(50, 3)) == figures


def test_a_phrase_that_held_out_text_has_too_is_not_copied():
    phrase = "subject to the terms and conditions of this very agreement"
    private, held_out = [f"{text} {phrase}" for text in texts(20, 1)], [f"{phrase} {text}" for text in texts(20, 2)]
    synthetic = [f"so {phrase} it is", f"{private[0]}"]
    assert copied(synthetic, private)["copied"].value == 1.0
    assert copied(synthetic, private, held_out)["copied"].value == 0.5
    # nothing is missed because of the smaller sample that the comparison uses
    assert copied(synthetic, texts(500, 4) + private, held_out[:1])["copied"].value == 0.5


def test_ten_thousand_records_take_seconds():
    private, synthetic = texts(10_000, 1), texts(1_000, 2)
    synthetic[:50] = private[:50]
    began = time.perf_counter()
    assert copied(synthetic, private, texts(10_000, 3))["copied"].value == 0.05
    assert time.perf_counter() - began < 30


@pytest.mark.parametrize("empty", [((), ["a"]), (["a"], ())])
def test_an_empty_side_is_refused(empty):
    with pytest.raises(DataError, match="is empty"):
        copied(*empty)


# the character model


def test_the_character_model_is_a_distribution_and_knows_what_it_saw():
    model = CharacterModel(["abracadabra", "Bär"])
    alphabet = [*"abrcdä", "?"]
    for context in ("", "a", "abra", "xyzab", "日本"):
        base = model.score([context])[0]
        # "?" stands for all unknown characters, and the code before a text is never one
        total = sum(math.exp(model.score([context + x])[0] - base) for x in alphabet)
        unseen = math.exp(model.score([context + "?"])[0] - base)
        assert total <= 1 < total + 1.1 * unseen
    assert model.score(["ABRA"])[0] == model.score(["abra"])[0] > model.score(["arab"])[0]
    assert model.score([]).shape == (0,)
    assert model.score(["", "a"])[0] == 0


def test_the_character_model_by_hand():
    # after "a" always "b": counts 2 of 2 at every order that has seen it, with weight 1 for the shorter one
    model = CharacterModel(["ab", "ab"])
    p = 1 / 4
    p = (2 + p) / (4 + 1)
    for _ in range(4):
        p = (2 + p) / (2 + 1)
    assert math.exp(model.score(["ab"])[0] - model.score(["a"])[0]) == pytest.approx(p)


def test_a_text_without_characters_trains_nothing():
    with pytest.raises(DataError, match="is empty"):
        CharacterModel(["", ""])


# canaries


def test_canaries_are_planted_at_random_and_shown_nowhere():
    records = [Record(text, "a", "u") for text in texts(30, 1)]
    planted, canaries = plant(records, 5, ("a", "b"), np.random.default_rng(8), repetitions=3)
    assert len(planted) == 45
    assert [record for record in planted if record.unit == "u"] == records
    for canary in canaries:
        assert planted.count(Record(canary.text, canary.label, None)) == 3
        assert canary.name in canary.text
        assert len(canary.number) == 8
        assert canary.number not in repr(canary)
        assert canary.name not in repr(canary)
    assert len({canary.number for canary in canaries}) == 5
    assert {canary.label for canary in canaries} == {"a", "b"}
    assert planted[-15:] != [record for record in planted if record.unit is None]


@pytest.mark.parametrize("wrong", [{"count": 0}, {"repetitions": 0}])
def test_a_plan_without_canaries_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        plant([], **({"count": 1, "labels": (None,), "generator": np.random.default_rng(0)} | wrong))


def test_digits_are_found_through_separators_and_only_in_one_text():
    canaries = [Canary("Aba Bab", "12345678"), Canary("Cac Dad", "87654321"), Canary("Efe Fef", "11223344")]
    synthetic = ["call 12-34 (56)\n78 now", "8765", "4321", "it was efe\n FEF", "11 and then 223344"]
    figures = exposure(canaries, synthetic, candidates=10)
    assert figures["extracted_numbers"].value == figures["extracted_names"].value == pytest.approx(1 / 3)


def test_exposure_is_that_of_chance_where_canaries_had_no_influence():
    _, canaries = plant([], 400, (None,), np.random.default_rng(0))
    figures = exposure(canaries, texts(300, 5))
    by_chance = figures["exposure_by_chance"].value
    assert by_chance == pytest.approx(math.log2(math.e), abs=0.01)
    # the standard deviation of a mean of 400 is 0.07: false alarm 1e-8
    assert abs(figures["exposure"].value - by_chance) < 0.42
    assert figures["extracted_numbers"].value == figures["extracted_names"].value == 0
    assert 0 < figures["extracted_numbers"].high < 0.01


def test_exposure_is_exactly_chance_where_all_are_equal():
    _, canaries = plant([], 400, (None,), np.random.default_rng(0))
    figures = exposure([dataclasses.replace(canary, name="", number="") for canary in canaries], ["?"], candidates=1)
    assert figures["exposure"].value in (0.0, 1.0)
    assert figures["exposure_by_chance"].value == pytest.approx(0.5)


def test_power_an_echo_of_a_canary_raises_its_exposure():
    _, canaries = plant([], 20, (None,), np.random.default_rng(0))
    # no secret comes out whole: half of the name, half of the number
    echo = [f"{canary.name[:9]} called about {canary.number[:5]}." for canary in canaries]
    figures = exposure(canaries, texts(300, 5) + echo)
    assert figures["extracted_numbers"].value == figures["extracted_names"].value == 0
    assert figures["exposure"].low > 6
    whole = exposure(canaries, [canary.text for canary in canaries])
    assert whole["extracted_numbers"].value == whole["extracted_names"].value == 1
    assert whole["exposure"].value == pytest.approx(math.log2(1001))


# membership


def test_figures_are_those_of_sklearn():
    generator = np.random.default_rng(1)
    members, others = np.round(generator.normal(0.7, 1, 500), 1), np.round(generator.normal(0, 1, 700), 1)
    figures = membership(members, others)
    truth, scores = np.repeat([1, 0], [500, 700]), np.concatenate([members, others])
    assert figures["auc"].value == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert figures["tpr"].value == pytest.approx(true[false <= 0.01].max())
    for figure in figures.values():
        assert figure.low < figure.value < figure.high


def test_few_scores_are_enough_and_none_are_refused():
    assert membership(np.ones(2), np.zeros(2))["tpr"].value == 1.0
    assert membership(np.zeros(2), np.zeros(2))["tpr"].value == 0.0
    with pytest.raises(DataError, match="non_members"):
        membership(np.ones(2), np.zeros(0))


def test_both_attacks_find_members_and_nothing_where_there_is_nothing():
    members, others = texts(150, 1), texts(150, 2)
    leaky = [
        " ".join(text.split()[:25] + other.split()[:25]) for text, other in zip(members, texts(150, 3), strict=True)
    ]
    figures = attacks(leaky, members, others, Counts(WORDS))
    assert figures["similarity_auc"].low > 0.7
    assert figures["likelihood_auc"].low > 0.7
    assert figures["similarity_tpr"].value > 0.3
    assert figures["likelihood_tpr"].value > 0.05
    # the standard deviation of the area is 0.033: false alarm of each 1e-6
    figures = attacks(texts(150, 4), members, others, Counts(WORDS))
    assert abs(figures["similarity_auc"].value - 0.5) < 0.165
    assert abs(figures["likelihood_auc"].value - 0.5) < 0.165


def test_scores_by_hand():
    axes = np.eye(3, dtype=np.float32)
    assert similarity_scores(axes[:2], axes).tolist() == [1.0, 1.0, 0.0]
    assert likelihood_scores(["abab"], ["ab", "", "ba"])[1] == 0.0


# replay: the glue to the decoder


@pytest.mark.parametrize("individual", [False, True], ids=["mean", "individual"])
def test_laws_are_those_of_the_decoder(monkeypatch, individual):
    def table(row):
        # a legal model that ignores what was sampled: a record's first token and the length decide
        return np.random.default_rng([len(row), row[1]]).normal(0, 3, 7)

    model = TableModel(["", "", *"abcde"], table, end_of_text={0, 1}, context_length=64)
    model.end_of_text = frozenset({0})
    changes = {"support": Support.TOP_K, "k": 4, "clipping": Clipping.DIFFERENCE, "clip": 2.0, "batch_size": 4}
    mechanism = MeanMechanism(settings(**changes))
    if individual:
        mechanism = IndividualMeanMechanism(mechanism.settings, 0.05, 6)
    work = BatchWork(0, (2,), (3, 4), [(5,), (6, 2), (2,), (4,)], (0,))
    seen = []

    def noted(mechanism, distribution, randomness):
        seen.append(distribution)
        return dataclasses.replace(draw(mechanism, distribution, randomness), token=3)

    monkeypatch.setattr(decoding, "draw", noted)
    decoder = Decoder(model, mechanism, StopRule(None, 6, 0), rows=4, randomness=SeededRandomness(1))
    list(decoder.run([work]))
    steps = record_steps(model, mechanism, work, [3] * 5)
    distributions = distributions_of(mechanism, steps)
    assert len(distributions) == len(seen) == 6
    for ours, theirs in zip(distributions, seen, strict=True):
        assert ours.support.tolist() == theirs.support.tolist()
        assert 1 not in ours.support
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-12)
        assert ours.charges is None or ours.charges == pytest.approx(theirs.charges)
    fewer = dataclasses.replace(work, records=[record for i, record in enumerate(work.records) if i != 1])
    smaller = distributions_of(mechanism, record_steps(model, mechanism, fewer, [3] * 5))
    for ours, theirs in zip(distributions_of(mechanism, steps, without=1), smaller, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-12)
    assert "array" not in repr(steps)


def test_the_median_claims_nothing_a_budget_is_for_its_own_steps_and_a_gate_is_not_replayed():
    assert MedianMechanism(settings()).claim(5, 1e-6) is None
    individual = IndividualMeanMechanism(settings(), 0.1, 5)
    assert individual.claim(5, 1e-6) == individual.claim(2, 1e-6) > 0
    with pytest.raises(PrivacyError, match="steps = 6"):
        individual.claim(6, 1e-6)
    with pytest.raises(PrivacyError, match="sparse vector"):
        SparseMeanMechanism(settings(), 0.5, 0.1, 3, 6).claim(5, 1e-6)


def test_the_verdict_says_what_was_found_and_what_was_not_tried():
    chance = {"similarity_auc": Figure(0.49, 0.46, 0.51), "likelihood_auc": Figure(0.5, 0.48, 0.53)} | {
        f"{attack}_tpr": Figure(0.012, 0.007, 0.02) for attack in ("similarity", "likelihood")
    }
    groups = {"copied": {"copied": Figure(0.0, 0.0, 0.1)}, "membership": chance}
    assert Audit(groups).verdict == "copies: none found; membership: no better than chance (0.46 to 0.53)"
    told = {**chance, "likelihood_auc": Figure(0.55, 0.52, 0.58)}
    found = {**chance, "similarity_tpr": Figure(0.05, 0.03, 0.07)}
    assert "better than chance (0.520 to 0.580, where" in Audit({"membership": told}).verdict
    assert "membership: better than chance (0.030 to 0.070 of the records" in Audit({"membership": found}).verdict
    canaries = {"extracted_numbers": Figure(0.0), "extracted_names": Figure(0.1)}
    replay = {"epsilon_low": Figure(2.0), "epsilon_claimed": Figure(1.0)}
    said = Audit({"copied": {"copied": Figure(0.02)}, "canaries": canaries, "replay": replay}).verdict
    assert said == (
        "copies: 2.00% of the texts; membership: not tried, without held-out texts; canaries: leaked; "
        "replay: ε of at least 2, 1 claimed, so the claim is refuted"
    )
