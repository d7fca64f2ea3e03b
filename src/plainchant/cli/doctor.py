"""What is installed, whether a model can be used, and how fast this machine is (the `doctor` command)."""

import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

from plainchant.cli.console import Console
from plainchant.cli.options import command, field_option, formatted, with_performance
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.errors import PlainchantError
from plainchant.planning import make_plan
from plainchant.run.speed import expected, keep_embedding_speed, keep_speed, measure_embedder, measure_speed

PACKAGES = ("plainchant", "sentence-transformers", "opendp", "numpy")
# Reports a step, and how far it is.
Report = Callable[[str, float], None]


@command()
@field_option(SynthesisConfig, "model")
@field_option(SynthesisConfig, "embedder")
@with_performance
@formatted
def doctor(console: Console, model: str | None, embedder: str | None, performance: PerformanceOptions) -> None:
    """Show what is installed, whether model and embedder can be used, and how fast they are here.

    \b
    plainchant doctor
    plainchant doctor --model DIRECTORY

    The model's speed is kept in your cache, and plainchant plan says from then on how long a run takes here. It takes
    a minute or a few. A machine that does other work meanwhile is measured as slower than it is.
    """
    usual = SynthesisConfig()
    with console.progress() as progress:
        findings = examine(model or usual.model, embedder or usual.embedder, performance, progress.stage)
    console.table("plainchant doctor", findings.items())
    console.result(findings, "ok" if findings["verdict"] == "ok" else "not ok")
    if findings["verdict"] != "ok":
        sys.exit(1)


def examine(model: str, embedder: str, performance: PerformanceOptions, report: Report) -> dict[str, Any]:
    """Versions, whether model and embedder load, and measured speed; `verdict` is "ok" or what is wrong.

    Args:
        model: the language model's name.
        embedder: the embedder's name.
        performance: device, dtype and width.
        report: receives progress reports.
    """
    from plainchant.models import describe_device

    findings: dict[str, Any] = {"python": platform.python_version(), **describe_device()}
    for package in PACKAGES:
        try:
            findings[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            findings[package] = None
    problems = []
    for name, check in (("model", _examine_model), ("embedder", _examine_embedder)):
        try:
            findings |= check(model if name == "model" else embedder, performance, report)
        except PlainchantError as error:
            findings[name] = f"cannot be used: {error}"
            problems.append(name)
    findings["verdict"] = f"{' and '.join(problems)} cannot be used" if problems else "ok"
    return findings


def _examine_model(name: str, performance: PerformanceOptions, report: Report) -> dict[str, Any]:
    from plainchant import models

    report("loading the language model", 0.0)
    began = time.perf_counter()
    # loading checks all that a guarantee rests on; what fails is refused with its reason
    model = models.load(name, performance)
    loaded = time.perf_counter() - began
    report("loading the language model", 1.0)
    report("measuring its speed", 0.0)
    speed = measure_speed(model, performance, load=loaded)
    report("measuring its speed", 1.0)
    kept = keep_speed(name, performance, speed)
    memory = expected(make_plan(SynthesisConfig(model=name)), speed).memory
    return {
        "model": f"{model.name}, {performance.device}, {performance.dtype}: can be used",
        "its licence": models.licence_of(name) or "not named in its files; look where you got it",
        "seconds to load": round(loaded, 1),
        "prompt tokens per second": round(speed.prompt_tokens),
        f"model rows per second ({speed.rows} rows together)": round(speed.private_rows),
        "memory of a default run": f"about {memory:.1f} GiB",
        "kept for plainchant plan": "no: the cache cannot be written" if kept is None else str(kept),
    }


def _examine_embedder(name: str, performance: PerformanceOptions, report: Report) -> dict[str, Any]:
    from plainchant.data.embedding import load_embedder

    report("loading the embedder", 0.0)
    embedder = load_embedder(name, device=performance.device)
    report("loading the embedder", 1.0)
    rate = measure_embedder(embedder)
    keep_embedding_speed(name, performance, rate)
    return {"embedder": f"{embedder.name}: can be used", "texts embedded per second": round(rate)}
