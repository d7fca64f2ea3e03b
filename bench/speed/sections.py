"""What is measured of ourselves, a function a section of docs/speed.md; `peer` stands by itself."""

import argparse
import contextlib
import itertools
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear
from transformers import DynamicCache

from observing import Note, Observed
from plainchant.cli.demo_data import demo_records
from plainchant.config import PerformanceOptions, SynthesisConfig, load_config, parse_config
from plainchant.data.embedding import load_embedder
from plainchant.data.tables import read_records
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.generation.prompting import Prompts, choose_examples
from plainchant.models import LanguageModel
from plainchant.planning import make_plan
from plainchant.privacy.mechanisms import TokenDistribution, TokenMechanism
from plainchant.randomness import SystemRandomness
from plainchant.run.synthesis import synthesize
from speed.common import (
    BATCH,
    CONTEXT,
    DTYPES,
    PROMPT,
    ROOT,
    ROWS,
    WARM,
    WRITTEN,
    Skipped,
    best_seconds,
    load,
    made_up,
    mechanism_of,
    news,
)
from speed.machine import bare, flops, gemm_rate, linears
from speed.watching import PARTS, Held, decode, module_of

GROUPS = ("linear layers", "head", "attention and its cache", "norms and other elementwise")
# what is measured on each curve: its name, x, batches, their size, tokens of a prompt
POINTS = [
    *(("batch size", size, 1, size, PROMPT) for size in (8, 16, 32, 64)),
    *(("batches in a pass", batches, batches, 8, PROMPT) for batches in (1, 2, 4, 8)),
    *(("prompt", prompt, 1, 8, prompt) for prompt in (64, 256, 1024)),
]
CAP = 0.2  # GiB of caches
# batch sizes that plans come to, and the rows of a pass that suit each type
PLANNED, WIDE = (13, 19, 37), {"float32": 128, "bfloat16": 192}


# ------------------------------------------------------------------------------------------------ against the machine


def group_of(name: str, shapes: Sequence[Sequence[int]], body: set[tuple[int, ...]]) -> str:
    """Which part of the model an operator belongs to."""
    if any(part in name for part in ("attention", "index_put", "bmm")):
        return "attention and its cache"
    if any(part in name for part in ("mm", "linear", "matmul")):
        return "linear layers" if any(tuple(sorted(shape)) in body for shape in shapes if len(shape) == 2) else "head"
    return "head" if name in ("aten::index", "aten::index_select") else "norms and other elementwise"


def profile(model: LanguageModel, mechanism: TokenMechanism, works: list[BatchWork], steps: int) -> dict[str, float]:
    """Seconds of a step by group of operators, from torch's profiler."""
    body = {tuple(sorted(weight.shape)) for weight in linears(module_of(model))}
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True)
    decode(model, mechanism, works, steps, around=lambda: profiler)
    found = dict.fromkeys(GROUPS, 0.0)
    for event in profiler.key_averages(group_by_input_shape=True):
        found[group_of(event.key, event.input_shapes, body)] += event.self_cpu_time_total / 1e6 / steps
    return found


def peak(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, and shares of what the machine can do, of a pass, of a step and of the bare products."""
    lines, best = [], dict.fromkeys(DTYPES, 0.0)
    for name, dtype in itertools.product(options.models, DTYPES):
        best[dtype] = max(best[dtype], gemm_rate(getattr(torch, dtype)))
        model, mechanism = load(name, dtype), mechanism_of("plainchant", BATCH)
        module, works = module_of(model), made_up(model, ROWS // BATCH, BATCH)
        found = decode(model, mechanism, works, options.steps)
        groups = profile(model, mechanism, works, options.steps)
        own = sum(found[part] for part in ("support", "distribution", "cost", "rest"))
        groups["our own part of a step"] = own
        # the profiler slows what lies between operators, so that is taken from the unprofiled steps
        groups["between operators (Python)"] = sum(found[part] for part in PARTS) - sum(groups.values())
        context = PROMPT + WARM + options.steps // 2
        seconds, products = bare(module, options.steps)
        private = flops(module, ROWS, context, 100)
        public = flops(module, ROWS // BATCH, context, model.vocabulary_size)
        rates = {
            "of the pass": private / found["private pass"],
            "of the step": (private + public) / found["step"],
            "of bare products": products / seconds,
        }
        lines.append({
            "model": name, "dtype": dtype, "pass": found["private pass"], "step": found["step"], "rates": rates,
            "public": found["public pass"] / found["step"], "own": own / found["step"], "profile": groups,
        })  # fmt: skip
        best[dtype] = max(best[dtype], gemm_rate(getattr(torch, dtype)))
    for line in lines:
        # the best that was seen, whenever that was
        line["share"] = {what: rate / best[line["dtype"]] for what, rate in line.pop("rates").items()}
        line["peak"] = best[line["dtype"]]
    return {"lines": lines}


# ----------------------------------------------------------------------------------------- outside the model, curves


def private(options: argparse.Namespace) -> list[dict[str, Any]]:
    lines = []
    for dtype in DTYPES:
        model = load(options.models[0], dtype)
        for name, method in (("top-100 mean", "plainchant"), ("full-vocabulary median", "clustered-median")):
            works = made_up(model, ROWS // BATCH, BATCH)
            found = decode(model, mechanism_of(method, BATCH), works, options.steps)
            parts = {part: found[part] for part in PARTS}
            outside = 1 - parts["forward"] / sum(parts.values())
            lines.append({"dtype": dtype, "name": name, "outside": outside, **parts})
    return lines


def curves(options: argparse.Namespace) -> list[dict[str, Any]]:
    lines = []
    for dtype in DTYPES:
        model = load(options.models[0], dtype)
        for curve, x, batches, size, prompt in POINTS:
            works = made_up(model, batches, size, prompt)
            found = decode(model, mechanism_of("plainchant", size), works, max(3, options.steps // 2))
            line = {"dtype": dtype, "curve": curve, "x": x, "tokens a second": batches / found["step"]}
            line |= {"rows a second": batches * size / found["step"], "caches": found["cache bytes"] / 2**30}
            lines.append(line | {"prompt tokens a second": batches * size * (prompt - prompt // 2) / found["prefill"]})
    return lines


# ---------------------------------------------------------------------------------- public pass and prompts of a run


def shares(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What of a run's time the public pass takes, and reading the prompts of every text's own contexts."""
    lines = []
    several = PerformanceOptions().passes
    settings = [("made up", size, passes) for size, passes in itertools.product(PLANNED, (1, several))]
    settings += [("AG News", size, several) for size in PLANNED]
    for dtype in DTYPES:
        model = load(options.models[0], dtype)
        for records, size, passes in settings:
            batches = passes * (WIDE[dtype] // size)
            real = records != "made up"
            works = of_news(options, model, batches, size) if real else made_up(model, batches, size, CONTEXT)
            found = decode(
                model, mechanism_of("plainchant", size), works, max(4, options.steps // 4), rows=WIDE[dtype],
                passes=passes,
            )  # fmt: skip
            whole = found["prefill"] + WRITTEN * found["step"]
            lines.append({
                "dtype": dtype, "records": records, "size": size, "passes": passes,
                "private": statistics.mean(len(tokens) for work in works for tokens in work.records),
                "public": found["public pass"] / found["step"],
                "prompts": found["prefill"] / whole, "tokens a second": batches * WRITTEN / whole,
            })  # fmt: skip
    return lines


def of_news(options: argparse.Namespace, model: LanguageModel, batches: int, size: int) -> list[BatchWork]:
    """Batches of contexts as the example of AG News has them, each of one label."""
    config = load_config(ROOT / "examples" / "ag_news.toml")
    prompts = Prompts(config, model)
    by_label: dict[str, list[str]] = {label: [] for label in config.labels}
    for record in read_records(news(options), label_column=config.label_column):
        by_label[str(record.label)].append(record.text)
    works = []
    for batch in range(batches):
        label = config.labels[batch % len(config.labels)]
        texts, by_label[label] = by_label[label][:size], by_label[label][size:]
        start = tuple(prompts.start(label))
        contexts = [prompts.record(text, label) for text in texts]
        works.append(BatchWork(batch, tuple(prompts.prefix(label)), start, contexts, (0,)))
    return works


# -------------------------------------------------------------------------------------------------------- memory cap


def memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Whole runs on long records, with the cap and without; memory in GiB."""
    texts = [record["text"] for record in demo_records()]
    records = [{"text": " ".join(texts[first : first + 6])} for first in range(0, len(texts) - 6, 6)]
    config = SynthesisConfig(
        method="invisibleink", batch_size=8, texts=8, max_tokens=8, max_record_tokens=96, expected_units=len(records)
    )
    model = load(options.models[0], "float32")
    decode(model, mechanism_of("plainchant", BATCH), made_up(model, 4, BATCH), 2)  # what kernels keep is not caches
    lines = []
    for cap in (CAP, None):
        watched: Any = Held(model)
        with tempfile.TemporaryDirectory() as folder:
            performance = PerformanceOptions(memory=cap, rows=ROWS)
            with synthesize(
                records, make_plan(config), out=Path(folder) / "run", performance=performance, model=watched
            ) as run:
                count = sum(1 for _ in run)
        most = watched.most
        line = {"cap": cap, "texts": count, "rows": most["rows"], "held": most["held"]}
        lines.append(line | {"caches": most["caches"] / 2**30, "growth": most["resident"] / 2**30})
    return lines


# ---------------------------------------------------------------------------------------------------------- drafting


def accepted(temperature: float, taken: list[float]) -> Note:
    """Notes how likely a token drafted by the public model would be taken: Σ min(p, q)."""

    def note(private: Any, public: Any, support: Any, found: TokenDistribution) -> None:
        p, q = (
            np.exp(scores - np.logaddexp.reduce(scores))
            for scores in (public[support].astype(np.float64) / temperature, found.scores)
        )
        taken.append(float(np.minimum(p, q).sum()))

    return note


def like_records(options: argparse.Namespace, config: SynthesisConfig) -> dict[str, list[str]]:
    """For each label of AG News a text, and those that are most like it."""
    by_label: dict[str, list[str]] = {label: [] for label in config.labels}
    for record in read_records(news(options), label_column=config.label_column):
        by_label[str(record.label)].append(record.text)
    embedder = load_embedder()
    cells = {}
    for label, texts in by_label.items():
        some = texts[:200]
        vectors = embedder.encode(some)
        cells[label] = [some[row] for row in np.argsort(-(vectors @ vectors[0]))[:BATCH]]
    return cells


def acceptance(model: LanguageModel, options: argparse.Namespace) -> list[list[list[float]]]:
    """Σ min(p, q) at every step of texts from batches of like records, without and with released examples."""
    config = parse_config((ROOT / "examples" / "ag_news.toml").read_text(), {"batch_size": BATCH})
    cells = like_records(options, config)
    decided, prompts = make_plan(config), Prompts(config, model)
    stop = StopRule(prompts.stop, config.max_tokens, config.min_tokens)
    found = []
    shown: dict[str, Sequence[str]] = dict.fromkeys(cells, ())
    for _ in range(2):
        sequences: list[list[float]] = []
        released: dict[str, Sequence[str]] = {}
        for number, (label, texts) in enumerate(cells.items()):
            taken: list[float] = []
            mechanism: Any = Observed(decided.mechanism, accepted(decided.settings.temperature, taken))
            records = [prompts.records([text], label) for text in texts]
            # two texts of each batch: what it would still have to write only makes its records more thrifty
            places, later = (0, 1)[: decided.texts_per_batch], max(0, decided.texts_per_batch - 2) * config.max_tokens
            prefix, start = tuple(prompts.prefix(label, shown[label])), tuple(prompts.start(label))
            decoder = Decoder(model, mechanism, stop, rows=1, randomness=SystemRandomness())
            written, first = [], 0
            for text in decoder.run([BatchWork(number, prefix, start, records, places, later)]):
                sequences.append(taken[first : (first := first + text.tokens)])
                written.append(text.text)
            released[label] = choose_examples(written, config.parts.released_examples)
        found.append(sequences)
        shown = released
    return found


def tokens_a_pass(sequences: list[list[float]], drafts: int) -> float:
    """Mean tokens that a pass with so many drafts yields, from every place of the recorded texts."""
    yields = []
    for taken in sequences:
        for place in range(len(taken)):
            yields.append(1.0 + float(np.cumprod(taken[place : place + drafts]).sum()))
    return float(np.mean(yields))


def judging_pass(module: Any, tokens: list[int], rows: int, positions: int) -> Callable[[], Any]:
    """A pass of some rows with so many new positions each, each on 100 ids, by transformers' own cache."""
    weight, cache = module.get_output_embeddings().weight[:100], DynamicCache(config=module.config)
    module.base_model(input_ids=torch.tensor([tokens] * rows), past_key_values=cache, use_cache=True)
    drafted = torch.full((rows, positions), tokens[0])

    def one_pass() -> None:
        hidden = module.base_model(input_ids=drafted, past_key_values=cache, use_cache=True).last_hidden_state
        linear(hidden, weight).float().numpy()
        cache.crop(-positions)

    return one_pass


def pass_seconds(model: LanguageModel, batches: int, positions: int, steps: int) -> tuple[float, float]:
    """Seconds of one private pass with so many new positions a row, and of one public pass."""
    works, module = made_up(model, batches, BATCH), module_of(model)
    prefix = model.prefill(works[0].prefix)
    publics = [model.open_rows(prefix, [()], room=1) for _ in works]
    last = works[0].start[-1]

    def public_pass() -> None:
        for rows in publics:
            rows.rewind()
        model.step([(rows, last) for rows in publics])

    ours = module.config._attn_implementation
    with torch.inference_mode(), contextlib.ExitStack() as after:
        public_seconds = best_seconds(public_pass, steps)
        after.callback(module.set_attn_implementation, ours)
        module.set_attn_implementation("sdpa")
        tokens = [*works[0].prefix, *works[0].records[0]]
        return best_seconds(judging_pass(module, tokens, batches * BATCH, positions), steps), public_seconds


def with_gains(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds the tokens a second to those without drafts, nothing but the passes counted."""
    found = []
    for line in lines:
        alike = [own for own in lines if (own["dtype"], own["rows"]) == (line["dtype"], line["rows"])]
        (plain,) = (own for own in alike if not own["drafts"])
        # the same public pass each time, so its best time counts
        public = min(own["public pass"] for own in alike)
        before, after = plain["private pass"] + public, line["private pass"] + (line["drafts"] + 1) * public
        found.append(line | {"public pass": public, "gain": line["tokens a pass"] * before / after})
    return found


def drafting(options: argparse.Namespace) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    sequences: list[list[list[float]]] = []
    for dtype in DTYPES:
        model = load(options.models[0], dtype)
        sequences = sequences or acceptance(model, options)
        for batches, positions in itertools.product((1, 4), (1, 2, 4, 8)):
            private_seconds, public_seconds = pass_seconds(model, batches, positions, options.steps)
            line = {"dtype": dtype, "rows": batches * BATCH, "drafts": positions - 1, "private pass": private_seconds}
            line |= {"public pass": public_seconds, "tokens a pass": tokens_a_pass(sequences[1], positions - 1)}
            lines.append(line)
    mean = [float(np.mean(list(itertools.chain(*own)))) for own in sequences]
    tokens = sum(map(len, itertools.chain(*sequences)))
    return {"acceptance": mean, "tokens": tokens, "lines": with_gains(lines)}


# -------------------------------------------------------------------------------------------------------------- int8


def moved(model: LanguageModel) -> float:
    """Nats by which a row's logits move when other rows come or go, at most, on the demo's messages."""
    texts = [model.encode(record["text"], trusted=False)[: 3 + number % 9] for number, record in
             enumerate(demo_records()[:40])]  # fmt: skip
    prefix, ids = model.prefill([*model.start_tokens, *texts[0][:4]]), np.arange(0, model.vocabulary_size, 500)

    def logits(first: int, last: int) -> Any:
        return model.step([(model.open_rows(prefix, texts[first:last], room=1), texts[0][0])], [ids])[0]

    whole = logits(0, 40)
    return max(
        float(np.abs(logits(first, last) - whole[first:last]).max())
        for first, last in ((0, 1), (1, 6), (0, 16), (3, 20), (1, 40))
    )


def quantised(model: LanguageModel) -> None:
    """Turns the linear layers to dynamic int8, in place."""
    if torch.backends.quantized.engine in (None, "none") or not hasattr(torch.ao.quantization, "quantize_dynamic"):
        raise Skipped("torch has no quantised engine on this machine")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated in favour of torchao
        torch.ao.quantization.quantize_dynamic(
            module_of(model).base_model, {nn.Linear}, torch.qint8, inplace=True
        )  # fmt: skip


def int8(options: argparse.Namespace) -> dict[str, Any]:
    lines = []
    for kind in (*DTYPES, "int8"):
        model = load(options.models[0], "float32" if kind == "int8" else kind)
        if kind == "int8":
            quantised(model)
        line: dict[str, Any] = {"kind": kind, "moved": moved(model)}
        for batches in (1, 4):
            works = made_up(model, batches, BATCH)
            found = decode(model, mechanism_of("plainchant", BATCH), works, options.steps)
            line[str(batches * BATCH)] = found["private pass"]
        lines.append(line)
    return {"engine": torch.backends.quantized.engine, "lines": lines}
