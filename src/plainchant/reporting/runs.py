"""The pages of a run on disk."""

from pathlib import Path
from typing import Any

from plainchant.data.embedding import Embedder, load_embedder
from plainchant.evaluation.runs import centres_of, directory_of
from plainchant.planning import Guarantee, make_plan
from plainchant.reporting.page import write_report


def report(run: Any, *, embedder: Embedder | None = None) -> list[Path]:
    """Writes the pages of a finished run: one to share, in release/, and a private version of it, in private/.

    Args:
        run: a `Run`, a `FinishedRun`, a `RunDirectory` or a path.
        embedder: a loaded embedder, used instead of the run's.

    Returns:
        The paths of the pages: first the one to share, then the private one, if there are private figures.

    Raises:
        ConfigError: there is no such run, or it is not finished.
    """
    directory = directory_of(run)
    config = directory.config
    centres = centres_of(directory, config)
    if centres is not None and embedder is None:
        embedder = load_embedder(config.embedder)
    # the recorded guarantee, because it says whether the run's randomness came from a seed
    guarantee = Guarantee(**directory.plan["guarantee"])
    return write_report(directory, make_plan(config), guarantee, None if embedder is None else embedder.encode, centres)
