"""A plan never promises more than its budget, and says what is feasible where the wish is not (guarantee 6.2)."""

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
import tomli_w
from scipy.stats import binom

from plainchant import planning
from plainchant.config import SynthesisConfig, parse_config
from plainchant.errors import ConfigError, PrivacyError
from plainchant.planning import ENOUGH_FOR_WORDS, LARGEST_AFFORDED, make_plan, not_private
from plainchant.privacy.accounting import Cost, delta_of, epsilon_of, rho_of
from plainchant.privacy.histograms import batches_of, most_contexts, noise_sigma

EX_ANTE = ["amin2024", "clustered-mean", "invisibleink"]


def planned(method="clustered-mean", **changes):
    return make_plan(SynthesisConfig(method=method, **changes))


@pytest.mark.parametrize("method", EX_ANTE)
@pytest.mark.parametrize("changes", [{}, {"epsilon": 1.0}, {"expected_units": 50_000, "texts": 40}, {"max_tokens": 7}])
def test_worst_case_plans_spend_no_more_than_their_budget(method, changes):
    made = planned(method, **changes)
    config, total = made.config, rho_of(made.config.epsilon, made.config.delta)
    spent = made.guarantee.rho
    if method != "amin2024":
        assert spent == made.rho_rebalance + made.tokens_per_batch * made.mechanism.cost_of(1).rho
    assert spent <= total * (1 + 1e-12)
    assert spent > 0.8 * total * (config.max_tokens > 7)
    assert made.rho_rebalance == pytest.approx(0.05 * total)
    assert made.guarantee.kind == "ex-ante"
    assert made.guarantee.epsilon <= config.epsilon
    assert made.guarantee.epsilon == pytest.approx(epsilon_of(made.guarantee.rho, config.delta), rel=1e-5)
    assert made.texts_per_batch == made.tokens_per_batch // config.max_tokens >= 1
    assert made.units_needed == made.batches_needed * made.settings.batch_size


def test_only_clustered_methods_pay_for_a_selection():
    assert planned("amin2024").rho_select == planned("invisibleink").rho_select == 0
    assert planned("clustered-mean").rho_select == planned("clustered-mean").rho_size > 0


def test_one_batch_size_less_would_not_pay():
    made = planned("clustered-mean")
    with pytest.raises(PrivacyError) as caught:
        planned("clustered-mean", batch_size=made.settings.batch_size - 1)
    # the message says what is feasible, and it is
    smallest = int(re.search(r"pays for one is (\d+)", str(caught.value)).group(1))
    assert smallest == made.settings.batch_size
    tokens = int(re.search(r"max_tokens to (\d+)", str(caught.value)).group(1))
    assert planned("clustered-mean", batch_size=smallest - 1, max_tokens=tokens).texts_per_batch == 1


def test_a_sparse_vector_pays_for_its_private_tokens_and_one_comparison_more():
    made = planned("amin2024", max_tokens=40)
    mechanism, texts = made.mechanism, made.texts_per_batch
    assert mechanism.private_tokens == 20
    assert (
        mechanism.rho_per_text == 20 * (mechanism.worst_case + mechanism.rho_per_instance) + mechanism.rho_per_instance
    )
    assert made.guarantee.rho == made.rho_rebalance + texts * mechanism.rho_per_text
    assert texts * mechanism.rho_per_text <= made.rho_batch < (texts + 1) * mechanism.rho_per_text
    with pytest.raises(PrivacyError, match=f"pays for one is {made.settings.batch_size}.*fewer private_tokens"):
        planned("amin2024", max_tokens=40, batch_size=made.settings.batch_size - 1)
    fewer = planned("amin2024", max_tokens=40, private_tokens=5, batch_size=made.settings.batch_size)
    assert fewer.texts_per_batch > texts
    assert fewer.mechanism.private_tokens == 5
    without = planned("amin2024", max_tokens=40, sparse_threshold=0)
    assert without.settings == planned("clustered-mean", max_tokens=40).settings
    assert without.config.parts.sparse_threshold == 0


@pytest.mark.parametrize("changes", [{}, {"batch_size": 300}, {"method": "invisibleink", "clip": 0.3}])
def test_infeasible_says_the_largest_feasible_number_of_texts(changes):
    changes = {"expected_units": 2_000, **changes}
    with pytest.raises(PrivacyError) as caught:
        planned(texts=100_000, **changes)
    possible = int(re.search(r"at most (\d+) texts", str(caught.value)).group(1))
    assert possible >= 1
    assert planned(texts=possible, **changes).batches_needed * possible > 0
    with pytest.raises(PrivacyError):
        planned(texts=possible + 1, **changes)


@pytest.mark.parametrize("texts", [1, 10, 1000])
@pytest.mark.parametrize("size", [4, 16, 100])
def test_derived_clip_pays_for_just_the_texts_requested(texts, size):
    made = planned("invisibleink", texts=texts, batch_size=size, expected_units=1600)
    requested = -(-texts // (1600 // size))
    assert made.texts_per_batch == requested
    assert requested * made.config.max_tokens * made.mechanism.cost_of(1).rho <= made.rho_batch
    assert made.guarantee.epsilon <= 8


def test_kinds_of_guarantees():
    median = planned("clustered-median")
    assert median.guarantee.kind == "ex-post"
    assert median.guarantee.epsilon is None
    assert median.guarantee.rho is None
    assert median.rho_batch is median.tokens_per_batch is None
    assert not median.mechanism.cost_of(1).is_limited
    assert not median.batch.is_limited
    public = planned("public")
    assert (public.guarantee.kind, public.guarantee.epsilon, public.rho_rebalance) == ("ex-ante", 0.0, 0.0)
    assert not public.mechanism.needs_private
    free = planned("non-private")
    assert free.guarantee.kind == "none"
    assert free.guarantee.epsilon is free.guarantee.rho is None
    assert not_private(median.config, "of a test").statement == (
        "NOT PRIVATE: there is no guarantee, because of a test; do not release."
    )


def test_unit_is_named():
    assert "one record" in planned().guarantee.statement
    assert "'patient'" in planned(unit_column="patient").guarantee.statement


def test_clip_and_batch_size_cannot_both_be_derived():
    with pytest.raises(PrivacyError, match="one of them"):
        planned("invisibleink", batch_size="auto")
    with pytest.raises(PrivacyError, match="clip = auto"):
        planned("invisibleink", numerical_slack=1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon": 30}, "epsilon = 30"),
        ({"expected_units": 10_000_000}, "delta = 1e-06"),
        ({"method": "invisibleink", "epsilon": 0.6}, "clip = "),
        ({"expected_units": 5_000, "texts": 10, "centres": 1000}, "centres = 1000"),
        ({"method": "plainchant", "expected_units": 300, "texts": 12, "epsilon": 0.01}, "votes of about 300 units"),
        (
            {"method": "plainchant", "expected_units": 300, "texts": 20, "epsilon": 0.05},
            "votes of about 300 units on",
        ),
        ({"method": "private-evolution", "expected_units": 300, "epsilon": 0.02}, "votes of about 300 units"),
    ],
)
def test_notes_warn(changes, words):
    assert any(note.startswith(words) for note in planned(**changes).notes)
    assert planned(expected_units=900_000, centres=20).notes == []


@pytest.mark.parametrize("units", [None, 100, 500, 1_000, 5_000, 20_000, 100_000])
@pytest.mark.parametrize("labels", [1, 2, 5, 30])
def test_who_changes_nothing_is_not_warned(units, labels):
    names = [f"label {number}" for number in range(labels)]
    made = planned("plainchant", expected_units=units, texts=2, max_tokens=16, labels=names, label_column="label")
    assert made.notes == []
    # a cell of average size fills a batch, as far as the number is the plan's to choose
    if units is not None and made.centres > 1:
        assert units / (labels * made.centres) >= min(made.settings.units_per_batch, units / (labels * 1_000))
    assert made.centres == (100 if units is None else made.centres) <= 1_000


@pytest.mark.parametrize("labels", [1, 4, 151])
@pytest.mark.parametrize("units", [300, 3_000, 15_000])
@pytest.mark.parametrize("texts", [2, 200, 1_000])
def test_records_write_a_text_of_each_label_or_only_vote(labels, units, texts):
    changes = {
        "epsilon": 1.0, "expected_units": units, "texts": texts, "max_tokens": 24, "label_column": "label",
        "labels": [f"label {number}" for number in range(labels)],
    }  # fmt: skip
    made = planned("plainchant", **changes)
    votes = planned("private-evolution", **changes)
    if made.config.written:
        assert made.settings.batch_size <= LARGEST_AFFORDED
        assert made.config.written >= min(labels, -(-texts // 2))
    else:
        # the very plan of the method that does nothing else
        assert made.rho_vote == votes.rho_vote
        assert made.rho_words == votes.rho_words
        assert dataclasses.replace(made.guarantee, method="private-evolution") == votes.guarantee
        assert make_plan(made.config) == made
    # with one label and many records there is always something to write, with many and few there never is
    assert (made.config.written > 0) == {(1, 15_000): True, (151, 300): False}.get(
        (labels, units), made.config.written > 0
    )


def test_a_sample_is_enlarged_before_records_only_vote():
    changes = {"expected_units": 400_000, "texts": 10_000, "epsilon": 1.0, "max_tokens": 24, "label_column": "label"}
    few, many = (
        planned("plainchant", labels=[f"label {number}" for number in range(labels)], **changes)
        for labels in (1_000, 2_000)
    )
    assert (few.sample_rate, many.sample_rate) == (0.25, 1.0)
    assert min(few.config.written, many.config.written) >= 1_000


def test_centres_are_as_asked_for_or_none():
    assert planned("plainchant", centres=7).centres == 7
    assert planned("plainchant", centres="saved.npz").centres is None
    assert planned("public").centres is planned("private-evolution").centres is None


@pytest.mark.parametrize("deals", [False, True])
def test_a_larger_batch_is_advised_only_where_it_was_not_looked_for(deals):
    for batch_size, advised in (("auto", False), (30, True)):
        with pytest.raises(PrivacyError) as caught:
            planned(
                "plainchant", expected_units=100, texts=1_000, batch_size=batch_size, deals=deals, private_texts=500
            )
        assert ("batch_size = auto" in str(caught.value)) == advised


def test_what_is_one_is_named_in_the_singular():
    for own, named in (
        ({}, "in 1 cell of 1 batch of 40"),
        ({"labels": ("red", "blue"), "label_column": "label"}, "in 2 cells of 1 batch of 20"),
    ):
        with pytest.raises(PrivacyError, match=f"{named} pay for"):
            planned("plainchant", expected_units=40, texts=10, private_texts=9, **own)


def delta_at(cost, epsilon):
    """δ of a cost at an ε: of zCDP over all orders, of a curve at its one order ([CKS20])."""
    if cost.is_zcdp:
        return delta_of(cost.rho, epsilon)
    ((order, _),) = cost.curve
    return math.exp((order - 1) * (cost.at(order) - epsilon)) / (order - 1) * (1 - 1 / order) ** order


@pytest.mark.parametrize("epsilon", [0.1, 0.3333333333333, 1.0, 2.7182818284, 8.0, 12.345678901234])
@pytest.mark.parametrize("method", ["plainchant", "clustered-mean", "amin2024", "private-evolution"])
def test_a_figure_that_a_person_reads_is_still_a_bound(method, epsilon):
    try:
        made = planned(method, epsilon=epsilon, max_tokens=16, texts=2)
    except PrivacyError:
        return
    read = float(made.guarantee.statement.partition("ε = ")[2].partition(",")[0])
    for bound in (made.guarantee.epsilon, read):
        assert delta_at(made.guarantee.cost, bound) <= made.guarantee.delta
        assert delta_at(made.guarantee.cost, bound * (1 - 1e-5)) > made.guarantee.delta
    assert made.guarantee.epsilon <= epsilon
    assert len(f"{made.guarantee.epsilon}".replace(".", "").lstrip("0")) <= 6 or made.guarantee.epsilon == epsilon


def test_guidance_costs_its_square():
    once, twice = (planned("invisibleink", guidance=g, clip=0.3) for g in (1.0, 2.0))
    # beside the numerical slack, 1e-3 nats both ways, which guidance leaves alone
    moved = [math.sqrt(8 * made.mechanism.cost_of(1).rho) - 2e-3 for made in (once, twice)]
    assert moved[1] == pytest.approx(2 * moved[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0.1, "batch_size": 32, "method": "clustered-mean", "accounting": "ex-post"},
        {"epsilon": 0.2, "batch_size": 16, "method": "invisibleink"},
    ],
)
def test_batches_that_noise_may_fill_beyond_what_the_slack_covers_are_refused(changes):
    with pytest.raises(PrivacyError, match="contexts into a batch"):
        planned(**changes)
    assert planned(**changes | {"numerical_slack": 4e-3}).settings.slack == 4e-3
    # a median moves as its rows do, and a larger share for the counts makes their noise small
    assert planned("clustered-median", epsilon=0.1, batch_size=32).settings.batch_size == 32
    assert planned(**changes | {"rebalance_share": 0.9, "epsilon": 2.0}).settings.batch_size == changes["batch_size"]


# in the second case almost all of it is for noise that hides a cell's true count
@pytest.mark.parametrize(("batch_size", "rho", "reach", "largest"), [(6, 0.05, 120, 200), (2, 5e-4, 250, 240)])
def test_most_contexts_holds_for_every_true_count_and_grows_with_the_noise(batch_size, rho, reach, largest):
    probability = 1e-3
    most = most_contexts(batch_size, rho, probability)
    sigma = noise_sigma(rho)
    noise = np.arange(-reach, reach + 1)
    weights = np.exp(-(noise**2) / (2 * sigma**2))
    weights /= weights.sum()
    for count in range(0, largest):
        batches = np.array([batches_of(int(count + shift), batch_size) for shift in noise])
        passed = binom.sf(most, count, 1 / np.maximum(batches, 1)) * (batches > 0)
        assert (weights * passed).sum() <= probability
    assert most < most_contexts(batch_size, rho / 100, probability)
    assert most < most_contexts(batch_size, rho, probability / 100)


@pytest.mark.parametrize("changes", [{}, {"epsilon": 1.0}, {"expected_units": 7_600, "texts": 200}, {"guidance": 1.0}])
def test_individual_plans_spend_the_whole_budget_and_expect_enough_texts(changes):
    made = planned("plainchant", deals=False, **changes)
    config, total = made.config, rho_of(made.config.epsilon, made.config.delta)
    assert made.guarantee.kind == "ex-ante"
    assert made.guarantee.epsilon <= config.epsilon
    spent = made.rho_rebalance + made.rho_vote + made.rho_words + made.rho_batch
    assert spent == pytest.approx(made.guarantee.rho) == pytest.approx(total)
    # guarantee 6.2: what a record of the expected range pays for one batch's texts fits into its budget
    assert made.texts_per_batch * config.max_tokens * made.mechanism.per_token.rho <= made.rho_batch
    assert made.mechanism.budget == made.rho_batch
    assert made.mechanism.steps == made.texts_per_batch * config.max_tokens
    assert made.mechanism.cost_of(1) == made.batch


def test_words_get_a_tenth_of_the_budget_and_no_more_than_is_enough():
    for method in ("plainchant", "private-evolution"):
        strong, weak = planned(method), planned(method, epsilon=1.0)
        assert strong.rho_words == ENOUGH_FOR_WORDS == 0.02
        assert weak.rho_words == pytest.approx(0.1 * rho_of(1.0, weak.config.delta))
        asked = planned(method, word_share=0.5)
        assert asked.rho_words == pytest.approx(0.5 * rho_of(asked.config.epsilon, asked.config.delta))
        assert planned(method, word_share=0).rho_words == planned(method, word_share=0).as_dict()["rho_words"] == 0
    assert planned("clustered-mean", candidates=3).rho_words == 0
    with pytest.raises(PrivacyError, match=r"word_share = 0\.95: leave nothing for tokens"):
        planned("plainchant", word_share=0.95)


def test_votes_get_what_they_need_to_tell_candidates_apart():
    def shares(epsilon, units, texts, **changes):
        made = planned("plainchant", epsilon=epsilon, expected_units=units, texts=texts, **LABELLED | VOTED | changes)
        total = rho_of(epsilon, made.config.delta)
        return made.rho_vote / total, made.rho_words / total

    many, fewer, few = shares(8.0, 100_000, 200)[0], shares(3.0, 40_000, 600)[0], shares(8.0, 500, 200)[0]
    assert many == pytest.approx(0.05)
    assert 0.05 < fewer < 0.4
    assert few == pytest.approx(0.475)
    # twice the units need a quarter
    assert fewer == pytest.approx(4 * shares(3.0, 80_000, 600)[0])
    assert shares(8.0, None, 200)[0] == pytest.approx(0.05)
    assert shares(8.0, 500, 200, vote_share=0.2)[0] == pytest.approx(0.2)
    # what a few records count of their words would be noise: nothing is spent on it, unless it was asked for
    assert shares(8.0, 500, 200)[1] == 0 < shares(8.0, 20_000, 200)[1]
    assert shares(8.0, 500, 200, word_share=0.1)[1] == pytest.approx(0.1)


@pytest.mark.parametrize("method", ["plainchant", "private-evolution", "clustered-mean", "public", "clustered-median"])
def test_shares_of_the_budget_are_all_of_it(method):
    shares = planned(method, expected_units=5_000, texts=50).budget_shares
    assert sum(shares.values()) == pytest.approx(0 if method in ("public", "clustered-median") else 1)
    assert all(share > 0 for share in shares.values())
    assert ("texts by records" in shares) == (method in ("plainchant", "clustered-mean"))


def test_individual_plans_need_smaller_batches_than_the_worst_case():
    smaller, larger = planned("plainchant", deals=False), planned("plainchant", accounting="worst-case", deals=False)
    assert 2 * smaller.settings.batch_size < larger.settings.batch_size
    calm, wild = (
        planned("plainchant", expected_range=r, expected_units=7_600, texts=200, deals=False) for r in (2.0, 8.0)
    )
    assert calm.settings.batch_size < wild.settings.batch_size
    # the expectation decides how much is planned, never what is promised
    assert calm.guarantee.rho == wild.guarantee.rho
    with pytest.raises(PrivacyError, match="accounting = individual"):
        planned("plainchant", aggregate="median")
    with pytest.raises(PrivacyError, match="at most"):
        planned("plainchant", expected_units=100, texts=10_000, deals=False)


LABELLED = {"labels": ("a", "b", "c", "d"), "label_column": "label", "candidates": 1}
VOTED = {"candidates": 11, "rounds": 2}


@pytest.mark.parametrize(
    ("units", "epsilon", "texts", "largest"),
    [
        (5_000, 1.0, 100, 40),
        (5_000, 3.0, 500, 30),
        (5_000, 8.0, 2_000, 30),
        (20_000, 1.0, 500, 40),
        (100_000, 1.0, 2_000, 40),
    ],
)
def test_deals_promise_no_more_than_their_budget_and_what_is_planned_is_feasible(units, epsilon, texts, largest):
    made = planned("plainchant", epsilon=epsilon, texts=texts, expected_units=units, **LABELLED)
    guarantee, expected = made.guarantee, made.expected
    assert (guarantee.kind, guarantee.rho) == ("ex-ante", None)
    assert guarantee.cost == Cost(made.rho_counts) + made.deals.cost == Cost.from_dict(guarantee.__dict__)
    assert epsilon * (1 - 1e-9) <= guarantee.cost.epsilon(1e-6) <= guarantee.epsilon <= epsilon
    assert made.settings.batch_size <= largest
    # the cells hold the units, write the texts, and pay for them at the expected range
    assert expected.cells * expected.batches * made.settings.batch_size <= units
    assert expected.cells * expected.texts >= texts
    assert made.centres * 4 == expected.cells
    needed = made.config.max_tokens * made.mechanism.per_token.rho
    assert made.mechanism.budget >= needed == pytest.approx(made.deals.payment)
    assert made.mechanism.steps == made.config.max_tokens


@pytest.mark.parametrize("method", ["clustered-mean", "invisibleink", "amin2024", "plainchant"])
def test_every_method_known_in_advance_can_have_deals_and_needs_smaller_batches_or_a_tighter_clip(method):
    changes = {"expected_units": 20_000, "texts": 40}
    without, made = (planned(method, deals=deals, **changes) for deals in (False, True))
    assert without.deals is None
    assert made.guarantee.epsilon <= 8
    assert made.deals.payment == pytest.approx(made.mechanism.text_cost(64).rho)
    if method == "invisibleink":
        assert made.settings.clip > 1.5 * without.settings.clip
    else:
        assert made.settings.batch_size < without.settings.batch_size


@pytest.mark.parametrize("changes", [{}, {"batch_size": 40}, {"expected_range": 6.0}])
def test_infeasible_deals_name_texts_and_an_epsilon_that_are_feasible(changes):
    changes = {"epsilon": 1.0, "expected_units": 2_000, **LABELLED, **changes}
    with pytest.raises(PrivacyError, match="cells of") as caught:
        planned("plainchant", texts=900, **changes)
    texts = int(re.search(r"set texts to (\d+) or less", str(caught.value)).group(1))
    assert planned("plainchant", texts=texts, **changes).expected.texts * 4 >= texts
    with pytest.raises(PrivacyError):
        planned("plainchant", texts=round(1.1 * texts) + 8, **changes)
    epsilon = float(re.search(r"set epsilon to ([0-9.]+) or more", str(caught.value)).group(1)) * 1.005
    assert planned("plainchant", texts=900, **changes | {"epsilon": epsilon}).guarantee.epsilon <= epsilon


@pytest.mark.parametrize("changes", [{"deals": False}, {"batch_size": 100}])
def test_infeasible_names_the_field_that_was_set_and_a_value_that_is_feasible(changes):
    """By default records write half of the texts: the number to ask for is that of the other half too."""
    changes = {"epsilon": 3, "expected_units": 1000, **changes}
    with pytest.raises(PrivacyError, match=r"texts = 5000, 2500 of them from records: about 1000 units") as caught:
        planned("plainchant", texts=5000, **changes)
    texts = int(re.search(r"set texts to (\d+) or less", str(caught.value)).group(1))
    fewer = planned("plainchant", texts=texts, **changes)
    assert fewer.config.written == texts / 2
    with pytest.raises(PrivacyError):
        planned("plainchant", texts=2 * texts, **changes)
    with pytest.raises(PrivacyError, match=r"^private_texts = 900: .* set private_texts to \d+ or less"):
        planned("plainchant", texts=5000, private_texts=900, **changes)


@pytest.mark.parametrize("method", ["plainchant", "clustered-mean", "invisibleink"])
@pytest.mark.parametrize("deals", [False, True])
def test_a_text_is_paid_for_up_to_its_head(method, deals):
    wish = LABELLED | {"expected_units": 5_000, "texts": 100, "deals": deals}
    short = planned(method, max_tokens=16, **wish)
    long = planned(method, max_tokens=200, private_tokens=16, **wish)
    for name in ("mechanism", "deals", "expected", "guarantee", "tokens_per_batch", "texts_per_batch", "batch"):
        assert getattr(short, name) == getattr(long, name), name
    assert planned(method, max_tokens=200, private_tokens=200, **wish).mechanism != long.mechanism
    with pytest.raises(ConfigError, match="private_tokens = 17: is more than max_tokens = 16"):
        planned(method, max_tokens=16, private_tokens=17, **wish)


def test_records_write_fewer_of_the_texts_where_half_would_need_large_batches():
    wish = LABELLED | VOTED | {"expected_units": 500, "texts": 200, "max_tokens": 32}
    made = planned("plainchant", epsilon=3.0, **wish)
    assert 8 <= made.config.written < 100
    assert made.settings.batch_size <= 40
    # what was decided is part of the configuration that a run keeps, and of the number of public candidates
    assert made.config.private_texts == made.config.written == made.as_dict()["private_texts"]
    assert made.config.further == 11 * 200 - made.config.written
    assert planned("plainchant", epsilon=3.0, private_texts=made.config.written, **wish).as_dict() == made.as_dict()
    # twice as many would need larger ones, and enough budget leaves the half as it was
    twice = planned("plainchant", epsilon=3.0, private_texts=2 * made.config.written, **wish)
    assert twice.settings.batch_size > 40
    assert planned("plainchant", epsilon=30.0, **wish).config.private_texts is None
    # where so few cannot be paid for either, records only vote
    assert planned("plainchant", epsilon=0.3, **wish).config.private_texts == 0
    assert planned("plainchant", epsilon=1.0, **wish).config.written < 8
    with pytest.raises(PrivacyError, match=r"private_texts = 100: .* method = private-evolution"):
        planned("plainchant", epsilon=0.3, private_texts=100, **wish)


def test_deals_are_refused_where_no_cost_is_known_in_advance_and_left_out_unless_asked_for():
    assert planned("clustered-median").deals is None
    assert planned("plainchant", accounting="ex-post").deals is None
    for method in ("clustered-median", "public", "non-private", "private-evolution"):
        with pytest.raises(PrivacyError, match="deals = true"):
            planned(method, deals=True)


def test_cells_of_a_run_with_deals_hold_many_batches():
    made = planned("plainchant", expected_units=50_000)
    sigma = noise_sigma(made.rho_select)
    assert made.least_cell == math.ceil(8 * made.settings.batch_size + 2 * sigma)
    assert planned("plainchant", deals=False).least_cell is None
    assert planned("plainchant", min_cell=7).least_cell == 7
    assert planned("plainchant", expected_units=50_000, centres=12).centres == 12
    assert planned("plainchant").centres == planned("clustered-mean").centres == 100
    assert 1 < made.centres == 50_000 // (32 * made.settings.batch_size) < 200


def test_a_plan_says_where_no_example_shows_its_columns():
    columns = {"attributes": {"open": {"type": "boolean"}}}
    for examples, is_said in (
        ([{"text": "t"}], True),
        ([{"text": "t", "attributes": {"open": True}}], False),
        ([], False),
    ):
        notes = planned(columns=columns, prompt={"examples": examples}).notes
        assert any(note.startswith("prompt.examples: none has attributes") for note in notes) is is_said


def form_notes(*examples, **changes):
    prompt = {"examples": [{"text": text} for text in examples], **changes.pop("prompt", {})}
    return planned(prompt=prompt, **changes).notes


def test_notes_say_where_the_form_of_public_examples_is_lost():
    assert form_notes("one", "two\nlines") == []
    (note,) = form_notes("one", "two\nlines", prompt={"example": "Text: {text}\n"})
    assert note.startswith("prompt.example: ends a text at a line break, which 1 of 2 examples contain")
    (note,) = form_notes("one", "a\nText: b", "c\nText: d")
    assert note.startswith("prompt.examples: 2 of 3 contain '\\nText:'")
    (note,) = form_notes("a ## b", prompt={"example": "Text: {text}##"})
    assert note.startswith("prompt.examples: 1 of 1 contain '##'")


def test_notes_say_where_texts_as_long_as_public_examples_have_no_room():
    assert form_notes("x" * 256, max_tokens=64) == []
    (note,) = form_notes("short", "x" * 260, max_tokens=64)
    assert note.startswith("max_tokens = 64: the longest public example has 260 characters, about 65 tokens")
    (note,) = form_notes("x" * 260, max_tokens=65, max_record_tokens=64)
    assert note.startswith("max_record_tokens = 64: ")


LARGE: dict[str, Any] = {"labels": ("a", "b", "c", "d"), "label_column": "label", "epsilon": 1.0, "texts": 2000}


@pytest.mark.parametrize(
    ("units", "rate", "looked_at"),
    [(None, 1.0, None), (199_999, 1.0, 199_999), (200_000, 0.5, 100_000), (5_000_000, 0.02, 100_000)],
)
def test_a_sample_is_proposed_for_large_tables_alone(units, rate, looked_at):
    made = make_plan(SynthesisConfig(**LARGE, expected_units=units))
    assert (made.sample_rate, made.units) == (rate, looked_at)
    assert made.as_dict()["sample_rate"] == rate


def test_a_sample_that_does_not_pay_for_the_texts_is_doubled():
    many = LARGE | {"method": "amin2024", "texts": 5_000}
    made = make_plan(SynthesisConfig(**many, expected_units=5_000_000))
    doublings = math.log2(made.sample_rate / 0.02)
    assert doublings >= 1
    assert doublings == pytest.approx(round(doublings))
    with pytest.raises(PrivacyError, match=r"units of a sample.*a larger sample_rate"):
        make_plan(SynthesisConfig(**many, expected_units=5_000_000, sample_rate=made.sample_rate / 2))


def test_a_sample_makes_batches_smaller_and_keeps_the_promise():
    plans = [make_plan(SynthesisConfig(**LARGE, expected_units=5_000_000, sample_rate=q)) for q in (1, 0.2, 0.02)]
    sizes = [made.settings.batch_size for made in plans]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < sizes[0] / 2
    for made in plans:
        assert 0.99 < made.guarantee.epsilon <= 1.0
        assert made.guarantee.cost.epsilon(made.guarantee.delta) <= made.guarantee.epsilon * (1 + 1e-9)


def test_a_table_without_texts_is_counted_whole():
    columns: Any = {"attributes": {"kind": {"type": "category"}}}
    own = SynthesisConfig(method="attributes", columns=columns, expected_units=5_000_000)
    assert make_plan(own).sample_rate == 1
    # what finding values takes of δ is no larger on a sample
    sampled = make_plan(own.model_copy(update={"sample_rate": 0.1}))
    assert sampled.guarantee.delta_found == make_plan(own).guarantee.delta_found
    assert sampled.guarantee.cost.epsilon(own.delta) <= own.epsilon * (1 + 1e-9)


@pytest.mark.parametrize("units", [3_000, 250_000])
def test_a_run_makes_its_plan_again_from_the_configuration_that_it_keeps(units):
    """Also where records only vote because texts of each label would be too expensive, and a sample would do."""
    made = make_plan(
        SynthesisConfig(
            epsilon=0.3, max_tokens=30, texts=40, expected_units=units, labels=tuple("abcdefgh"), label_column="label",
            columns={"attributes": {"kind": {"type": "category"}}},
        )
    )  # fmt: skip
    assert made.config.only_votes
    kept = parse_config(tomli_w.dumps(made.config.model_dump(mode="json", exclude_none=True)))
    assert make_plan(kept).as_dict() == made.as_dict()


def test_a_sum_above_the_budget_is_an_error_and_never_hidden():
    total, counts = Cost(1.0), Cost(0.4)
    assert planning._spent(total, counts, Cost(0.6), Cost(0.5)) == Cost(0.9)
    # the last digit of parts that are added up again
    assert planning._spent(total, counts, Cost(0.6), Cost(0.6 + 1e-15)) == total
    with pytest.raises(PrivacyError, match="more than its budget"):
        planning._spent(total, counts, Cost(0.6), Cost(0.7))


@pytest.mark.parametrize(("units", "drowned"), [(200, True), (200_000, False), (None, False)])
def test_a_plan_warns_of_attributes_that_noise_drowns(units, drowned):
    cities = {"type": "category", "values": [f"city {n}" for n in range(200)]}
    attributes = {"city": cities, "open": {"type": "boolean"}, "who": {"type": "category"}}
    made = planned("attributes", epsilon=1.0, expected_units=units, columns={"attributes": attributes})
    said = [note for note in made.notes if note.startswith("columns.attributes.city: about 200 units")]
    assert bool(said) is drowned


@pytest.mark.parametrize(
    "wish",
    [
        {"deals": True, "texts": 100, "expected_units": 300, "epsilon": 1.0},
        {"deals": False, "texts": 100, "expected_units": 5_000},
        {"texts": 5_000, "expected_units": 300, "epsilon": 0.5, "released_examples": 2},
        {"texts": 200, "expected_units": 1_000_000, "epsilon": 1.0},
        {"method": "private-evolution", "expected_units": 1_000, "batch_size": "auto"},
        {"method": "public"},
    ],
)
def test_what_a_plan_made_of_a_configuration_is_one_that_a_run_can_read_again(wish):
    made = make_plan(SynthesisConfig(**wish))
    written = tomli_w.dumps(made.config.model_dump(mode="json", exclude_none=True))
    assert parse_config(written) == made.config
    assert make_plan(parse_config(written)).as_dict() == made.as_dict()


def test_votes_alone_draw_no_batches_in_secret():
    with pytest.raises(PrivacyError, match="deals = true"):
        SynthesisConfig(method="private-evolution", deals=True)
