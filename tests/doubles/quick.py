"""Commands without their slow parts: one loaded model, an embedder that needs none, figures that take no time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doubles.embedders import Hashing
from plainchant import models
from plainchant.config import PerformanceOptions
from plainchant.data.embedding import load_embedder
from plainchant.evaluation.figures import MAUVE, Evaluation, Figure
from plainchant.privacy.marginals import Marginal
from plainchant.run import joint

MODEL, VALUE = "tiny", 0.625


def make_quick(patch: pytest.MonkeyPatch, model: Path) -> None:
    """Makes the commands of this process quick: `MODEL` is the model in this folder, and MAUVE is always `VALUE`."""
    loaded = models.load(str(model), PerformanceOptions(threads=1))
    load, checked, seen = models.load, models.checked, dict[Any, bool]()
    found = Evaluation({"fidelity": {MAUVE: Figure(VALUE)}}, texts=300, compared=300, real=900)

    def one(name: str, performance: PerformanceOptions) -> Any:
        return loaded if name == MODEL and performance.device == "cpu" else load(name, performance)

    def once(own: Any, **widths: Any) -> Any:
        key = (own, *sorted(widths.items()))
        if key not in seen:
            seen[key] = checked(own, **widths)
        return seen[key]

    def embedder(name: str, **options: Any) -> Any:
        if name.endswith("nothing"):
            return load_embedder(name, **options)
        hashing = Hashing()
        hashing.name = name
        return hashing

    patch.setattr(models, "load", one)
    patch.setattr(models, "checked", once)
    for module in ("generation.executor", "evaluation.runs", "auditing.runs", "data.embedding"):
        patch.setattr(f"plainchant.{module}.load_embedder", embedder)
    patch.setattr("plainchant.evaluation.runs.measure", lambda *_, **__: found)
    patch.setattr("plainchant.reporting.comparison._comparison_plot", lambda *_: b"a plot")


def independent(sizes: Any, marginals: list[Marginal]) -> joint.Joint:
    """The law of independent columns, for tests without the package."""
    laws = []
    for column, size in enumerate(sizes):
        counts = np.maximum(marginals[column].counts, 0) + 1e-9
        laws.append(counts / counts.sum())
        assert len(counts) == size
    return joint.Joint(tuple(sizes), tuple((column,) for column in range(len(sizes))), tuple(laws))
