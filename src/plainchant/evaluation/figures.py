"""Figures with intervals, by group and name."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from plainchant.arrays import BoolArray
from plainchant.display import html_table

# Standard deviations on each side of a 95 % interval.
NORMAL_95 = 1.96
NOTE = (
    "These figures were computed from the private data and are not covered by the guarantee: keep them in private/. "
    "Publishing any of them is a separate release of private data."
)
MAUVE, ACCURACY, MACRO_F1 = "MAUVE", "accuracy", "macro-F1"
ON_SYNTHETIC, ON_TFIDF = "trained on synthetic", "trained on synthetic, by words"
ON_REAL = "trained on as many real texts"
COLUMNS, PAIRS = "agreement of columns", "agreement of pairs of columns"
ON_ALL_REAL = "trained on all real texts"
# With fewer texts on each side MAUVE is near 1 whatever the texts are.
FEWEST_FOR_MAUVE = 300
WEAK_MAUVE = f"MAUVE says little below {FEWEST_FOR_MAUVE} texts: there it is high whatever the texts are"
# Figures of real texts, by the figure that is read against them.
_ALL_REAL = {f"{ACCURACY}, {ON_SYNTHETIC}": f"{ACCURACY}, {ON_ALL_REAL}"}
_REAL = ", real"
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
# Names of an audit's figures, as users see them.
_RUNS = {
    "mean_run": "mean run",
    "longest_run": "longest run",
    "long_runs": "texts with a long run",
    "five_grams": "five words in a row",
}
_WITH = {"private": "table", "private_sample": "part of it", "held_out": "held out"}
_AUDITED: Mapping[str, str] = {
    **{f"{own}_{run}": f"{name}, {whose}" for own, whose in _WITH.items() for run, name in _RUNS.items()},
    "copied": "copied texts",
    "similarity_auc": "members told by similarity",
    "similarity_tpr": "members found by similarity",
    "likelihood_auc": "members told by likelihood",
    "likelihood_tpr": "members found by likelihood",
    "extracted_numbers": "numbers leaked",
    "extracted_names": "names leaked",
    "exposure_by_chance": "exposure by chance",
    "epsilon_low": "ε of at least",
    "epsilon_claimed": "ε claimed",
    "epsilon_limit": "largest ε that could show",
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

    def _repr_html_(self) -> str:
        tables = (
            html_table(group, [(shown_name(name), figure) for name, figure in figures.items()],
                       head=("figure", "value (95 % interval)"))
            for group, figures in self.groups.items()
        )  # fmt: skip
        return f"<p><strong>PRIVATE</strong> {NOTE}</p>" + "".join(tables)

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
        as_real: by the name of a figure, the same figure of as many real texts in place of the synthetic ones.
        public: by the name of a figure, the same figure of texts by the public model; empty where there are none.
    """

    texts: int
    compared: int
    real: int
    as_real: Mapping[str, Figure] = field(default_factory=dict)
    public: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def mauve_is_weak(self) -> bool:
        """Whether MAUVE was computed on too few texts to mean something."""
        return self.figure(MAUVE) is not None and self.compared < FEWEST_FOR_MAUVE

    def beside(self) -> dict[str, list["Beside[Figure]"]]:
        """The figures by group, each with those that it is to be read against."""
        return {group: list(beside(figures, self.as_real, self.public)) for group, figures in self.groups.items()}


# What a reader looks at first, as the question that each figure answers.
IN_SHORT: Mapping[str, str] = {
    MAUVE: "like the real texts? (MAUVE)",
    f"{ACCURACY}, {ON_SYNTHETIC}": "right labels by a classifier trained on them",
    f"{ACCURACY}, {ON_SYNTHETIC}, by words": "the same, by words alone",
    "label agreement": "do labels fit their texts?",
    "repeated texts, share": "texts that stand there twice",
    COLUMNS: "columns as in the real table",
    PAIRS: "pairs of columns",
}

# A figure, or its plain values as they are saved.
_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class Beside(Generic[_Entry]):
    """A figure of the synthetic texts and what it is to be read against; None where there is no such figure.

    Attributes:
        name: its name.
        figure: of the synthetic texts.
        as_real: of as many real texts in their place.
        all_real: of all real texts in their place.
        public: of texts by the public model in their place.
    """

    name: str
    figure: _Entry
    as_real: _Entry | None
    all_real: _Entry | None
    public: _Entry | None


# What stands beside the figures of the synthetic texts, by its field of `Beside`, as users see it.
BESIDE: Mapping[str, str] = {"as_real": "as many real", "all_real": "all real", "public": "public model"}


def beside(
    figures: Mapping[str, _Entry], as_real: Mapping[str, _Entry], public: Mapping[str, _Entry]
) -> Iterator[Beside[_Entry]]:
    """The figures of a group, each with those that it is to be read against.

    Args:
        figures: figures by name; those of real texts among them stand beside the others.
        as_real: figures of as many real texts that are in no group, by name.
        public: figures of texts by the public model, by name.
    """
    for name, figure in figures.items():
        if ON_REAL in name or name in _ALL_REAL.values() or name.endswith(_REAL):
            continue
        real = figures.get(of_real(name)) or as_real.get(name)
        yield Beside(name, figure, real, figures.get(_ALL_REAL.get(name, "")), public.get(name))


def of_real(name: str) -> str:
    """The name of the same figure of as many real texts or rows, in a group that has it.

    >>> of_real("accuracy, trained on synthetic, by words"), of_real("words a text")
    ('accuracy, trained on as many real texts, by words', 'words a text, real')
    """
    return name.replace(ON_SYNTHETIC, ON_REAL) if ON_SYNTHETIC in name else f"{name}{_REAL}"


def shown_name(name: str) -> str:
    """A figure's name as users see it; its key in saved results stays as it is.

    >>> shown_name("words a text, real"), shown_name("held_out_mean_run")
    ('words per text, real', 'mean run, held out')
    """
    return _AUDITED.get(name) or name.replace("words a text", "words per text")


def share(hits: BoolArray) -> Figure:
    """The share of true values with its 95 % Clopper–Pearson interval."""
    from scipy.stats import binomtest

    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="exact")
    return Figure(float(hits.mean()), float(interval.low), float(interval.high))
