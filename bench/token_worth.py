"""What a token is worth and what it costs, for every way to form a batch and to aggregate it, on real text.

    python bench/token_worth.py collect CONFIG --data FILE --centres centres.npz --work runs/worth [--texts 60]
    python bench/token_worth.py table --work runs/worth --json bench/study/worth-ag_news.json

A real text that is in no batch is read token by token, and before each token the batch's contexts predict it. `collect`
keeps the logits of 64 contexts of the text's own label, drawn uniformly and drawn from its cell, on the tokens that the
public model holds likeliest; it goes on where it stopped. `table` turns them into figures for clusters x aggregate x
batch size x temperature x guidance x clip: how much better than the public model the aggregate predicts the real token
(nats, the difference of two cross-entropies: no sampling noise, the same tokens for all), and what a token costs.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np

from plainchant.accounting import bounded_range_rho
from plainchant.aggregation import Clipping, Support, log_softmax
from plainchant.centres import Centres
from plainchant.cli import load_config
from plainchant.data import read_records
from plainchant.embedding import load_embedder
from plainchant.mechanisms import IndividualMeanMechanism, MedianMechanism, TokenSettings
from plainchant.models.transformers import load_model
from plainchant.prompting import Prompts

CONTEXTS, SUPPORT = 64, 1000
# Figures are on the tokens that even the smallest support holds.
COMMON = 100
KINDS = ("none", "public-centres")


def embeddings(records, embedder, work):
    """Of all records, computed once a table."""
    path = work / "embeddings.npy"
    if not path.exists():
        np.save(path, load_embedder(embedder).encode([record.text for record in records], alone=True))
    return np.load(path)


def collect(options):
    options.work.mkdir(parents=True, exist_ok=True)
    config = load_config(options.config, {"method": "plainchant", "max_tokens": options.max_tokens})
    records = read_records(options.data, label_column=config.label_column)
    nearest = Centres.load(options.centres).nearest(embeddings(records, config.embedder, options.work))
    model = load_model(config.model, dtype=options.dtype, threads=options.threads)
    prompts = Prompts(config, model)
    prefixes = {label: model.prefill(prompts.prefix(label)) for label in config.label_set}
    allowed = np.array(sorted(set(range(model.vocabulary_size)) - model.special), dtype=np.int64)
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
        own = records[held_out]
        tokens = prompts.record(own.text, own.label)[len(prompts.start(own.label)) :][: options.max_tokens]
        start = prompts.start(own.label)
        members = {
            "none": by_label[own.label],
            "public-centres": cells[own.label, int(nearest[held_out])],
        }
        groups = {"public": model.open_rows(prefixes[own.label], [start[:-1]], room=len(tokens))}
        for kind in KINDS:
            some = seeds.choice(members[kind][members[kind] != held_out], CONTEXTS, replace=False)
            rows = [[*prompts.record(records[i].text, own.label), *start[:-1]] for i in some]
            groups[kind] = model.open_rows(prefixes[own.label], rows, room=len(tokens))
        kept = {"public": [], "ids": [], **{kind: [] for kind in KINDS}}
        for last in [start[-1], *tokens[:-1]]:
            public = model.step([(groups["public"], last)])[0][0]
            ids = np.sort(allowed[np.argpartition(-public[allowed], SUPPORT)[:SUPPORT]])
            kept["public"].append(public[ids])
            kept["ids"].append(ids)
            found = model.step([(groups[kind], last) for kind in KINDS], [ids] * len(KINDS))
            for kind, logits in zip(KINDS, found, strict=True):
                kept[kind].append(logits)
        # float16 would round by 0.01 nats at 20: too coarse for a difference of means, so float32 stays
        arrays = {name: np.array(values) for name, values in kept.items()}
        np.savez(path, tokens=np.array(tokens), **arrays)
        print(f"text {number}: {len(tokens)} tokens, {time.process_time() - began:.0f} s", flush=True)


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
        # a budget that nothing here can use up
        return IndividualMeanMechanism(settings, 1e9, 1)


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
            law = mechanism.law(rows, public, support, np.full(s, 1e9))
            p = log_softmax(law.scores)
            paid = float(law.charges.mean()) if law.charges is not None else np.nan
            sums += np.array([p[here] - base, 0, 0, paid, 1.0]) / len(batches)
        # what a drawn token costs after the fact (spec 5.3), for one of the batches
        sums[1:3] += mechanism.cost(law, int(generator.choice(len(support), p=np.exp(p))))
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
    found = {"texts": len(paths), "covered": {k: covered(paths, k) for k in (50, 100, 300, 1000)}, "variants": []}
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
    first = commands.add_parser("collect")
    first.add_argument("config", type=Path)
    first.add_argument("--data", required=True)
    first.add_argument("--centres", type=Path, required=True)
    first.add_argument("--work", type=Path, required=True)
    first.add_argument("--texts", type=int, default=60)
    first.add_argument("--max-tokens", type=int, default=32)
    first.add_argument("--dtype", default="bfloat16")
    first.add_argument("--threads", type=int)
    first.set_defaults(function=collect)
    second = commands.add_parser("table")
    second.add_argument("--work", type=Path, required=True)
    second.add_argument("--json", type=Path, required=True)
    second.set_defaults(function=table)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
