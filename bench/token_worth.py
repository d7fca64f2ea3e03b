"""What a token is worth and what it costs, for every way to form a batch and to aggregate it, on real text.

    python bench/token_worth.py collect CONFIG --data FILE --centres centres.npz --work runs/worth [--texts 60]
    python bench/token_worth.py table --work runs/worth --json bench/study/results/worth-ag_news.json
    python bench/token_worth.py centres CONFIG --data FILE --corpus NAME FILE 10,100,1000 --work runs/worth --json FILE

A real text that is in no batch is read token by token, and before each token the batch's contexts predict it. `collect`
keeps the logits of 64 contexts of the text's own label, drawn uniformly and drawn from its cell, on the tokens that the
public model holds likeliest; it goes on where it stopped. `table` turns them into figures for clusters x aggregate x
batch size x temperature x guidance x clip: how much better than the public model the aggregate predicts the real token
(nats, the difference of two cross-entropies: no sampling noise, the same tokens for all), and what a token costs.
`centres` asks the same of the default method by how many public centres there are, and of which texts they were made.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from plainchant.config import load_config
from plainchant.data.centres import Centres, fit_centres
from plainchant.data.embedding import load_embedder
from plainchant.data.tables import read_records, read_texts
from plainchant.generation.prompting import Prompts
from plainchant.models.transformers.load import load_model
from plainchant.planning import make_plan
from plainchant.privacy.accounting import bounded_range_rho
from plainchant.privacy.aggregation import Clipping, Support, log_softmax
from plainchant.privacy.histograms import rebalance
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MedianMechanism, TokenSettings
from plainchant.randomness import SystemRandomness

CONTEXTS, SUPPORT = 64, 1000
# Contexts of a batch where centres are compared.
BATCH = 16
# A budget that nothing here can use up.
UNLIMITED = 1e9
# Figures are on the tokens that even the smallest support holds.
COMMON = 100
KINDS = ("none", "public-centres")


def embeddings(records, embedder, work):
    """Of all records, computed once a table."""
    path = work / "embeddings.npy"
    if not path.exists():
        np.save(path, load_embedder(embedder).encode([record.text for record in records], alone=True))
    return np.load(path)


class Reader:
    """Reads real texts token by token, with the public model and with contexts of other records."""

    def __init__(self, options):
        options.work.mkdir(parents=True, exist_ok=True)
        config = load_config(options.config, {"method": "plainchant", "max_tokens": options.max_tokens})
        self.config, self.most = config, options.max_tokens
        self.records = read_records(options.data, label_column=config.label_column)
        self.embeddings = embeddings(self.records, config.embedder, options.work)
        self.model = load_model(config.model, dtype=options.dtype, threads=options.threads)
        self._prompts = Prompts(config, self.model)
        self._prefixes = {label: self.model.prefill(self._prompts.prefix(label)) for label in config.label_set}
        special = self.model.special
        self._allowed = np.array(sorted(set(range(self.model.vocabulary_size)) - special), dtype=np.int64)

    def nearest_to(self, centres):
        """The nearest centres of records, as `rebalance` asks for them."""
        return lambda units, among: centres.nearest(self.embeddings[units], among)

    def read(self, held_out, batches):
        """Of each token of a record: itself, ids and public logits of the support, logits of each batch on it.

        Args:
            held_out: number of the record.
            batches: numbers of records by name.
        """
        own, prompts, model = self.records[held_out], self._prompts, self.model
        start = prompts.start(own.label)
        tokens = prompts.record(own.text, own.label)[len(start) :][: self.most]
        public_row = model.open_rows(self._prefixes[own.label], [start[:-1]], room=len(tokens))
        groups = [
            model.open_rows(
                self._prefixes[own.label],
                [[*prompts.record(self.records[i].text, own.label), *start[:-1]] for i in some],
                room=len(tokens),
            )
            for some in batches.values()
        ]
        for last, token in zip([start[-1], *tokens[:-1]], tokens, strict=True):
            public = model.step([(public_row, last)])[0][0]
            ids = np.sort(self._allowed[np.argpartition(-public[self._allowed], SUPPORT)[:SUPPORT]])
            found = model.step([(group, last) for group in groups], [ids] * len(groups))
            yield token, ids, public[ids], dict(zip(batches, found, strict=True))


def collect(options):
    reader = Reader(options)
    config, records = reader.config, reader.records
    nearest = Centres.load(options.centres).nearest(reader.embeddings)
    # the same texts in the same order, however often this is begun
    generator = np.random.default_rng(0)
    by_label = {label: np.flatnonzero([r.label == label for r in records]) for label in config.label_set}
    cells = {
        (label, centre): own[nearest[own] == centre]
        for label, own in by_label.items()
        for centre in np.unique(nearest[own])
    }
    large = [cell for cell in cells if len(cells[cell]) > CONTEXTS]
    inside = np.concatenate([cells[cell] for cell in large])
    print(f"{len(inside)} of {len(records)} records lie in cells of more than {CONTEXTS}")
    for number, held_out in enumerate(generator.permutation(inside)[: options.texts]):
        seeds = np.random.default_rng([1, number])
        path = options.work / f"{number:04}.npz"
        if path.exists():
            continue
        began = time.process_time()
        label = records[held_out].label
        members = {"none": by_label[label], "public-centres": cells[label, int(nearest[held_out])]}
        batches = {
            kind: seeds.choice(members[kind][members[kind] != held_out], CONTEXTS, replace=False) for kind in KINDS
        }
        kept = {name: [] for name in ("tokens", "ids", "public", *KINDS)}
        for token, ids, public, found in reader.read(held_out, batches):
            for name, value in {"tokens": token, "ids": ids, "public": public, **found}.items():
                kept[name].append(value)
        # float16 would round by 0.01 nats at 20: too coarse for a difference of means, so float32 stays
        np.savez(path, allow_pickle=False, **{name: np.array(values) for name, values in kept.items()})
        print(f"text {number}: {len(kept['tokens'])} tokens, {time.process_time() - began:.0f} s", flush=True)


def cells_by_centres(options, reader):
    """Each way to cluster, with the cell of every record under noise as in a run; drawn once and kept."""
    path = options.work / "cells.npz"
    if not path.exists():
        config = reader.config
        decided = make_plan(config)
        labels = np.array([config.labels.index(record.label) for record in reader.records], dtype=np.int64)
        found = {"none": labels}
        for name, file, counts in options.corpus:
            corpus = load_embedder(config.embedder).encode(read_texts(file), alone=True)
            for count in map(int, counts.split(",")):
                centres = fit_centres(corpus, count)
                found[f"{name}, {count}"] = rebalance(
                    labels,
                    reader.nearest_to(centres),
                    labels=len(config.labels),
                    centres=count,
                    batch_size=BATCH,
                    kept=None,
                    min_cell=None,
                    rho_select=decided.rho_select,
                    rho_size=decided.rho_size,
                    randomness=SystemRandomness(),
                ).cell_of_unit
        np.savez(path, allow_pickle=False, **found)
    return dict(np.load(path))


def compare_centres(options):
    reader = Reader(options)
    ways = cells_by_centres(options, reader)
    mechanism = Variant("", "mean", "increase", BATCH, guidance=2.0, k=SUPPORT).mechanism()
    rows = {
        way: {
            "way": way,
            "cells": len(np.unique(cells)),
            "median": float(np.median(np.bincount(cells))),
            "gains": [],
            "paid": [],
        }
        for way, cells in ways.items()
    }
    counts = []
    for number, held_out in enumerate(np.random.default_rng(0).permutation(len(reader.records))[: options.texts]):
        path = options.work / f"centres-{number:04}.json"
        if not path.exists():
            seeds = np.random.default_rng([2, number])
            batches = {}
            for way, cells in ways.items():
                own = np.flatnonzero(cells == cells[held_out])
                batches[way] = seeds.choice(own[own != held_out], BATCH, replace=False)
            tokens, sums = 0, {way: np.zeros(2) for way in ways}
            for token, ids, public, found in reader.read(held_out, batches):
                here = np.flatnonzero(ids == token)
                if len(here) == 0:
                    continue
                tokens += 1
                base = log_softmax(public.astype(np.float64))[here[0]]
                for way, logits in found.items():
                    _, p, paid = judged(mechanism, logits, public, np.arange(len(ids)))
                    sums[way] += (p[here[0]] - base, paid)
            path.write_text(json.dumps({"tokens": tokens, **{way: own.tolist() for way, own in sums.items()}}))
            print(f"text {number}: {tokens} tokens", flush=True)
        known = json.loads(path.read_text())
        counts.append(known["tokens"])
        for way in ways:
            rows[way]["gains"].append(round(known[way][0], 5))
            rows[way]["paid"].append(round(known[way][1], 7))
    document = {"batch size": BATCH, "counts": counts, "ways": list(rows.values())}
    options.json.write_text(json.dumps(document, indent=1) + "\n")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to draw a token."""

    clusters: str
    aggregate: str
    clipping: str
    batch_size: int
    temperature: float = 1.0
    guidance: float = 1.0
    clip: float = 10.0
    k: int = COMMON

    def mechanism(self):
        clipping = Clipping(self.clipping)
        settings = TokenSettings(
            support=Support.FULL if clipping is Clipping.LOGITS else Support.TOP_K,
            k=self.k,
            clipping=clipping,
            clip=self.clip,
            guidance=self.guidance,
            temperature=self.temperature,
            batch_size=self.batch_size,
            slack=0.0,
        )
        if self.aggregate == "median":
            return MedianMechanism(settings)
        return IndividualMeanMechanism(settings, UNLIMITED, 1)


def judged(mechanism, rows, public, support):
    """A batch's distribution on the support, its log-probabilities, and what a context pays on average."""
    distribution = mechanism.distribution(rows, public, support, np.full(len(rows), UNLIMITED))
    return (
        distribution,
        log_softmax(distribution.scores),
        float(distribution.charges.mean()) if distribution.charges is not None else np.nan,
    )


def of_text(path, variant, generator):
    """Sums over a text's tokens: gain over the public model, ex-post loss and ρ, mean payment; and how many tokens."""
    kept = np.load(path)
    mechanism, s = variant.mechanism(), variant.batch_size
    sums = np.zeros(5)
    for place, token in enumerate(kept["tokens"]):
        public, private = kept["public"][place], kept[variant.clusters][place]
        # the same tokens for all: those that even the smallest support holds
        common = kept["ids"][place][np.argsort(-public, kind="stable")[:COMMON]]
        if token not in common:
            continue
        support = mechanism.support(public, np.arange(len(public)))
        here = int(np.searchsorted(kept["ids"][place][support], token))
        base = log_softmax(public[support].astype(np.float64) / variant.temperature)[here]
        batches = np.split(private[:, support], len(private) // s)
        for rows in batches:
            distribution, p, paid = judged(mechanism, rows, public, support)
            sums += np.array([p[here] - base, 0, 0, paid, 1.0]) / len(batches)
        # what a drawn token costs after the fact (guarantee 5.3), for one of the batches
        sums[1:3] += mechanism.cost(distribution, int(generator.choice(len(support), p=np.exp(p))))
    return sums


def variants():
    default = Variant("public-centres", "mean", "increase", 16, guidance=2.0)
    for clusters in KINDS:
        for size in (8, 16, 32, 64):
            for aggregate, clipping in (("mean", "logits"), ("median", "logits"), ("mean", "difference")):
                yield Variant(clusters, aggregate, clipping, size)
            for clipping in ("difference", "increase"):
                yield dataclasses.replace(default, clusters=clusters, clipping=clipping, batch_size=size)
    for guidance in (0.5, 1.0, 1.5, 2.5, 3.0):
        yield dataclasses.replace(default, guidance=guidance)
        yield dataclasses.replace(default, guidance=guidance, clipping="difference")
    for clip in (0.5, 1.0, 2.0, 4.0):
        yield dataclasses.replace(default, clip=clip)
        yield Variant("none", "mean", "difference", 16, clip=clip)
        yield Variant("public-centres", "mean", "difference", 16, clip=clip)
    for clip in (1.0, 2.0, 4.0):
        yield Variant("none", "mean", "logits", 32, clip=clip)
        yield Variant("public-centres", "mean", "logits", 32, clip=clip)
        yield Variant("public-centres", "median", "logits", 32, clip=clip)
    for temperature in (0.7, 1.5, 2.0):
        yield Variant("none", "mean", "logits", 32, temperature=temperature)
        yield Variant("public-centres", "median", "logits", 32, temperature=temperature)
        yield dataclasses.replace(default, temperature=temperature)
    for k in (300, 1000):
        yield dataclasses.replace(default, k=k)


def covered(paths, k):
    """The share of real tokens among the public model's k likeliest."""
    hits = [
        token in kept["ids"][place][np.argsort(-kept["public"][place], kind="stable")[:k]]
        for kept in map(np.load, paths)
        for place, token in enumerate(kept["tokens"])
    ]
    return float(np.mean(hits))


def table(options):
    paths = sorted(options.work.glob("[0-9]*.npz"))
    known = json.loads(options.json.read_text()) if options.json.exists() else {}
    shares = {k: covered(paths, k) for k in (50, 100, 300, 1000)}
    found: dict[str, Any] = {"texts": len(paths), "covered": shares, "variants": []}
    before = {} if known.get("texts") != len(paths) else {json.dumps(v["variant"]): v for v in known["variants"]}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for variant in dict.fromkeys(variants()):
        described = dataclasses.asdict(variant)
        row = before.get(json.dumps(described))
        if row is None:
            generator = np.random.default_rng(0)
            sums = np.array([of_text(path, variant, generator) for path in paths])
            chosen = generator.integers(len(sums), size=(400, len(sums)))
            drawn = sums[chosen].sum(axis=1)
            means = sums[:, :4].sum(axis=0) / sums[:, 4].sum()
            spread = 1.96 * (drawn[:, :4] / drawn[:, 4:]).std(axis=0)
            names = ("gain", "loss", "rho", "paid")
            row = {"variant": described, "tokens": round(sums[:, 4].sum())}
            # of every text, so that two variants can be compared on the same texts
            row |= {"gains": sums[:, 0].round(5).tolist(), "counts": sums[:, 4].round().tolist()}
            row |= {name: [float(m), float(d)] for name, m, d in zip(names, means, spread, strict=True)}
            settings = variant.mechanism().settings
            reach = settings.guidance * settings.span / settings.batch_size / settings.temperature
            row["worst case"] = None if variant.aggregate == "median" else bounded_range_rho(reach)
            print(described, {name: round(row[name][0], 5) for name in names}, flush=True)
        found["variants"].append(row)
        # all rows at the end alone would lose them to an interruption
        rest = [own for own in known.get("variants", []) if own not in found["variants"]] if before else []
        options.json.write_text(json.dumps(found | {"variants": found["variants"] + rest}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    named = {name: commands.add_parser(name) for name in ("collect", "table", "centres")}
    for name, command in named.items():
        command.add_argument("--work", type=Path, required=True)
        if name != "collect":
            command.add_argument("--json", type=Path, required=True)
        if name != "table":
            command.add_argument("config", type=Path)
            command.add_argument("--data", required=True)
            command.add_argument("--texts", type=int, default=60)
            command.add_argument("--max-tokens", type=int, default=32)
            command.add_argument("--dtype", default="bfloat16")
            command.add_argument("--threads", type=int)
    named["collect"].add_argument("--centres", type=Path, required=True)
    named["collect"].set_defaults(function=collect)
    named["table"].set_defaults(function=table)
    named["centres"].add_argument(
        "--corpus", action="append", nargs=3, required=True, metavar=("NAME", "FILE", "COUNTS")
    )
    named["centres"].set_defaults(function=compare_centres)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
