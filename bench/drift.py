"""What becomes of a long text whose records have their say in its head alone: the figures of docs/how-to/long-texts.md.

    python bench/drift.py [--texts 60] [--folder ../shared/data] [--work bench/results/drift]
    python bench/drift.py --page    the table of docs/how-to/long-texts.md, from the figures of the last run

Yelp reviews of at least 50 words, texts of 256 tokens at ε = 8 in batches of one size, without a vote: written by
records in their first 64 tokens, by records throughout, and by the public model alone. Each text is cut into pieces of
64 tokens. The pieces at one place are compared with those at the same place of reviews that no run has read: by MAUVE,
by the Fréchet distance of embeddings, and by how often a classifier that was trained on such pieces finds the label. A
run goes on where it stopped.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import plainchant as pc
from plainchant.config import load_config
from plainchant.data.embedding import Embedder, load_embedder
from plainchant.evaluation.figures import share
from plainchant.evaluation.measures import Sample, frechet, mauve, predicted
from plainchant.models.transformers.load import load_model
from plainchant.planning import make_plan
from study import between

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "study" / "drift-yelp.json", HERE.parent / "docs" / "how-to" / "long-texts.md"
# No text ends before it reaches the last place: left to itself the model ends most after forty words.
PIECE, LENGTH, FEWEST, SIZE, FEWEST_WORDS = 64, 256, 224, 20, 50
WAYS: dict[str, dict[str, Any]] = {
    "head by records": {"candidates": 1, "batch_size": SIZE, "private_tokens": PIECE},
    "all by records": {"candidates": 1, "batch_size": SIZE},
    "public model": {"method": "public"},
}


def long_reviews(path: Path) -> list[dict[str, str]]:
    """The reviews of a file that are long enough to have several pieces."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if len(row["text"].split()) >= FEWEST_WORDS]


def pieces(texts: list[tuple[str, str]], model: Any, place: int) -> list[tuple[str, str]]:
    """(piece at a place, label) of the texts that reach so far; a short rest does not count."""
    found = []
    for text, label in texts:
        tokens = model.encode(text, trusted=False)[place * PIECE : (place + 1) * PIECE]
        if len(tokens) >= PIECE // 2:
            found.append((model.decode(tokens), label))
    return found


def sample(found: list[tuple[str, str]], embedder: Embedder) -> Sample:
    """Pieces with their embeddings."""
    texts, labels = [text for text, _ in found], [label for _, label in found]
    return Sample(texts, labels, embedder.encode(texts))


def compared(own: Sample, real: Sample) -> dict[str, Any]:
    """Figures of the pieces at one place; half of the real ones train the classifier."""
    order = np.random.default_rng(0).permutation(len(real))
    size = min(len(own), len(real) // 2)
    train, other = real.take(order[size:]), real.take(order[:size])
    right = predicted(train, own) == np.array(own.labels, dtype=str)
    some = own.take(np.arange(size))
    return {
        "pieces": len(own),
        "label agreement": vars(share(right)),
        "MAUVE": mauve(some.vectors, other.vectors, bins=10),
        "Fréchet distance": frechet(some.vectors, other.vectors),
    }


def table(figures: dict[str, Any]) -> str:
    """Markdown: a row for each place and way, the places in their order."""
    heads = ["tokens", "written", "pieces", "label agreement", "MAUVE", "Fréchet distance"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for place in range(LENGTH // PIECE):
        for name, found in figures.items():
            one, first = found[place], place * PIECE
            agreement = "{value:.2f} ({low:.2f} to {high:.2f})".format(**one["label agreement"])
            cells = [f"{first + 1} to {first + PIECE}", name, str(one["pieces"]), agreement]
            cells += [f"{one[figure]:.2f}" for figure in heads[-2:]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Writes texts, compares their pieces and puts a table into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=HERE / "results" / "drift")
    parser.add_argument("--page", action="store_true", help="write no text; make the page's table anew")
    options = parser.parse_args()
    if not options.page:
        RESULTS.write_text(json.dumps(measured(options), indent=1) + "\n")
    PAGE.write_text(between(PAGE.read_text(), "drift", table(json.loads(RESULTS.read_text()))))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of every way's pieces, by place; its runs go on where they stopped."""
    private, unread = (long_reviews(options.folder / f"yelp_{part}.jsonl") for part in ("test", "dev"))
    model, embedder = load_model("gemma-3-270m", dtype="bfloat16", threads=1), load_embedder("all-MiniLM-L6-v2")
    shared = {"texts": options.texts, "max_tokens": LENGTH, "min_tokens": FEWEST, "max_record_tokens": 192,
              "expected_units": len(private), "centres": 1}  # fmt: skip
    texts: dict[str, list[tuple[str, str]]] = {"real reviews": [(row["text"], row["label"]) for row in private]}
    figures: dict[str, Any] = {}
    for name, own in WAYS.items():
        config = load_config(HERE.parent / "examples" / "yelp.toml", {**shared, **own})
        out = options.work / name.replace(" ", "-")
        performance = pc.PerformanceOptions(dtype="bfloat16", threads=1)
        with pc.synthesize(
            None if own.get("method") == "public" else private, make_plan(config), out=out, resume=out.exists(),
            performance=performance, model=model, embedder=embedder,
        ) as run:  # fmt: skip
            run.finish()
            texts[name] = [(row["text"], row["label"]) for row in run.directory.released()]
    real = [(row["text"], row["label"]) for row in unread]
    for place in range(LENGTH // PIECE):
        theirs = sample(pieces(real, model, place), embedder)
        for name, written in texts.items():
            own_pieces = sample(pieces(written, model, place), embedder)
            figures.setdefault(name, []).append(compared(own_pieces, theirs))
    return figures


if __name__ == "__main__":
    main()
