"""Figures with intervals, by group and name."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plainchant.arrays import BoolArray

# Standard deviations on each side of a 95 % interval.
NORMAL_95 = 1.96
NOTE = (
    "These figures were computed from the private data and are not covered by the guarantee: keep them in private/. "
    "Publishing any of them is a separate release of private data."
)
MAUVE, ACCURACY, MACRO_F1 = "MAUVE", "accuracy", "macro-F1"
ON_SYNTHETIC, ON_TFIDF = "trained on synthetic", "trained on synthetic, by words"
ON_REAL = "trained on as many real texts"
COLUMNS, PAIRS, AS_REAL = "agreement of columns", "agreement of pairs of columns", "as many real rows"
EXPLANATIONS: Mapping[str, str] = {
    MAUVE: "1: the embeddings of both sets look the same; near 0: they have nothing in common (Pillutla et al.)",
    "Fréchet distance": "distance of two normal distributions fitted to the embeddings; lower is better",
    "precision": "share of synthetic texts that lie among real ones",
    "recall": "share of real texts that lie among synthetic ones",
    "density": "number of real neighbourhoods that hold a synthetic text, scaled so that real text has 1",
    "coverage": "share of real texts with a synthetic one in their neighbourhood",
    "label agreement": "share of synthetic texts to which a classifier trained on real text gives the same label",
    COLUMNS: "1: every column is distributed as in the real table; 0: no value in common (1 − total variation, mean)",
    PAIRS: "the same for every two columns together",
    "cell agreement": "share of synthetic texts whose nearest public centre is that of their cell",
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
    """Figures of a release against real data.

    The groups are "fidelity" and "text"; where there are labels, "usefulness" and "labels"; where there are attributes,
    "attributes" and "attributes and text".

    Attributes:
        texts: synthetic texts of the run.
        compared: texts on each side of a comparison.
        real: real texts that were used.
    """

    texts: int
    compared: int
    real: int


def shown_name(name: str) -> str:
    """A figure's name as users see it; its key in saved results stays as it is.

    >>> shown_name("words a text, real")
    'words per text, real'
    """
    return name.replace("words a text", "words per text")


def share(hits: BoolArray) -> Figure:
    """The share of true values with its 95 % Clopper–Pearson interval."""
    from scipy.stats import binomtest

    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="exact")
    return Figure(float(hits.mean()), float(interval.low), float(interval.high))
