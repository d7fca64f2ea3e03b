"""Time and memory of everything but embedding and decoding, by the size of the private table (made-up data).

    python bench/scale.py [--sizes 1000,10000,100000]

Vectors around 1,000 public centres stand for embeddings and a model that costs next to nothing for decoding. Each size
runs in a process of its own; GiB is how far its memory had grown at its highest by the end of a step. The rows go to
bench/speed/results/scale.json, in seconds; "by text" rows are medians over texts.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from plainchant import plan, synthesize
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.centres import fit_centres
from plainchant.models.table import TableModel
from plainchant.randomness import SystemRandomness
from plainchant.run.inputs import read_table
from plainchant.run.store import RunDirectory

RESULTS = Path(__file__).parent / "speed" / "results" / "scale.json"
CENTRES, CORPUS, DIMENSION = 1_000, 10_000, 384
LABELS = ("water", "housing", "transport", "library")
# as many as there are batches at the smallest size, so that no batch writes two: a text costs the same rows everywhere
TEXTS, WORDS_A_RECORD = 40, 40
MOST_SECONDS, MOST_GIB = 60.0, 2.0
WORDS = ("<eos>", "\n", *(f" {first}{second}" for first in "bdfglmnprst" for second in ("an", "elo", "iri", "ou")))


class MadeVectors:
    """Stands for an embedder: every text lies near one of some clusters of very different sizes."""

    name = "made"

    def __init__(self):
        self.seconds = 0.0
        self._clusters = np.random.default_rng(0).standard_normal((CENTRES, DIMENSION), np.float32)

    def encode(self, texts, *, alone=False, progress=None):
        began = time.perf_counter()
        hashes = np.array([zlib.crc32(text.encode()) for text in texts], dtype=np.int64)
        # the square makes some clusters large and most of them small
        vectors = self._clusters[((hashes / 2**32) ** 2 * CENTRES).astype(np.int64)]
        generator = np.random.default_rng(hashes[:8])
        for rows in np.array_split(vectors, 1 + len(vectors) // 4_096):
            rows += generator.standard_normal(rows.shape, np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        self.seconds += time.perf_counter() - began
        return vectors


class QuickModel(TableModel):
    """A record moves the next token, so that it pays, by a look into a small table; a word is a token."""

    def __init__(self):
        logits = np.random.default_rng(0).normal(0, 0.5, (7, len(WORDS)))
        super().__init__(WORDS, lambda row: logits[sum(row) % len(logits)], end_of_text={0}, context_length=4_096)

    def encode(self, text, *, trusted):
        return [1 + zlib.crc32(word.encode("utf-8", "replace")) % (len(WORDS) - 1) for word in text.split()] or [1]


class Meter:
    """Seconds and memory of one step after another."""

    def __init__(self, records):
        self.rows = []
        self._records = records
        self._before = self._peak()
        self._began = time.perf_counter()

    def _peak(self):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def note(self, name, less=0.0, seconds=None):
        """Ends a step, whose time is what has passed since the last one, or what is given."""
        now = time.perf_counter()
        passed = now - self._began - less if seconds is None else seconds
        grown = self._peak() - self._before
        self.rows.append({"name": name, "records": self._records, "seconds": round(passed, 4), "GiB": round(grown, 3)})
        self._began = time.perf_counter()


def write_table(path, records):
    generator = np.random.default_rng()
    with open(path, "w") as file:
        for words in generator.integers(2, len(WORDS), (records, WORDS_A_RECORD)):
            text = "".join(WORDS[word] for word in words).strip()
            print(json.dumps({"text": text, "label": LABELS[int(generator.integers(len(LABELS)))]}), file=file)


def measured(records, folder):
    """The steps of a run on a table of this size, interrupted once."""
    table, run_folder, centres = folder / "table.jsonl", folder / "run", folder / "centres.npz"
    write_table(table, records)
    config = SynthesisConfig(
        texts=TEXTS, max_tokens=12, labels=LABELS, label_column="label", centres=str(centres), batch_size=24,
    )  # fmt: skip
    decided, embedder, model = plan(config), MadeVectors(), QuickModel()
    # what a run loads once, whatever the data
    SystemRandomness().add_discrete_gaussian([0], 1.0)
    corpus = embedder.encode([str(number) for number in range(CORPUS)])
    embedder.seconds = 0.0
    commit, commits = RunDirectory.commit, []

    def timed(directory, text):
        began = time.perf_counter(), time.process_time()
        commit(directory, text)
        commits.append((time.perf_counter() - began[0], time.process_time() - began[1]))

    RunDirectory.commit = timed

    def begin(resume):
        return synthesize(
            str(table), decided, out=run_folder, resume=resume, model=model, embedder=embedder,
            performance=PerformanceOptions(rows=64),
        )  # fmt: skip

    def write(run, texts):
        """The seconds of single texts, with the model's."""
        seconds, began = [], time.perf_counter()
        for number, _ in enumerate(run, start=1):
            seconds.append(time.perf_counter() - began)
            if number == texts:
                break
            began = time.perf_counter()
        return seconds

    meter = Meter(records)
    fit_centres(corpus, CENTRES).save(centres)
    meter.note("public centres")
    read_table(str(table), config)
    meter.note("reading the table, by itself")
    run = begin(resume=False)
    meter.note("reading, cells, batches", less=embedder.seconds)
    seconds = write(run, TEXTS // 2)
    run.close()
    meter.note("first half of the texts, with a quick model")
    run = begin(resume=True)
    meter.note("resuming")
    half = run.directory.texts()
    seconds = [*seconds, *write(run, TEXTS)[len(half) :]]
    meter.note("second half of the texts, with a quick model")
    embedder.seconds = 0.0
    assert len(run.finish()) == TEXTS
    meter.note("further texts, vote and release", less=embedder.seconds)
    meter.rows.append(meter.rows[-1] | {
        "name": "all of it",
        "seconds": round(sum(row["seconds"] for row in meter.rows), 3),
    })  # fmt: skip
    wall, processor = (statistics.median(own) for own in zip(*commits, strict=True))
    meter.note("committing, by text", seconds=wall)
    meter.note("committing, by text, without waiting for the disk", seconds=processor)
    meter.note("writing and committing, by text", seconds=statistics.median(seconds))
    return meter.rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(options.one, Path(folder))))
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    rows = []
    for size in sizes:
        command = [sys.executable, __file__, "--one", str(size)]
        rows += json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"measured": time.strftime("%Y-%m-%d"), "result": rows}, indent=1) + "\n")
    print(f"{'seconds (GiB) at so many records':52}" + "".join(f"{size:>18,}" for size in sizes))
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        print(f"{name:52}" + "".join(f"{row['seconds']:>10.4f} ({row['GiB']:.2f})" for row in own))
    whole = [row for row in rows if row["name"] == "all of it"][-1]
    kept = whole["seconds"] <= MOST_SECONDS and whole["GiB"] <= MOST_GIB
    print(f"at most {MOST_SECONDS:g} seconds and {MOST_GIB:g} GiB: {'yes' if kept else 'NO'}")


if __name__ == "__main__":
    main()
