"""Which candidates a vote chooses: functions of noisy votes and of released text alone (guarantee 8)."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from plainchant.arrays import BoolArray, Float32Array, Float64Array, IntArray
from plainchant.config import SynthesisConfig

# Below so many released texts for each label, on average, labels get as many as each other.
FEW_PER_LABEL = 20
# How much a label's probability weighs against votes (docs/candidates.md), and how many parts candidates fall into to
# find it, each part's by a classifier that saw the others.
SURENESS, PARTS = 0.25, 5
# How many deviations of the noise a nat of a label's probability by its name weighs (docs/candidates.md).
NAMED = 1.0
# Logarithms of the temperatures between which one is sought: at the highest all labels are as likely as each other.
LOG_TEMPERATURES = (-4.0, 6.0)
# Width of the kernel: at the median distance of two candidates it is e^-3.
SHARPNESS = 3.0


@dataclass(frozen=True, eq=False)
class Tally:
    """A vote's outcome, cell by cell of its ballot. Public.

    Attributes:
        labels: each cell's label, int64 [c].
        candidates: its candidate, int64 [c].
        votes: its noisy votes, int64 [c].
        sigma: of the noise.
        twins: for each candidate the first one with the same text, int64 [m].
    """

    labels: IntArray
    candidates: IntArray
    votes: IntArray
    sigma: float
    twins: IntArray

    def sums(self, labels: int) -> Float64Array:
        """Noisy votes of each label, float64 [labels]."""
        sums = np.bincount(self.labels, weights=self.votes.astype(np.float64), minlength=labels)
        return sums.astype(np.float64)

    def weights(self, labels: int) -> Float64Array:
        """What each label weighs by its votes, at least 0, float64 [labels]; all the same where votes are noise.

        Sums are drawn towards their mean by the part of their spread that the noise explains (empirical Bayes), so that
        weak votes cannot leave a label without texts by chance.
        """
        sums, variances = self.sums(labels), self.sigma**2 * np.bincount(self.labels, minlength=labels)
        apart = sums - sums.mean()
        between = max(0.0, float((apart**2).mean() - variances.mean()))
        drawn = between / (between + variances) if between else np.zeros(labels)
        weights: Float64Array = np.maximum(sums.mean() + drawn * apart, 0.0)
        return weights if weights.any() else np.ones(labels)

    def own_first(self, asked: IntArray) -> "Tally":
        """The same for a choice: what another label asked for and does not stand out of the noise comes last.

        The highest of c cells of mere noise is about σ·√(2 ln c). All candidates may be open to a label, and one with
        few units would be given whatever the noise is highest for. `votes` are then good for an order alone.

        Args:
            asked: the label that each candidate's prompt asked for, int64 [m].
        """
        cells = np.maximum(np.bincount(self.labels), 2)
        noise = (self.sigma * np.sqrt(2 * np.log(cells)))[self.labels]
        last = (asked[self.candidates] != self.labels) & (self.votes <= noise)
        span = int(self.votes.max(initial=0)) - int(self.votes.min(initial=0)) + 1
        return dataclasses.replace(self, votes=self.votes - span * last)

    def sure_first(self, vectors: Float32Array, asked: IntArray, power: float = SURENESS) -> "Tally":
        """The same for a choice: votes times a power of the probability that the candidate has the cell's label.

        Neighbours' votes say it: a logistic regression is trained on each label's own candidates, weighed by votes. As
        it was where there are too few to train on.

        Args:
            vectors: of the candidates, float32 [m, d].
            asked: the label that each candidate's prompt asked for, int64 [m].
            power: of the probability.
        """
        # scikit-learn is slow to import
        from sklearn.linear_model import LogisticRegression

        # equal texts are in one part; at random, so that no part is a label's
        part = np.random.default_rng(0).integers(PARTS, size=len(self.twins))[self.twins[self.candidates]]
        weights = np.maximum(self.votes, 0) / self.sigma
        taught = (weights > 0) & (asked[self.candidates] == self.labels)
        sure = np.ones(len(self.votes))
        for one in range(PARTS):
            seen, new = taught & (part != one), part == one
            if not new.any():
                continue
            if len(np.unique(self.labels[seen])) < 2:
                return self
            classifier = LogisticRegression(C=10.0, max_iter=1000)
            classifier.fit(vectors[self.candidates[seen]], self.labels[seen], weights[seen] / weights[seen].mean())
            # a label that no candidate teaches is as likely as it was
            found = np.ones((int(new.sum()), int(self.labels.max()) + 1))
            found[:, classifier.classes_] = classifier.predict_proba(vectors[self.candidates[new]])
            sure[new] = found[np.arange(len(found)), self.labels[new]]
        weighed = np.where(self.votes > 0, self.votes * sure**power, self.votes)
        return dataclasses.replace(self, votes=weighed.astype(np.int64))

    def named_first(self, likely: Float64Array, weight: float = NAMED) -> "Tally":
        """The same for a choice: votes and what labels' names say of the candidates, as far as votes are noise.

        Strong votes are many deviations high, and names hardly matter. `votes` are then good for an order alone.

        Args:
            likely: log-probabilities of the labels by their names, nats, float64 [m, labels]; see `likely_by_name`.
            weight: how many deviations of the noise a nat weighs.
        """
        # against what a label is worth where names say nothing
        told = likely[self.candidates, self.labels] + np.log(likely.shape[1])
        return dataclasses.replace(self, votes=self.votes + np.rint(weight * self.sigma * told).astype(np.int64))

    def without_signal(self, labels: int) -> IntArray:
        """Labels whose sum of votes is within two deviations of none, int64."""
        cells = np.bincount(self.labels, minlength=labels)
        return np.flatnonzero(self.sums(labels) <= 2 * self.sigma * np.sqrt(cells))


def likely_by_name(vectors: Float32Array, names: Float32Array, asked: IntArray) -> Float64Array:
    """How likely each label is for each candidate, by the likeness of text and name. Public.

    A softmax of cosines, at the temperature at which the labels that prompts asked for are most likely (temperature
    scaling, Guo et al. 2017). It is high where names say nothing about texts: all labels are as likely as each other.

    Args:
        vectors: of the candidates, unit vectors, float32 [m, d].
        names: of the labels as prompts show them, unit vectors, float32 [labels, d].
        asked: the label that each candidate's prompt asked for, int64 [m].

    Returns:
        Log-probabilities, nats, float64 [m, labels].
    """
    # slow to import
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    alike = (vectors @ names.T).astype(np.float64)

    def surprise(log_temperature: float) -> float:
        every = log_softmax(alike * math.exp(-log_temperature), axis=1)
        return -float(every[np.arange(len(asked)), asked].sum())

    found = minimize_scalar(surprise, bounds=LOG_TEMPERATURES, method="bounded")
    likely: Float64Array = log_softmax(alike * math.exp(-found.x), axis=1)
    return likely


def few_per_label(labels: int, count: int) -> bool:
    """Whether `count` released texts are few for so many labels."""
    return count < FEW_PER_LABEL * labels


def balanced(asked: Literal["auto", "votes", "balanced"], labels: int, count: int) -> bool:
    """Whether labels get as many texts as each other, of `count` in all."""
    return asked == "balanced" or (asked == "auto" and few_per_label(labels, count))


def numbers_asked(config: SynthesisConfig) -> list[int] | None:
    """For each label how many texts of it are to be released, rounded up; None where votes say it."""
    labels = len(config.label_set)
    if isinstance(config.quotas, dict):
        return [config.quotas.get(label or "", 0) for label in config.label_set]
    return [-(-config.released // labels)] * labels if balanced(config.quotas, labels, config.released) else None


def quotas_of(
    asked: Literal["auto", "votes", "balanced"] | Mapping[int, int], tally: Tally, labels: int, count: int
) -> IntArray:
    """How many texts of each label are chosen; the sum is `count` where there are so many different candidates.

    Args:
        asked: as the configuration says, labels by number.
        tally: the vote.
        labels: size of the label set.
        count: how many are chosen in all.
    """
    if isinstance(asked, Mapping):
        return np.array([asked.get(label, 0) for label in range(labels)], dtype=np.int64)
    weights = np.ones(labels) if balanced(asked, labels, count) else tally.weights(labels)
    room = np.array(
        [len(np.unique(tally.twins[tally.candidates[tally.labels == label]])) for label in range(labels)],
        dtype=np.int64,
    )
    quotas = np.zeros(labels, dtype=np.int64)
    for _ in range(min(count, int(room.sum()))):
        # highest averages (Sainte-Laguë), as texts are spread over cells
        lag = np.where(quotas < room, weights / (2 * quotas + 1), -1.0)
        quotas[int(np.argmax(lag))] += 1
    return quotas


def choose_for_rows(tally: Tally, rows: IntArray) -> list[int]:
    """The chosen candidates where each is written for a row: the most votes, each row and text once.

    Args:
        tally: the vote.
        rows: the row of each candidate, int64 [m]; -1 where it has none and cannot be chosen.

    Returns:
        In the order of the rows; a row without candidates is left out.
    """
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    # ties go to the earlier cell
    for candidate in tally.candidates[np.argsort(-tally.votes, kind="stable")].tolist():
        row, twin = int(rows[candidate]), int(tally.twins[candidate])
        if row >= 0 and row not in chosen and twin not in taken:
            chosen[row] = candidate
            taken.add(twin)
    return [chosen[row] for row in sorted(chosen)]


def choose(
    tally: Tally,
    vectors: Float32Array,
    quotas: IntArray,
    choice: Literal["highest", "matching"],
    *,
    fill: int = 0,
    sizes: IntArray | None = None,
) -> list[tuple[int, int]]:
    """The chosen (label, candidate), each text once: every label's quota, as far as there are candidates for it.

    Args:
        tally: the vote.
        vectors: of the candidates, float32 [m, d].
        quotas: for each label, int64 [labels].
        choice: "highest", the most votes; "matching", kernel herding: each next one where the chosen ones so far lie
            thinnest below the votes.
        fill: where labels have too few candidates, whatever has the most votes makes up so many in all.
        sizes: the noisy votes that matching goes by, int64 [c], where those of `tally` are good for an order alone.
    """
    # ties go to the earlier cell
    order = np.argsort(-tally.votes, kind="stable")
    taken: set[int] = set()
    sizes = tally.votes if sizes is None else sizes
    chosen = _matching(tally, sizes, vectors, quotas, taken) if choice == "matching" else []
    room = quotas.copy()
    for label, _ in chosen:
        room[label] -= 1
    chosen += _highest(tally, order, room, taken)
    missing = max(0, fill - len(chosen))
    rest = np.full(len(quotas), missing, dtype=np.int64)
    return chosen + _highest(tally, order, rest, taken)[:missing]


def _highest(tally: Tally, order: IntArray, room: IntArray, taken: set[int]) -> list[tuple[int, int]]:
    """The highest cells of each label that has room, of each text one; notes in `taken` what it takes."""
    chosen, left = [], room.copy()
    for cell in order:
        label, candidate = int(tally.labels[cell]), int(tally.candidates[cell])
        text = int(tally.twins[candidate])
        if left[label] > 0 and text not in taken:
            taken.add(text)
            left[label] -= 1
            chosen.append((label, candidate))
    return chosen


def _matching(
    tally: Tally, sizes: IntArray, vectors: Float32Array, quotas: IntArray, taken: set[int]
) -> list[tuple[int, int]]:
    """Kernel herding on the votes that stand out of the noise, label by label; notes in `taken` what it takes.

    A text belongs to the label that gave it the most votes.
    """
    order = np.argsort(-tally.votes, kind="stable")
    _, first = np.unique(tally.twins[tally.candidates[order]], return_index=True)
    mine: BoolArray = np.zeros(len(order), dtype=bool)
    mine[order[first]] = True
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        cells = np.flatnonzero(mine & (tally.labels == label))
        weights = np.maximum(sizes[cells] - tally.sigma, 0.0)
        if not quota or not weights.any():
            continue
        own = tally.candidates[cells]
        for place in herd(vectors[own], weights / weights.sum(), min(quota, int((weights > 0).sum()))):
            taken.add(int(tally.twins[own[place]]))
            chosen.append((label, int(own[place])))
    return chosen


def herd(points: Float32Array, weights: Float64Array, count: int) -> list[int]:
    """Places of `count` points of positive weight whose mean in the kernel's space comes near to the weighted mean.

    Greedy (kernel herding, without replacement): each next point is where the weighted mean exceeds that of the points
    chosen so far the most. Time: one row of kernel values for each chosen point, and one for each of positive weight.

    Args:
        points: float32 [m, d].
        weights: at least 0, float64 [m].
        count: at most the number of positive weights.
    """
    support = np.flatnonzero(weights > 0)
    points, weights = points[support], weights[support]
    squares = np.einsum("md,md->m", points, points)

    def distances(place: int) -> Float32Array:
        apart: Float32Array = squares + squares[place] - 2 * (points @ points[place])
        return np.maximum(apart, 0.0, out=apart)

    some = range(0, len(points), max(1, len(points) // 64))
    typical = float(np.median([np.median(distances(place)) for place in some])) or 1.0

    def kernel(place: int) -> Float64Array:
        return np.exp(-SHARPNESS * distances(place).astype(np.float64) / typical)

    wanted = np.zeros(len(points))
    for place, weight in enumerate(weights):
        wanted += weight * kernel(place)
    so_far, free = np.zeros(len(points)), np.ones(len(points), dtype=bool)
    chosen: list[int] = []
    for turn in range(count):
        place = int(np.argmax(np.where(free, wanted - so_far / (turn + 1), -np.inf)))
        chosen.append(place)
        free[place] = False
        so_far += kernel(place)
    return [int(support[place]) for place in chosen]
