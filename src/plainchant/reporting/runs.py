"""The pages of a run on disk."""

from pathlib import Path
from typing import Any

from plainchant.data.embedding import Embedder, load_embedder
from plainchant.evaluation.runs import centres_of, directory_of
from plainchant.planning import make_plan
from plainchant.reporting.page import write_report
from plainchant.run.promise import checked_promise


def report(run: Any, *, embedder: Embedder | None = None) -> list[Path]:
    """Writes the pages of a finished run: one to share, in release/, and a private version of it, in private/.

    Args:
        run: a `Run`, a `FinishedRun`, a `RunDirectory` or a path.
        embedder: a loaded embedder, used instead of the run's.

    Returns:
        The paths of the pages: first the one to share, then the private one, if there are private figures.

    Raises:
        ConfigError: there is no such run, or it is not finished.
        RunError: plan.json records another guarantee than the configuration and the randomness give.
    """
    directory = directory_of(run)
    config = directory.config
    centres = centres_of(directory, config)
    if centres is not None and embedder is None:
        embedder = load_embedder(config.embedder)
    plan = make_plan(config)
    guarantee = checked_promise(directory, plan)
    return write_report(directory, plan, guarantee, None if embedder is None else embedder.encode, centres)
