"""What is installed and how fast it is (the `doctor` command)."""

import importlib.metadata
import platform
import sys
import time
from typing import Any

from plainchant.cli.console import Console
from plainchant.cli.options import command, field_option, formatted, with_performance
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.errors import PlainchantError


@command()
@field_option(SynthesisConfig, "model")
@field_option(SynthesisConfig, "embedder")
@with_performance
@formatted
def doctor(console: Console, model: str | None, embedder: str | None, performance: PerformanceOptions) -> None:
    """Show what is installed, whether model and embedder load, and what speed to expect."""
    usual = SynthesisConfig()
    findings = examine(model or usual.model, embedder or usual.embedder, performance)
    console.table("plainchant doctor", findings.items())
    console.result(findings, "ok" if findings["verdict"] == "ok" else "not ok")
    if findings["verdict"] != "ok":
        sys.exit(1)


PACKAGES = ("plainchant", "sentence-transformers", "opendp", "numpy")
PROMPT_TOKENS, STEPS = 100, 8


def examine(model: str, embedder: str, performance: PerformanceOptions) -> dict[str, Any]:
    """Versions, whether model and embedder load, and measured decoding speed; `verdict` is "ok" or what is wrong."""
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
            findings |= check(model if name == "model" else embedder, performance)
        except PlainchantError as error:
            findings[name] = f"does not load: {error}"
            problems.append(name)
    findings["verdict"] = f"{' and '.join(problems)} cannot be used" if problems else "ok"
    return findings


def _examine_model(name: str, performance: PerformanceOptions) -> dict[str, Any]:
    from plainchant import models

    began = time.perf_counter()
    model = models.load(name, performance)
    loaded = time.perf_counter()
    token = model.encode(" text", trusted=False)[0]
    prefix = model.prefill(model.start_tokens or (token,))
    rows = model.open_rows(prefix, [[token] * PROMPT_TOKENS] * performance.width, room=1 + STEPS)
    # the first step reads the prompts
    model.step([(rows, token)])
    filled = time.perf_counter()
    for _ in range(STEPS):
        model.step([(rows, token)])
    done = time.perf_counter()
    return {
        "model": f"{model.name}, {performance.device}, {performance.dtype}",
        "seconds to load": round(loaded - began, 1),
        "prompt tokens per second": round(performance.width * PROMPT_TOKENS / (filled - loaded)),
        f"model rows per second ({performance.width} rows together)": round(
            performance.width * STEPS / (done - filled)
        ),
    }


def _examine_embedder(name: str, performance: PerformanceOptions) -> dict[str, Any]:
    from plainchant.data.embedding import load_embedder

    embedder = load_embedder(name, device=performance.device)
    embedder.encode(["a text"])
    return {"embedder": embedder.name}
