"""A finished run, opened by its directory."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from plainchant.config import SynthesisConfig
from plainchant.errors import RunError
from plainchant.planning import Guarantee, Plan, make_plan
from plainchant.run.promise import checked_promise, promise_of, recorded_version
from plainchant.run.released import SyntheticText
from plainchant.run.store import RunDirectory


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
        names = self.config.columns.attributes
        return [
            SyntheticText(
                row.get("text", ""),
                row.get("label"),
                row["cell"],
                row.get("origin", SyntheticText.origin),
                {name: row.get(name) for name in names},
            )
            for row in self.directory.released()
        ]


def open_run(path: str | Path) -> FinishedRun:
    """The finished run in a directory: its texts, guarantee, plan and configuration.

    Raises:
        ConfigError: there is no run, or it is not finished.
    """
    return FinishedRun.open(path)
