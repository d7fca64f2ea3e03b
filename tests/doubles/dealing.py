"""A run's own code from noisy counts to texts, on a table model and without a disk, along every path of its draws."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from plainchant.config import SynthesisConfig
from plainchant.generation.decoding import Decoder, StopRule
from plainchant.models.table import TableModel
from plainchant.planning import Plan, not_private
from plainchant.privacy.accounting import Cost
from plainchant.privacy.aggregation import sampling_weights
from plainchant.privacy.deals import DealRule, Expected
from plainchant.privacy.mechanisms import StepResult
from plainchant.run import cells, rounds
from plainchant.run.preparation import Preparation
from plainchant.run.released import Released

# how a text that was released before is written in a prompt
SHOWN = 50


class Memory:
    """A run's directory as far as cells, rounds and texts need it, in memory."""

    def __init__(self) -> None:
        self.texts_so_far: list[Any] = []
        self.rows: dict[int, Any] = {}

    def save_batches(self, cells: Any, batches: Any, draws: Any, *, voters: Any = None, rows: Any = None) -> None:
        self.own_cells, self.own_batches = cells, batches
        for draw in draws:
            for batch, records, _, _ in draw.members():
                self.rows[batch] = [([record], 0.0) for record in np.frombuffer(records, np.int64).tolist()]

    def cells(self) -> Any:
        return self.own_cells

    def batches(self) -> Any:
        return self.own_batches

    def attribute_rows(self) -> Any:
        return None

    def members(self) -> Any:
        return self.rows

    def texts(self) -> Any:
        return sorted(self.texts_so_far, key=lambda text: (text.batch, text.position))

    def writes_no_more(self) -> bool:
        return False

    def commit(self, text: Any) -> None:
        self.texts_so_far.append(text)


class Path:
    """One path through all draws: follows `choices`, then takes the first branch each time; multiplies the odds.

    Attributes:
        probability: of the path.
        branches: how many branches each draw had.
    """

    private = True

    def __init__(self, choices: list[int], noisy: Callable[[Any], list[int]]):
        self._choices = choices
        self._noisy = noisy
        self.probability = 1.0
        self.branches: list[int] = []

    def _taken(self, branches: int) -> int:
        place = len(self.branches)
        self.branches.append(branches)
        return self._choices[place] if place < len(self._choices) else 0

    def below(self, bound: int) -> int:
        self.probability /= bound
        return self._taken(bound)

    def add_discrete_gaussian(self, counts: Any, sigma: float) -> Any:
        return np.array(self._noisy(counts), dtype=np.int64)

    def token(self, mechanism: Any, distribution: Any, randomness: Any) -> StepResult:
        """In the place of `draw`: a token by its exact odds."""
        weights = sampling_weights(distribution.scores).astype(np.float64)
        index = self._taken(len(weights))
        self.probability *= weights[index] / weights.sum()
        token = int(distribution.support[index])
        loss, rho = mechanism.cost(distribution, index)
        return StepResult(token, loss, rho, distribution.charges)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of one cell: everything but its units.

    Attributes:
        mechanism: of the tokens.
        table: logits of a row of tokens; a record is its own token, a shown text its tokens from SHOWN on.
        noisy: the noisy size.
        texts: how many the cell writes.
        rule: of its deals.
        vocabulary: tokens.
        length: tokens of a text.
        sizes: the noisy sizes from the true ones; by default `noisy`, whatever the true ones are.
        rows, passes: as the decoder's.
    """

    mechanism: Any
    table: Callable[[Any], Any]
    noisy: int
    texts: int
    rule: DealRule
    vocabulary: int = 2
    length: int = 1
    sizes: Callable[[Any], list[int]] | None = None
    rows: int = 64
    passes: int = 1

    def _preparation(self, units: tuple[int, ...], path: Path, memory: Memory) -> Any:
        config = SynthesisConfig(
            clusters="none", texts=self.texts, max_tokens=self.length, min_tokens=0, candidates=1, released_examples=1
        )
        made = Plan(
            config, self.mechanism, not_private(config, "this is a test"), 0.0, 1.0, 0.0, 0.0, Cost(), self.rule.cost,
            self.length, 1, self.rule, Expected(1, self.noisy, self.texts),
        )  # fmt: skip
        prompts = SimpleNamespace(
            part=lambda text, draw: text,
            prefix=lambda label, shown=(), lines=(): [SHOWN + ord(letter) - 97 for text in shown for letter in text],
            start=lambda label, attributes="": [0],
            records=lambda texts, label, attributes=(): [int(text) for text in texts],
        )
        table = [SimpleNamespace(text=str(unit), label=None, unit=None) for unit in units]
        preparation: Any = SimpleNamespace(
            plan=made, config=config, table=table, directory=memory, prompts=prompts, randomness=path
        )
        preparation.labels_of = functools.partial(Preparation.labels_of, preparation)
        return preparation

    def _walked(self, units: tuple[int, ...], path: Any) -> tuple[Any, ...]:
        memory = Memory()
        preparation = self._preparation(units, path, memory)
        model = TableModel([chr(97 + token) for token in range(self.vocabulary)], self.table)
        stop = StopRule(None, self.length, 0)
        decoder = Decoder(model, self.mechanism, stop, rows=self.rows, passes=self.passes, randomness=path)
        # a unit is its record, so that choosing one of each is no draw
        cells._form_secret_batches(preparation, np.arange(len(units)), None, None)
        for one in rounds.rounds_of(preparation, decoder):
            for text in one.write(Released.of(memory)):  # type: ignore[arg-type]
                memory.commit(text)
        return tuple((text.batch, text.position, text.text) for text in memory.texts())

    def outcomes(self, units: tuple[int, ...], patch: Any) -> dict[tuple[Any, ...], float]:
        """Every outcome of the run with its exact probability, all secret draws averaged out."""
        found: dict[tuple[Any, ...], float] = {}
        for path, outcome in self._paths(units, patch):
            found[outcome] = found.get(outcome, 0.0) + path.probability
        return found

    def _paths(self, units: tuple[int, ...], patch: Any) -> Iterator[tuple[Path, tuple[Any, ...]]]:
        choices: list[int] = []
        while True:
            path = Path(choices, self.sizes or (lambda counts: [self.noisy] * len(counts)))
            with patch.context() as inside:
                inside.setattr("plainchant.generation.decoding.draw", path.token)
                inside.setattr("plainchant.run.rounds.choose_examples", lambda texts, count, _: list(texts)[:count])
                outcome = self._walked(units, path)
            yield path, outcome
            taken = [choices[place] if place < len(choices) else 0 for place in range(len(path.branches))]
            last = next((p for p in reversed(range(len(taken))) if taken[p] + 1 < path.branches[p]), None)
            if last is None:
                return
            choices = [*itertools.islice(taken, last), taken[last] + 1]
