"""Differentially private synthetic text from a private table, without training.

import plainchant as pc

config = pc.SynthesisConfig(method="clustered-mean", epsilon=8, delta=1e-6, public_corpus="corpus.jsonl")
plan = pc.plan(config)
run = pc.synthesize("private.jsonl", plan, out="runs/first")
for text in run:
    print(text.text)
"""

import importlib
from typing import Any

_HOMES = {
    "SynthesisConfig": "config",
    "PromptConfig": "config",
    "PerformanceOptions": "config",
    "Plan": "planning",
    "Guarantee": "planning",
    "plan": "planning:make_plan",
    "Run": "run.synthesis",
    "SyntheticText": "run.rounds",
    "synthesize": "run.synthesis",
    "evaluate": "evaluation.runs",
    "audit": "auditing.runs",
    "Audit": "auditing.runs",
    "compare": "evaluation.runs",
    "Evaluation": "evaluation.figures",
    "Figure": "evaluation.figures",
    "PlainchantError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "PrivacyError": "errors",
    "RunError": "errors",
    "GateError": "errors",
    "ModelError": "errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # lazy, so that importing plainchant brings neither torch nor anything slow
    if name not in _HOMES:
        raise AttributeError(f"module 'plainchant' has no attribute {name!r}")
    module, _, other = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"plainchant.{module}"), other or name)


def __dir__() -> list[str]:
    return __all__
