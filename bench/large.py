"""A table of millions of rows: what reading, sampling and counting take (rows of a real set, with made-up words).

    python bench/large.py [--rows 5000000] [--work DIRECTORY]

The rows of a real set are repeated, each time with other noise words and for another customer, and written as Parquet
shards into --work, which is removed at the end. A run on the sample that the plan proposes follows, in a process of its
own: vectors around public centres stand for embeddings, and a model that costs next to nothing writes. Seconds by the
clock and of the processor, and resident memory at its highest, go to bench/speed/results/large.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from plainchant import plan, synthesize
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.centres import fit_centres
from plainchant.data.sample import KEY_BYTES, Sample
from plainchant.data.tables import fingerprint
from plainchant.randomness import SystemRandomness
from plainchant.run.cells import choose_records
from plainchant.run.inputs import read_table
from scale import CENTRES, CORPUS, MadeVectors, QuickModel

RESULTS = Path(__file__).parent / "speed" / "results" / "large.json"
REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "ag_news_test.jsonl"
SHARD, RECORDS_OF_A_CUSTOMER, NOISE_WORDS = 250_000, 2, 4
MOST_MINUTES, MOST_GIB = 4.0, 2.0


def write_table(folder, rows):
    """Parquet shards with the columns text, label and customer."""
    real = [json.loads(line) for line in REAL.read_text().splitlines()]
    generator = np.random.default_rng()
    for first in range(0, rows, SHARD):
        numbers = range(first, min(rows, first + SHARD))
        noise = generator.integers(10**5, 10**6, (len(numbers), NOISE_WORDS)).tolist()
        own = [real[number % len(real)] for number in numbers]
        texts = [
            f"{row['text']} {' '.join(f'w{word}' for word in words)}" for row, words in zip(own, noise, strict=True)
        ]
        customers = [f"customer {number * 7 % (rows // RECORDS_OF_A_CUSTOMER)}" for number in numbers]
        table = pyarrow.table({"text": texts, "label": [row["label"] for row in own], "customer": customers})
        pyarrow.parquet.write_table(table, folder / f"part-{first // SHARD:04}.parquet")
    return sorted({row["label"] for row in real})


class Meter:
    """Seconds and memory of one step after another."""

    def __init__(self):
        self.rows = []
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def note(self, name):
        clock, processor = time.perf_counter(), time.process_time()
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds, cpu = clock - self._clock, processor - self._processor
        self.rows.append({"name": name, "seconds": round(seconds, 2), "cpu": round(cpu, 2), "GiB": round(highest, 3)})
        print(f"{name:48} {seconds:8.1f} s {cpu:8.1f} s CPU {highest:6.2f} GiB", file=sys.stderr, flush=True)
        self._clock, self._processor = time.perf_counter(), time.process_time()


def measured(rows, folder, labels):
    """The steps of a run on a sample of the table."""
    meter, centres = Meter(), folder.parent / "centres.npz"
    config = SynthesisConfig(
        epsilon=1.0, texts=200, max_tokens=12, labels=labels, label_column="label", unit_column="customer",
        centres=str(centres), expected_units=rows // RECORDS_OF_A_CUSTOMER, sample_rate="auto",
    )  # fmt: skip
    decided, embedder = plan(config), MadeVectors()
    SystemRandomness().add_discrete_gaussian([0], 1.0)
    fit_centres(embedder.encode([str(number) for number in range(CORPUS)]), CENTRES).save(centres)
    meter.note(f"start, plan (rate {decided.sample_rate:.3g}), public centres")
    sample = Sample(SystemRandomness().below(2 ** (8 * KEY_BYTES)).to_bytes(KEY_BYTES, "big"), decided.sample_rate)
    table = read_table(str(folder), config, sample)
    meter.note("reading and sampling, by itself")
    fingerprint(table)
    choose_records(table, SystemRandomness())
    meter.note("fingerprint, one record per unit, by itself")
    del table
    run = synthesize(
        str(folder), decided, out=folder.parent / "run", model=QuickModel(), embedder=embedder,
        performance=PerformanceOptions(rows=64),
    )  # fmt: skip
    meter.note(f"reading, vectors ({embedder.seconds:.0f} s), counting, batches")
    run.finish()
    meter.note("texts with a quick model, votes, release")
    return meter.rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--work", type=Path, help="where the table lies meanwhile; by default a temporary folder")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, *labels = json.loads(options.one)
        print(json.dumps(measured(options.rows, Path(folder), labels)))
        return
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        folder = Path(scratch) / "table"
        folder.mkdir()
        labels = write_table(folder, options.rows)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**30
        print(f"{options.rows:,} rows, {size:.2f} GiB of Parquet", file=sys.stderr)
        command = [sys.executable, __file__, "--rows", str(options.rows), "--one", json.dumps([str(folder), *labels])]
        rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    result = {"measured": time.strftime("%Y-%m-%d"), "rows": options.rows, "result": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    minutes, highest = sum(row["seconds"] for row in rows[:-1]) / 60, max(row["GiB"] for row in rows)
    kept = minutes <= MOST_MINUTES and highest <= MOST_GIB
    print(
        f"reading twice, sampling and counting: {minutes:.1f} minutes; {highest:.2f} GiB at most. Wanted: "
        f"{MOST_MINUTES:g} minutes, {MOST_GIB:g} GiB: {'yes' if kept else 'NO'}"
    )


if __name__ == "__main__":
    main()
