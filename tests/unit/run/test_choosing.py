"""What follows from noisy votes: quotas, the highest, matching, and the public rules before them (guarantee 8)."""

import math
from typing import Any

import numpy as np
import pytest

from plainchant.config import SynthesisConfig, parse_config
from plainchant.data.schema import Schema
from plainchant.errors import ConfigError
from plainchant.generation.batching import allot_texts
from plainchant.generation.decoding import FinishedText
from plainchant.generation.prompting import field_names, repetitive
from plainchant.privacy.histograms import Cell
from plainchant.run.attributes import AttributeRow, AttributeRows
from plainchant.run.candidates import as_released
from plainchant.run.choosing import Tally, choose, choose_for_rows, herd, likely_by_name, quotas_of
from plainchant.run.filters import RULES, markup, rules_for, sound_candidates, too_short
from plainchant.run.released import Released
from plainchant.run.rounds import shares
from plainchant.run.store import Batch, Winner
from plainchant.run.votes import _spare, ballot_form, chosen_by_rules, first_of_equal, known_units, make_ballot


def tally(votes, sigma=1.0, twins=None):
    """Two labels, each with all candidates; `votes` is [2, m]."""
    votes = np.array(votes)
    labels, candidates = np.divmod(np.arange(votes.size), votes.shape[1])
    twins = np.arange(votes.shape[1]) if twins is None else np.array(twins)
    return Tally(labels, candidates, votes.reshape(-1), sigma, twins)


def axes(count):
    return np.eye(count, dtype=np.float32)


def test_the_highest_of_each_label_and_each_text_once():
    of = tally([[9, 8, 7, 0], [3, 9, 1, 2]])
    # candidate 1 has nine votes under the second label and eight under the first: it goes where it has more
    assert choose(of, axes(4), np.array([2, 1]), "highest") == [(0, 0), (1, 1), (0, 2)]
    # candidates 0 and 1 are the same text
    assert choose(tally([[9, 8, 7, 0], [0] * 4], twins=[0, 0, 2, 3]), axes(4), np.array([2, 0]), "highest") == [
        (0, 0),
        (0, 2),
    ]
    # ties go to the earlier one
    assert choose(tally([[5, 5, 5], [5, 5, 5]]), axes(3), np.array([1, 1]), "highest") == [(0, 0), (1, 1)]


@pytest.mark.parametrize("choice", ["highest", "matching"])
def test_where_a_quota_cannot_be_had_the_highest_others_fill_up_or_nothing_does(choice):
    one_each = Tally(np.array([0, 1, 1, 1]), np.arange(4), np.array([5, 9, 8, 7]), 1.0, np.arange(4))
    assert sorted(choose(one_each, axes(4), np.array([3, 1]), choice)) == [(0, 0), (1, 1)]
    assert sorted(choose(one_each, axes(4), np.array([3, 1]), choice, fill=3)) == [(0, 0), (1, 1), (1, 2)]
    assert len(choose(one_each, axes(4), np.array([3, 1]), choice, fill=9)) == 4


def two_topics(count, wrong, generator):
    """Candidates of two labels, some of them of the other topic than their prompt asked for; and which those are."""
    asked = np.arange(count) % 2
    other = generator.random(count) < wrong
    topic = np.where(other, 1 - asked, asked)
    vectors = generator.normal(scale=0.3, size=(count, 8)) + np.eye(8)[topic]
    return asked, other, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_label_gets_fewer_candidates_of_another_topic_than_votes_alone_give_it():
    generator = np.random.default_rng(0)
    asked, other, vectors = two_topics(600, 0.3, generator)
    votes = np.rint(1024 * (np.where(other, 1.0, 4.0) + generator.normal(scale=9, size=600))).astype(np.int64)
    of = Tally(asked, np.arange(600), votes, 9 * 1024.0, np.arange(600))
    quotas = np.array([60, 60])
    by_votes, surer = (
        np.mean([other[candidate] for _, candidate in choose(one, vectors, quotas, "highest")])
        for one in (of, of.sure_first(vectors, asked))
    )
    assert by_votes > 0.12
    assert surer < by_votes / 2


@pytest.mark.parametrize(("texts", "weighed"), [(60, True), (30, False)])
def test_votes_are_weighed_where_many_texts_are_released_for_each_label(texts, weighed):
    generator = np.random.default_rng(3)
    asked, _, vectors = two_topics(400, 0.3, generator)
    votes = np.rint(1024 * generator.normal(3, 6, size=400)).astype(np.int64)
    of = Tally(asked, np.arange(400), votes, 6 * 1024.0, np.arange(400))
    config = SynthesisConfig(labels=["x", "y"], label_column="l", texts=texts, quotas="auto")
    quotas = quotas_of("auto", of, 2, texts)
    by_votes, surer = (
        sorted(choose(one, vectors, quotas, "highest", fill=texts)) for one in (of, of.sure_first(vectors, asked))
    )
    assert by_votes != surer
    # one name for both labels says nothing
    names = np.repeat(axes(8)[:1], 2, axis=0)
    assert sorted(chosen_by_rules(config, of, asked, vectors, names)) == (surer if weighed else by_votes)
    # what another label asked for comes after what the label asked for itself
    foreign = np.where(np.arange(400) == by_votes[0][1], 1 - asked, asked)
    quiet = Tally(asked, np.arange(400), votes, 20 * 1024.0, np.arange(400))
    assert by_votes[0] not in chosen_by_rules(config, quiet, foreign, vectors, names)
    # names that tell topics apart change the choice of few
    told = sorted(chosen_by_rules(config, of, asked, vectors, axes(8)[:2]))
    assert told == surer if weighed else told not in (surer, by_votes)


def test_names_say_what_labels_candidates_have_as_far_as_prompts_were_followed():
    asked, other, vectors = two_topics(600, 0.3, np.random.default_rng(0))
    likely = likely_by_name(vectors, axes(8)[:2], asked)
    np.testing.assert_allclose(np.exp(likely).sum(axis=1), 1.0)
    own = likely[np.arange(600), asked]
    assert own[~other].mean() > math.log(0.6) > math.log(0.4) > own[other].mean()
    # calibrated: about as many are of their label as the probabilities say
    assert np.exp(own).mean() == pytest.approx(0.7, abs=0.1)
    assert likely_by_name(vectors[:0], axes(8)[:2], asked[:0]).shape == (0, 2)
    for silent in (axes(8)[[0, 0]], axes(8)[[6, 7]], -axes(8)[[0, 1]]):
        np.testing.assert_allclose(likely_by_name(vectors, silent, asked), math.log(0.5), atol=0.02)


def test_a_label_whose_votes_are_noise_gets_what_its_name_says():
    generator, wrong = np.random.default_rng(5), np.zeros((2, 2))
    for _ in range(10):
        asked, other, vectors = two_topics(400, 0.2, generator)
        # label 0 has records, label 1 has none
        signal = 60.0 * (asked == 0) * ~other
        votes = np.rint(1024 * (generator.normal(scale=6, size=400) + signal)).astype(np.int64)
        of = Tally(asked, np.arange(400), votes, 6 * 1024.0, np.arange(400))
        named = of.named_first(likely_by_name(vectors, axes(8)[:2], asked))
        for row, one in enumerate((of, named)):
            for label, place in choose(one, vectors, np.array([20, 20]), "highest"):
                wrong[row, label] += other[place] / 200
    assert wrong[0, 1] > 0.15
    assert wrong[1, 1] < wrong[0, 1] / 2
    # strong votes are followed
    assert (wrong[:, 0] == 0).all()
    loud = Tally(asked, np.arange(400), 10**6 * generator.permutation(400), 1024.0, np.arange(400))
    assert (np.argsort(loud.named_first(np.log(np.full((400, 2), 0.5))).votes) == np.argsort(loud.votes)).all()
    assert (np.argsort(loud.named_first(np.where(np.eye(2)[asked], -5.0, -0.01)).votes) == np.argsort(loud.votes)).all()


def test_what_is_surer_never_has_votes_that_were_none_and_one_label_stays_as_it_is():
    generator = np.random.default_rng(1)
    asked, _, vectors = two_topics(200, 0.3, generator)
    votes = np.rint(generator.normal(scale=50, size=200)).astype(np.int64)
    of = Tally(asked, np.arange(200), votes, 50.0, np.arange(200))
    found = of.sure_first(vectors, asked).votes
    assert (found[votes <= 0] == votes[votes <= 0]).all()
    assert ((found[votes > 0] >= 0) & (found[votes > 0] <= votes[votes > 0])).all()
    alone = Tally(np.zeros(200, dtype=np.int64), np.arange(200), votes, 50.0, np.arange(200))
    assert (alone.sure_first(vectors, np.zeros(200, dtype=np.int64)).votes == votes).all()


def test_noise_cannot_vouch_for_itself():
    """A candidate's own vote says nothing about the probability that it is weighed with."""
    generator = np.random.default_rng(2)
    asked, other, vectors = two_topics(300, 0.3, generator)
    votes = np.full(300, 10**5, dtype=np.int64)
    (first, *_), twins = np.flatnonzero(other), np.arange(300)
    loud = votes.copy()
    loud[first] = 10**8
    found, louder = (
        Tally(asked, twins, own, 10.0, twins).sure_first(vectors, asked).votes[first] / own[first]
        for own in (votes, loud)
    )
    assert found < 0.9
    # taught by itself it would be sure of itself
    assert louder == pytest.approx(found, abs=0.05)


def test_quotas():
    of = tally([[60, 0, 0, 0], [20, 0, 0, 0]])
    assert quotas_of("votes", of, 2, 4).tolist() == [3, 1]
    assert quotas_of("balanced", of, 2, 4).tolist() == [2, 2]
    assert quotas_of({1: 4}, of, 2, 4).tolist() == [0, 4]
    # few texts for each label: balanced; the sum never passes what there is
    assert quotas_of("auto", of, 2, 4).tolist() == [2, 2]
    wide = tally([[3] * 80, [1] * 80])
    assert quotas_of("auto", wide, 2, 40).tolist() == [30, 10]
    assert quotas_of("votes", wide, 2, 1000).tolist() == [80, 80]
    # noise alone says nothing about labels
    assert quotas_of("votes", tally([[-3, 1], [-2, -5]]), 2, 2).tolist() == [1, 1]


def test_what_noise_does_to_the_votes_gives_no_label_more_texts_than_another():
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(100):
        noisy = tally(np.rint(1 + generator.normal(scale=29, size=(4, 750))).astype(int).tolist(), sigma=29.0)
        shares += (quotas_of("votes", noisy, 4, 200) / 200).tolist()
    assert np.std(shares) < 0.1
    # as it was: each label's sum as it came
    sums = np.maximum(generator.normal(750, 29 * 750**0.5, size=(1000, 4)), 0)
    assert np.std(sums / sums.sum(axis=1, keepdims=True)) > 0.15
    # strong votes are followed
    strong = tally([[90] * 100, [10] * 100], sigma=3.0)
    assert quotas_of("votes", strong, 2, 100).tolist() == [90, 10]


def test_labels_without_signal_are_told():
    assert tally([[40, 3, 0, 1], [2, -1, 1, 1]]).without_signal(2).tolist() == [1]


@pytest.mark.parametrize("choice", ["highest", "matching"])
def test_noise_gives_no_label_what_others_asked_for(choice):
    """One label has units and one has none; 400 candidates, half of them asked for by each, are open to both."""
    rng, sigma = np.random.default_rng(4), 10.0
    asked = np.repeat([0, 1], 200)
    votes = np.rint(rng.normal(0, sigma, (2, 400))).astype(np.int64)
    # records say that a candidate for the other label is one of theirs
    votes[0, 390] = 100
    of, vectors = tally(votes, sigma), np.eye(400, dtype=np.float32)
    plain = choose(of, vectors, np.array([5, 5]), choice)
    found = choose(of.own_first(asked), vectors, np.array([5, 5]), choice)
    assert (0, 390) in found
    assert all(asked[candidate] == label for label, candidate in found if candidate != 390)
    # without it some are foreign
    assert not all(asked[candidate] == label for label, candidate in plain if candidate != 390)
    # and a label with too few of its own still gets its texts
    assert len(choose(of.own_first(np.repeat([0, 1], [398, 2])), vectors, np.array([5, 5]), "highest")) == 10


def test_matching_takes_from_every_heap_what_the_highest_would_take_from_one():
    generator = np.random.default_rng(0)
    heaps = np.repeat(axes(4), 10, axis=0) + 0.1 * generator.normal(size=(40, 4)).astype(np.float32)
    points = (heaps / np.linalg.norm(heaps, axis=1, keepdims=True)).astype(np.float32)
    # the first heap's candidates have somewhat more votes each
    votes = np.repeat([14, 10, 10, 10], 10)
    of = Tally(np.zeros(40, dtype=np.int64), np.arange(40), votes, 1.0, np.arange(40))
    highest = [candidate // 10 for _, candidate in choose(of, points, np.array([8]), "highest")]
    matching = [candidate // 10 for _, candidate in choose(of, points, np.array([8]), "matching")]
    assert highest == [0] * 8
    assert np.bincount(matching, minlength=4).tolist() in ([2, 2, 2, 2], [3, 2, 2, 1], [3, 1, 2, 2], [3, 2, 1, 2])


def test_herding_comes_nearer_to_the_weighted_mean_than_the_largest_weights_do():
    generator = np.random.default_rng(1)
    points = generator.normal(size=(200, 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    weights = np.exp(2 * points[:, 0].astype(np.float64))
    weights /= weights.sum()
    wanted = weights @ points
    chosen = herd(points, weights, 20)
    assert len(set(chosen)) == 20
    far = np.linalg.norm(points[np.argsort(-weights)[:20]].mean(axis=0) - wanted)
    assert np.linalg.norm(points[chosen].mean(axis=0) - wanted) < far / 3
    # nothing of weight zero, equal points too
    assert sorted(herd(np.ones((3, 2), np.float32), np.array([0.5, 0.0, 0.5]), 2)) == [0, 2]


def test_public_rules_leave_out_and_count():
    assert too_short("word")
    assert not too_short("two words")
    assert repetitive("so so so so so so good")
    assert not repetitive("so good it is")
    for junk in ("see <b>this</b> now", "a page {{cite}} of it", "read more at http://x.org/y", "!!! -- ?? ** a"):
        assert markup(junk)
    assert not markup("Shares fell 6% (to $4.20) on Monday.")
    texts = ["one good text", "x", "a a a a a", "one good text again", "another matter here", "one good text again"]
    vectors = np.array([[1, 0], [0, 1], [1, 1], [0.99, 0.1], [0, 1], [0.99, 0.1]], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.array([0, 0, 0, 0, 0, 1])
    kept, dropped = sound_candidates(texts, labels, vectors, least=3)
    # the last is near to one of another label only
    assert kept.tolist() == [0, 4, 5]
    assert dropped == {"too short": 1, "repetitive": 1, "near-duplicate": 1}
    # a rule that would leave too few is not applied
    kept, dropped = sound_candidates(texts, labels, vectors, least=4)
    assert kept.tolist() == [0, 3, 4, 5]
    assert "near-duplicate" not in dropped
    kept, dropped = sound_candidates(texts, labels, vectors, least=6)
    assert kept.tolist() == list(range(6))
    assert dropped == {}
    assert first_of_equal(["a", "b", "a", "a"]).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    "text",
    [
        "भारत में आज बारिश होगी और कल धूप निकलेगी",
        "今日は東京で雨が降るでしょう",
        "明天北京会下雨吗",
        "วันนี้ฝนจะตกที่กรุงเทพ",
        "هل ستمطر غدا في القاهرة",
    ],
)
def test_no_rule_takes_a_script_for_junk(text):
    assert not any(rule(text) for rule in (too_short, repetitive, markup))


def left_of(texts, examples=()):
    """What the rule about scripts leaves of texts that no other rule leaves out."""
    vectors = np.eye(len(texts), dtype=np.float32)
    kept, dropped = sound_candidates(texts, np.zeros(len(texts), dtype=np.int64), vectors, 1, examples)
    assert set(dropped) <= {"wrong script"}
    return kept.tolist()


def test_a_text_in_a_script_that_nothing_else_uses_is_left_out():
    english = [f"A short report about case number {place}" for place in range(30)]
    russian = "Краткий отчёт о новом деле"
    assert left_of([*english, russian]) == list(range(30))
    # foreign letters in a text that is mostly of a usual script, letters in another style, and no letters at all
    mixed = ["The Σ and the Ω of the whole report", "Ａ ｆｕｌｌ－ｗｉｄｔｈ ｒｅｐｏｒｔ", "12 34 56 78 90"]
    assert left_of([*english, *mixed]) == list(range(33))
    # the examples of the prompt use it, or many candidates do
    assert left_of([*english, russian], ["Пример"]) == list(range(31))
    assert left_of([*english, *(f"{russian} {place}" for place in range(5))]) == list(range(35))


def test_scripts_that_a_language_mixes_belong_together():
    japanese = [f"今日は東京で雨が降るでしょうと{place}回も言った" for place in range(30)]
    # hardly any katakana elsewhere
    assert left_of([*japanese, "コーヒーメーカー スペシャルセール"]) == list(range(31))
    assert left_of([*japanese, "Heavy rain in Tokyo today"]) == list(range(30))
    chinese = [f"明天北京会不会下雨呢第{place}次" for place in range(30)]
    assert left_of([*chinese, "コーヒーメーカー スペシャルセール"]) == list(range(30))


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ('{"city": "Linz", "paid": false}', False),
        ('{\n  "city": "Linz",\n  "paid": false, "more": [1]\n}', False),
        ('{"city": "Linz"}', True),
        ('{"city": "Linz", "paid": fal', True),
        ('["city", "paid"]', True),
        ("The city of Linz has paid.", True),
        ("[" * 100_000, True),
    ],
)
def test_where_all_examples_are_json_objects_others_are_left_out(text, out):
    rules = rules_for(['{"city": "Graz", "paid": true, "by": "card"}', '{"city": "Wien", "paid": false}'])
    assert rules["not JSON as in the examples"](text) is out
    # what is the form of this data is no markup
    assert "markup" not in rules


E_MAILS = (
    "Subject: The lamp\n\nHello,\n\nit hums: all night.\n\nBest,\nIda",
    "Subject: Parking\n\nHi Tom,\n\nwhere can I park?\n\nThanks,\nUrs",
)
DIALOGUES = ("Desk: Hello.\nCaller: My card is lost.\nDesk: Since when?", "Caller: Hi.\nDesk: Good day.\nJo: Me too.")


@pytest.mark.parametrize(
    ("examples", "text", "out"),
    [
        (E_MAILS, "Subject: A key\n\nI found one.\n\nMo", False),
        (E_MAILS, "Subject: A key", True),
        (E_MAILS, "Subject: A key\nI found one.", True),
        (E_MAILS, "About: a key\n\nI found one.\n\nMo", True),
        (E_MAILS, "The subject: a key\n\nI found one.\n\nMo", True),
        (DIALOGUES, "Desk: Hello.\nMrs. Ng: Is it open?\nCaller: It is.", False),
        (DIALOGUES, "Desk: Hello.\n\nCaller: Good.\n", False),
        (DIALOGUES, "Desk: Hello.\nIs it open?\nCaller: It is.", True),
        (DIALOGUES, "Desk: Hello.\nDesk: Hello?", True),
        (("One line.", "Two\nlines."), "One more.", False),
        (("At 10:30 the bus left.", "At 10:45 it came."), "At noon.", False),
        (E_MAILS[:1], "A key", False),
    ],
)
def test_texts_whose_lines_are_unlike_those_of_the_examples_are_left_out(examples, text, out):
    rules = rules_for(examples)
    assert any(rule(text) for name, rule in rules.items() if name != "too short") is out
    assert not any(rule(example) for rule in rules.values() for example in examples)


def test_rules_follow_from_public_examples():
    assert rules_for([]) == dict(RULES)
    mixed = rules_for(["The bus was late again.", '{"a": 1, "b": 2}'])
    assert mixed.keys() == {"with lines unlike the examples'", "too short", "repetitive"}
    assert not mixed["with lines unlike the examples'"]("anything: at all")
    assert rules_for(["yes"]).keys() == {"repetitive", "markup"}


def test_texts_that_do_not_parse_are_left_out_before_a_vote():
    texts = ['{"a": 1}', '{"a": 1', '{"a": 22}', "a text"]
    vectors = np.eye(4, dtype=np.float32)
    for least, left in ((2, [0, 2]), (3, [0, 1, 2, 3])):
        found, _ = sound_candidates(texts, np.zeros(4, np.int64), vectors, least, ['{"a": 3}'])
        assert found.tolist() == left


def test_near_duplicates_are_found_across_blocks(monkeypatch):
    generator = np.random.default_rng(2)
    some = generator.normal(size=(30, 16)).astype(np.float32)
    vectors = np.concatenate([some, some[::-1]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts, labels = [f"text number {place}" for place in range(60)], np.zeros(60, dtype=np.int64)
    whole = sound_candidates(texts, labels, vectors, 1)
    monkeypatch.setattr("plainchant.run.filters._BLOCK", 7)
    blocks = sound_candidates(texts, labels, vectors, 1)
    assert whole[0].tolist() == blocks[0].tolist() == list(range(30))
    assert whole[1] == {"near-duplicate": 30}


def test_the_rest_of_an_entry_of_the_prompt_is_no_candidate():
    columns: Any = {"attributes": {"product": {"type": "category", "values": ["lamp", "desk"]}}}
    config = SynthesisConfig(labels=("bug", "question"), label_column="kind", columns=columns)
    rest = "It broke.\nLabels: question\nProduct: desk\nText: Did you ever mend it?"
    texts = [rest, "label: bug, and it hums", "The label: it came off", "A new product arrived", "Text: a lamp is out"]
    vectors, labels = axes(5), np.zeros(5, dtype=np.int64)
    kept, dropped = sound_candidates(texts, labels, vectors, 1, fields=field_names(config))
    assert kept.tolist() == [2, 3]
    assert dropped == {"with a field of the prompt": 3}
    # where an example has such a line it is the form of the data
    kept, _ = sound_candidates(texts, labels, vectors, 1, ["Product: lamp, dark since May"], field_names(config))
    assert kept.tolist() == list(range(5))
    # a prompt of the user's own has other fields
    own = SynthesisConfig(
        prompt={"example": "> {text}\nKind of it: {label}\n---\n"}, labels=("a", "b"), label_column="kind"
    )
    assert field_names(own) == ("Kind of it:",)


def test_a_copy_of_an_example_is_no_candidate():
    example = "Airline Cuts Forecast on Fuel Costs Shares of the carrier fell 6 percent after it lowered its outlook"
    short = "Where is my invoice?"
    texts = [
        example.replace("Costs", "Cost"),
        example.upper() + ".",
        "where is my INVOICE",
        "Airline raises forecast on lower fuel costs; shares of the carrier rose on Monday",
        "Where is my parcel?",
        "",
    ]
    vectors, labels = axes(6), np.zeros(6, dtype=np.int64)
    kept, dropped = sound_candidates(texts, labels, vectors, 1, [example, short])
    assert dropped == {"too short": 1, "copy of an example": 3}
    assert kept.tolist() == [3, 4]
    # where all would go, none goes
    assert "copy of an example" not in sound_candidates(texts, labels, vectors, 3, [example, short])[1]


def test_the_rule_spreads_weak_votes_and_opens_labels_to_strong_ones():
    def form(units, rho, candidates, labels=4, **own):
        names = tuple(map(str, range(labels)))
        config = SynthesisConfig(labels=names, label_column="l", **own)
        known = None if units is None else units / labels
        return ballot_form(config, rho, known, candidates // labels, candidates)

    weak, middling, strong = 0.0165, 0.13, 0.83
    # what measured runs did best with, about: 3,300 candidates of 4 labels, votes at epsilon 1, 3 and 8
    assert form(500, weak, 3300, vote_labels=1)[0] == 32
    assert 16 <= form(500, middling, 3300, vote_labels=1)[0] <= 32
    assert 4 <= form(500, strong, 3300, vote_labels=1)[0] <= 8
    assert 8 <= form(2500, weak, 3300, vote_labels=1)[0] <= 16
    assert 1 <= form(2500, strong, 3300, vote_labels=1)[0] <= 4
    assert form(7600, strong, 3300)[1] == 4
    assert form(7600, weak, 2000)[1] == 1
    assert form(10_000, strong, 1540, labels=77)[1] == 77
    assert 5 <= form(10_000, weak, 1540, labels=77)[1] <= 25
    # nobody knows how many vote; nobody does
    assert form(None, weak, 3300) == (8, 1)
    assert form(0.0, weak, 3300) == (32, 1)
    assert form(500, weak, 3300, vote_spread=3, vote_labels=99) == (3, 4)
    # six candidates for each of 151 labels: what is open to a unit is never voted for as a whole, and others open later
    assert form(3_000, 0.0006, 906, labels=151) == (2, 1)
    assert form(15_000, 0.0025, 906, labels=151)[1] <= 4
    assert 8 <= form(15_000, 0.01, 906, labels=151)[1] <= 40
    assert form(15_000, 0.04, 906, labels=151)[1] >= 100


def test_a_label_with_few_units_has_its_own_candidates_alone_and_few_votes_each():
    cells = [Cell(0, 0, 60, 1), Cell(0, 1, 40, 1), Cell(1, 0, 10, 1), Cell(2, 0, -3, 1)]
    assert known_units(None, None, cells, 0, 3) == [100.0, 10.0, 0.0]
    assert known_units(600, None, [], 0, 3) == [200.0] * 3
    assert known_units(None, None, [], 0, 2) == [None, None]
    config = SynthesisConfig(labels=[str(label) for label in range(151)], label_column="l")
    large, small, empty = (ballot_form(config, 0.25, own, 33, 5000) for own in (100.0, 10.0, 0.0))
    assert large[1] > 100
    assert small[1] == empty[1] == 1
    # 33 candidates of its own: a vote for eleven of them would say little
    assert small[0] == empty[0] == 4
    # a label for which nothing was written may vote for all
    assert ballot_form(config, 0.25, 10.0, 0, 5000)[1] == 151
    # as many units for each of its candidates: the same form, however large the label is
    two = SynthesisConfig(labels=["x", "y"], label_column="l", vote_labels=1)
    assert ballot_form(two, 0.01, 9000.0, 900, 1000) == ballot_form(two, 0.01, 1000.0, 100, 1000)


def test_a_ballot_holds_as_many_candidates_as_its_label_gets_texts():
    asked = np.array([0, 0, 0, 0, 0, 1, 2, 2])
    vectors = np.eye(8, dtype=np.float32)
    vectors[5] = vectors[6] = (vectors[5] + vectors[6]) / 2**0.5
    texts, forms = [str(place) for place in range(8)], [(1, 1)] * 3
    vectors[6, 7] += 0.1
    found = [own.tolist() for own in make_ballot(texts, asked, vectors, np.arange(8), forms, [3, 2, 2]).candidates]
    # the second label needs two and has one: the nearest label's are open to it
    assert found == [[0, 1, 2, 3, 4], [5, 6, 7], [6, 7]]
    (every, *_) = make_ballot(texts, asked, vectors, np.arange(8), forms, [9, 1, 1]).candidates
    assert every.tolist() == list(range(8))


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [("auto", [60, 60, 60]), ("balanced", [60, 60, 60]), ("votes", [100, 40, 40]), ({"x": 20, "y": 40}, [60, 120, 0])],
)
def test_labels_have_candidates_in_the_numbers_in_which_they_are_released(quotas, expected):
    texts = 54 if quotas != "auto" else 59
    cells = [Cell(0, 0, 60, 1), Cell(0, 1, 40, 1), Cell(1, 0, 40, 1), Cell(2, 0, 40, 1)]
    config = SynthesisConfig(labels=["x", "y", "z"], label_column="l", texts=60 if isinstance(quotas, dict) else texts,
                             quotas=quotas)  # fmt: skip
    found = [sum(counts) for counts in allot_texts(as_released(config, cells), 180, None)]
    assert [found[0] + found[1], found[2], found[3]] == expected
    # inside a label by size
    assert found[0] == pytest.approx(1.5 * found[1], abs=2)


def test_the_first_round_has_twice_the_candidates_of_another():
    assert shares(9, 2) == [6, 3]
    assert shares(10, 1) == [10]
    assert shares(0, 3) == [0, 0, 0]
    for further in range(50):
        for rounds in range(1, 6):
            own = shares(further, rounds)
            assert sum(own) == further
            assert max(own[1:], default=0) <= math.ceil(further / (rounds + 1))


def test_a_place_tells_label_and_cell_of_every_candidate():
    cells = [Cell(0, 3, 9, 1), Cell(0, 5, 9, 1), Cell(1, 2, 9, 1)]
    released = Released(cells, [Batch(0, 0, 2), Batch(1, 2, 1)], [])
    config = SynthesisConfig(labels=("x", "y"), label_column="l")

    def at(batch):
        text = FinishedText(batch, 0, "text", 3, "end", 0.0, 0.0)
        own = released.labelled(text, config)
        return own.label, own.cell, own.origin

    assert [at(batch) for batch in (0, 1)] == [("x", 0, "records"), ("y", 2, "records")]
    assert [at(2 + cell) for cell in range(3)] == [("x", 0, "model"), ("x", 1, "model"), ("y", 2, "model")]
    found = {
        (number, label, cell): released.variation_batch(number, 2, label, cell)
        for number in range(3) for label in range(2) for cell in range(3)
    }  # fmt: skip
    # a place of its own for each, after all others, whatever label the cell has
    assert sorted(found.values()) == list(range(5, 5 + len(found)))
    assert all(at(batch) == (config.labels[label], cell, "model") for (_, label, cell), batch in found.items())
    # released under the label that the records gave
    one = Released(cells, released.batches, [FinishedText(2, 0, "text", 3, "end", 0.0, 0.0)])
    assert one.chosen([Winner(1, 2, 0)], config)[0].label == "y"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "private-evolution", "candidates": 1}, "lives by its votes"),
        ({"method": "private-evolution", "private_texts": 3}, "writes none from records"),
        ({"method": "private-evolution", "clusters": "public-centres"}, "no batches"),
        ({"method": "clustered-mean", "private_texts": 3}, "without votes"),
        ({"private_texts": 1200}, "more than candidates x texts"),
        ({"quotas": {"a": 100}}, "not in labels"),
        ({"quotas": {"a": 30}, "labels": ("a",), "label_column": "l"}, "add up to 30"),
        ({"quotas": "balanced", "candidates": 1}, "chosen by votes"),
        ({"vote_spread": 0}, "vote_spread"),
        ({"choice": "random"}, "choice"),
    ],
)
def test_what_cannot_be_voted_on_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SynthesisConfig(**values)


def test_text_options_of_the_command_line_become_numbers():
    assert parse_config("", {"vote_spread": "4"}).vote_spread == 4


def test_each_row_gets_its_candidate_with_the_most_votes_and_each_text_goes_to_one_row():
    rows = np.array([0, 0, 1, 1, 2, -1])
    tally = Tally(
        np.zeros(6, dtype=np.int64), np.arange(6), np.array([5, 9, 8, 7, 1, 99]), 1.0, np.array([0, 1, 1, 3, 4, 5])
    )
    # 2 has the text of 1, which row 0 has taken; 5 belongs to no row
    assert choose_for_rows(tally, rows) == [1, 3, 4]


def test_texts_of_a_cell_take_its_rows_in_turn_and_those_of_its_label_where_it_has_none():
    cells = [Cell(0, 0, 9, 1), Cell(0, 1, 9, 1), Cell(1, 0, 9, 1), Cell(2, 0, 9, 1)]
    rows = AttributeRows(Schema(), [AttributeRow(0, (), ()), AttributeRow(0, (), ()), AttributeRow(2, (), ())])
    released = Released(cells, [Batch(0, 0, 3), Batch(1, 1, 1)], [], rows)
    assert [released.row_of((0, position)) for position in range(3)] == [0, 1, 0]
    # after the three of cell 0 come those that the public model writes
    assert [released.row_of((2, position)) for position in range(3)] == [1, 0, 1]
    assert [released.row_of((1, 0)), released.row_of((4, 0)), released.row_of((5, 0))] == [0, 2, None]
    assert Released(cells, [], []).row_of((0, 0)) is None


def test_matching_goes_by_votes_however_names_order_them():
    """Two heaps; names prefer the one that has no votes."""
    points = np.repeat(axes(2), 10, axis=0)
    votes = np.repeat([100, 0], 10) + np.arange(20) % 3
    of = Tally(np.zeros(20, dtype=np.int64), np.arange(20), votes, 10.0, np.arange(20))
    named = of.named_first(np.repeat([[-0.01, -5.0], [0.0, -9.0]], 10, axis=0), weight=400.0)
    by_votes = choose(named, points, np.array([4]), "matching", sizes=of.votes)
    assert all(candidate < 10 for _, candidate in by_votes)
    assert not all(candidate < 10 for _, candidate in choose(named, points, np.array([4]), "matching"))


def test_what_fills_up_a_choice_is_neither_blank_nor_there_already_while_others_are_left():
    texts = ["a", "", "b", "a", "c", "b"]
    twins = first_of_equal(texts)
    assert _spare(texts, twins, [0]) == [2, 4, 3, 5, 1]
    assert _spare(texts, twins, []) == [0, 2, 4, 3, 5, 1]
    assert _spare(texts, twins, [3, 4, 5]) == [0, 2, 1]
