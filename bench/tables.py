"""How close released attributes are to the real ones: tables made from real texts, attributes alone.

    python bench/tables.py yelp ../shared/data/yelp_test.jsonl

Each column but the label is computed from the text by a simple rule, so that columns depend on each other as they do in
tables that people keep. Prints the agreement (1 − total variation) of columns and pairs, beside that of real rows.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import plainchant as pc
from plainchant.evaluation.figures import COLUMNS, PAIRS, of_real

WORDS = {"type": "number", "cuts": [0, 5, 10, 20, 40, 60, 80, 120, 160, 240, 400, 1000]}
KINDS = {
    "food": "food|restaurant|burger|pizza|taco|chicken|menu|lunch|dinner|sushi|coffee|bar",
    "stay": "hotel|room|motel|suite|casino",
    "beauty": "hair|nail|salon|massage|spa",
    "car": "car|tire|mechanic|dealer|oil change",
    "shop": "store|shop|mall|bought",
}


def yelp(row: dict[str, Any]) -> dict[str, Any]:
    """Stars, length, what it is about, and three signs of its tone."""
    text = row["text"].lower()
    kind = next((name for name, found in KINDS.items() if re.search(rf"\b({found})\b", text)), None)
    return {
        "stars": int(float(row["label"])),
        "words": len(text.split()),
        "kind": kind,
        "excited": "!" in text,
        "personal": bool(re.search(r"\b(i|my|we)\b", text)),
        "price": bool(re.search(r"\$|\bprice|\bcheap|\bexpensive", text)),
    }


def advisories(row: dict[str, Any]) -> dict[str, Any]:
    """Kind of weakness, year, number, host and owner of the package, length."""
    found = re.search(r"\b([\w.]+\.\w+)/([\w-]+)", row["text"])
    _, year, number = row["id"].split("-")
    return {
        "weakness": row["label"],
        "published": f"{year}-{1 + int(number) // 60 % 12:02}-01",
        "number": int(number),
        "host": found and found[1],
        "owner": found and found[2],
        "words": len(row["text"].split()),
    }


LABELS = ("1", "2", "3", "4", "5")
WEAKNESSES = (
    "access control", "denial of service", "injection or code execution", "path or file access",
    "information disclosure", "cross-site scripting", "request forgery", "other",
)  # fmt: skip
TABLES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], dict[str, Any]]] = {
    "yelp": (
        yelp,
        {
            "label_column": "stars",
            "labels": LABELS,
            "columns": {
                "attributes": {
                    "words": WORDS,
                    "kind": {"type": "category", "values": list(KINDS)},
                    **{name: {"type": "boolean"} for name in ("excited", "personal", "price")},
                }
            },
        },
    ),
    "advisories": (
        advisories,
        {
            "label_column": "weakness",
            "labels": WEAKNESSES,
            "columns": {
                "attributes": {
                    "published": {"type": "date", "first": "2025-01-01", "last": "2026-12-31"},
                    "number": {"type": "number", "cuts": list(range(3300, 5901, 200))},
                    "host": {"type": "category"},
                    "owner": {"type": "category"},
                    "words": WORDS,
                }
            },
        },
    ),
}


@click.command()
@click.argument("name", type=click.Choice(list(TABLES)))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--rows", type=int, default=5_000)
def main(name: str, data: Path, rows: int) -> None:
    """Releases a table at ε = 8 and 1, and says how close it is."""
    made, values = TABLES[name]
    real = [made(json.loads(line)) for line in data.read_text(encoding="utf-8").splitlines()]
    for epsilon in (8.0, 1.0):
        config = pc.SynthesisConfig(method="attributes", epsilon=epsilon, texts=rows, **values)
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            pc.synthesize(real, pc.plan(config), out=Path(folder) / "run").finish()
            taken = time.perf_counter() - begin
            found = pc.evaluate(Path(folder) / "run", real, limit=len(real))
        shown = ", ".join(f"{part} {found.figure(part)}" for part in (COLUMNS, PAIRS))
        ideal = ", ".join(f"{found.figure(of_real(part))}" for part in (COLUMNS, PAIRS))
        least = min((figure.value, part) for part, figure in found.groups["attributes"].items() if "×" in part)
        print(f"{name}, {len(real)} rows, ε = {epsilon:g}: {shown}; real rows {ideal}; least {least}; {taken:.0f} s")


if __name__ == "__main__":
    main()
