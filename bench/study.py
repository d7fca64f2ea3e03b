"""The study: which way to batch, to aggregate and to account makes the best text at a price, on real data.

    python bench/study.py list
    python bench/study.py run [PATTERN ...] [--minutes 100]    cells of bench/study/cells.toml
    python bench/study.py judge [PATTERN ...]                   finished runs: another embedder, and attacks
    python bench/study.py page                                  docs/study.md and its plots, from the results

A cell is a configuration on a data set; it is run several times. A run lives in --work and goes on where it stopped;
its figures (no text of the data) go to bench/study/results/, which is what the page is made from. Two processes may run
side by side: a run that the other one works on is left to it.
"""

import argparse
import contextlib
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import time
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
# What a column without a value is called in a label.
NONE = "other"
REAL_BESIDE = "accuracy of as many real texts"
RESULTS = HERE / "study" / "results"
# A batch beyond this is no advice: a token would cost as many model rows.
LARGEST_SHOWN = 300


class Remembering:
    """An embedder that computes no text twice over all cells: the data of the study is public."""

    def __init__(self, embedder, path):
        self._embedder, self._path = embedder, path
        self.name = embedder.name
        self._known = dict(np.load(path)) if path.exists() else {}

    def encode(self, texts, **options):
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            vectors = self._embedder.encode(list(missing.values()), alone=True)
            self._known |= dict(zip(missing, vectors, strict=True))
            if len(missing) > 1000:
                temporary = self._path.with_suffix(f".{os.getpid()}.npz")
                np.savez(temporary, **self._known)
                temporary.rename(self._path)
        if progress := options.get("progress"):
            progress(1.0)
        return np.array([self._known[key] for key in keys])


def load_cells():
    """The cells by name, each with its own settings and those of its data set and of all."""
    described = tomllib.loads((HERE / "study" / "cells.toml").read_text())
    cells = {}
    for name, own in described["cell"].items():
        data = described["data"][name.partition("/")[0]]
        data = {**described["data"].get(data.get("like"), {}), **data}
        cells[name] = {"runs": 1, **data, **own, "set": {**data.get("set", {}), **own.get("set", {})}}
    return cells


def places(cells, patterns):
    """(cell, run) in the order of work: first runs of all cells before any second one, what needs them all last."""
    names = [name for name in cells if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    most = max((cells[name]["runs"] for name in names), default=0)
    order = [(name, number) for number in range(1, most + 1) for name in names if number <= cells[name]["runs"]]
    return sorted(order, key=lambda place: "together" in cells[place[0]])


def stem(name, number):
    return f"{name.replace('/', '--')}--{number}"


def result_path(name, number):
    return RESULTS / f"{stem(name, number)}.json"


def centres_of(cell, work, embedder):
    """The public centres of a data set, fitted once for all of its cells that want so many."""
    from plainchant.data.centres import fit_centres
    from plainchant.data.tables import read_texts

    count = cell["set"].get("centres", cell["centres"])
    path = work / f"centres-{Path(cell['public']).stem}-{count}.npz"
    if not path.exists():
        vectors = embedder.encode(read_texts(Path(cell["folder"]) / cell["public"]))
        made = fit_centres(vectors, count)
        made.save(path)
    return path


def table_of(cell, work, file="file"):
    """A cell's private table, or the unread one (`file` = "held_out"): a file, or what is made of it, once.

    What may be made of the private one: `records` of its rows, drawn at random; its smallest labels cut short
    (`cut = {labels, records}`). What may be made of both: columns beside the text (`made`, a name of bench/tables.py).
    One file may be both (`split`): the first half of its rows is private, by "date", as which they are sorted, or at
    "random".
    """
    path = Path(cell["folder"]) / cell[file]
    private = file == "file"
    records, cut, made, split, by = (
        cell.get("records") if private else None,
        small_labels(cell) if private else {},
        cell.get("made"),
        cell.get("split"),
        cell.get("cells_by"),
    )
    if records is None and not cut and made is None and split is None:
        return path
    half = split and f"{split}-{'first' if private else 'second'}"
    named = "-".join(
        str(part)
        for part in (path.stem, half, records, cut and f"{len(cut)}x{cell['cut']['records']}", made, by)
        if part
    )
    part = work / f"{named}.jsonl"
    if not part.exists():
        rows = rows_of(path)
        if split is not None:
            rows = halves(rows, split)[0 if private else 1]
        order = np.random.default_rng(0).permutation(len(rows))
        left, chosen = dict.fromkeys(cut, cell.get("cut", {}).get("records")), []
        for row in order[:records]:
            label = rows[row]["label"]
            if left.get(label, 1):
                chosen.append(row)
                left |= {label: left[label] - 1} if label in left else {}
        rows = [with_columns(rows[row], made) for row in sorted(chosen)]
        if by is not None:
            rows = [{**row, "stars": row["label"], "label": both(row["label"], row[by])} for row in rows]
        work.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return part


def rows_of(path):
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def halves(rows, split):
    """The first and the second half of the rows, as they stand there ("date") or of a fixed random order."""
    if split == "random":
        rows = [rows[row] for row in np.random.default_rng(1).permutation(len(rows))]
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def both(label, value):
    """The label of a cell that a label and a value of a column share."""
    return f"{label}, {value or NONE}"


def with_cells_by(config, name):
    """A configuration whose cells are those of the label and of a column: what both are follows from the cell."""
    from plainchant.data.schema import Schema

    old, kinds = config.columns, [*config.columns.attributes[name].values, NONE]
    cells = {both(label, kind): (label, kind) for label in config.labels for kind in kinds}
    columns = Schema(
        attributes={own: kind for own, kind in old.attributes.items() if own != name},
        of_label={"stars": {cell: own[0] for cell, own in cells.items()},
                  name: {cell: own[1] for cell, own in cells.items()}},
    )  # fmt: skip
    examples = []
    for example in config.prompt.examples:
        attributes = dict(example.attributes)
        examples.append({"text": example.text, "label": both(example.label, attributes.pop(name, None)),
                         "attributes": attributes})  # fmt: skip
    values = config.model_dump(exclude_defaults=True) | {"labels": tuple(cells), "columns": columns}
    prompt = {**config.prompt.model_dump(exclude_defaults=True), "examples": examples}
    return type(config)(**values | {"prompt": prompt})


def told(released, real, embedder):
    """How often a classifier that released texts train finds the label and the kind of real texts."""
    from plainchant.evaluation.figures import share
    from plainchant.evaluation.measures import Sample, predicted

    def sample(rows, column):
        texts = [row["text"] for row in rows]
        return Sample(texts, [row[column] or NONE for row in rows], embedder.encode(texts))

    found = {}
    # a cell that the label shares with a column has both beside it
    for name, column in (("label", "stars" if "stars" in released[0] else "label"), ("kind", "kind")):
        if column in released[0]:
            train, test = sample(released, column), sample(real, column)
            truth = np.array(test.labels, dtype=str)
            found[name] = {
                way: vars(share(predicted(train, test, by_words=way == "by words") == truth))
                for way in ("accuracy", "by words")
            }
    return found


def with_columns(row, made):
    """A row with the columns that bench/tables.py makes of it."""
    from tables import TABLES

    return row if made is None else row | TABLES[made][0](row)


def finetuned(name, number, cell, config, options):
    """The folder of the model that a cell tunes on its records, and the processor seconds that this took."""
    from finetuning import Tuning, tune
    from plainchant.run.inputs import read_table

    records = [record for record in read_table(table_of(cell, options.work), config) if record.label in config.labels]
    return tune(
        config,
        records,
        Tuning(**cell["finetuned"]),
        public=Path(cell["folder"]) / cell["public"],
        folder=options.work / "tuned" / stem(name, number),
        dtype=options.dtype,
    )


def small_labels(cell):
    """The labels that a cell leaves hardly any records: drawn at random, the same everywhere."""
    if "cut" not in cell:
        return set()
    lines = (Path(cell["folder"]) / cell["file"]).read_text(encoding="utf-8").splitlines()
    labels = sorted({json.loads(line)["label"] for line in lines})
    return set(np.random.default_rng(0).permutation(labels)[: cell["cut"]["labels"]].tolist())


def of_small_labels(run, table, unread, cell, embedder):
    """Accuracy on unread texts of the small labels and of the others, and the fewest texts that one of each got.

    Beside it, the accuracy of as many real texts: of each label as many records, drawn at random from the table.
    """
    from plainchant.evaluation.figures import share
    from plainchant.evaluation.measures import predicted
    from plainchant.evaluation.runs import real_sample, released_sample

    rows = [row for row in run.directory.released() if row["text"].strip()]
    records, real = (real_sample([run.directory], file, embedder) for file in (table, unread))
    truth, labels = (np.array(sample.labels, dtype=str) for sample in (real, records))
    each, order = round(len(rows) / len(set(truth))), np.random.default_rng(0).permutation(len(labels))
    drawn = np.concatenate([order[labels[order] == label][:each] for label in sorted(set(truth))])
    inside = np.isin(truth, sorted(small_labels(cell)))
    counts = Counter(row["label"] for row in rows)
    right = {
        "accuracy": predicted(released_sample(rows, embedder), real) == truth,
        REAL_BESIDE: predicted(records.take(drawn), real) == truth,
    }
    return {
        which: {name: vars(share(own[here])) for name, own in right.items()}
        | {"fewest texts": min(counts[label] for label in set(truth[here]))}
        for which, here in parts_of(inside).items()
    }


def parts_of(inside):
    return {"small labels": inside, "other labels": ~inside}


def run_cell(name, number, cell, options, loaded):
    """One run to its end, and its figures; None where another process is at it."""
    import plainchant as pc
    from plainchant.config import Clusters, PromptConfig, load_config
    from plainchant.evaluation.runs import evaluate
    from plainchant.planning import make_plan

    out = options.work / "runs" / stem(name, number)
    table = table_of(cell, options.work)
    embedder = loaded.embedder()
    config = load_config(HERE.parent / cell["config"], cell["set"])
    if "prompt" in cell:
        prompt = PromptConfig(**{**dict(config.prompt), **cell["prompt"]})
        config = config.model_copy(update={"prompt": prompt})
    if "cells_by" in cell:
        config = with_cells_by(config, cell["cells_by"])
    if config.parts.clusters is Clusters.PUBLIC_CENTRES:
        if config.centres == "auto":
            # the run fits as many as its plan wants
            update = {"public_corpus": str(Path(cell["folder"]) / cell["public"])}
        else:
            update = {"centres": str(centres_of(cell, options.work, embedder))}
        config = config.model_copy(update=update)
    trained = 0.0
    if "finetuned" in cell:
        source, trained = finetuned(name, number, cell, config, options)
        config = config.model_copy(update={"model": source})
    model = loaded.model(config.model)
    performance = pc.PerformanceOptions(dtype=options.dtype, threads=options.threads, rows=options.rows)
    # what an earlier process took for a part of the run is not known
    resumed, began, processor = out.exists(), time.perf_counter(), time.process_time()
    try:
        run = pc.synthesize(
            None if config.method == "public" else table,
            make_plan(config),
            out=out,
            resume=out.exists(),
            performance=performance,
            model=model,
            embedder=embedder,
            allow_not_private=config.method == "non-private",
        )
    except pc.RunError as error:
        print(f"{name} {number}: {error}")
        return None
    with run:
        texts = run.finish()
        made = run.directory
        processor = time.process_time() - processor
        seconds = time.perf_counter() - began
        evaluation = evaluate(run, table, embedder=embedder).as_dict()["groups"]
        unread = table_of(cell, options.work, "held_out") if "held_out" in cell else None
        again = evaluate(run, unread, embedder=embedder).as_dict()["groups"] if unread else {}
        costs = made.read_private("costs.json")
        guarantee = run.guarantee
        settings = run.plan.settings
        promised = guarantee.epsilon if guarantee.kind == "ex-ante" else None
        if "finetuned" in cell:
            # training spends what the configuration allows, and the public model that it makes spends nothing
            promised = config.epsilon
        return {
            "cell": name,
            "run": number,
            "version": importlib.metadata.version("plainchant"),
            "set": cell["set"],
            "method": config.method.value,
            "batch size": settings.batch_size,
            "clip": settings.clip,
            "epsilon": promised,
            "delta": config.delta,
            "epsilon measured": costs["ex_post"]["epsilon"],
            "spent": costs["records"],
            "texts": len(texts),
            "tokens": sum(text.tokens for text in made.texts()),
            "processor seconds": None if resumed else round(processor + trained),
            "seconds": None if resumed else round(seconds),
            "evaluation": evaluation,
            "held out": again,
            "small labels": of_small_labels(run, table, unread, cell, embedder) if "cut" in cell else None,
            "told": told(made.released(), rows_of(unread), embedder) if "made" in cell else None,
        }


def evaluate_together(name, number, cell, options, loaded):
    """The texts of a cell's runs as one data set, at a size that one budget cannot pay; None where one is missing."""
    from plainchant.evaluation.measures import measure
    from plainchant.evaluation.runs import directory_of, real_sample, released_sample

    parts = [(cell["together"], part) for part in range(1, cell["of"] + 1)]
    paths = [options.work / "runs" / stem(*part) for part in parts]
    if not all(result_path(*part).exists() and path.exists() for part, path in zip(parts, paths, strict=True)):
        print(f"{name}: waits for {cell['of']} runs of {cell['together']}")
        return None
    directories = [directory_of(path) for path in paths]
    rows = [row for directory in directories for row in directory.released() if row["text"].strip()]
    embedder = loaded.embedder()
    synthetic = released_sample(rows, embedder)

    def against(file):
        real = real_sample(directories, Path(cell["folder"]) / file, embedder)
        return measure(synthetic, real, names=directories[0].config.labels).as_dict()["groups"]

    figures = [json.loads(result_path(*part).read_text()) for part in parts]
    # a record that is in every run pays in every one
    sums = ("epsilon", "delta", "epsilon measured", "texts", "tokens", "processor seconds", "seconds")
    return {
        **figures[0],
        **{key: sum(own[key] or 0 for own in figures) for key in sums},
        "cell": name,
        "run": number,
        "together": cell["together"],
        "spent": None,
        "evaluation": against(cell["file"]),
        "held out": against(cell["held_out"]) if "held_out" in cell else {},
    }


class Loaded:
    """The model and the embedder, once a process."""

    def __init__(self, options):
        self._options, self._models, self._embedder = options, {}, None

    def model(self, name):
        from plainchant.models.transformers.load import load_model

        if name not in self._models:
            self._models = {name: load_model(name, dtype=self._options.dtype, threads=self._options.threads)}
        return self._models[name]

    def embedder(self):
        from plainchant.data.embedding import load_embedder

        if self._embedder is None:
            self._options.work.mkdir(parents=True, exist_ok=True)
            self._embedder = Remembering(load_embedder("all-MiniLM-L6-v2"), self._options.work / "embeddings.npz")
        return self._embedder


def run(options):
    cells, loaded = load_cells(), Loaded(options)
    end = time.monotonic() + 60 * options.minutes
    for name, number in places(cells, options.patterns):
        path = result_path(name, number)
        if path.exists() or number > options.runs:
            continue
        if not (Path(cells[name]["folder"]) / cells[name]["file"]).exists():
            print(f"{name}: skipped, {cells[name]['file']} is not in {cells[name]['folder']}")
            continue
        if time.monotonic() > end:
            print("time is up; begin again to go on")
            return
        print(f"{name} {number} ...", flush=True)
        work = evaluate_together if "together" in cells[name] else run_cell
        found = work(name, number, cells[name], options, loaded)
        if found is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n")
            fidelity, useful = found["evaluation"]["fidelity"], found["evaluation"].get("usefulness", {})
            accuracy = useful.get("accuracy, trained on synthetic", {}).get("value")
            print(f"  MAUVE {fidelity['MAUVE']['value']:.3f}, accuracy {accuracy}, {found['processor seconds']} s")


def judge(options):
    """Adds to the results of runs that are still at hand what no run can be tuned to.

    How an embedder judges them that no vote has used; and what attacks find, where there is text that no run has read.
    """
    from plainchant.auditing.runs import audit
    from plainchant.evaluation.runs import evaluate
    from second_embedder import StaticEmbedder

    cells, loaded, static = load_cells(), Loaded(options), StaticEmbedder()
    for name, number in places(cells, options.patterns):
        path, out = result_path(name, number), options.work / "runs" / stem(name, number)
        if not (path.exists() and out.exists()):
            continue
        cell, found = cells[name], json.loads(path.read_text())
        unread = table_of(cell, options.work, "held_out") if "held_out" in cell else None
        if "second" not in found:
            table = unread or table_of(cell, options.work)
            found["second"] = {
                "embedder": static.name,
                **evaluate(out, table, embedder=static).as_dict()["groups"],
            }
        if "attacks" not in found and unread is not None:
            attacked = audit(out, table_of(cell, options.work), held_out=unread, embedder=loaded.embedder())
            found["attacks"] = attacked.as_dict()["groups"]
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{name} {number}: judged")


def show(options):
    for name, number in places(load_cells(), options.patterns):
        path = result_path(name, number)
        print(f"{'done' if path.exists() else '    '}  {name} {number}")


def results():
    """Every finished run's figures, by cell."""
    found = {}
    for path in sorted(RESULTS.glob("*--*--*.json")):
        own = json.loads(path.read_text())
        found.setdefault(own["cell"], []).append(own)
    return found


def pooled(runs, name, kind="evaluation"):
    """A figure of all runs of a cell: the mean, and an interval from each run's own and from how the runs differ."""
    groups = [group for run in runs for group in run.get(kind, {}).values() if isinstance(group, dict)]
    figures = [figure for group in groups if (figure := group.get(name)) is not None]
    if not figures:
        return None
    values = [figure["value"] for figure in figures]
    own = np.mean(
        [((figure["high"] - figure["low"]) / 2 / 1.96) ** 2 for figure in figures if figure["low"] is not None]
    )
    # an interval that is cut at 0 or 1 is narrower than it would be, so the wider of the two counts
    variance = max(float(np.nan_to_num(own)), float(np.var(values, ddof=1)) if len(values) > 1 else 0.0) / len(values)
    return {"value": float(np.mean(values)), "half": 1.96 * variance**0.5, "runs": len(values)}


def lead(one, other):
    """By how much one pooled figure is above another, with the interval of the difference, and whether theirs meet."""
    difference, half = one["value"] - other["value"], np.hypot(one["half"], other["half"])
    apart = abs(difference) > one["half"] + other["half"]
    return f"{difference:+.3f} ± {half:.3f} ({'intervals apart' if apart else 'intervals overlap'})"


def shown(figure):
    return "–" if figure is None else f"{figure['value']:.3f} ± {figure['half']:.3f}"


# The cells of the main comparison, in the order in which one became the other.
MAIN = [
    "ag_news/public-600",
    "ag_news/invisibleink-600",
    "ag_news/invisibleink-600-s13",
    "ag_news/invisibleink-k1000-600",
    "ag_news/invisibleink-vote-600",
    "ag_news/plainchant-k100-600",
    "ag_news/plainchant-unvoted-600",
    "ag_news/plainchant-600",
    "ag_news/non-private-600",
]

# The page's tables by its questions: title, and cells in the order in which they are shown. Missing cells are left out.
TABLES = {
    "useful": {
        "AG News: 600 news items on four topics, from 7,600 records": [
            "ag_news/public-600",
            "ag_news/evolution-600",
            "ag_news/evolution-wordless-600",
            "ag_news/rounds-600",
            "ag_news/rounds-600-auto",
        ],
        "AG News: 2,000 news items": ["ag_news/rounds-2000"],
        "Go advisories: 200 of eight kinds, from 2,494 records that are newer than the model": [
            "advisories/public",
            "advisories/evolution",
            "advisories/rounds",
            "advisories/rounds-auto",
            "advisories/rounds-private200",
        ],
        "Go advisories: 200 from the earlier half, judged on the later one": [
            "advisories-early/public",
            "advisories-early/rounds",
        ],
        "Go advisories: 200 from a random half, judged on the other one": ["advisories-half/rounds"],
        "CLINC150: three requests for each of 151 intents, from 15,098 records": [
            "clinc150/public",
            "clinc150/evolution",
            "clinc150/rounds",
        ],
        "CLINC150, where 20 of the intents have ten records each": [
            "clinc150/cut-invisibleink",
            "clinc150/cut-evolution",
            "clinc150/cut",
        ],
        "TREC-6: 600 questions of six kinds, from 5,381 records": [
            "trec6/public",
            "trec6/evolution",
            "trec6/rounds",
        ],
        "Yelp: 400 reviews, alone and with six columns beside them": [
            "reviews/text-alone",
            "reviews/table",
            "reviews/table-shown",
            "reviews/table-cells",
        ],
    },
    "epsilon": {
        "AG News, 600 texts": [
            "ag_news/public-600",
            "ag_news/rounds-600-epsilon1",
            "ag_news/rounds-600-auto-epsilon1",
            "ag_news/rounds-600",
        ],
        "Go advisories, 200 texts": ["advisories/public", "advisories/rounds-epsilon1", "advisories/rounds"],
        "CLINC150, three texts a label": ["clinc150/public", "clinc150/rounds-epsilon1", "clinc150/rounds"],
        "TREC-6, 600 texts": ["trec6/public", "trec6/rounds-epsilon1", "trec6/rounds"],
        "Yelp, 400 texts with six columns": ["reviews/table-epsilon1", "reviews/table"],
        "Votes alone": [
            "ag_news/evolution-600-epsilon1",
            "ag_news/evolution-600",
            "advisories/evolution-epsilon1",
            "advisories/evolution",
            "clinc150/evolution-epsilon1",
            "clinc150/evolution",
        ],
    },
    "records": {
        "AG News, 500 records": [
            "ag_news/public-200",
            "ag_news/evolution-200-records500-epsilon3",
            "ag_news/rounds-200-records500-epsilon3",
        ],
        "AG News, 7,600 records": ["ag_news/public-600", "ag_news/rounds-600"],
    },
    "peers": {
        "AG News, 600 texts": [
            "ag_news/invisibleink-600-s13",
            "ag_news/finetuned-600-epsilon1",
            "ag_news/finetuned-600",
            "ag_news/rounds-600-epsilon1",
            "ag_news/rounds-600",
        ],
        "Go advisories, 200 texts": ["advisories/invisibleink", "advisories/rounds"],
        "CLINC150, three texts a label": ["clinc150/invisibleink", "clinc150/rounds"],
        "TREC-6, 600 texts": ["trec6/invisibleink", "trec6/rounds"],
    },
    "deals": {
        "AG News, 200 texts by records, without a vote": [
            "ag_news/public-200",
            "ag_news/no-deals",
            "ag_news/no-deals-epsilon3",
            "ag_news/no-deals-epsilon1",
            "ag_news/deals",
            "ag_news/deals-epsilon3",
            "ag_news/deals-epsilon1",
            "ag_news/deals-epsilon1-guidance1",
        ],
        "The same at ε = 3, around so many centres": [
            "ag_news/deals-epsilon3-centres1",
            "ag_news/deals-epsilon3-centres3",
            "ag_news/deals-epsilon3-centres4",
            "ag_news/deals-epsilon3-centres14",
            "ag_news/deals-epsilon3",
        ],
        "Go advisories, 200 texts by records, without a vote": [
            "advisories/public",
            "advisories/no-deals",
            "advisories/no-deals-epsilon3",
            "advisories/deals",
            "advisories/deals-epsilon3",
            "advisories/deals-epsilon1",
        ],
        "AG News, 200 texts, the default whole": [
            "ag_news/public-200",
            "ag_news/rounds-no-deals-200",
            "ag_news/rounds-no-deals-200-epsilon3",
            "ag_news/rounds-no-deals-200-epsilon1",
            "ag_news/rounds-200",
            "ag_news/rounds-200-epsilon3",
            "ag_news/rounds-200-epsilon1",
        ],
        "Go advisories, 200 texts, the default whole": [
            "advisories/public",
            "advisories/rounds-no-deals",
            "advisories/rounds-no-deals-epsilon3",
            "advisories/rounds-no-deals-epsilon1",
            "advisories/rounds",
            "advisories/rounds-epsilon3",
            "advisories/rounds-epsilon1",
        ],
    },
    "votes": {
        "AG News, 600 texts": ["ag_news/rounds-unvoted-600", "ag_news/evolution-600", "ag_news/rounds-600"],
        "Go advisories, 200 texts": [
            "advisories/deals",
            "advisories/evolution",
            "advisories/rounds",
            "advisories/rounds-private200",
        ],
    },
}
# Data sets of the first picture: name, cell of the public model, of InvisibleInk and of the default.
PICTURED = (
    ("AG News", "ag_news/public-600", "ag_news/invisibleink-600-s13", "ag_news/rounds-600"),
    ("AG News, 500 records, ε = 3", "ag_news/public-200", None, "ag_news/rounds-200-records500-epsilon3"),
    ("Go advisories", "advisories/public", "advisories/invisibleink", "advisories/rounds"),
    ("CLINC150", "clinc150/public", "clinc150/invisibleink", "clinc150/rounds"),
    ("TREC-6", "trec6/public", "trec6/invisibleink", "trec6/rounds"),
)

COLUMNS = {
    "accuracy": "accuracy, trained on synthetic",
    "by words": "accuracy, trained on synthetic, by words",
    "MAUVE": "MAUVE",
    "label agreement": "label agreement",
}
REAL = {
    "accuracy": "accuracy, trained on as many real texts",
    "by words": "accuracy, trained on as many real texts, by words",
}
# Of columns beside the text: how they are named on the page, and the figure.
BESIDE = {
    "columns": "agreement of columns",
    "pairs of columns": "agreement of pairs of columns",
    "category fits text": "category agreement of the text",
    "kind fits text": "kind agreement of the text",
}
ATTACKS = {
    "copied": "copied",
    "words in common": "private_sample_mean_run",
    "with unread text": "held_out_mean_run",
    "by similarity, AUC": "similarity_auc",
    "found at 1 %": "similarity_tpr",
    "by likelihood, AUC": "likelihood_auc",
}


def promised(run):
    """A run's ε for a table: as it was promised, or as it was measured where nothing was promised."""
    if run["epsilon"] is not None:
        return f"{run['epsilon']:.3g}"
    return f"{run['epsilon measured']:.3g} after the run"


def marked(name, runs):
    """A cell's name, with a mark where any of its results says that rules of today were not yet those of the run."""
    return f"{name} †" if any(run.get("earlier") for run in runs) else name


def minutes_of(runs):
    """Processor minutes of a run, as a mean of those that one process made."""
    known = [run["processor seconds"] for run in runs if run["processor seconds"] is not None]
    return f"{np.mean(known) / 60:.0f}" if known else "–"


def cells_table(found, names, kind="evaluation"):
    """Markdown: a row a cell, figures pooled over its runs; a last one for as many real texts as the last cell has."""
    lines = [
        f"| cell | ε | texts | {' | '.join(COLUMNS)} | s | runs | minutes |",
        "|---" * (len(COLUMNS) + 6) + "|",
    ]
    real = None
    for name in (name for name in names if name in found):
        runs = [run for run in found[name] if run.get(kind)]
        if not runs:
            continue
        figures = " | ".join(shown(pooled(runs, column, kind)) for column in COLUMNS.values())
        texts = round(np.mean([run["texts"] for run in runs]))
        minutes = minutes_of(runs)
        told = f"{marked(name, runs)} | {promised(runs[0])} | {texts} | {figures} | {runs[0]['batch size']}"
        lines.append(f"| {told} | {len(runs)} | {minutes} |")
        real = texts, " | ".join(shown(pooled(runs, REAL[name], kind)) if name in REAL else "–" for name in COLUMNS)
    if real is not None:
        lines.append(f"| *as many real texts* | – | {real[0]} | {real[1]} | – | – | – |")
    return "\n".join(lines)


def judge_of(found, names):
    """Which judge: texts that no run has read, where runs of every cell were judged on such."""
    return "held out" if all(any(run.get("held out") for run in found[name]) for name in names) else "evaluation"


def tables_of(groups, found):
    """(title, table, judge) for each group of cells of which any reads records, by each judge that there is."""
    tables = []
    for title, names in groups.items():
        names = [name for name in names if name in found]
        private = [run for name in names for run in found[name] if run["method"] != "public"]
        tables += [
            (title, cells_table(found, names, judge), judge)
            for judge in (judge_of(found, names), "second")
            if any(run.get(judge) for run in private)
        ]
    return tables


def small_table(found):
    """Markdown: accuracy over small labels and over the others, a row a run; None where no cell has small ones.

    The last row is for as many real texts, where a run was judged beside them.
    """

    def row(name, epsilon, parts, figure, fewest):
        small, other = ("{value:.3f} ({low:.3f} to {high:.3f})".format(**part[figure]) for part in parts.values())
        return f"| {name} | {epsilon} | {small} | {other} | {fewest} |"

    lines = ["| cell | ε | small labels | other labels | fewest texts of a label |", "|---|---|---|---|---|"]
    real = None
    for name, runs in found.items():
        for run in runs:
            if parts := run.get("small labels"):
                fewest = min(part["fewest texts"] for part in parts.values())
                lines.append(row(marked(name, runs), promised(run), parts, "accuracy", fewest))
                if REAL_BESIDE in parts["small labels"]:
                    real = row("*as many real texts*", "–", parts, REAL_BESIDE, "–")
    return "\n".join([*lines, *([real] if real else [])]) if len(lines) > 2 else None


def columns_table(found):
    """Markdown: how columns beside the text agree with real ones, a row a cell; None where there are none."""
    lines = [f"| cell | ε | {' | '.join(BESIDE)} | kind from text |", "|---" * (len(BESIDE) + 3) + "|"]
    for name, runs in found.items():
        figures = [pooled(runs, figure, "held out") for figure in BESIDE.values()]
        if figures[0] is not None:
            told = next((run["told"]["kind"]["accuracy"] for run in runs if "kind" in (run.get("told") or {})), None)
            figures += [None if told is None else {**told, "half": (told["high"] - told["low"]) / 2}]
            lines.append(f"| {name} | {promised(runs[0])} | {' | '.join(map(shown, figures))} |")
    return "\n".join(lines) if len(lines) > 2 else None


def attacks_table(found):
    """Markdown: a row for each attacked cell; None where none was attacked."""
    lines = [f"| cell | ε | texts | {' | '.join(ATTACKS)} |", "|---" * (len(ATTACKS) + 3) + "|"]
    for name, runs in found.items():
        attacked = [run for run in runs if run.get("attacks")]
        if attacked:
            figures = " | ".join(shown(pooled(attacked, figure, "attacks")) for figure in ATTACKS.values())
            lines.append(f"| {name} | {promised(attacked[0])} | {attacked[0]['texts']} | {figures} |")
    return "\n".join(lines) if len(lines) > 2 else None


def way(found, name, public, measure, kind):
    """How far a cell is from the public model to as many real texts, as a share of that way."""
    own, start = (pooled(found[cell], COLUMNS[measure], kind)["value"] for cell in (name, public))
    end = pooled(found[name], REAL[measure], kind)["value"]
    return (own - start) / (end - start)


def measured(name):
    """What bench/token_worth.py measured, or None where it did not."""
    path = RESULTS / f"{name}-ag_news.json"
    return json.loads(path.read_text()) if path.exists() else None


def plan_of(**wish):
    """A plan for AG News."""
    from plainchant.config import load_config
    from plainchant.planning import make_plan

    return make_plan(load_config(HERE.parent / "examples" / "ag_news.toml", wish))


def planned(**wish):
    """The batch size that a plan for AG News takes."""
    return plan_of(**wish).settings.batch_size


def matching(rows, **wanted):
    """The rows whose settings have the wanted values, or one of a list of them; the others are the usual ones."""
    usual = {"temperature": 1.0, "clip": 10.0, "k": 100}
    wanted = {name: value if isinstance(value, list) else [value] for name, value in (usual | wanted).items()}
    found = {
        json.dumps(row["variant"]): row
        for row in rows["variants"]
        if all(row["variant"][name] in value for name, value in wanted.items())
    }
    return list(found.values())


def ahead(one, other):
    """By how much one variant predicts better than another on the same texts, with a paired bootstrap interval."""
    gains = np.array([one["gains"], other["gains"]])
    counts = np.array(one["counts"])
    chosen = np.random.default_rng(0).integers(len(counts), size=(2000, len(counts)))
    drawn = (gains[0] - gains[1])[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{(gains[0] - gains[1]).sum() / counts.sum():+.3f} ({low:+.3f} to {high:+.3f})"


NAMES = {"batch_size": "s", "none": "uniform", "public-centres": "clustered", "guidance": "g", "clip": "C"}


def worth_table(rows, by, **wanted):
    """Markdown: a row a variant."""
    heads = [*(NAMES.get(name, name) for name in by), "nats per token", "ρ, worst case", "ρ, own", "realised loss"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in sorted(matching(rows, **wanted), key=lambda row: [row["variant"][name] for name in by]):
        worst = "–" if row["worst case"] is None else f"{row['worst case']:.5f}"
        paid = "–" if np.isnan(row["paid"][0]) else f"{row['paid'][0]:.5f}"
        named = [str(NAMES.get(value, value)) for value in (row["variant"][name] for name in by)]
        gain = f"{row['gain'][0]:.3f} ± {row['gain'][1]:.3f}"
        lines.append(f"| {' | '.join([*named, gain, worst, paid])} | {row['loss'][0]:.3f} |")
    return "\n".join(lines)


def centres_table(document):
    """Markdown: a row a way to cluster, against batches that are not clustered."""
    lines = [
        "| centres | cells | records per cell, median | nats per token | to uniform batches | ρ, own |",
        "|---" * 6 + "|",
    ]
    ways, counts = document["ways"], document["counts"]
    for way in ways:
        gain, paid = (sum(way[name]) / sum(counts) for name in ("gains", "paid"))
        apart = "–" if way is ways[0] else ahead({**way, "counts": counts}, ways[0])
        name = NAMES.get(way["way"], way["way"])
        lines.append(f"| {name} | {way['cells']} | {way['median']:.0f} | {gain:.3f} | {apart} | {paid:.5f} |")
    return "\n".join(lines)


def frontier(rows, path):
    """What a token is worth against what it costs in advance, at s = 16."""
    from matplotlib.figure import Figure

    clips = [0.5, 1.0, 2.0, 4.0, 10.0]
    lines = (
        ("uniform, differences, worst case (InvisibleInk)", "worst case", "o", "none", "difference", 1.0),
        ("clustered, differences, worst case", "worst case", "s", "public-centres", "difference", 1.0),
        ("clustered, increases, worst case", "worst case", "^", "public-centres", "increase", 2.0),
        ("clustered, increases, every record for itself (plainchant)", "paid", "D", "public-centres", "increase", 2.0),
    )
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, cost, marker, clusters, clipping, guidance in lines:
        own = matching(rows, clusters=clusters, clipping=clipping, guidance=guidance, batch_size=16, clip=clips)
        own = sorted(
            (row for row in own if row["variant"]["aggregate"] == "mean"), key=lambda row: row["variant"]["clip"]
        )
        costs = [row["paid"][0] if cost == "paid" else row[cost] for row in own]
        axes.plot(costs, [row["gain"][0] for row in own], marker=marker, label=label)
    axes.set(
        xscale="log",
        xlabel="ρ a token at s = 16 (of a record on average, where each pays for itself)",
        ylabel="better than public, nats a token",
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def standing(found, path):
    """Where methods stand on each data set at hand, with their intervals, and what as many real texts reach."""
    from matplotlib.figure import Figure

    sets = [own for own in PICTURED if own[3] in found and own[1] in found]
    figure = Figure(figsize=(9, 1.1 + 0.62 * len(sets)), layout="constrained")
    measures = ("accuracy", "by words", "MAUVE")
    panels = figure.subplots(1, len(measures), sharey=True)
    for axes, measure in zip(panels, measures, strict=True):
        for place, (_, *cells) in enumerate(reversed(sets)):
            present = [cell for cell in cells if cell in found]
            kind = judge_of(found, present)
            for method, cell in enumerate(cells):
                if cell not in found:
                    continue
                one = pooled(found[cell], COLUMNS[measure], kind)
                axes.errorbar(
                    one["value"], place + 0.22 - 0.22 * method, xerr=one["half"], capsize=2,
                    fmt="osD"[method], color=("grey", "C0", "C1")[method],
                    label=("public model", "InvisibleInk", "plainchant")[method] if place == 0 or method == 1 else None,
                )  # fmt: skip
            if measure in REAL:
                real = pooled(found[cells[-1]], REAL[measure], kind)["value"]
                axes.plot([real, real], [place - 0.35, place + 0.35], color="black", label="as many real texts")
        axes.set_title(measure, fontsize=9)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(sets)), [name for name, *_ in reversed(sets)])
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None})


def advice():
    """Markdown: the batch size that the default method plans, by records, ε and texts requested."""
    from plainchant.config import SynthesisConfig
    from plainchant.errors import PrivacyError
    from plainchant.planning import make_plan

    wishes = (100, 500, 2000)
    lines = [
        f"| records | ε | {' | '.join(f'{texts:,} texts' for texts in wishes)} |",
        "|---" * (len(wishes) + 2) + "|",
    ]
    for records in (300, 1_000, 5_000, 20_000, 100_000):
        for epsilon in (1.0, 3.0, 8.0):
            cells = []
            for texts in wishes:
                try:
                    decided = make_plan(SynthesisConfig(epsilon=epsilon, texts=texts, expected_units=records))
                    size, written = decided.settings.batch_size, decided.config.written
                    fewer = f" ({written})" if decided.config.private_texts else ""
                    shown_size = f"{size}{fewer}" if size <= LARGEST_SHOWN else "–"
                    cells.append("votes only" if decided.config.only_votes else shown_size)
                except PrivacyError:
                    cells.append("–")
            lines.append(f"| {records:,} | {epsilon:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


# The README's table of figures: (data, records, cell, the same by the public model), with the default method.
SHOWN = (
    ("news, 4 topics", 7_600, "ag_news/rounds-600", "ag_news/public-600"),
    ("news, 4 topics", 7_600, "ag_news/rounds-600-epsilon1", "ag_news/public-600"),
    ("news, 4 topics", 500, "ag_news/rounds-200-records500-epsilon3", "ag_news/public-200"),
    ("security advisories, 8 kinds", 2_494, "advisories/rounds", "advisories/public"),
    ("requests, 151 intents", 15_098, "clinc150/rounds", "clinc150/public"),
)


def gains(found):
    """Markdown: what the embedded model makes of real data: so good, so long."""
    lines = [
        "| data | records | ε | texts | accuracy | public model | real texts | by words | public model | real texts "
        "| minutes |",
        "|---" * 11 + "|",
    ]
    for data, records, name, public in SHOWN:
        runs = found[name]
        accuracies = [
            f"{pooled(found[cell], column, judge_of(found, [cell]))['value']:.2f}"
            for measure in REAL
            for cell, column in ((name, COLUMNS[measure]), (public, COLUMNS[measure]), (name, REAL[measure]))
        ]
        texts, minutes = runs[0]["texts"], minutes_of(runs)
        lines.append(
            f"| {marked(data, runs)} | {records:,} | {runs[0]['epsilon']:.0f} | {texts} | {' | '.join(accuracies)} "
            f"| {minutes} |"
        )
    return "\n".join(lines)


def page_text(found):
    """docs/study.md as a text: a function of the results, the template and the plans alone."""
    import jinja2

    rows, centres = measured("worth"), measured("centres")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((HERE / "study" / "page.md.jinja").read_text())
    minutes = (
        sum(run["processor seconds"] or 0 for runs in found.values() for run in runs if "together" not in run) / 60
    )
    return template.render(
        main=MAIN,
        tables={question: tables_of(groups, found) for question, groups in TABLES.items()},
        attacks=attacks_table(found),
        small=small_table(found),
        columns=columns_table(found),
        way=lambda name, public, measure: way(found, name, public, measure, judge_of(found, [name, public])),
        found=found,
        rows=rows,
        table=lambda *names, kind="evaluation": cells_table(found, names, kind),
        worth_table=lambda by, **wanted: worth_table(rows, by, **wanted),
        row=lambda **wanted: matching(rows, **wanted)[0],
        ahead=ahead,
        centres=centres,
        centres_table=centres_table,
        planned=planned,
        plan_of=plan_of,
        figure=lambda cell, name, kind="evaluation", real=False: shown(
            pooled(found.get(cell, []), (REAL if real else COLUMNS)[name], kind)
        ),
        judge=lambda *names: judge_of(found, names),
        lead=lambda one, other, name, kind="evaluation": lead(
            *(pooled(found[cell], COLUMNS[name], kind) for cell in (one, other))
        ),
        missing=[name for name in load_cells() if name not in found],
        minutes=minutes,
    )


def advised(readme):
    """The README with its table of advice made anew."""
    return between(readme, "advice", advice())


def between(page: str, name: str, table: str) -> str:
    """A page with a table between the marks of that name."""
    before, _, rest = page.partition(f"<!-- {name} -->")
    return f"{before}<!-- {name} -->\n{table}\n<!-- end of {name} -->{rest.partition(f'<!-- end of {name} -->')[2]}"


def page(options):
    """docs/study.md and its plots from bench/study/page.md.jinja and the results, and the README's tables."""
    import matplotlib

    # the same figures make the same file
    matplotlib.rcParams["svg.hashsalt"] = "study"
    found, rows, docs = results(), measured("worth"), HERE.parent / "docs"
    if rows is not None:
        frontier(rows, docs / "study.svg")
    standing(found, docs / "study-runs.svg")
    (docs / "study.md").write_text(page_text(found))
    readme = HERE.parent / "README.md"
    readme.write_text(between(advised(readme.read_text()), "gains", gains(found)))
    print(f"docs/study.md: {sum(map(len, found.values()))} runs of {len(found)} cells")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, function in (("list", show), ("run", run), ("judge", judge), ("page", page)):
        command = commands.add_parser(name)
        command.add_argument("patterns", nargs="*", metavar="PATTERN")
        command.set_defaults(function=function)
        if name in ("run", "judge"):
            command.add_argument("--work", type=Path, default=HERE.parent / "runs" / "study")
        if name == "run":
            command.add_argument("--minutes", type=float, default=100, help="no run begins after so many")
            command.add_argument("--runs", type=int, default=9, help="at most so many runs of a cell")
            command.add_argument("--dtype", default="bfloat16")
            command.add_argument("--threads", type=int, default=1)
            command.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        options.function(options)


if __name__ == "__main__":
    main()
