"""A joint law of a table's columns, fitted to noisy marginals, and rows drawn from it (guarantee 14.4).

Everything here is post-processing of released marginals, so nothing here needs private randomness or exact arithmetic.
The fit is the graphical model of McKenna, Sheldon and Miklau (2019), by the package `mbi`: of all laws that agree with
the chosen marginals, the one with the largest entropy.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plainchant.arrays import Float64Array, IntArray
from plainchant.config import SynthesisConfig
from plainchant.errors import MissingDependencyError, foreign_messages_hidden
from plainchant.privacy.marginals import Marginal

# Steps of the fit: with these, marginals of 5,000 records are met to about one record in a hundred.
STEPS = 1_000
# Two columns are joined if their marginal differs from independence by so many standard deviations of a chi-square.
CLEAR = 2.0
# Numbers in the tables of a model, at most: pairs that would need more are left out, the weakest first.
MOST_STATES = 400_000


@dataclass(frozen=True, eq=False)
class Joint:
    """A joint law of columns, as tables of which each holds the columns of one clique.

    Attributes:
        sizes: number of codes of each column.
        cliques: for each clique, its columns in rising order.
        tables: for each clique its law, float64, one axis per column.
    """

    sizes: tuple[int, ...]
    cliques: tuple[tuple[int, ...], ...]
    tables: tuple[Float64Array, ...] = field(repr=False)

    def draw(self, first: IntArray, generator: np.random.Generator) -> IntArray:
        """Rows by the code of column 0: each column given those before it that share a clique with it.

        Within rows that agree in these, codes are as even as their number allows, so that few rows show the law too.

        Args:
            first: the code of column 0 of each row, int64 [m].
            generator: source of what chance is left.

        Returns:
            int64 [m, columns].
        """
        codes = np.zeros((len(first), len(self.sizes)), dtype=np.int64)
        codes[:, 0] = first
        for column, given in self._order()[1:]:
            law = self._law((*given, column))
            codes[:, column] = _drawn(codes[:, list(given)], law, generator)
        return codes

    def without(self, column: int, code: int) -> "Joint":
        """The same law without a code of a column."""
        tables = []
        for clique, own in zip(self.cliques, self.tables, strict=True):
            table = own.copy()
            if column in clique:
                np.moveaxis(table, clique.index(column), 0)[code] = 0.0
            tables.append(table)
        return Joint(self.sizes, self.cliques, tuple(tables))

    def _order(self) -> list[tuple[int, tuple[int, ...]]]:
        """The columns from 0 on, each with those before it that share a clique with it: maximum cardinality search."""
        neighbours = {
            column: {other for own in self.cliques if column in own for other in own}
            for column in range(len(self.sizes))
        }
        order: list[tuple[int, tuple[int, ...]]] = []
        done: set[int] = set()
        while len(order) < len(self.sizes):
            left = [column for column in neighbours if column not in done]
            column = max(left, key=lambda own: (own == 0, len(neighbours[own] & done)))
            order.append((column, tuple(sorted(neighbours[column] & done))))
            done.add(column)
        return order

    def _law(self, columns: Sequence[int]) -> Float64Array:
        """The law of some columns of a clique, in their order."""
        clique, table = next(
            (own, table) for own, table in zip(self.cliques, self.tables, strict=True) if set(columns) <= set(own)
        )
        rest = tuple(axis for axis, column in enumerate(clique) if column not in columns)
        kept = [column for column in clique if column in columns]
        return np.asarray(table.sum(axis=rest).transpose([kept.index(column) for column in columns]))


def _drawn(given: IntArray, law: Float64Array, generator: np.random.Generator) -> IntArray:
    """A code for each row by its law given some columns, int64 [m]."""
    if not given.shape[1]:
        law, given = law[None], np.zeros((len(given), 1), dtype=np.int64)
    drawn = np.zeros(len(given), dtype=np.int64)
    groups, group_of_row = np.unique(given, axis=0, return_inverse=True)
    for number, group in enumerate(groups):
        rows = generator.permutation(np.flatnonzero(group_of_row.reshape(-1) == number))
        own = np.maximum(law[tuple(group)], 0.0)
        if not own.any():
            # the columns before it agree in a way that the law does not have
            own = np.maximum(law.sum(axis=tuple(range(law.ndim - 1))), 0.0)
        # one offset for evenly spaced points (systematic sampling), in an order that no other column shares
        points = (np.arange(len(rows)) + generator.random()) / len(rows)
        drawn[rows] = np.minimum(np.searchsorted(np.cumsum(own / own.sum()), points, side="right"), len(own) - 1)
    return drawn


def fit(sizes: Sequence[int], marginals: Sequence[Marginal]) -> Joint:
    """The law of largest entropy that agrees with the single marginals and with those pairs that say more than noise.

    Args:
        sizes: number of codes of each column.
        marginals: one of every single column, and some pairs; released.

    Raises:
        MissingDependencyError: the extra `table` is not installed.
    """
    mbi, tree = _package()
    names = [str(column) for column in range(len(sizes))]
    domain = mbi.Domain(tuple(names), tuple(sizes))
    singles = {own.columns[0]: own for own in marginals if len(own.columns) == 1}
    total = _total(singles.values())
    chosen: list[Marginal] = list(singles.values())
    with foreign_messages_hidden("the package mbi"):
        for pair in _by_strength(sizes, singles, [own for own in marginals if len(own.columns) == 2], total):
            if _states(tree, domain, [*chosen, pair]) <= MOST_STATES:
                chosen.append(pair)
        cliques = _cliques(tree, domain, chosen)
        measured = [
            mbi.LinearMeasurement(own.counts.astype(np.float64), _named(own.columns), stddev=own.sigma)
            for own in chosen
        ]
        model = mbi.estimation.mirror_descent(
            domain,
            measured,
            known_total=total,
            iters=STEPS,
            potentials=mbi.CliqueVector.zeros(domain, [_named(clique) for clique in cliques]),
        )
        tables = tuple(
            np.asarray(model.project(_named(clique)).datavector(flatten=False), dtype=np.float64) for clique in cliques
        )
    return Joint(tuple(sizes), cliques, tables)


def check_package() -> None:
    """Refuses a table where the extra is absent, before anything is spent.

    Raises:
        MissingDependencyError: the extra `table` is not installed.
    """
    _package()


def missing_package(config: SynthesisConfig) -> str | None:
    """What `check_package` would say of a configuration's attributes; None where nothing is missing."""
    try:
        if config.columns.attributes:
            check_package()
    except MissingDependencyError as error:
        return str(error)
    return None


def _package() -> tuple[Any, Any]:
    try:
        import mbi
        from mbi import junction_tree
    except ImportError:
        raise MissingDependencyError(
            "columns.attributes: need the extra table: run `pip install plainchant[table]`"
        ) from None
    return mbi, junction_tree


def _named(columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(str(column) for column in columns)


def _total(singles: Iterable[Marginal]) -> float:
    """About how many units there are: the sums of single marginals, weighted by their noise; at least one."""
    sums = [(float(own.counts.sum()), len(own.counts) * own.sigma**2) for own in singles]
    return max(1.0, sum(count / variance for count, variance in sums) / sum(1 / variance for _, variance in sums))


def _by_strength(
    sizes: Sequence[int], singles: Mapping[int, Marginal], pairs: Sequence[Marginal], total: float
) -> list[Marginal]:
    """The pairs that say more than their single columns do, the strongest first."""
    laws = {column: _cleaned(own.counts) for column, own in singles.items()}
    found = []
    for pair in pairs:
        one, other = pair.columns
        expected = (total * laws[one][:, None] * laws[other][None, :]).reshape(-1)
        # a chi-square: what independent columns would show, by chance of the units and by the noise, is taken off
        strength = float(((pair.counts - expected) ** 2 / (expected + pair.sigma**2)).sum()) - len(expected)
        if strength > CLEAR * math.sqrt(2 * len(expected)):
            found.append((strength, pair))
    return [pair for _, pair in sorted(found, key=lambda own: -own[0])]


def _cleaned(counts: IntArray) -> Float64Array:
    """A law from noisy counts."""
    positive = np.maximum(counts, 0).astype(np.float64) + 1e-9
    return np.asarray(positive / positive.sum())


def _cliques(tree: Any, domain: Any, chosen: Sequence[Marginal]) -> tuple[tuple[int, ...], ...]:
    """The cliques of a model of these marginals: those of its graph, made chordal."""
    junction, _ = tree.make_junction_tree(domain, [_named(own.columns) for own in chosen])
    return tuple(tuple(sorted(int(name) for name in clique)) for clique in tree.maximal_cliques(junction))


def _states(tree: Any, domain: Any, chosen: Sequence[Marginal]) -> int:
    """How many numbers the tables of a model of these marginals have."""
    return sum(int(np.prod([domain[str(column)] for column in clique])) for clique in _cliques(tree, domain, chosen))
