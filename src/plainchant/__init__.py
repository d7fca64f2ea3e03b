"""Differentially private synthetic text from a private table, without training.

import plainchant as pc

config = pc.SynthesisConfig(method="clustered-mean", epsilon=8, delta=1e-6, public_corpus="corpus.jsonl")
plan = pc.plan(config)
run = pc.synthesize("private.jsonl", plan, out="runs/first")
for text in run:
    print(text.text)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # the same names as in _HOMES, for type checkers and editors; a test compares the two
    from plainchant.auditing.runs import Audit, audit, audit_with_canaries
    from plainchant.config import Example, PerformanceOptions, PromptConfig, SynthesisConfig, load_config
    from plainchant.data.schema import Schema
    from plainchant.data.survey import Survey
    from plainchant.errors import (
        ConfigError,
        DataError,
        GateError,
        MissingDependencyError,
        ModelError,
        PlainchantError,
        PrivacyError,
        RunError,
    )
    from plainchant.evaluation.figures import Evaluation, Figure
    from plainchant.evaluation.runs import Compared, compare, evaluate
    from plainchant.planning import Guarantee, Plan
    from plainchant.planning import make_plan as plan
    from plainchant.reporting.push import push
    from plainchant.reporting.runs import report
    from plainchant.reporting.statement import statement
    from plainchant.reporting.view import view
    from plainchant.run.checking import check
    from plainchant.run.finished import FinishedRun
    from plainchant.run.finished import open_run as open
    from plainchant.run.ledger import Ledger
    from plainchant.run.preview import preview
    from plainchant.run.progress import NoProgress
    from plainchant.run.released import SyntheticText
    from plainchant.run.synthesis import Run, synthesize
    from plainchant.run.synthesizer import Synthesizer

__all__ = [
    "Audit",
    "Compared",
    "ConfigError",
    "DataError",
    "Evaluation",
    "Example",
    "Figure",
    "FinishedRun",
    "GateError",
    "Guarantee",
    "Ledger",
    "MissingDependencyError",
    "ModelError",
    "NoProgress",
    "PerformanceOptions",
    "PlainchantError",
    "Plan",
    "PrivacyError",
    "PromptConfig",
    "Run",
    "RunError",
    "Schema",
    "Survey",
    "SynthesisConfig",
    "Synthesizer",
    "SyntheticText",
    "audit",
    "audit_with_canaries",
    "check",
    "compare",
    "evaluate",
    "load_config",
    "open",
    "plan",
    "preview",
    "push",
    "report",
    "statement",
    "synthesize",
    "view",
]

# The module of each public name and, after a colon, its name there.
_HOMES = {
    "Audit": "auditing.runs",
    "Compared": "evaluation.runs",
    "ConfigError": "errors",
    "DataError": "errors",
    "Evaluation": "evaluation.figures",
    "Example": "config",
    "Figure": "evaluation.figures",
    "FinishedRun": "run.finished",
    "GateError": "errors",
    "Guarantee": "planning",
    "Ledger": "run.ledger",
    "MissingDependencyError": "errors",
    "ModelError": "errors",
    "NoProgress": "run.progress",
    "PerformanceOptions": "config",
    "PlainchantError": "errors",
    "Plan": "planning",
    "PrivacyError": "errors",
    "PromptConfig": "config",
    "Run": "run.synthesis",
    "RunError": "errors",
    "Schema": "data.schema",
    "Survey": "data.survey",
    "SynthesisConfig": "config",
    "Synthesizer": "run.synthesizer",
    "SyntheticText": "run.released",
    "audit": "auditing.runs",
    "audit_with_canaries": "auditing.runs",
    "check": "run.checking",
    "compare": "evaluation.runs",
    "evaluate": "evaluation.runs",
    "load_config": "config",
    "open": "run.finished:open_run",
    "plan": "planning:make_plan",
    "preview": "run.preview",
    "push": "reporting.push",
    "report": "reporting.runs",
    "statement": "reporting.statement",
    "synthesize": "run.synthesis",
    "view": "reporting.view",
}

if not TYPE_CHECKING:
    # lazy, so that importing plainchant imports neither torch nor anything slow; type checkers see the imports above
    # and report an unknown name as an error

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'plainchant' has no attribute {name!r}")
        module, _, other = _HOMES[name].partition(":")
        value = getattr(importlib.import_module(f"plainchant.{module}"), other or name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return __all__
