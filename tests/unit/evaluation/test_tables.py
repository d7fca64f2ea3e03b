"""Agreement of released attributes with real ones, and of texts with the attributes beside them."""

import numpy as np
import pytest

from plainchant.evaluation.figures import COLUMNS, PAIRS, of_real
from plainchant.evaluation.measures import Sample
from plainchant.evaluation.tables import agreement, coded, measure_table, measure_text

NAMES, SIZES = ("kind", "price", "open"), (4, 3, 3)


def _rows(n: int, seed: int, noise: float = 0.0) -> list[list[int]]:
    source = np.random.default_rng(seed)
    kind = source.choice(3, n, p=[0.6, 0.3, 0.1])
    price = np.where(source.random(n) < noise, source.integers(0, 2, n), kind % 2)
    return np.stack([kind, price, source.integers(0, 2, n)], axis=1).tolist()


def test_agreement_is_one_minus_the_total_variation() -> None:
    one, other = coded(("a",), (3,), [[0], [0], [1], [1]]), coded(("a",), (3,), [[0], [1], [1], [2]])
    assert agreement(one, other, [0]) == pytest.approx(1 - 0.25)
    assert agreement(one, one, [0]) == 1


def test_rows_of_the_same_law_agree_as_real_rows_do_and_others_do_not() -> None:
    real = coded(NAMES, SIZES, _rows(3000, 0))
    good, bad = (measure_table(coded(NAMES, SIZES, _rows(1000, 1, noise)), real) for noise in (0.0, 0.8))
    assert good[PAIRS].value == pytest.approx(good[of_real(PAIRS)].value, abs=0.03)
    assert good[PAIRS].low <= good[PAIRS].value <= good[PAIRS].high
    # columns by themselves hardly tell, pairs do
    assert bad[PAIRS].high < good[PAIRS].low
    assert bad["kind × price"].value < 0.7 < good["kind × price"].value
    assert set(good) == {
        COLUMNS, of_real(COLUMNS), PAIRS, of_real(PAIRS), *NAMES,
        "kind × price", "kind × open", "price × open",
    }  # fmt: skip


def test_more_rows_agree_better_so_a_comparison_takes_as_many_of_each() -> None:
    real, many = coded(NAMES, SIZES, _rows(3000, 0)), coded(NAMES, SIZES, _rows(2000, 1))
    few = measure_table(many, real, size=40)
    assert few[PAIRS].value < measure_table(many, real)[PAIRS].value - 0.05
    assert few[PAIRS].value == pytest.approx(few[of_real(PAIRS)].value, abs=0.06)


def test_few_rows_have_figures_without_intervals() -> None:
    few = coded(NAMES, SIZES, _rows(4, 0))
    assert measure_table(few, few)["kind"].low is None


def test_attributes_are_predicted_from_texts_and_a_release_whose_texts_do_not_fit_shows() -> None:
    def sample(rows: list[list[int]], seed: int, fits: bool) -> Sample:
        source = np.random.default_rng(seed)
        own = np.array([row[0] for row in rows])
        if not fits:
            own = source.permutation(own)
        vectors = np.eye(3)[own] + 0.1 * source.normal(size=(len(rows), 3))
        return Sample([f"word{kind} text" for kind in own], [None] * len(rows), vectors)

    rows, own = _rows(400, 0), _rows(200, 1)
    real = sample(rows, 2, fits=True)
    good, bad = (
        measure_text(sample(own, 3, fits=fits), coded(NAMES, SIZES, own), real, coded(NAMES, SIZES, rows))
        for fits in (True, False)
    )
    assert good["kind from the text, trained on synthetic"].value > 0.95
    assert good["kind agreement of the text"].value > 0.95
    assert bad["kind agreement of the text"].value < 0.7
    # nothing in these texts says what is open
    assert good["open from the text, trained on as many real texts"].value < 0.7
