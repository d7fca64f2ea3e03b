"""The pages of a run on disk."""

import dataclasses
from pathlib import Path
from typing import Any

from plainchant.config import SynthesisConfig
from plainchant.evaluation.runs import directory_of
from plainchant.planning import Plan, make_plan
from plainchant.reporting.page import write_report
from plainchant.run.promise import checked_promise


def report(run: Any, *, name: str | None = None, holder: str | None = None) -> list[Path]:
    """Writes the pages of a finished run: one to share, in release/, and a private version of it, in private/.

    Args:
        run: a `Run`, a `FinishedRun`, a `RunDirectory` or a path.
        name: of the data set, used instead of the configuration's.
        holder: of the private table, likewise.

    Returns:
        The paths of the pages: first the one to share, then the private one, if there are private figures.

    Raises:
        ConfigError: there is no such run, or it is not finished.
        RunError: plan.json records another guarantee than the configuration and the randomness give.
    """
    directory = directory_of(run)
    plan = make_plan(directory.config)
    return write_report(directory, named(plan, name, holder), checked_promise(directory, plan))


def named(plan: Plan, name: str | None, holder: str | None) -> Plan:
    """A plan whose configuration has another name of the data set, or another holder; nothing else changes."""
    own = {key: value for key, value in {"name": name, "holder": holder}.items() if value is not None}
    return dataclasses.replace(plan, config=SynthesisConfig(**(plan.config.model_dump() | own))) if own else plan
