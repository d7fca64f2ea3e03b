"""What the public model is asked for: functions of what is released (guarantee 8)."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from plainchant.config import SynthesisConfig
from plainchant.generation.decoding import FinishedText
from plainchant.generation.prompting import TURNS
from plainchant.planning import make_plan
from plainchant.privacy.histograms import Cell
from plainchant.run.candidates import WARMER, Expansion, Variation
from plainchant.run.released import Released
from plainchant.run.rounds import shares
from plainchant.run.store import Batch, Winner

LABELS = ("x", "y")
CELLS = [Cell(0, -1, 0, 1), Cell(1, -1, 0, 1)]


def preparation(**wish):
    config = SynthesisConfig(labels=LABELS, label_column="l", **wish)
    # no words are counted yet
    directory = SimpleNamespace(words=dict)
    return SimpleNamespace(config=config, plan=make_plan(config), directory=directory)


def requests(released, further, *, others=True, **wish):
    own: Any = preparation(**wish)
    return list(Expansion(own, further)._requests(released, others=others))


def text(batch, position, words):
    return FinishedText(batch, position, words, 3, "end", 0.0, 0.0)


def test_where_nothing_is_released_every_turn_has_both_temperatures():
    asked = requests(Released(CELLS, [], []), 8 * TURNS, method="private-evolution", texts=12)
    assert all(request.shown == () for request in asked)
    for label in LABELS:
        own = [(request.turn, request.warmth) for request in asked if request.label == label]
        assert sorted(set(own)) == sorted((turn, warmth) for turn in range(TURNS) for warmth in (1.0, WARMER))
        assert len(own) == 4 * TURNS


def test_texts_after_released_ones_have_the_prompt_as_it_is():
    words = ["a red lamp stands there", "two buses were late again"]
    released = Released(
        CELLS, [Batch(0, 0, 2), Batch(1, 1, 1)], [text(0, place, own) for place, own in enumerate(words)]
    )
    asked = requests(released, 40)
    of_x = [request for request in asked if request.label == "x"]
    assert {request.shown for request in of_x} == {tuple(words), tuple(words[::-1])}
    assert {request.turn for request in of_x} == {0}
    # nothing of its own label is released
    assert {request.shown for request in asked if request.label == "y"} == {()}
    # without a vote nothing is varied
    assert {(request.turn, request.warmth) for request in requests(released, 40, others=False)} == {(0, 1.0)}


def test_what_is_there_is_not_asked_for_again():
    every = requests(Released(CELLS, [], []), 20, method="private-evolution")
    done = [text(request.place[0], request.place[1], "some words of a text") for request in every[::3]]
    # the texts that are there belong to this round, and it shows none of them
    left = requests(Released(CELLS, [], done), 20, method="private-evolution")
    assert left == [request for place, request in enumerate(every) if place % 3]


def test_every_winner_is_shown_equally_often_after_its_nearest_ones_of_its_label():
    angles = np.array([0.0, 0.1, 0.3, 3.0, 0.05])
    places = [(0, place) for place in range(5)]
    texts = [text(*place, f"text {number}") for number, place in enumerate(places)]
    labels = [0, 0, 0, 0, 1]
    own: Any = preparation(method="private-evolution")
    winners = [Winner(label, *place) for label, place in zip(labels, places, strict=True)]
    own.directory.winners = lambda number: winners
    own.encode = lambda words: np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    released = Released(CELLS, [Batch(0, 0, 5)], texts)
    asked = list(Variation(own, 0, 15)._requests(released))
    shown = [[int(words.removeprefix("text ")) for words in request.shown] for request in asked]
    assert [last[-1] for last in shown] == sorted([0, 1, 2, 3, 4] * 3)
    # each time another one, the nearest first; a winner that is alone in its label stands by itself
    assert [before[0] for before in shown[:3]] == [1, 2, 3]
    assert [before[0] for before in shown[3:6]] == [0, 2, 3]
    assert shown[12:] == [[4]] * 3
    assert [request.label for request in asked] == ["x"] * 12 + ["y"] * 3
    assert len({request.place for request in asked}) == 15


def test_the_first_vote_has_at_least_so_many_candidates_and_their_number_stays():
    assert shares(12, 3) == [6, 3, 3]
    assert shares(12, 3, least=8) == [8, 1, 3]
    assert shares(12, 3, least=12) == [12, 0, 0]
