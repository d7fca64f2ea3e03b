"""Whether synthetic text looks like the real text, and whether one can train on it.

Everything here reads private data, and the guarantee covers none of its figures: they stay in private/. Both sides of a
comparison always have the same number of texts, since the measures of fidelity depend on it. If the real table has
more, a figure is the mean over several draws from it.

Every figure has a 95 % interval by half-sample bootstrap. The figure is computed again on random halves, drawn without
replacement; the spread of those values estimates that of the figure (the delete-half jackknife, Shao & Wu 1989).
Drawing with replacement would be wrong: a text that is drawn twice is its own nearest neighbour.
"""

import itertools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plainchant.arrays import Float64Array, FloatArray, IntArray
from plainchant.data.schema import Code
from plainchant.data.segmentation import words
from plainchant.errors import DataError
from plainchant.evaluation.figures import (
    ACCURACY,
    MACRO_F1,
    MAUVE,
    NORMAL_95,
    ON_ALL_REAL,
    ON_REAL,
    ON_SYNTHETIC,
    ON_TFIDF,
    Evaluation,
    Figure,
    share,
)
from plainchant.privacy.histograms import WHOLE_LABEL

# Draws that a figure is averaged over, random halves for its interval, and draws of real text per synthetic draw.
DRAWS, HALVES, REAL_DRAWS = 5, 40, 4
# MAUVE: scale of the divergence, mixtures on the curve, texts (of both sides) per bin, variance kept by the projection.
SCALE, MIXTURES, TEXTS_PER_BIN, VARIANCE_KEPT = 5.0, 25, 20, 0.9
# Neighbours of precision, recall, density and coverage.
NEIGHBOURS = 5
# With fewer texts no figure is computed.
FEWEST = 10
# Figures that may be larger than 1.
UNBOUNDED = ("Fréchet distance", "density", "words a text", "different words")


@dataclass(frozen=True, repr=False)
class Sample:
    """Texts with labels and embeddings; its `repr` shows none of them.

    Attributes:
        texts: n texts.
        labels: n labels, or Nones.
        vectors: unit vectors, float [n, d].
        attributes: what was read of each row's attributes (`data.tables.Record`); empty where there are none.
    """

    texts: Sequence[str]
    labels: Sequence[str | None]
    vectors: FloatArray
    attributes: Sequence[tuple[Code, ...]] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: IntArray) -> "Sample":
        """The sample of these rows."""
        attributes = [self.attributes[row] for row in rows] if self.attributes else ()
        texts, labels = [self.texts[row] for row in rows], [self.labels[row] for row in rows]
        return Sample(texts, labels, self.vectors[rows], attributes)


# measures of two sets of embeddings, float [n, d] each


def mauve(p: FloatArray, q: FloatArray, *, bins: int | None = None, seed: int = 0) -> float:
    """MAUVE (Pillutla et al. 2021, 2023): the area under the divergence curve of two quantised sets, 0 to 1.

    Both sets are projected to the principal components that keep 90 % of their joint variance, and then quantised by
    k-means. Unless `bins` is given, there is one bin per twenty texts.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    both = np.concatenate([p, q]).astype(np.float64)
    if len(np.unique(both, axis=0)) == 1:
        return 1.0
    projected = PCA(VARIANCE_KEPT, svd_solver="full").fit_transform(both)
    bins = max(2, min(len(np.unique(both, axis=0)), bins or round(len(both) / TEXTS_PER_BIN)))
    with warnings.catch_warnings():
        # very similar texts fill fewer bins than requested; k-means warns, but nothing is wrong
        warnings.simplefilter("ignore")
        assigned = KMeans(bins, n_init=5, max_iter=500, random_state=seed).fit_predict(projected)
    return mauve_of_bins(
        np.bincount(assigned[: len(p)], minlength=bins), np.bincount(assigned[len(p) :], minlength=bins)
    )


def mauve_of_bins(p: IntArray, q: IntArray) -> float:
    """MAUVE of two histograms over the same bins.

    The curve is (exp(−c KL(Q|R)), exp(−c KL(P|R))) over the mixtures R from Q to P, closed by (1, 0) and (0, 1).
    """
    a, b = p / p.sum(), q / q.sum()
    weights = np.linspace(1e-6, 1 - 1e-6, MIXTURES)[:, None]
    mixed = weights * a + (1 - weights) * b
    x = np.concatenate([[1.0], np.exp(-SCALE * _kl(b, mixed)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-SCALE * _kl(a, mixed)), [1.0]])
    return float(np.trapezoid(x, y))


def _kl(p: FloatArray, mixed: FloatArray) -> FloatArray:
    """KL(p | each row of mixed), nats; mixed is positive wherever p is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(p > 0, p * np.log(p / mixed), 0.0).sum(axis=1))


def frechet(p: FloatArray, q: FloatArray) -> float:
    """The Fréchet distance of two fitted normal distributions (Heusel et al. 2017): |μ−μ'|² + tr(Σ + Σ' − 2(ΣΣ')^½)."""
    means, covariances = [x.mean(axis=0, dtype=np.float64) for x in (p, q)], [np.cov(x.T) for x in (p, q)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ covariances[1] @ root)
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + trace)


def neighbourhoods(synthetic: FloatArray, real: FloatArray) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)."""
    from sklearn.metrics import pairwise_distances

    between = pairwise_distances(real, synthetic)
    # distances within a set include the zero of each text to itself, which sorts first
    k = min(NEIGHBOURS, len(real) - 1, len(synthetic) - 1)
    radius_real = np.partition(pairwise_distances(real), k, axis=1)[:, k]
    radius_synthetic = np.partition(pairwise_distances(synthetic), k, axis=1)[:, k]
    inside = between <= radius_real[:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((between <= radius_synthetic[None]).any(axis=1).mean()),
        "density": float(inside.sum(axis=0).mean() / k),
        "coverage": float(inside.any(axis=1).mean()),
    }


def _fidelity(synthetic: Sample, real: Sample, bins: int, seed: int) -> dict[str, float]:
    return {
        MAUVE: mauve(synthetic.vectors, real.vectors, bins=bins, seed=seed),
        "Fréchet distance": frechet(synthetic.vectors, real.vectors),
        **neighbourhoods(synthetic.vectors, real.vectors),
    }


# training on one set and testing on another


def predicted(train: Sample, test: Sample, *, by_words: bool = False) -> npt.NDArray[np.str_]:
    """Labels of `test` by a logistic regression trained on `train`, on embeddings or on TF-IDF of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    labels = np.array(train.labels, dtype=str)
    if len(set(labels)) == 1:
        return np.full(len(test), labels[0])
    classifier = LogisticRegression(C=10.0, max_iter=1000)
    with warnings.catch_warnings():
        # few texts per label look like numbers to predict, and scikit-learn warns at every fit
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        if not by_words:
            return np.asarray(classifier.fit(train.vectors, labels).predict(test.vectors))
        vectorizer = TfidfVectorizer(sublinear_tf=True, tokenizer=words, token_pattern=None)
        try:
            pipeline = make_pipeline(vectorizer, classifier).fit(list(train.texts), labels)
        except ValueError:  # not one word in all texts
            return np.full(len(test), Counter(labels.tolist()).most_common(1)[0][0])
    return np.asarray(pipeline.predict(list(test.texts)))


def _scores(truth: Sequence[str | None], guess: npt.NDArray[np.str_], names: Sequence[str]) -> dict[str, float]:
    from sklearn.metrics import f1_score

    own = np.array(truth, dtype=str)
    per_label = f1_score(own, guess, labels=list(names), average=None, zero_division=0)
    f1 = {f"F1 of {name}": float(value) for name, value in zip(names, per_label, strict=True)}
    return {ACCURACY: float((own == guess).mean()), MACRO_F1: float(per_label.mean()), **f1}


def _usefulness(synthetic: Sample, train: Sample, test: Sample, names: Sequence[str]) -> dict[str, float]:
    """Trained on synthetic, on as many real texts, and the majority class; all tested on real."""
    figures: dict[str, float] = {}
    for kind, source, by_words in (
        (ON_SYNTHETIC, synthetic, False),
        (ON_TFIDF, synthetic, True),
        (ON_REAL, train, False),
        (f"{ON_REAL}, by words", train, True),
    ):
        scores = _scores(test.labels, predicted(source, test, by_words=by_words), names)
        figures |= {f"{name}, {kind}": value for name, value in scores.items() if name in (ACCURACY, MACRO_F1)}
        if source is synthetic and not by_words:
            figures |= {name: value for name, value in scores.items() if name not in (ACCURACY, MACRO_F1)}
    counts = Counter(test.labels)
    return figures | {f"{ACCURACY}, largest class": counts.most_common(1)[0][1] / len(test)}


# figures of the texts alone


def _text_figures(sample: Sample) -> dict[str, float]:
    found = [words(text.casefold()) for text in sample.texts]
    pairs = [pair for own in found for pair in itertools.pairwise(own)]
    every = [word for own in found for word in own]
    counts = Counter(" ".join(own) for own in found)
    return {
        "words a text": float(np.mean([len(own) for own in found])),
        "different words": float(len(set(every))),
        "different pairs of words, share": len(set(pairs)) / max(1, len(pairs)),
        "repeated texts, share": 1 - len(counts) / len(sample),
    }


# all of it


def _resampled(
    statistic: Callable[[Sample, Sample, int], Mapping[str, float]],
    first: Sample,
    second: Sample,
    size: int,
    generator: np.random.Generator,
    *,
    real_draws: int = 1,
    report: Callable[[], None] | None = None,
) -> dict[str, Figure]:
    """A statistic of two samples of equal size, with its interval (see the module)."""

    def values(draws: int, rows: int) -> dict[str, Float64Array]:
        found: list[list[Mapping[str, float]]] = []
        for _ in range(draws):
            if report is not None:
                report()
            own = first.take(_some(len(first), rows, generator))
            others = (second.take(_some(len(second), rows, generator)) for _ in range(real_draws))
            found.append([statistic(own, other, int(generator.integers(2**31))) for other in others])
        return {name: np.array([np.mean([e[name] for e in entries]) for entries in found]) for name in found[0][0]}

    whole, halves = values(DRAWS, size), values(HALVES, size // 2)
    return {name: _figure(name, float(whole[name].mean()), float(halves[name].std(ddof=1))) for name in whole}


def _some(count: int, rows: int, generator: np.random.Generator) -> IntArray:
    return generator.permutation(count)[:rows]


def _figure(name: str, value: float, deviation: float) -> Figure:
    most = math.inf if name.startswith(UNBOUNDED) else 1.0
    return Figure(value, max(0.0, value - NORMAL_95 * deviation), min(most, value + NORMAL_95 * deviation))


def measure(
    synthetic: Sample,
    real: Sample,
    *,
    names: Sequence[str] = (),
    nearest: IntArray | None = None,
    own: IntArray | None = None,
    size: int | None = None,
    seed: int = 0,
    public: Sample | None = None,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """All figures of a synthetic set against a real one, with those of real texts in its place.

    Args:
        synthetic: the synthetic texts.
        real: real texts; all with a label of `names`, if those are given.
        names: the label set; without it no classifier is trained.
        nearest: the nearest public centre of each synthetic text, int64 [n].
        own: the centre of each text's cell, int64 [n].
        size: texts on each side of a comparison; the smaller set's size if not given.
        seed: for the resampling. The figures are not released, so a seed may be fixed.
        public: texts by the public model, whose figures stand beside.
        progress: receives the share of the work done.

    Raises:
        DataError: too few texts on one side.
    """
    size = min(len(synthetic), len(real) // 2, size or len(synthetic), len(synthetic if public is None else public))
    if size < FEWEST:
        raise DataError(
            f"evaluate: needs at least {FEWEST} synthetic texts and twice as many real ones, not {len(synthetic)} and "
            f"{len(real)}"
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(real))
    train, test = real.take(order[: len(real) // 2]), real.take(order[len(real) // 2 :])
    bins = round(2 * size / TEXTS_PER_BIN)
    report = _counter(progress, (DRAWS + HALVES) * (4 if names else 3), share=1.0 if public is None else 0.5)

    def faithful(first: Sample, second: Sample, draw: int) -> dict[str, float]:
        return _fidelity(first, second, bins, draw)

    groups = {"fidelity": _resampled(faithful, synthetic, real, size, generator, real_draws=REAL_DRAWS, report=report)}
    if names:

        def useful(first: Sample, second: Sample, draw: int) -> dict[str, float]:
            chance = np.random.default_rng(draw)
            tested = test.take(_some(len(test), len(test) * len(first) // size, chance))
            return _usefulness(first, second, tested, names)

        found = _resampled(useful, synthetic, train, size, generator, report=report)
        groups["usefulness"] = {name: figure for name, figure in found.items() if not name.startswith("F1")}
        right = predicted(train, test) == np.array(test.labels, dtype=str)
        groups["usefulness"][f"{ACCURACY}, {ON_ALL_REAL}"] = share(right)
        groups["labels"] = {name: figure for name, figure in found.items() if name.startswith("F1")}
        groups["labels"] |= _agreement(synthetic, real, names)
    if nearest is not None and own is not None:
        inside = own != WHOLE_LABEL
        if inside.any():
            groups.setdefault("labels", {})["cell agreement"] = share(nearest[inside] == own[inside])

    def both(first: Sample, second: Sample, _: int) -> dict[str, float]:
        theirs = {f"{name}, real": value for name, value in _text_figures(second).items()}
        return _text_figures(first) | theirs

    groups["text"] = _resampled(both, synthetic, real, size, generator, report=report)
    # two halves of the real texts, of the size that the synthetic ones have
    as_real = _resampled(faithful, train, test, size, generator, report=report)
    if names:
        as_real["label agreement"] = groups["usefulness"][f"{ACCURACY}, {ON_ALL_REAL}"]
    beside: dict[str, Figure] = {}
    if public is not None:
        theirs = measure(public, real, names=names, size=size, seed=seed, progress=_second_half(progress))
        beside = {name: figure for figures in theirs.groups.values() for name, figure in figures.items()}
    return Evaluation(groups, len(synthetic), size, len(real), as_real, beside)


def _agreement(synthetic: Sample, real: Sample, names: Sequence[str]) -> dict[str, Figure]:
    """How often a classifier trained on real texts gives a synthetic text its label, in all and by label."""
    agreed = predicted(real, synthetic) == np.array(synthetic.labels, dtype=str)
    found = {"label agreement": share(agreed)}
    for name in names:
        of = [label == name for label in synthetic.labels]
        if any(of):
            found[f"label agreement of {name}"] = share(agreed[of])
    return found


def _second_half(progress: Callable[[float], None] | None) -> Callable[[float], None] | None:
    return None if progress is None else lambda done: progress(0.5 + done / 2)


def _counter(progress: Callable[[float], None] | None, total: int, *, share: float) -> Callable[[], None] | None:
    """Called once per draw: reports the share of all draws, up to `share`."""
    if progress is None:
        return None
    done = itertools.count(1)
    return lambda: progress(share * min(1.0, next(done) / total))
