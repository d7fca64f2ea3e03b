"""What card, page, status and run say about votes: public facts, and what to do about them."""

from pathlib import Path
from typing import Any

import pytest

from plainchant import plan
from plainchant.config import SynthesisConfig
from plainchant.privacy.histograms import Cell
from plainchant.run.card import MUCH_ALIKE, by_records, data_set_card, made_up, vote_advice, vote_in_words
from plainchant.run.words import strength, suspicion

FACTS: dict[str, Any] = {
    "round": 1,
    "candidates": 80,
    "left_out": {},
    "spread": [4, 4],
    "labels_open": [1, 2],
    "chosen": 40,
    "filled_up": 0,
    "alike": 0,
    "labels_without_signal": [],
}


def test_a_vote_in_words_counts_what_every_rule_left_out():
    assert vote_in_words(FACTS) == (
        "the records chose 40 of 80 candidates: each voted for the 4 nearest ones of 1 to 2 labels"
    )
    said = vote_in_words({**FACTS, "left_out": {"wrong script": 3, "near-duplicate": 1}, "filled_up": 2, "alike": 5})
    assert "left out before: 3 wrong script, 1 near-duplicate; 2 were taken without votes" in said
    assert said.endswith("; 5 of them much like another one")


@pytest.mark.parametrize(("silent", "end"), [(5, "0, 1, 2, 3, 4"), (7, "0, 1, 2, 3, 4 and 2 more")])
def test_labels_without_signal_are_named_as_far_as_a_sentence_holds_them(silent, end):
    said = vote_in_words({**FACTS, "labels_without_signal": [str(label) for label in range(silent)]})
    assert said.endswith(f"no signal above the noise for {end}")


def test_advice_only_where_something_is_to_be_done():
    few = int(MUCH_ALIKE * FACTS["chosen"])
    assert vote_advice([]) == vote_advice([FACTS]) == vote_advice([{**FACTS, "alike": few}]) == []
    (said,) = vote_advice([{**FACTS, "alike": few + 1}])
    assert said.startswith(f"{few + 1} of 40 texts are much like another one")
    (said,) = vote_advice([{**FACTS, "candidates": 79}])
    assert "hardly a choice" in said
    assert "without votes" in vote_advice([{**FACTS, "filled_up": 1}])[0]
    assert vote_advice([{**FACTS, "labels_without_signal": ["x", "y"]}])[0].startswith("2 of the labels got no votes")
    # an earlier vote chose what was varied, not what is released
    assert vote_advice([{**FACTS, "alike": 40}, FACTS]) == []


def test_the_card_counts_who_wrote_what():
    config = SynthesisConfig(method="plainchant", texts=6)
    rows = [{"text": "a", "origin": origin} for origin in ("model", "records", "model")]
    said = made_up(config, len(rows), by_records(rows))
    assert "3 texts (6 were asked for)" in said
    assert "1 of them written by records together" in said
    assert "and 2 by the language model alone" in said
    assert by_records([{"text": "a"}]) is None


def test_the_card_counts_the_texts_of_each_label_and_says_why_one_has_none():
    cells, counts = [Cell(0, 0, 90, 3), Cell(1, 0, 8, 1)], {"x": 5}
    for values, why in (
        ({}, ("0: too few votes", "0: too few records, by their noisy count")),
        ({"quotas": {"x": 6}}, ("0: none were asked for",) * 2),
        (
            {"columns": {"attributes": {"open": {"type": "boolean"}}}},
            ("0: no row was drawn for it, by the noisy counts", "0: too few records"),
        ),
        ({"candidates": 1, "rounds": 1}, ("0: too small a share", "0: too few records")),
        ({"method": "public"}, ("0: fewer texts than labels",) * 2),
    ):
        own = plan(SynthesisConfig(texts=6, label_column="l", labels=("x", "y", "z"), expected_units=2000, **values))
        card = data_set_card(own, own.guarantee, cells, 5, schema=own.config.columns, texts_of_label=counts)
        assert "## Labels" in card
        assert "| x | 5 |" in card
        assert f"| y | {why[0]}" in card
        assert f"| z | {why[1]}" in card


def test_the_page_on_promises_has_the_figures_and_bounds_of_the_words():
    page = " ".join((Path(__file__).parents[3] / "docs" / "promise.md").read_text(encoding="utf-8").split())
    assert f"at most {suspicion(1)} at ε = 1, {suspicion(3).split()[0]} in 100 at 3, and {suspicion(8)} at 8" in page
    assert "up to ε = 1.5 is a *strong* promise, up to 5 a *moderate* one" in page
    assert ["strong" in strength(epsilon) for epsilon in (1.5, 1.51)] == [True, False]
    assert ["moderate" in strength(epsilon) for epsilon in (5, 5.01)] == [True, False]
