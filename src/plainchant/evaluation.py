"""Whether synthetic text looks like the real text, and whether one can train on it.

Everything here reads private data, so none of its figures is private in the sense of the guarantee: they stay in
private/. Both sides of a comparison always have the same number of texts, since the measures of fidelity depend on it;
where the real table has more, a figure is the mean over several draws from it.

Every figure comes with a 95 % interval by half-sample bootstrap: the figure is computed again on random halves, drawn
without replacement, and the spread of those values is that of the whole (the delete-half jackknife, Shao & Wu 1989).
Drawing with replacement would not do: a text that is drawn twice is its own nearest neighbour.
"""

import dataclasses
import itertools
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plainchant.centres import Centres
from plainchant.config import SynthesisConfig
from plainchant.data import Record, fingerprint
from plainchant.embedding import Embedder, load_embedder
from plainchant.errors import ConfigError, DataError
from plainchant.rebalancing import WHOLE_LABEL
from plainchant.store import RunDirectory, read_table

FloatArray = npt.NDArray[np.floating[Any]]
IndexArray = npt.NDArray[np.int64]

# Draws that a figure is averaged over, random halves that its interval comes from, and draws of real text for each.
DRAWS, HALVES, REAL_DRAWS = 5, 40, 4
# Standard deviations on each side of a 95 % interval.
NORMAL_95 = 1.96
# MAUVE: scale of the divergence, mixtures on the curve, texts of both sides a bin, variance that the projection keeps.
SCALE, MIXTURES, TEXTS_PER_BIN, VARIANCE_KEPT = 5.0, 25, 20, 0.9
# Neighbours of precision, recall, density and coverage.
NEIGHBOURS = 5
# Real texts that are looked at, at most.
REAL_LIMIT = 5_000
# Fewer texts than this make no figure.
FEWEST = 10

NOTE = (
    "These figures were computed from the private data and are not covered by the guarantee: keep them in private/, "
    "and count every figure that leaves it as a release of its own."
)
MAUVE, ACCURACY, MACRO_F1 = "MAUVE", "accuracy", "macro-F1"
ON_SYNTHETIC, ON_TFIDF = "trained on synthetic", "trained on synthetic, by words"
ON_REAL = "trained on as many real texts"
# Figures that may be larger than 1.
UNBOUNDED = ("Fréchet distance", "density", "words a text", "different words")
EXPLANATIONS: Mapping[str, str] = {
    MAUVE: "1: nobody could tell the two sets apart by their embeddings; near 0: nothing in common (Pillutla et al.)",
    "Fréchet distance": "distance of two normal distributions fitted to the embeddings; lower is better",
    "precision": "share of synthetic texts that lie among real ones",
    "recall": "share of real texts that lie among synthetic ones",
    "density": "how many real neighbourhoods hold a synthetic text, 1 as for real text",
    "coverage": "share of real texts with a synthetic one in their neighbourhood",
    "label agreement": "share of synthetic texts whose label a classifier trained on real text would give",
    "cell agreement": "share of synthetic texts that lie nearest to the public centre of their own cell",
}


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval; None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3g}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, repr=False)
class Sample:
    """Texts with labels and embeddings; its `repr` shows nothing of them.

    Attributes:
        texts: n texts.
        labels: n labels, or Nones.
        vectors: unit vectors, float [n, d].
    """

    texts: Sequence[str]
    labels: Sequence[str | None]
    vectors: FloatArray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: IndexArray) -> "Sample":
        """The sample of these rows."""
        return Sample([self.texts[row] for row in rows], [self.labels[row] for row in rows], self.vectors[rows])


@dataclass(frozen=True)
class Figures:
    """Figures by group and name. Private.

    Attributes:
        groups: for each group a mapping from a figure's name to the figure.
    """

    groups: Mapping[str, Mapping[str, Figure]]

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, or None where it was not computed."""
        return next((figures[name] for figures in self.groups.values() if name in figures), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file in private/."""
        return {"note": NOTE, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Evaluation(Figures):
    """The groups "fidelity" and "text", and, where there are labels, "usefulness" and "labels".

    Attributes:
        texts: synthetic texts of the run.
        compared: texts on each side of a comparison.
        real: real texts that were looked at.
    """

    texts: int
    compared: int
    real: int


# measures of two sets of embeddings, float [n, d] each


def mauve(p: FloatArray, q: FloatArray, *, bins: int | None = None, seed: int = 0) -> float:
    """MAUVE (Pillutla et al. 2021, 2023): the area under the divergence curve of two quantised sets, 0 to 1.

    Both sets are projected to the principal components that keep 90 % of their joint variance, and quantised by
    k-means, if not told otherwise with a bin for twenty texts.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    both = np.concatenate([p, q]).astype(np.float64)
    if len(np.unique(both, axis=0)) == 1:
        return 1.0
    projected = PCA(VARIANCE_KEPT, svd_solver="full").fit_transform(both)
    bins = max(2, min(len(np.unique(both, axis=0)), bins or round(len(both) / TEXTS_PER_BIN)))
    with warnings.catch_warnings():
        # texts that are all alike fill fewer bins than asked for, which is no fault here
        warnings.simplefilter("ignore")
        assigned = KMeans(bins, n_init=5, max_iter=500, random_state=seed).fit_predict(projected)
    return mauve_of_bins(
        np.bincount(assigned[: len(p)], minlength=bins), np.bincount(assigned[len(p) :], minlength=bins)
    )


def mauve_of_bins(p: npt.NDArray[np.int64], q: npt.NDArray[np.int64]) -> float:
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
    # a set's own distances are sorted with the zero to itself in front
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
    if not by_words:
        model = LogisticRegression(C=10.0, max_iter=1000).fit(train.vectors, labels)
        return np.asarray(model.predict(test.vectors))
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        pipeline = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000)).fit(list(train.texts), labels)
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


# the texts by themselves

_WORD = re.compile(r"\w+")


def _text_figures(sample: Sample) -> dict[str, float]:
    words = [_WORD.findall(text.casefold()) for text in sample.texts]
    pairs = [pair for own in words for pair in itertools.pairwise(own)]
    every = [word for own in words for word in own]
    counts = Counter(" ".join(own) for own in words)
    return {
        "words a text": float(np.mean([len(own) for own in words])),
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
) -> dict[str, Figure]:
    """A statistic of two samples of equal size, with its interval (see the module)."""

    def values(draws: int, rows: int) -> dict[str, npt.NDArray[np.float64]]:
        found: list[list[Mapping[str, float]]] = []
        for _ in range(draws):
            own = first.take(_some(len(first), rows, generator))
            others = (second.take(_some(len(second), rows, generator)) for _ in range(real_draws))
            found.append([statistic(own, other, int(generator.integers(2**31))) for other in others])
        return {name: np.array([np.mean([e[name] for e in entries]) for entries in found]) for name in found[0][0]}

    whole, halves = values(DRAWS, size), values(HALVES, size // 2)
    return {name: _figure(name, float(whole[name].mean()), float(halves[name].std(ddof=1))) for name in whole}


def _some(count: int, rows: int, generator: np.random.Generator) -> IndexArray:
    return generator.permutation(count)[:rows]


def _figure(name: str, value: float, deviation: float) -> Figure:
    most = math.inf if name.startswith(UNBOUNDED) else 1.0
    return Figure(value, max(0.0, value - NORMAL_95 * deviation), min(most, value + NORMAL_95 * deviation))


def measure(
    synthetic: Sample,
    real: Sample,
    *,
    names: Sequence[str] = (),
    nearest: IndexArray | None = None,
    own: IndexArray | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """All figures of a synthetic set against a real one.

    Args:
        synthetic: the synthetic texts.
        real: real texts; every one with a label of `names`, where those are given.
        names: the label set; without it nothing is trained.
        nearest: the public centre that each synthetic text is nearest to, int64 [n].
        own: the centre of its cell, int64 [n].
        size: texts on each side of a comparison; the smaller set's size if not given.
        seed: of the resampling. The figures are not released, so a seed may be fixed.

    Raises:
        DataError: too few texts on one side.
    """
    size = min(len(synthetic), len(real) // 2, size or len(synthetic))
    if size < FEWEST:
        raise DataError(
            f"evaluate: needs at least {FEWEST} synthetic texts and twice as many real ones, not {len(synthetic)} and "
            f"{len(real)}"
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(real))
    train, test = real.take(order[: len(real) // 2]), real.take(order[len(real) // 2 :])
    bins = round(2 * size / TEXTS_PER_BIN)

    def faithful(first: Sample, second: Sample, draw: int) -> dict[str, float]:
        return _fidelity(first, second, bins, draw)

    groups = {"fidelity": _resampled(faithful, synthetic, real, size, generator, real_draws=REAL_DRAWS)}
    if names:

        def useful(first: Sample, second: Sample, draw: int) -> dict[str, float]:
            chance = np.random.default_rng(draw)
            tested = test.take(_some(len(test), len(test) * len(first) // size, chance))
            return _usefulness(first, second, tested, names)

        found = _resampled(useful, synthetic, train, size, generator)
        groups["usefulness"] = {name: figure for name, figure in found.items() if not name.startswith("F1")}
        right = predicted(train, test) == np.array(test.labels, dtype=str)
        groups["usefulness"][f"{ACCURACY}, trained on all real texts"] = share(right)
        groups["labels"] = {name: figure for name, figure in found.items() if name.startswith("F1")}
        agreed = predicted(real, synthetic) == np.array(synthetic.labels, dtype=str)
        groups["labels"]["label agreement"] = share(agreed)
        for name in names:
            of = [label == name for label in synthetic.labels]
            if any(of):
                groups["labels"][f"label agreement of {name}"] = share(agreed[of])
    if nearest is not None and own is not None:
        inside = own != WHOLE_LABEL
        if inside.any():
            groups.setdefault("labels", {})["cell agreement"] = share(nearest[inside] == own[inside])

    def both(first: Sample, second: Sample, _: int) -> dict[str, float]:
        theirs = {f"{name}, real": value for name, value in _text_figures(second).items()}
        return _text_figures(first) | theirs

    groups["text"] = _resampled(both, synthetic, real, size, generator)
    return Evaluation(groups, len(synthetic), size, len(real))


def share(hits: npt.NDArray[np.bool_]) -> Figure:
    """The share of true values with its 95 % Clopper–Pearson interval."""
    from scipy.stats import binomtest

    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="exact")
    return Figure(float(hits.mean()), float(interval.low), float(interval.high))


# runs on disk


def centres_of(directory: RunDirectory, config: SynthesisConfig) -> Centres | None:
    """The public centres of a run; None where it has none."""
    if isinstance(config.centres, str):
        return Centres.load(Path(config.centres))
    return Centres.load(directory.centres) if directory.centres.exists() else None


def real_sample(
    directories: Sequence[RunDirectory],
    source: Any,
    embedder: Embedder,
    *,
    limit: int = REAL_LIMIT,
    progress: Callable[[float], None] | None = None,
) -> Sample:
    """Real texts with labels and embeddings; those that a run has kept are used again.

    Args:
        directories: runs with the same columns and label set.
        source: the real table (see `data.read_records`).
        embedder: embeds what is not kept.
        limit: so many texts at most, drawn at random.
        progress: hears the share of texts embedded.

    Raises:
        DataError: the table cannot be read, or the runs' columns or label sets differ.
    """
    configs = [directory.config for directory in directories]
    config = configs[0]
    if any(_columns(own) != _columns(config) for own in configs):
        raise DataError("the runs differ in their columns or labels: only runs on the same table can be compared")
    records = read_table(source, config)
    usable = [number for number, record in enumerate(records) if _usable(record, config)]
    chosen = np.random.default_rng(0).permutation(np.array(usable, dtype=np.int64))[:limit]
    data = fingerprint(records)
    same = (
        directory.embeddings()
        for directory, own in zip(directories, configs, strict=True)
        if own.embedder == embedder.name and directory.get("data") == data
    )
    kept = next((vectors for vectors in same if vectors is not None), None)
    texts = [records[number].text for number in chosen]
    vectors = embedder.encode(texts, progress=progress) if kept is None else kept[chosen]
    return Sample(texts, [records[number].label for number in chosen], vectors)


def released_sample(rows: Sequence[Mapping[str, Any]], embedder: Embedder) -> Sample:
    """Rows of a release (`RunDirectory.released`) with their embeddings."""
    texts = [row["text"] for row in rows]
    return Sample(texts, [row.get("label") for row in rows], embedder.encode(texts))


def _columns(config: SynthesisConfig) -> tuple[Any, ...]:
    return config.text_column, config.label_column, config.unit_column, config.labels


def _usable(record: Record, config: SynthesisConfig) -> bool:
    return bool(record.text.strip()) and (not config.labels or record.label in config.labels)


def evaluate(
    run: Any,
    real: Any,
    *,
    embedder: Embedder | None = None,
    size: int | None = None,
    limit: int = REAL_LIMIT,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Compares a run's release with real text. Reads private data; the figures are private.

    Args:
        run: a `Run`, a `RunDirectory` or a path.
        real: the real table (see `data.read_records`), or a `Sample`.
        embedder: a loaded one, in place of the run's.
        size: texts on each side of a comparison, at most.
        limit: so many real texts are looked at, at most.
        progress: hears the share of real texts embedded.

    Raises:
        ConfigError, DataError: there is no such run, no release, no such table, or too few texts.
    """
    directory = directory_of(run)
    config = directory.config
    embedder = embedder or load_embedder(config.embedder)
    if not isinstance(real, Sample):
        real = real_sample([directory], real, embedder, limit=limit, progress=progress)
    rows = [row for row in directory.released() if row["text"].strip()]
    synthetic = released_sample(rows, embedder)
    cells, centres = directory.cells(), centres_of(directory, config)
    nearest = own = None
    if centres is not None and any(cell.centre != WHOLE_LABEL for cell in cells):
        own = np.array([cells[row["cell"]].centre for row in rows], dtype=np.int64)
        among = np.unique([cell.centre for cell in cells if cell.centre != WHOLE_LABEL])
        nearest = centres.nearest(synthetic.vectors, among)
    return measure(synthetic, real, names=config.labels, nearest=nearest, own=own, size=size)


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        name: the name of its directory.
        method: its preset.
        ex_ante: ε that was known before the run; None where there is none.
        ex_post: ε measured after the run, for its data and output; private, and no promise; None where not measured.
        delta: δ of both.
        tokens: released tokens.
        evaluation: its figures, at the same number of texts as the others.
    """

    name: str
    method: str
    ex_ante: float | None
    ex_post: float | None
    delta: float
    tokens: int
    evaluation: Evaluation

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for comparison.json."""
        return dataclasses.asdict(self)


def compare(
    runs: Sequence[Any],
    real: Any,
    *,
    embedder: Embedder | None = None,
    limit: int = REAL_LIMIT,
    progress: Callable[[float], None] | None = None,
) -> list[Compared]:
    """Several runs against the same real texts, each with as many texts as the smallest of them. Private.

    Args:
        runs: as for `evaluate`, at least one, on the same table.
        real: the real table (see `data.read_records`).
        embedder: a loaded one, in place of the runs'.
        limit: so many real texts are looked at, at most.
        progress: hears the share of the work done.

    Raises:
        ConfigError, DataError: as `evaluate`; or the runs were made with different columns, labels or embedders.
    """
    directories = [directory_of(run) for run in runs]
    names = {directory.config.embedder for directory in directories}
    if len(names) > 1:
        raise ConfigError(f"embedder: {', '.join(sorted(names))}; compare runs that were made with the same one")
    embedder = embedder or load_embedder(names.pop())
    size = min(sum(bool(row["text"].strip()) for row in directory.released()) for directory in directories)
    steps, found = len(directories) + 1, []

    def embedding(share: float) -> None:
        if progress is not None:
            progress(share / steps)

    sample = real_sample(directories, real, embedder, limit=limit, progress=embedding)
    for done, directory in enumerate(directories, start=2):
        own = evaluate(directory, sample, embedder=embedder, size=size)
        guarantee, costs = directory.plan["guarantee"], directory.read_private("costs.json")
        found.append(
            Compared(
                name=directory.path.name,
                method=guarantee["method"],
                ex_ante=guarantee["epsilon"] if guarantee["kind"] == "ex-ante" else None,
                ex_post=costs["ex_post"]["epsilon"] if costs and guarantee["kind"] != "none" else None,
                delta=directory.config.delta,
                tokens=sum(text.tokens for text in directory.texts()),
                evaluation=own,
            )
        )
        if progress is not None:
            progress(done / steps)
    return found


def directory_of(run: Any) -> RunDirectory:
    """The directory of a run, however it is named."""
    if isinstance(run, RunDirectory):
        return run
    own = getattr(run, "directory", None)
    if isinstance(own, RunDirectory):
        return own
    if not isinstance(run, (str, Path)):
        raise ConfigError(f"run: {type(run).__name__} is no run, RunDirectory or path")
    return RunDirectory.open(Path(run))
