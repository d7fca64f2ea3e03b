"""The figures of an evaluation: known values, naive counterparts, and intervals that cover (with power)."""

import itertools

import numpy as np
import pytest
from scipy.integrate import quad

from plainchant.errors import ConfigError, DataError
from plainchant.evaluation.figures import ACCURACY, MACRO_F1, MAUVE, ON_SYNTHETIC, ON_TFIDF
from plainchant.evaluation.measures import (
    Sample,
    _resampled,
    frechet,
    mauve,
    mauve_of_bins,
    measure,
    neighbourhoods,
    predicted,
)
from plainchant.evaluation.runs import evaluate

WORDS = {"red": ["rose", "brick", "ruby", "fire", "tomato"], "blue": ["sea", "sky", "sapphire", "navy", "ice"]}


def cloud(n, seed=0, shift=0.0, d=8):
    return np.random.default_rng(seed).normal(shift, 1.0, (n, d))


def sample(n, seed, *, wrong=0.0, shift=0.0):
    """Texts of two labels; a share `wrong` of them says one label and means the other."""
    generator = np.random.default_rng(seed)
    labels = ["red" if generator.random() < 0.5 else "blue" for _ in range(n)]
    meant = [label if generator.random() >= wrong else {"red": "blue", "blue": "red"}[label] for label in labels]
    texts = [" ".join(generator.choice(WORDS[label], 5)) + f" {generator.integers(99)}" for label in meant]
    vectors = generator.normal(0, 1, (n, 6)) + shift
    vectors[:, 0] += [4.0 if label == "red" else -4.0 for label in meant]
    return Sample(texts, labels, vectors)


def test_mauve_of_equal_sets_is_one_and_of_strangers_near_nothing():
    p = cloud(400)
    assert mauve(p, p) == pytest.approx(1.0, abs=1e-6)
    assert mauve(p, cloud(400, 1)) > 0.9
    assert mauve(p, cloud(400, 2, shift=50.0)) < 0.02
    assert mauve(np.ones((30, 3)), np.ones((30, 3))) == 1.0


def test_mauve_falls_as_more_is_replaced():
    p, fresh, other = cloud(500), cloud(500, 1), cloud(500, 2, shift=1.5)
    values = [mauve(p, np.concatenate([fresh[part:], other[:part]])) for part in (0, 125, 250, 375, 500)]
    assert all(a > b for a, b in itertools.pairwise(values)), values


def test_mauve_is_symmetric_and_near_the_exact_area():
    p, q = np.array([40, 30, 20, 10, 0]), np.array([5, 25, 30, 20, 20])
    assert mauve_of_bins(p, q) == pytest.approx(mauve_of_bins(q, p), abs=1e-9)
    a, b = p / p.sum(), q / q.sum()

    def point(weight):
        mixed = weight * a + (1 - weight) * b
        kl = [float(sum(x * np.log(x / m) for x, m in zip(own, mixed, strict=True) if x)) for own in (b, a)]
        return np.exp(-5 * kl[0]), np.exp(-5 * kl[1])

    # x dy along the curve, by its derivative; the two closing pieces are a rectangle and nothing
    inner = quad(lambda w: point(w)[0] * (point(w + 1e-6)[1] - point(w - 1e-6)[1]) / 2e-6, 1e-5, 1 - 1e-5, limit=200)[0]
    first = (1 + point(1e-6)[0]) / 2 * point(1e-6)[1]
    assert mauve_of_bins(p, q) == pytest.approx(inner + first, abs=0.01)


def test_frechet_distance_of_normal_distributions():
    generator = np.random.default_rng(0)
    p = generator.normal(0, 1, (200_000, 3)) * [1.0, 2.0, 3.0]
    q = generator.normal(0, 1, (200_000, 3)) * [2.0, 2.0, 1.0] + [1.0, 0.0, -2.0]
    assert frechet(p, q) == pytest.approx(1 + 4 + 1 + 0 + 4, abs=0.1)
    assert frechet(p, p) == pytest.approx(0, abs=1e-6)


def test_neighbourhoods_equal_the_naive_definitions():
    real, synthetic, k = cloud(60), cloud(50, 1, shift=0.7), 5

    def radius(points):
        return [sorted(np.linalg.norm(points - point, axis=1))[k] for point in points]

    between = [[np.linalg.norm(r - s) for s in synthetic] for r in real]
    around_real, around_synthetic = radius(real), radius(synthetic)
    inside = [[between[i][j] <= around_real[i] for j in range(50)] for i in range(60)]
    found = neighbourhoods(synthetic, real)
    assert found["precision"] == pytest.approx(np.mean([any(row[j] for row in inside) for j in range(50)]))
    assert found["density"] == pytest.approx(sum(map(sum, inside)) / (k * 50))
    assert found["coverage"] == pytest.approx(np.mean([any(row) for row in inside]))
    assert found["recall"] == pytest.approx(
        np.mean([any(between[i][j] <= around_synthetic[j] for j in range(50)) for i in range(60)])
    )


def test_intervals_cover_as_often_as_they_say_and_narrower_ones_do_not():
    truth, hits, narrow = 0.3, 0, 0
    real = Sample([""] * 300, [None] * 300, np.zeros((300, 1)))

    def share(first, _second, _draw):
        return {"share": float(first.vectors.mean())}

    for seed in range(300):
        generator = np.random.default_rng(seed)
        own = Sample([""] * 120, [None] * 120, (generator.random((120, 1)) < truth).astype(float))
        figure = _resampled(share, own, real, 120, generator)["share"]
        hits += figure.low <= truth <= figure.high
        middle, half = (figure.low + figure.high) / 2, (figure.high - figure.low) / 4
        narrow += abs(middle - truth) <= half
    # 95 % of 300 are 285, with a deviation of 3.8; forty halves leave the spread itself uncertain by a tenth
    assert hits >= 268
    assert narrow < 240


@pytest.fixture
def quick(monkeypatch):
    """A few halves are enough where intervals are not the matter."""
    monkeypatch.setattr("plainchant.evaluation.measures.HALVES", 10)
    monkeypatch.setattr("plainchant.evaluation.measures.REAL_DRAWS", 2)


def test_good_text_scores_higher_than_mislabelled_and_strange_text(quick):
    real = sample(400, 0)
    good = measure(sample(100, 1), real, names=["red", "blue"])
    wrong = measure(sample(100, 2, wrong=0.5), real, names=["red", "blue"])
    strange = measure(sample(100, 3, shift=6.0), real, names=["red", "blue"])
    for kind in (ON_SYNTHETIC, ON_TFIDF):
        name = f"{ACCURACY}, {kind}"
        assert good.figure(name).low > 0.9
        assert wrong.figure(name).high < good.figure(name).low
    assert good.figure("label agreement").low > wrong.figure("label agreement").high
    assert good.figure(MAUVE).low > strange.figure(MAUVE).high
    assert good.figure("precision").value > 0.8 > 0.1 > strange.figure("precision").value
    assert good.figure(f"{MACRO_F1}, {ON_SYNTHETIC}").value > 0.9
    assert good.figure("F1 of red").value > 0.9
    largest = good.figure(f"{ACCURACY}, largest class")
    assert 0.45 < largest.value < 0.65
    assert good.texts == good.compared == 100
    assert good.real == 400
    for figures in good.groups.values():
        for name, figure in figures.items():
            assert figure.low is None or figure.low <= figure.value <= figure.high, name


def test_the_same_texts_again_and_again_are_noticed(quick):
    generator = np.random.default_rng(0)
    vector = generator.normal(0, 1, (1, 6))
    copies = Sample(["the sea the sea"] * 60, ["red"] * 60, np.repeat(vector, 60, axis=0))
    found = measure(copies, sample(300, 0), names=["red", "blue"])
    assert found.figure("repeated texts, share").value == pytest.approx(59 / 60)
    assert found.figure("different words").value == 2
    assert found.figure("recall").value < 0.1
    assert found.figure(MAUVE).value < 0.3
    # one label alone trains a classifier that knows one label
    assert found.figure(f"{ACCURACY}, {ON_SYNTHETIC}").value < 0.65


def test_without_labels_nothing_is_trained(quick):
    real, own = sample(200, 0), sample(60, 1)
    found = measure(own, real)
    assert set(found.groups) == {"fidelity", "text"}
    assert found.figure(f"{ACCURACY}, {ON_SYNTHETIC}") is None
    nearest, centre = np.arange(60) % 3, np.zeros(60, dtype=int)
    agreed = measure(own, real, nearest=nearest, own=centre).figure("cell agreement")
    assert agreed.value == pytest.approx(1 / 3)
    assert agreed.low < 1 / 3 < agreed.high


def test_too_little_text_is_no_figure():
    with pytest.raises(DataError, match="at least 10"):
        measure(sample(9, 0), sample(200, 1))
    with pytest.raises(DataError, match="at least 10"):
        measure(sample(60, 0), sample(19, 1))
    with pytest.raises(ConfigError, match="is not a run"):
        evaluate(3, [])


def test_a_sample_shows_nothing():
    assert "rose" not in repr(Sample(["rose"], ["red"], np.zeros((1, 2))))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("by_words", [False, True])
def test_many_labels_of_few_texts_are_trained_on_without_a_warning(by_words):
    names = [f"label {number}" for number in range(30)]
    vectors = np.eye(30)
    train = Sample([f"word{number} sea" for number in range(30)], names, vectors)
    assert predicted(train, train, by_words=by_words).tolist() == names
