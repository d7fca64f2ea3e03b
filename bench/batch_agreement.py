"""Mean pairwise cosine inside batches: uniform, by label, and around public centres (guarantee 2 and 3).

    python bench/batch_agreement.py --data FILE --centres centres.npz --labels a,b --embeddings private/embeddings.npy

The figures read private data: they are for a bench, not for a release.
"""

import argparse
import functools
import json

import numpy as np

from plainchant.data.centres import Centres
from plainchant.data.embedding import load_embedder
from plainchant.data.tables import read_records
from plainchant.generation.batching import draw_batches
from plainchant.privacy.histograms import rebalance
from plainchant.randomness import SystemRandomness


def mean_cosine(embeddings, batch_of_unit):
    """Mean over batches of at least two of the mean cosine of their pairs."""
    means = []
    for batch in range(batch_of_unit.max() + 1):
        rows = embeddings[batch_of_unit == batch]
        if len(rows) > 1:
            total = rows.sum(axis=0)
            means.append((float(total @ total) - len(rows)) / (len(rows) * (len(rows) - 1)))
    return float(np.mean(means))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--centres", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--embeddings")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rho", type=float, default=0.0526, help="for both noisy counts together")
    options = parser.parse_args()
    records = read_records(options.data, label_column=options.label_column)
    labels = options.labels.split(",")
    label_of_unit = np.array([labels.index(r.label) if r.label in labels else -1 for r in records])
    centres = Centres.load(options.centres)
    if options.embeddings:
        embeddings = np.load(options.embeddings)
    else:
        embeddings = load_embedder().encode([record.text for record in records], alone=True)
    randomness = SystemRandomness()

    def batches(label_of_unit, count, nearest, kept):
        outcome = rebalance(
            label_of_unit,
            nearest,
            labels=count,
            centres=len(centres.vectors),
            batch_size=options.batch_size,
            kept=kept,
            min_cell=None,
            rho_select=options.rho / 2,
            rho_size=options.rho / 2,
            randomness=randomness,
        )
        batch_of_unit = draw_batches(outcome.cell_of_unit, outcome.cells, randomness)
        return len(outcome.cells), mean_cosine(embeddings, batch_of_unit)

    nearest = functools.partial(lambda units, among: centres.nearest(embeddings[units], among))
    one_label = np.zeros(len(records), dtype=np.int64)
    for name, *arguments in [
        ("uniform", one_label, 1, None, None),
        ("uniform within a label", label_of_unit, len(labels), None, None),
        *[(f"around public centres, at most {k} kept", label_of_unit, len(labels), nearest, k) for k in (20, 40)],
        ("around public centres, kept = auto", label_of_unit, len(labels), nearest, None),
    ]:
        cells, cosine = batches(*arguments)
        print(json.dumps({"batches": name, "cells": cells, "mean cosine": round(cosine, 3)}))


if __name__ == "__main__":
    main()
