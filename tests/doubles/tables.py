"""A private table with a marker in every cell, and the options of a small run on it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
# Small made-up inputs that went wrong once; every test that reads them makes the same kind for itself too
CASES = SHARED / "cases"
MARKER = "zanzibarquartz"
# What every small run shares; batches of 10 pay for a text of 12 tokens at this clip
OPTIONS = [
    *("--method", "clustered-mean", "--clusters", "none", "--support", "top_k", "--clipping", "difference"),
    *("--clip", "1.5", "--batch-size", "10", "--label-column", "label", "--labels", "red,blue"),
    *("--max-tokens", "12", "--max-record-tokens", "40", "--texts", "10"),
]


def rows(count: int = 80) -> list[dict[str, str]]:
    """Records of two labels, each of a unit of its own."""
    return [
        {"text": f"{MARKER} note {n} about the harbour", "label": ("red", "blue")[n % 2], "unit": f"{MARKER}{n}"}
        for n in range(count)
    ]


def write(path: Path, records: Iterable[Any]) -> Path:
    """Writes records as JSON Lines."""
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def data_set(name: str) -> Path:
    """A real data set beside the repository; a test that needs it is skipped where it is absent."""
    path = SHARED / "data" / name
    if not path.exists():
        where = "../shared/data, beside the repository"
        pytest.skip(f"{name} is not in {where}; SOURCE.md there says which public file it is made from")
    return path
