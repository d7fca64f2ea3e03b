"""Whether a release's attributes are distributed as the real ones, and fit the texts beside them. Private.

The agreement of two sets of rows in some columns is 1 − their total variation distance: 1 where every combination of
codes has the same share in both, 0 where none is shared. It depends on the number of rows, so the same is computed for
as many real rows against the others: no release can be expected to be closer.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plainchant.arrays import IntArray
from plainchant.evaluation.figures import COLUMNS, NORMAL_95, ON_SYNTHETIC, PAIRS, Figure, of_real, share
from plainchant.evaluation.measures import FEWEST, HALVES, Sample, predicted

# Attributes with more codes are not predicted from texts.
MOST_CLASSES = 50


@dataclass(frozen=True, repr=False)
class CodedRows:
    """Rows by the codes of their columns; its `repr` shows none of them.

    Attributes:
        names: of the columns: the label, if there is one, and the attributes.
        sizes: number of codes of each column.
        codes: int64 [n, columns].
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    codes: IntArray

    def take(self, rows: IntArray) -> "CodedRows":
        """These rows."""
        return CodedRows(self.names, self.sizes, self.codes[rows])


def agreement(one: CodedRows, other: CodedRows, columns: Sequence[int]) -> float:
    """1 − the total variation distance of two sets of rows in some columns.

    >>> rows = CodedRows(("kind",), (2,), np.array([[0], [0], [1], [1]]))
    >>> agreement(rows, rows.take(np.array([0, 1])), [0])
    0.5
    """
    shape = [one.sizes[column] for column in columns]
    laws = []
    for rows in (one, other):
        places = np.ravel_multi_index(tuple(rows.codes[:, column] for column in columns), shape)
        laws.append(np.bincount(places, minlength=int(np.prod(shape))) / len(rows.codes))
    return float(1 - np.abs(laws[0] - laws[1]).sum() / 2)


def agreements(one: CodedRows, other: CodedRows) -> dict[str, float]:
    """The agreement in each column, in each pair of columns, and the means of both."""
    columns = {one.names[column]: agreement(one, other, [column]) for column in range(len(one.names))}
    pairs = {
        f"{one.names[i]} × {one.names[j]}": agreement(one, other, [i, j])
        for i, j in itertools.combinations(range(len(one.names)), 2)
    }
    means = {name: float(np.mean(list(own.values()))) for name, own in ((COLUMNS, columns), (PAIRS, pairs)) if own}
    return means | columns | pairs


def measure_table(
    synthetic: CodedRows, real: CodedRows, *, size: int | None = None, seed: int = 0
) -> dict[str, Figure]:
    """The agreement of synthetic rows with all real ones, with 95 % intervals by random halves of both.

    Args:
        synthetic: the rows of a release.
        real: real rows with the same columns.
        size: maximum number of synthetic rows, drawn at random; None: all of them. More rows agree better.
        seed: for these and the halves. The figures are not released, so a seed may be fixed.
    """
    generator = np.random.default_rng(seed)
    if size is not None and size < len(synthetic.codes):
        synthetic = synthetic.take(_some(size, synthetic, generator))

    def halves() -> Mapping[str, float]:
        return agreements(*(rows.take(_some(len(rows.codes) // 2, rows, generator)) for rows in (synthetic, real)))

    whole = agreements(synthetic, real)
    if min(len(synthetic.codes), len(real.codes)) < FEWEST:
        return {name: Figure(value) for name, value in whole.items()}
    drawn = [halves() for _ in range(HALVES)]
    figures = {}
    for name, value in whole.items():
        reach = NORMAL_95 * float(np.std([own[name] for own in drawn], ddof=1))
        figures[name] = Figure(value, max(0.0, value - reach), min(1.0, value + reach))
    order = generator.permutation(len(real.codes))
    size = min(len(synthetic.codes), len(real.codes) // 2)
    ideal = agreements(real.take(order[:size]), real.take(order[size:]))
    # the means come first, each beside what as many real rows reach
    means = [name for name in (COLUMNS, PAIRS) if name in figures]
    first: dict[str, Figure] = {}
    for name in means:
        first |= {name: figures[name], of_real(name): Figure(ideal[name])}
    return first | {name: figure for name, figure in figures.items() if name not in means}


def _some(count: int, rows: CodedRows, generator: np.random.Generator) -> IntArray:
    return generator.permutation(len(rows.codes))[:count]


def measure_text(
    synthetic: Sample,
    rows: CodedRows,
    real: Sample,
    real_rows: CodedRows,
    *,
    size: int | None = None,
    seed: int = 0,
) -> dict[str, Figure]:
    """How well texts and attributes belong together: attributes from texts, and texts given attributes.

    Args:
        synthetic: the texts of a release.
        rows: their rows.
        real: real texts.
        real_rows: their rows.
        size: maximum number of texts that train a classifier; None: as many as the release has.
        seed: for the split of the real texts into halves.
    """
    order = np.random.default_rng(seed).permutation(len(real))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    size = min(len(train), len(synthetic), size or len(synthetic))
    found: dict[str, Figure] = {}
    if size < FEWEST:
        return found
    for column, name in enumerate(rows.names):
        if not 2 < rows.sizes[column] <= MOST_CLASSES:
            continue
        all_real, of_synthetic = _coded(real, real_rows, column), _coded(synthetic, rows, column)
        judge, tested = all_real.take(train), all_real.take(test)

        def right(trained: Sample, judged: Sample) -> Figure:
            return share(predicted(trained, judged) == np.array(judged.labels, dtype=str))

        predictable, agreeing = f"{name} from the text, {ON_SYNTHETIC}", f"{name} agreement of the text"
        found |= {
            predictable: right(of_synthetic.take(np.arange(size)), tested),
            of_real(predictable): right(all_real.take(train[:size]), tested),
            # one classifier judges both
            agreeing: right(judge, of_synthetic),
            of_real(agreeing): right(judge, tested),
        }
    return found


def _coded(sample: Sample, rows: CodedRows, column: int) -> Sample:
    """The sample with a column in place of its labels."""
    return Sample(sample.texts, [str(code) for code in rows.codes[:, column]], sample.vectors)


def coded(names: Sequence[str], sizes: Sequence[int], rows: Sequence[Sequence[int]]) -> CodedRows:
    """Rows of codes.

    Args:
        names: of the columns.
        sizes: number of codes of each.
        rows: the codes of each row.
    """
    return CodedRows(tuple(names), tuple(sizes), np.array(rows, dtype=np.int64).reshape(len(rows), len(names)))
