"""A finished run, opened by its directory."""

import dataclasses
import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from plainchant.config import SynthesisConfig
from plainchant.display import html_table
from plainchant.errors import MissingDependencyError, RunError
from plainchant.planning import Guarantee, Plan, make_plan
from plainchant.run.promise import checked_promise, promise_of, recorded_version
from plainchant.run.released import SyntheticText
from plainchant.run.store import RunDirectory
from plainchant.run.words import promise_in_words

if TYPE_CHECKING:
    import datasets
    import pandas
    import pyarrow

# Texts that a notebook shows of a run.
_SHOWN = 5


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run released and promises. Reads its directory and changes nothing there.

    `evaluate`, `compare`, `audit` and `report` accept it, as well as a `Run` or a path.

    Attributes:
        directory: the run's directory.
    """

    directory: RunDirectory

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The finished run in a directory.

        Raises:
            ConfigError: there is no run, or it is not finished.
        """
        run = cls(RunDirectory.open(Path(path)))
        # refuse an unfinished run here, not only when its texts are requested
        run.directory.released()
        return run

    @property
    def config(self) -> SynthesisConfig:
        """The configuration that the run was made with."""
        return self.directory.config

    @property
    def guarantee(self) -> Guarantee:
        """What the release promises.

        Raises:
            RunError: plan.json records another guarantee than the configuration and the randomness give.
        """
        return promise_of(self.directory)

    @functools.cached_property
    def plan(self) -> Plan:
        """The plan that the run was made with, with the run's guarantee.

        Raises:
            RunError: this version makes another plan from the same configuration.
        """
        plan, recorded = make_plan(self.config), self.directory.plan
        if plan.as_dict() | {"guarantee": None} != recorded | {"guarantee": None}:
            version = recorded_version(self.directory)
            raise RunError(
                f"{self.directory.path / 'plan.json'}: was made by plainchant {version}, and this version makes "
                "another plan from the same configuration; open the run with that version"
            )
        return dataclasses.replace(plan, guarantee=checked_promise(self.directory, plan))

    @property
    def texts(self) -> list[SyntheticText]:
        """The released texts in order; rows without text have an empty one."""
        columns = self.config.columns
        names = [*columns.attributes, *columns.of_label]
        origin = "records" if self.config.reads_records else "model"
        return [
            SyntheticText(
                row.get("text", ""),
                row.get("label"),
                row["cell"],
                row.get("origin", origin),
                {name: row.get(name) for name in names},
            )
            for row in self.directory.released()
        ]

    def to_pandas(self) -> "pandas.DataFrame":
        """The release as a pandas DataFrame: text, label, cell and origin as far as there are any, and attributes.

        Columns have the names and types of the release, so those of the private table.

        Raises:
            MissingDependencyError: pandas is not installed.
            RunError: the release is not as the run wrote it.
        """
        try:
            import pandas
        except ImportError:
            raise MissingDependencyError("to_pandas needs: pip install pandas") from None
        found: pandas.DataFrame = self._table().to_pandas()
        return found

    def to_datasets(self) -> "datasets.Dataset":
        """The release as a data set of Hugging Face, with the same columns.

        Raises:
            MissingDependencyError: the package datasets is not installed.
            RunError: the release is not as the run wrote it.
        """
        try:
            import datasets
        except ImportError:
            raise MissingDependencyError("to_datasets needs: pip install datasets") from None
        return datasets.Dataset(datasets.table.InMemoryTable(self._table()))

    def _table(self) -> "pyarrow.Table":
        import pyarrow.parquet  # here, so that importing the package stays light

        return pyarrow.parquet.read_table(io.BytesIO(self.directory.sealed_release()["synthetic.parquet"]))

    def __repr__(self) -> str:
        return f"FinishedRun({str(self.directory.path)!r})"

    def _repr_html_(self) -> str:
        texts = self.texts
        rows = [
            ("promise", promise_in_words(self.guarantee)),
            ("texts", len(texts)),
            ("directory", self.directory.path),
        ]
        shown = [(text.label, text.text) for text in texts[:_SHOWN]]
        return html_table("Finished run", rows) + html_table(
            f"{len(shown)} of its texts", shown, head=("label", "text")
        )


def open_run(path: str | Path) -> FinishedRun:
    """The finished run in a directory: its texts, guarantee, plan and configuration.

    Raises:
        ConfigError: there is no run, or it is not finished.
    """
    return FinishedRun.open(path)
