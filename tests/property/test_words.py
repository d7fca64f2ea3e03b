"""What a count of words charges a unit, exactly, over all neighbours (guarantee 8.5); broken counts are caught."""

import functools
from fractions import Fraction

import numpy as np
import pytest
from doubles.models import Letters
from doubles.randomness import Noise

from plainchant.config import SynthesisConfig
from plainchant.generation.prompting import Prompts
from plainchant.privacy.histograms import NO_CELL, VOTE_GRID, Ballot, count_votes, noisy_votes
from plainchant.run import vocabulary
from plainchant.run.vocabulary import MOST, votes_for_words

# words are the letters of this model; its list lacks some that texts hold
PROMPTS = Prompts(SynthesisConfig(), Letters(context_length=2000))
LISTED = np.array(sorted(set(PROMPTS.body("etaoin shrdlucmfwypvbgkjqxz ETAOINSHRDLU.,", None))))
LABELS = 3
# a unit has one to three texts, and its first one speaks for it; some have no word of the list, or no label
TEXTS = [
    ["lamp"], ["the quick brown fox jumps over the lazy dog. THE END, AND SO ON: HOURS", "a"], [""], ["7"], ["a a a a"],
    ["the buses were late", "the buses were late", "again"], ["zz top 9"], ["HAND IN HAND"], ["e"],
    ["tea for two", "no"],
]  # fmt: skip
LABEL_OF_UNIT = np.array([0, 1, 2, 0, 1, 2, NO_CELL, 1, 2, 0])
UNITS = len(TEXTS)


def ballot():
    return Ballot((LISTED,) * LABELS, (MOST,) * LABELS)


def counted(keep, votes=votes_for_words):
    texts = [TEXTS[unit][0] for unit in keep]
    return count_votes(LABEL_OF_UNIT[keep], functools.partial(votes, PROMPTS, texts), ballot())


def changes(counting):
    """By how much one unit more changes each cell, for all neighbours, in integers."""
    everybody = np.arange(UNITS)
    whole = counting(everybody)
    return [whole - counting(np.delete(everybody, gone)) for gone in everybody]


def squares(counting):
    """The squared ℓ2-norm of each such change."""
    return [int((change.astype(object) ** 2).sum()) for change in changes(counting)]


def test_no_neighbour_changes_more_than_a_whole_vote_and_every_unit_with_words_nearly_does():
    for unit, found in enumerate(squares(counted)):
        silent = LABEL_OF_UNIT[unit] == NO_CELL or not set(PROMPTS.body(TEXTS[unit][0], None)) & set(LISTED.tolist())
        assert found <= VOTE_GRID**2
        assert found == 0 if silent else found > 0.98 * VOTE_GRID**2
    # from one word to as many as count
    words = {np.count_nonzero(change) for change in changes(counted)}
    assert {0, 1, MOST} <= words


def test_a_unit_moves_words_of_its_own_label_alone():
    for label, change in zip(LABEL_OF_UNIT, changes(counted), strict=True):
        moved = set(np.flatnonzero(change) // len(LISTED))
        assert moved <= ({label} - {NO_CELL})


@pytest.mark.parametrize("rho", [0.002, 0.02, 0.9])
def test_what_is_charged_is_what_the_noise_pays_for(rho):
    source = Noise()
    noisy_votes(counted(np.arange(UNITS)), rho, source)
    (counts, sigma), *others = source.asked
    # noise for every word of the list under every label, whoever says it
    assert others == []
    assert len(counts) == LABELS * len(LISTED)
    charged = Fraction(max(squares(counted))) / (2 * Fraction(sigma) ** 2)
    assert charged <= Fraction(rho) * (1 + Fraction(1, 10**12))


def test_votes_are_the_first_different_words_of_the_list():
    text = "tea tea 7 for"
    found = votes_for_words(PROMPTS, ["e", text], np.array([1, 0]), LISTED, 5)
    said = [[LISTED[own] for own in row if own != NO_CELL] for row in found]
    # the space before a text is a word here, 7 is not on the list, and five words are enough
    assert [PROMPTS._model.decode(own) for own in said] == [" teaf", " e"]


def test_words_that_are_charged_as_one_are_caught(monkeypatch):
    monkeypatch.setattr("plainchant.privacy.histograms.vote_weight", lambda chosen: VOTE_GRID)
    assert max(squares(counted)) == MOST * VOTE_GRID**2


def test_a_word_that_counts_as_often_as_a_text_says_it_is_caught():
    def every(prompts, texts, units, listed, count):
        votes = np.full((len(units), count), NO_CELL, dtype=np.int64)
        place = {token: number for number, token in enumerate(listed.tolist())}
        for row, unit in enumerate(units.tolist()):
            own = [place[token] for token in prompts.body(texts[unit], None) if token in place][:count]
            votes[row, : len(own)] = own
        return votes

    assert max(squares(functools.partial(counted, votes=every))) > 1.5 * VOTE_GRID**2


def test_a_unit_whose_records_count_each_is_caught():
    def twice(keep):
        rows = [(LABEL_OF_UNIT[unit], text) for unit in keep for text in TEXTS[unit]]
        labels, texts = np.array([label for label, _ in rows]), [text for _, text in rows]
        return count_votes(labels, functools.partial(votes_for_words, PROMPTS, texts), ballot())

    assert max(squares(twice)) > 3.9 * VOTE_GRID**2


def test_a_list_of_what_records_say_is_caught():
    """Broken: a word that nobody says leaves the list, and the number of cells says so."""

    def size(keep):
        texts = [TEXTS[unit][0] for unit in keep]
        return len(vocabulary.public_list(texts, PROMPTS, 1000))

    everybody = np.arange(UNITS)
    assert len({size(np.delete(everybody, gone)) for gone in everybody}) > 1
    assert len({len(counted(np.delete(everybody, gone))) for gone in everybody}) == 1
