"""`fit` and `sample`, the habit of the field, over the same run as `synthesize`."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from plainchant.config import PerformanceOptions, SynthesisConfig, SynthesisFields
from plainchant.data.embedding import Embedder
from plainchant.errors import ConfigError, MissingDependencyError, PrivacyError
from plainchant.models import LanguageModel
from plainchant.planning import Plan, make_plan
from plainchant.run.finished import FinishedRun
from plainchant.run.progress import Progress
from plainchant.run.store import next_free
from plainchant.run.synthesis import synthesize

if TYPE_CHECKING:
    import pandas


class Synthesizer:
    """Learns a private table once, under a guarantee, and hands out synthetic texts.

    `fit` spends the budget and writes a run directory; `sample` costs nothing, however often it is called.

    >>> synthesizer = Synthesizer(epsilon=8, label_column="label", labels="bug,billing", texts=50)
    >>> synthesizer.plan.guarantee.epsilon <= 8
    True

    Attributes:
        config: the configuration.
        plan: what `fit` will do, decided before any private data is read.
        run_: the finished run, once `fit` was called: a `FinishedRun`, as `open` returns it.
    """

    run_: FinishedRun

    def __init__(
        self,
        *,
        out: str | Path | None = None,
        ledger: str | Path | None = None,
        performance: PerformanceOptions | None = None,
        progress: Progress | None = None,
        **fields: Unpack[SynthesisFields],
    ):
        """Plans a run; reads no data.

        Args:
            out: the run's directory; by default runs/synthesizer, or the next free name.
            ledger: the data set's ledger; needed to fit more than once.
            performance: device, dtype and width; cannot change the guarantee.
            progress: receives progress reports; by default a line in a terminal or a notebook.
            fields: fields of `SynthesisConfig`, such as epsilon, label_column, labels and texts.

        Raises:
            ConfigError: a field is unknown or out of bounds.
            PrivacyError: no guarantee follows from the fields, or the budget does not pay for the texts.
        """
        self.config = SynthesisConfig(**fields)
        self.plan: Plan = make_plan(self.config)
        self._out = None if out is None else Path(out)
        self._ledger, self._performance, self._progress = ledger, performance, progress

    def __repr__(self) -> str:
        fitted = f", fitted: {self.run_!r}" if hasattr(self, "run_") else ", not fitted"
        return f"Synthesizer({self.plan.guarantee.statement}{fitted})"

    def fit(self, table: Any, *, model: LanguageModel | None = None, embedder: Embedder | None = None) -> Self:
        """Writes a release from a private table.

        Args:
            table: a pandas, polars or pyarrow table, a path, or any other source (see `data.read_records`).
            model: a loaded language model, in place of the configured name.
            embedder: likewise.

        Raises:
            ConfigError, DataError, RunError: as `synthesize`.
            MissingDependencyError: pandas is not installed, which `sample` needs.
            PrivacyError: as `synthesize`; or it was called before, and there is no ledger to add up the costs.
        """
        if hasattr(self, "run_") and self._ledger is None:
            raise PrivacyError(
                "fit: was called before, and the costs of two releases from the same records add up; sample() again, "
                "which costs nothing, or name a ledger that adds them up"
            )
        if importlib.util.find_spec("pandas") is None:
            # before anything is spent
            raise MissingDependencyError("fit: sample() hands out a table of pandas; pip install pandas")
        out = self._out or next_free(Path("runs") / "synthesizer")
        with synthesize(
            table, self.plan, out=out, performance=self._performance, ledger=self._ledger, model=model,
            embedder=embedder, progress=self._progress,
        ) as run:  # fmt: skip
            run.finish()
        self.run_ = FinishedRun.open(out)
        return self

    def sample(self, n: int | None = None) -> "pandas.DataFrame":
        """Released texts with their labels, as a pandas DataFrame.

        Args:
            n: how many, drawn at random; None for all of them in order.

        Raises:
            ConfigError: `fit` was not called, or the release has fewer texts.
            MissingDependencyError: pandas is not installed.
        """
        if not hasattr(self, "run_"):
            raise ConfigError("sample: there is nothing to sample from yet; call fit(table) first")
        texts = self.run_.to_pandas()
        if n is None:
            return texts
        if not 0 <= n <= len(texts):
            raise ConfigError(
                f"n = {n}: the release has {len(texts)} texts; set texts = {max(n, 1)} for more, in a new run that is "
                "paid for"
            )
        return texts.sample(n).reset_index(drop=True)
