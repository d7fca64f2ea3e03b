"""How fast, how near to what the machine can do, in how much memory: the figures and the picture of docs/speed.md.

    python bench/speed.py all            # every section in a process of its own, then the page
    python bench/speed.py SECTION        # peer, peak, private, curves, memory, drafting or int8
    python bench/speed.py page           # docs/speed.md and docs/speed.svg from bench/results/*.json

`peer` installs invink 0.1.0 (GPLv3: a peer here, never a dependency) into .venv-peer; the small model beside Gemma is
that of bench/smollm2.py. `peer` and `drafting` read AG News from --data and are left out where it is not there; all
other text is the demo's, made up.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
import warnings
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import transformers
from matplotlib.figure import Figure
from scale import MOST_GIB, MOST_SECONDS
from smollm2 import smollm2
from torch import nn

from plainchant.cli.demo_data import demo_records
from plainchant.config import PerformanceOptions, SynthesisConfig, parse_config
from plainchant.data.embedding import load_embedder
from plainchant.data.tables import read_records, read_texts
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.generation.prompting import Prompts, choose_examples
from plainchant.models.transformers.attention import Segment
from plainchant.models.transformers.load import EMBEDDED_MODEL, load_model
from plainchant.planning import make_plan
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.randomness import SystemRandomness
from plainchant.run.synthesis import synthesize
from plainchant.run.tuning import fastest_rows

HERE = Path(__file__).parent
RESULTS, DOCS, PEER = HERE / "results", HERE.parent / "docs", HERE.parent / ".venv-peer"
DTYPES = ("float32", "bfloat16")
SMOLLM2 = "SmolLM2-135M"
ROWS, BATCH = 64, 16  # rows of a full pass, and of a batch where nothing else is said
PROMPT = 64  # tokens of a prompt where nothing else is said
WARM = 2  # steps before the clock starts
TARGETS = {"peer": 6.0, "peak": 0.5, "top-100 mean": 0.05, "full-vocabulary median": 0.5}


# ---------------------------------------------------------------------------------------------------- setting up


def peer_python():
    """An environment for the peer, with the versions that we have; its one line that Python 3.11 refuses is mended."""
    python = PEER / "bin" / "python"
    if not (PEER / "installed").exists():
        venv.create(PEER, with_pip=True)
        (PEER / ".gitignore").write_text("*\n")
        install = [python, "-m", "pip", "install", "--quiet", "-c", HERE.parent / "constraints.txt"]
        # torch by itself and first: an exact request lets an index answer with its CPU build
        for what in (["torch==2.13.0"], ["invink==0.1.0"]):
            subprocess.run([*install, *what], check=True)
        (source,) = PEER.glob("lib/python*/site-packages/invink/utils.py")
        lines = source.read_text().splitlines(keepends=True)
        # double quotes within the braces of a string in double quotes
        lines[348] = re.sub(r"\{[^{}]*\}", lambda braces: braces[0].replace('"', "'"), lines[348])
        try:
            compile("".join(lines), source.name, "exec")
        except SyntaxError as error:
            raise SystemExit(f"{source.name}: line 349 is not all that is to be mended ({error})") from None
        source.write_text("".join(lines))
        (PEER / "installed").touch()
    return python


def load(name, dtype):
    return load_model(smollm2() if name == SMOLLM2 else name, dtype=dtype)


def news(options):
    path = options.data / "ag_news_test.jsonl"
    if not path.exists():
        raise Skipped("AG News was not there")
    return path


class Skipped(Exception):
    """A section cannot be run here; the page says why."""


# ------------------------------------------------------------------------------------------------ what is measured


class Timed:
    """Stands for a model or a mechanism, and counts the seconds in each of its methods."""

    def __init__(self, inner):
        self.inner, self.seconds = inner, Counter()

    def __getattr__(self, name):
        value = getattr(self.inner, name)
        return self.clock(name, value) if callable(value) else value

    def clock(self, name, function):
        def timed(*values, **named):
            began = time.perf_counter()
            result = function(*values, **named)
            # only the private pass is given supports
            self.seconds[f"private {name}" if name == "step" and len(values) > 1 else name] += (
                time.perf_counter() - began
            )
            return result

        return timed


def made_up(model, batches, size, prompt=PROMPT):
    """Batches of contexts of exactly `prompt` tokens, half of them public, from the demo's messages."""
    tokens = model.encode(" ".join(record["text"] for record in demo_records()), trusted=False)
    half = prompt // 2
    prefix = tuple([*model.start_tokens, *tokens][:half])

    def record(number):
        first = (half + 7 * number) % (len(tokens) - prompt)
        return tokens[first : first + prompt - half - 1]

    return [
        BatchWork(batch, prefix, (tokens[0],), [record(batch * size + row) for row in range(size)], (0,))
        for batch in range(batches)
    ]


def mechanism_of(method, size):
    # a budget that nothing here uses up
    return make_plan(SynthesisConfig(method=method, batch_size=size, texts=1, epsilon=1000.0, top_k=100)).mechanism


def decode(model, mechanism, works, steps, around=contextlib.nullcontext):
    """Decodes some steps of all batches side by side; seconds by where they went, all a step's mean but `step`."""
    timed, distribution = Timed(model), Timed(mechanism)
    model._forward = timed.clock("forward", model._forward)
    model._fill = timed.clock("fill", model._fill)
    stop = StopRule(None, WARM + steps + 1, WARM + steps)
    decoder = Decoder(timed, distribution, stop, rows=ROWS, randomness=SystemRandomness())
    sessions = [decoder._open(work) for work in works]
    for _ in range(WARM):
        decoder._step(sessions)
    opened = timed.seconds["fill"]
    timed.seconds.clear()
    distribution.seconds.clear()
    each = []
    with around():
        for _ in range(steps):
            began = time.perf_counter()
            decoder._step(sessions)
            each.append(time.perf_counter() - began)
    del model._forward, model._fill  # the methods of its class again
    passes = timed.seconds["step"] + timed.seconds["private step"]
    found = {"forward": timed.seconds["forward"], "hand over": passes - timed.seconds["forward"]}
    found |= {name: distribution.seconds[name] for name in ("support", "distribution", "cost")}
    found["rest"] = sum(each) - sum(found.values())
    found |= {"private pass": timed.seconds["private step"], "public pass": timed.seconds["step"]}
    caches = [rows._cache for session in sessions for rows in (session.private, session.public)]
    caches += decoder._prefixes.values()
    return {name: seconds / steps for name, seconds in found.items()} | {
        "step": statistics.median(each),
        "prefill": opened,
        "cache bytes": sum(map(cache_bytes, caches)),
    }


def cache_bytes(cache):
    return sum(tensor.nbytes for pair in cache.layers.values() for tensor in pair)


def best_seconds(function, times):
    function()
    each = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        each.append(time.perf_counter() - began)
    return min(each)


# --------------------------------------------------------------------------------------------------------- the peer

MESSAGE = "Here is a text:\n\n{text}\n\nWrite one new text of the same kind and length. Answer with the text only."
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # what the model's template says anyway

# Runs in the peer's environment. Its clock starts once model and tokenizer are loaded, and no text ends early.
PEER_JOB = """
import json, sys, time
import torch, invink
job = json.load(sys.stdin)
module = sys.modules["invink.generate"]
load, batchify, began, prefill = module.load_hf_model, module.batchify, [], [0.0]
def load_endless(*values, **named):
    model = load(*values, **named)
    model.generation_config.eos_token_id = model.config.vocab_size
    one = model.generate
    def generate(*values, **named):
        start = time.perf_counter()
        result = one(*values, **named)
        if named["past_key_values"] is None:
            prefill[0] += time.perf_counter() - start
        return result
    model.generate = generate
    return model
def begin(*values, **named):
    began.append(time.perf_counter())
    return batchify(*values, **named)
module.load_hf_model, module.batchify = load_endless, begin
found = invink.generate(**job)
seconds = time.perf_counter() - began[0]
print(json.dumps({"seconds": seconds, "prefill": prefill[0], "tokens": found.lens,
                  "threads": torch.get_num_threads(), "support": found.topk_avg}))
"""


def peer(options):
    """The peer, then we, one after another: the same model, records and prompts."""
    records = read_texts(news(options))[: 8 * options.texts]
    python, directory = peer_python(), smollm2()
    template = MESSAGE.replace("{text}", "{1}") + "{0}"  # the peer's own order: a description, then the record
    same = {"system_prompt": SYSTEM, "prv_prompt": template, "pub_prompt": template, "dataset_desc": " "}
    own = {"dataset_desc": "Short news items."}

    def theirs(name, texts, prompts, dtype="float32"):
        job = {"txt_list_or_path": records, "model_name_or_path": directory, "num": texts, "max_toks": options.tokens}
        job |= {"batch_size": 9, "epsilon": 8.0, "delta": 1e-6, "topk": 100, "dtype": dtype, "device_map": -1}
        done = subprocess.run(
            [python, "-c", PEER_JOB],
            input=json.dumps(job | prompts),
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # progress bars
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"the peer failed with exit code {done.returncode}")
        found = json.loads(done.stdout.splitlines()[-1])
        return {"name": name, "dtype": dtype} | found

    found = [theirs("invink 0.1.0", options.texts, same)]
    config = SynthesisConfig(
        method="invisibleink",
        batch_size=8,
        texts=options.texts,
        expected_units=len(records),
        max_tokens=options.tokens,
        min_tokens=options.tokens - 1,
        max_record_tokens=1024,  # none is cut, by neither
        prompt={"form": "chat", "chat": MESSAGE},
    )
    stop = StopRule(None, config.max_tokens, config.min_tokens)
    for dtype in DTYPES:
        model, mechanism = Timed(load(SMOLLM2, dtype)), make_plan(config).mechanism
        prompts = Prompts(config, model)
        prefix, start = tuple(prompts.prefix(None)), tuple(prompts.start(None))
        # as rows = "auto" does, with prompts of about the length that comes
        prompt = [*prefix, *start[-1:] * 64, *start]
        rows = fastest_rows(model.inner, prompt, np.arange(100), batch_size=8, most=8 * options.texts)
        decoder = Decoder(model, mechanism, stop, rows=rows, randomness=SystemRandomness())
        model.inner._fill = model.clock("fill", model.inner._fill)
        began = time.perf_counter()
        works = (
            BatchWork(batch, prefix, start, [prompts.record(text, None) for text in records[8 * batch :][:8]], (0,))
            for batch in range(options.texts)
        )
        line = {"name": "plainchant", "dtype": dtype, "tokens": [text.tokens for text in decoder.run(works)]}
        line |= {"seconds": time.perf_counter() - began, "threads": torch.get_num_threads()}
        line |= {"prefill": model.seconds["fill"], "rows": rows}
        # what the operations of this run would take at the machine's peak, attention left out
        read = len(prefix) + sum(len(prompts.record(text, None)) + len(start) - 1 for text in records)
        steps = sum(line["tokens"])
        needed = sum(
            flops(model.inner, count, 0, ids)
            for count, ids in ((read, 0), (8 * steps, 100), (steps, model.vocabulary_size))
        )
        found.append(line | {"at the peak": needed / gemm_rate(getattr(torch, dtype))})
    few = max(1, options.texts // 8)
    found.append(theirs("invink 0.1.0", few, same, "bfloat16"))
    found.append(theirs("invink 0.1.0, its own prompts", few, own))
    for line in found:
        if set(line["tokens"]) != {options.tokens}:
            raise SystemExit(f"{line['name']}: a text did not have exactly {options.tokens} tokens")
        line["rate"] = sum(line["tokens"]) / line["seconds"]
    return found


# --------------------------------------------------------------------------------- the machine's peak and our share


def gemm_rate(dtype):
    """FLOP/s of the best of several products of large square matrices."""
    best = 0.0
    for size, times in ((2048, 10), (4096, 3)):
        one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
        for _ in range(times):
            began = time.perf_counter()
            torch.mm(one, other)
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def linears(model):
    """Weights of the linear layers, head and embedding left out."""
    return [module.weight for module in model._model.base_model.modules() if isinstance(module, nn.Linear)]


def flops(model, rows, context, ids):
    """What `rows` rows need for one token: linear layers, attention over their own contexts, the head on `ids`."""
    shape = model._model.config.get_text_config()
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    seen = sum(min(window or context, context) for window in model._windows.values())
    attention = 4 * shape.num_attention_heads * width * seen
    return rows * (2 * sum(weight.numel() for weight in linears(model)) + attention + 2 * ids * shape.hidden_size)


def bare(model, steps):
    """Seconds of the same list of matrix products as bare calls: what the shapes alone permit."""
    weights = [weight.T for weight in linears(model)]
    inputs = {len(weight): torch.randn(ROWS, len(weight)).to(weight.dtype) for weight in weights}

    def products():
        for weight in weights:
            torch.mm(inputs[len(weight)], weight)

    with torch.inference_mode():
        return best_seconds(products, steps), 2 * ROWS * sum(weight.numel() for weight in weights)


OWN = "our own part of a step"
GROUPS = ("linear layers", "head", "attention and its cache", "norms and other elementwise")


def group_of(name, shapes, body):
    """Which part of the model an operator belongs to."""
    if any(part in name for part in ("attention", "index_put", "bmm")):
        return "attention and its cache"
    if any(part in name for part in ("mm", "linear", "matmul")):
        return "linear layers" if any(tuple(sorted(shape)) in body for shape in shapes if len(shape) == 2) else "head"
    return "head" if name in ("aten::index", "aten::index_select") else "norms and other elementwise"


def profile(model, mechanism, works, steps):
    """Seconds of a step by group of operators, from torch's profiler."""
    body = {tuple(sorted(weight.shape)) for weight in linears(model)}
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True)
    decode(model, mechanism, works, steps, around=lambda: profiler)
    found = dict.fromkeys(GROUPS, 0.0)
    for event in profiler.key_averages(group_by_input_shape=True):
        found[group_of(event.key, event.input_shapes, body)] += event.self_cpu_time_total / 1e6 / steps
    return found


def peak(options):
    lines, best = [], dict.fromkeys(DTYPES, 0.0)
    for name, dtype in itertools.product((EMBEDDED_MODEL, SMOLLM2), DTYPES):
        best[dtype] = max(best[dtype], gemm_rate(getattr(torch, dtype)))
        model, mechanism = load(name, dtype), mechanism_of("plainchant", BATCH)
        works = made_up(model, ROWS // BATCH, BATCH)
        found = decode(model, mechanism, works, options.steps)
        groups = profile(model, mechanism, works, options.steps)
        groups[OWN] = sum(found[part] for part in ("support", "distribution", "cost", "rest"))
        # the profiler slows what lies between operators, so that is taken from the unprofiled steps
        mean = sum(found[part] for part in ("forward", "hand over", "support", "distribution", "cost", "rest"))
        groups["between operators (Python)"] = mean - sum(groups.values())
        context = PROMPT + WARM + options.steps // 2
        public = flops(model, ROWS // BATCH, context, model.vocabulary_size)
        seconds, needed = bare(model, options.steps)
        lines.append({
            "model": name, "dtype": dtype, "private pass": found["private pass"],
            "public pass": found["public pass"], "step": found["step"],
            "flops of the pass": (private := flops(model, ROWS, context, 100)),
            "flops of the step": private + public,
            "bare": seconds, "flops of bare": needed, "profile": groups,
        })  # fmt: skip
        best[dtype] = max(best[dtype], gemm_rate(getattr(torch, dtype)))
    return {"peak": best, "lines": lines}


# ------------------------------------------------------------------------------------------ outside the model, curves


def private(options):
    lines = []
    for dtype in DTYPES:
        model = load(EMBEDDED_MODEL, dtype)
        for name, method in (("top-100 mean", "plainchant"), ("full-vocabulary median", "clustered-median")):
            works = made_up(model, ROWS // BATCH, BATCH)
            lines.append(
                {"dtype": dtype, "name": name} | decode(model, mechanism_of(method, BATCH), works, options.steps)
            )
    return lines


def curves(options):
    lines = []
    for dtype in DTYPES:
        model = load(EMBEDDED_MODEL, dtype)
        points = [("batch size", size, 1, size, PROMPT) for size in (8, 16, 32, 64)]
        points += [("batches in a pass", batches, batches, 8, PROMPT) for batches in (1, 2, 4, 8)]
        points += [("prompt", prompt, 1, 8, prompt) for prompt in (64, 256, 1024)]
        for curve, x, batches, size, prompt in points:
            works = made_up(model, batches, size, prompt)
            found = decode(model, mechanism_of("plainchant", size), works, max(3, options.steps // 2))
            line = {"dtype": dtype, "curve": curve, "x": x, "tokens a second": batches / found["step"]}
            line |= {"rows a second": batches * size / found["step"], "cache bytes": found["cache bytes"]}
            lines.append(line | {"prompt tokens a second": batches * size * (prompt - prompt // 2) / found["prefill"]})
    return lines


# -------------------------------------------------------------------------------------------------------- memory cap


class Watched:
    """Stands for a model, and notes the most that its caches, and this process, hold at any step."""

    def __init__(self, inner):
        self.inner, self.alive = inner, []
        self.base, self.most = resident(), Counter()

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def prefill(self, prefix):
        cache = self.inner.prefill(prefix)
        self.alive.append(weakref.ref(cache))
        return cache

    def open_rows(self, prefix, suffixes, *, room):
        rows = self.inner.open_rows(prefix, suffixes, room=room)
        self.alive.append(weakref.ref(rows._cache))
        return rows

    def step(self, groups, supports=None):
        answers = self.inner.step(groups, supports)
        caches = [cache for one in self.alive if (cache := one()) is not None]
        now = {"caches": sum(map(cache_bytes, caches)), "resident": resident() - self.base}
        now |= {"rows": sum(rows.count for rows, _ in groups), "held": sum(cache.count for cache in caches)}
        self.most |= Counter(now)  # the larger of each
        return answers


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(options):
    """Whole runs on long records, with the cap and without."""
    texts = [record["text"] for record in demo_records()]
    records = [{"text": " ".join(texts[first : first + 6])} for first in range(0, len(texts) - 6, 6)]
    config = SynthesisConfig(
        method="invisibleink", batch_size=8, texts=8, max_tokens=8, max_record_tokens=96, expected_units=len(records)
    )
    model = load(EMBEDDED_MODEL, "float32")
    decode(model, mechanism_of("plainchant", BATCH), made_up(model, 4, BATCH), 2)  # what kernels keep is not caches
    lines = []
    for cap in (0.2, None):
        watched = Watched(model)
        with tempfile.TemporaryDirectory() as folder:
            performance = PerformanceOptions(memory=cap, rows=ROWS)
            with synthesize(
                records, make_plan(config), out=Path(folder) / "run", performance=performance, model=watched
            ) as run:
                count = sum(1 for _ in run)
        lines.append(
            {"cap": cap, "texts": count} | {name: watched.most[name] for name in ("caches", "resident", "rows", "held")}
        )
    return lines


# ---------------------------------------------------------------------------------------------------------- drafting


class Watching(IndividualMeanMechanism):
    """Notes how likely a token drafted by the public model would be taken: Σ min(p, q)."""

    def distribution(self, private, public, support, allowance=None):
        distribution = super().distribution(private, public, support, allowance)
        p, q = (
            np.exp(scores - np.logaddexp.reduce(scores))
            for scores in (public[support].astype(np.float64) / self.settings.temperature, distribution.scores)
        )
        self.taken.append(float(np.minimum(p, q).sum()))
        return distribution


def acceptance(model, options):
    """Σ min(p, q) at every step of texts from batches of like records, without and with released examples."""
    config = parse_config((HERE.parent / "examples" / "ag_news.toml").read_text(), {"batch_size": BATCH})
    decided, prompts = make_plan(config), Prompts(config, model)
    stop = StopRule(prompts.stop, config.max_tokens, config.min_tokens)
    by_label = {label: [] for label in config.labels}
    for record in read_records(news(options), label_column=config.label_column):
        by_label[record.label].append(record.text)
    embedder, cells = load_embedder(), {}
    for label, texts in by_label.items():
        some = texts[:200]
        vectors = embedder.encode(some)
        cells[label] = [some[row] for row in np.argsort(-(vectors @ vectors[0]))[:BATCH]]
    found, shown = [], dict.fromkeys(cells, ())
    for _ in range(2):
        sequences, released = [], {}
        for number, (label, texts) in enumerate(cells.items()):
            mechanism = Watching(decided.settings, decided.rho_batch, decided.texts_per_batch * config.max_tokens)
            object.__setattr__(mechanism, "taken", [])
            records = [prompts.records([text], label) for text in texts]
            # two texts of each batch: what it would still have to write only makes its records more thrifty
            places, later = (0, 1)[: decided.texts_per_batch], max(0, decided.texts_per_batch - 2) * config.max_tokens
            prefix, start = tuple(prompts.prefix(label, shown[label])), tuple(prompts.start(label))
            decoder = Decoder(model, mechanism, stop, rows=1, randomness=SystemRandomness())
            written, first = [], 0
            for text in decoder.run([BatchWork(number, prefix, start, records, places, later)]):
                sequences.append(mechanism.taken[first : (first := first + text.tokens)])
                written.append(text.text)
            released[label] = choose_examples(written, config.parts.released_examples)
        found.append(sequences)
        shown = released
    return found


def tokens_a_pass(sequences, drafts):
    """Mean tokens that a pass with so many drafts yields, from every place of the recorded texts."""
    yields = []
    for taken in sequences:
        for place in range(len(taken)):
            yields.append(1.0 + float(np.cumprod(taken[place : place + drafts]).sum()))
    return float(np.mean(yields))


def pass_seconds(model, batches, positions, steps):
    """Seconds of one private pass with so many new positions a row, and of one public pass."""
    works = made_up(model, batches, BATCH)
    prefix = model.prefill(works[0].prefix)
    groups = [model.open_rows(prefix, work.records, room=positions) for work in works]
    publics = [model.open_rows(prefix, [()], room=1) for _ in works]
    every, last = torch.arange(BATCH), works[0].start[-1]
    # each position of a row has a support of its own
    ids = [torch.arange(100 * positions)] * batches

    def one_pass():
        segments = []
        for rows in groups:
            where = rows._lengths[:, None] + torch.arange(positions)
            segments.append(Segment(rows._cache, every, where, int(-(-(int(where.max()) + 1) // 32) * 32), whole=True))
        tokens = torch.full((batches * BATCH, positions), last)
        model._forward(model._model, segments, tokens, ids).logits.float().numpy()

    def public_pass():
        for rows in publics:
            rows.rewind()
        model.step([(rows, last) for rows in publics])

    with torch.inference_mode():
        return best_seconds(one_pass, steps), best_seconds(public_pass, steps)


def drafting(options):
    lines, sequences = [], None
    for dtype in DTYPES:
        model = load(EMBEDDED_MODEL, dtype)
        if sequences is None:
            sequences = acceptance(model, options)
        for batches, positions in itertools.product((1, 4), (1, 2, 4, 8)):
            private_seconds, public_seconds = pass_seconds(model, batches, positions, options.steps)
            line = {"dtype": dtype, "rows": batches * BATCH, "drafts": positions - 1, "private pass": private_seconds}
            line |= {"public pass": public_seconds, "tokens a pass": tokens_a_pass(sequences[1], positions - 1)}
            lines.append(line)
    mean = [float(np.mean(list(itertools.chain(*own)))) for own in sequences]
    return {"acceptance": mean, "tokens": sum(map(len, itertools.chain(*sequences))), "lines": lines}


# -------------------------------------------------------------------------------------------------------------- int8


def moved(model):
    """Nats by which a row's logits move when other rows come or go, at most, on the demo's messages."""
    texts = [model.encode(record["text"], trusted=False)[: 3 + number % 9] for number, record in
             enumerate(demo_records()[:40])]  # fmt: skip
    prefix, ids = model.prefill([*model.start_tokens, *texts[0][:4]]), np.arange(0, model.vocabulary_size, 500)

    def logits(first, last):
        return model.step([(model.open_rows(prefix, texts[first:last], room=1), texts[0][0])], [ids])[0]

    whole = logits(0, 40)
    return max(
        float(np.abs(logits(first, last) - whole[first:last]).max())
        for first, last in ((0, 1), (1, 6), (0, 16), (3, 20), (1, 40))
    )


def int8(options):
    lines, engine = [], torch.backends.quantized.engine
    for kind in (*DTYPES, "int8"):
        model = load(EMBEDDED_MODEL, "float32" if kind == "int8" else kind)
        if kind == "int8":
            if engine in (None, "none") or not hasattr(torch.ao.quantization, "quantize_dynamic"):
                raise Skipped("torch has no quantised engine on this machine")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is deprecated in favour of torchao
                torch.ao.quantization.quantize_dynamic(model._model.base_model, {nn.Linear}, torch.qint8, inplace=True)
        line = {"kind": kind, "moved": moved(model)}
        for batches in (1, 4):
            works = made_up(model, batches, BATCH)
            found = decode(model, mechanism_of("plainchant", BATCH), works, options.steps)
            line[str(batches * BATCH)] = found["private pass"]
        lines.append(line)
    return {"engine": engine, "lines": lines}


SECTIONS = {f.__name__: f for f in (peer, peak, private, curves, memory, drafting, int8)}


def measured(name, options):
    """Runs a section; writes what it found, on what, and how much of the machine others took meanwhile."""

    def clocks():
        busy = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(busy) - busy[3] - busy[4]) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]), time.perf_counter()

    before = clocks()
    try:
        result = SECTIONS[name](options)
    except Skipped as why:
        print(f"{name}: left out, {why}")
        result = {"skipped": str(why)}
    busy, own, seconds = (after - since for after, since in zip(clocks(), before, strict=True))
    machine = {
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__, "instructions": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip
    found = {"machine": machine, "others": max(0.0, busy - own) / seconds, "seconds": seconds, "result": result}
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{name}: {seconds:.0f} s, other work took {found['others']:.1f} of {machine['cores']} cores", flush=True)


# ---------------------------------------------------------------------------------------------------------- the page


def table(head, *rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def prose(text):
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False, break_long_words=False)


def ms(seconds):
    return f"{1e3 * seconds:.1f}" if seconds < 0.01 else f"{1e3 * seconds:.0f}"


def percent(share):
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def gib(count):
    return f"{count / 2**30:.3f}"


def page_peer(found):
    theirs = found[0]["rate"]
    rows = [
        (line["name"], line["dtype"], len(line["tokens"]), f"{line['seconds']:.0f}", f"{line['prefill']:.0f}",
         f"{line['rate']:.2f}", f"{line['rate'] / theirs:.1f} ×")
        for line in found
    ]  # fmt: skip
    text = f"""The same work for both: texts of exactly {found[0]["tokens"][0]} tokens, each from 8 private records of
AG News and one public row, by {SMOLLM2}-Instruct with the same chat message around a record, ε = 8, top-100+,
threads: {found[0]["threads"]}, one after the other. Loading is left out, reading the prompts is in. The peer works
text by text and pads a batch's prompts to its longest; here up to {found[1]["rows"]} rows share a pass in float32 and
{found[2]["rows"]} in bfloat16 (as `--rows auto` measures), what all prompts have in common is read once, and the head
multiplies by the support only. The last row is the peer with the longer prompts that it comes with."""
    head = ("", "dtype", "texts", "seconds", "prompt seconds", "tokens per second", "speed-up over peer")
    wanted, targets = TARGETS["peer"], []
    for line in found[1:3]:
        ratio = line["rate"] / theirs
        aim = f"tokens per second relative to the peer's in float32, ours in {line['dtype']}"
        targets.append((aim, f"≥ {wanted:g} ×", f"{ratio:.1f} ×", ratio >= wanted))
    least = found[1]["at the peak"]
    bound = f"""At the measured peak the operations of our run, attention not counted, would take {least:.0f} s in
float32: {found[0]["seconds"] / least:.1f} × the peer is the most that the same work could reach here in any order."""
    return text, f"{table(head, *rows)}\n\n{prose(bound)}", targets


def page_peak(found):
    best, rows, targets, missing = found["peak"], [], [], []
    for line in found["lines"]:
        most, name = best[line["dtype"]], (line["model"], line["dtype"])
        one = line["flops of the pass"] / line["private pass"] / most
        whole = line["flops of the step"] / line["step"] / most
        alone = line["flops of bare"] / line["bare"] / most
        rows.append((*name, f"{most / 1e9:.0f}", ms(line["private pass"]), percent(one), ms(line["step"]),
                     percent(whole), percent(alone)))  # fmt: skip
        if whole < TARGETS["peak"]:
            public, own = (part / line["step"] for part in (line["public pass"], line["profile"][OWN]))
            missing.append(
                f"{name[0]} in {name[1]} falls short: {percent(public)} of a step is the public pass, which reads all "
                f"weights for {ROWS // BATCH} rows, {percent(own)} our own part, and the private pass by itself "
                f"reaches {percent(one)} where bare products of its shapes reach {percent(alone)}."
            )
        wanted = f"≥ {percent(TARGETS['peak'])}"
        targets.append((f"share of the peak, {name[0]}, {name[1]}", wanted, percent(whole), whole >= TARGETS["peak"]))
    text = f"""What the machine can do is the best of several products of square matrices of 2,048 and 4,096. Counted
for a row: two operations a weight of the linear layers, attention over the row's own context (at most a layer's
window), and the head on its 100 ids, or on the whole vocabulary for public rows. Not counted: norms, activations,
rotary positions, what attention reads beyond a row's end, and everything outside the model. *Pass*: {ROWS} private
rows. *Step*: the whole of a decoding step of {ROWS // BATCH} batches of {BATCH} by the default method, public rows
and our own part included. *Bare*: the linear layers' products alone, one `torch.mm` each, with the model's weights:
what the shapes permit."""
    head = ("model", "dtype", "peak, GFLOP/s", "pass, ms", "of it", "step, ms", "of it", "bare, of it")
    parts = list(found["lines"][0]["profile"])
    lines = [(part, *(ms(max(0.0, line["profile"][part])) for line in found["lines"])) for part in parts]
    names = ["ms a step", *(f"{line['model']}, {line['dtype']}" for line in found["lines"])]
    middle = " ".join([*missing, "Where a step's time goes, from torch's profiler:"])
    return text, "\n\n".join([table(head, *rows), prose(middle), table(names, *lines)]), targets


def page_private(found):
    rows, targets, missing = [], [], []
    head = ("method", "dtype", "forward", "hand over", "support", "aggregate", "cost", "rest", "outside the model")
    for line in found:
        parts = [line[part] for part in ("forward", "hand over", "support", "distribution", "cost", "rest")]
        outside = 1 - parts[0] / sum(parts)
        rows.append((line["name"], line["dtype"], *map(ms, parts), percent(outside)))
        most = TARGETS[line["name"]]
        if outside > most:
            largest = max(parts[1:])
            missing.append(
                f"Most of what {line['name']} in {line['dtype']} spends there is *{head[2 + parts.index(largest)]}*: "
                f"without it, {percent((sum(parts[1:]) - largest) / (sum(parts) - largest))}."
            )
        targets.append((f"outside the model, {line['name']}, {line['dtype']}", f"≤ {percent(most)}", percent(outside),
                        outside <= most))  # fmt: skip
    text = f"""Milliseconds of a decoding step of {EMBEDDED_MODEL} (a vocabulary of 262,144) with {ROWS} rows in
batches of {BATCH}. *Hand over*: logits from torch to numpy, on the support. *Aggregate*: clipping and mean or median.
*Cost*: the loss of the drawn token. *Rest*: drawing, text, bookkeeping."""
    return text, "\n\n".join([table(head, *rows), prose(" ".join(missing))]), targets


def page_curves(found):
    rows = [
        (line["curve"], line["x"], line["dtype"], f"{line['tokens a second']:.2f}", f"{line['rows a second']:.0f}",
         f"{line['prompt tokens a second']:.0f}", gib(line["cache bytes"]))
        for line in sorted(found, key=lambda line: (CURVES.index(line["curve"]), line["x"], line["dtype"] == DTYPES[1]))
    ]  # fmt: skip
    text = f"""{EMBEDDED_MODEL}, the default method, top-100. *Batch size*: one batch, prompts of {PROMPT} tokens.
*Batches in a pass*: of 8 rows. *Prompt*: one batch of 8 rows. Tokens are released ones, prompt tokens those of the
private rows (half of a prompt is shared); memory is the exact size of all caches of keys and values."""
    head = ("", "", "dtype", "tokens per second", "rows per second", "prompt tokens per second", "caches, GiB")
    picture(found)
    image = "![Released tokens per second by batch size, batches in a pass and prompt length](speed.svg)"
    return text, f"{image}\n\n{table(head, *rows)}", []


CURVES = ("batch size", "batches in a pass", "prompt")


def picture(found):
    figure = Figure((9, 3), layout="constrained", facecolor="white")
    for axes, curve in zip(figure.subplots(1, 3), CURVES, strict=True):
        for dtype, colour in zip(DTYPES, ("#1d3557", "#9e2a2b"), strict=True):
            own = [line for line in found if line["curve"] == curve and line["dtype"] == dtype]
            axes.plot([line["x"] for line in own], [line["tokens a second"] for line in own], "o-", color=colour,
                      label=dtype)  # fmt: skip
        points = sorted({line["x"] for line in found if line["curve"] == curve})
        axes.set_xscale("log", base=2)
        axes.set_xticks(points, map(str, points))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(curve + (", tokens" if curve == "prompt" else ""))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("released tokens a second")
    figure.axes[0].legend(frameon=False)
    figure.savefig(DOCS / "speed.svg", metadata={"Date": None})


def page_memory(found):
    rows = [
        ("none" if line["cap"] is None else f"{line['cap']:g}", line["rows"], line["held"], gib(line["caches"]),
         gib(line["resident"]))
        for line in found
    ]  # fmt: skip
    text = """Whole runs of `invisibleink` with batches of 8 on long made-up records: the most that all caches held at
any step (exact), the most private rows of a pass, the most rows that had a cache, and how far the process had grown
since before the run; memory in GiB."""
    capped = found[0]
    within = capped["caches"] <= capped["cap"] * 2**30
    target = ("caches under the cap, GiB", f"≤ {capped['cap']:g}", gib(capped["caches"]), within)
    tables = table(("--memory", "rows of a pass", "rows held", "caches", "growth"), *rows)
    if not within:
        why = f"""The cap decides how many rows share a pass, by the longest context that is possible; beside them
        caches of public rows and prefixes are held, and of batches that have ended but are not yet given back:
        {capped["held"]} rows in all where a pass had {capped["rows"]} at most."""
        tables += f"\n\n{prose(why)}"
    return text, tables, [target]


def page_drafting(found):
    first = {(line["dtype"], line["rows"]): line for line in found["lines"] if not line["drafts"]}
    rows, best = [], Counter()
    for line in found["lines"]:
        plain, drafts = first[line["dtype"], line["rows"]], line["drafts"]
        # the same pass each time, so its best time counts
        alike = [own for own in found["lines"] if (own["dtype"], own["rows"]) == (line["dtype"], line["rows"])]
        public = min(own["public pass"] for own in alike)
        before = plain["private pass"] + public
        after = line["private pass"] + (drafts + 1) * public
        gain = line["tokens a pass"] * before / after
        best[line["dtype"], line["rows"]] = max(best[line["dtype"], line["rows"]], gain)
        rows.append((line["dtype"], line["rows"], drafts, ms(line["private pass"]), ms(public),
                     f"{line['tokens a pass']:.2f}", f"{gain:.2f} ×"))  # fmt: skip
    without, shown = found["acceptance"]
    text = f"""Should the public model draft some tokens ahead, for one private pass to judge them all? Rejection
sampling would keep the distribution exact, and a draft be taken with probability Σ min(p, q), p the public
distribution and q the
mechanism's on the same support. On {found["tokens"]} tokens from AG News by the default method (batches of {BATCH},
top-100, guidance 2) that is {without:.2f} on average, {shown:.2f} with released examples in the prompt. A pass judges
k drafts at k + 1 positions and yields 1 + Σ of the products of what is taken, here from the recorded texts; the
public row needs k + 1 passes of its own. *Gain*: tokens a second to those without drafts, at best, since nothing but
the passes is counted."""
    head = ("dtype", "rows", "drafts", "private pass, ms", "public pass, ms", "tokens a pass", "gain")
    full = max(best[dtype, ROWS] for dtype in DTYPES)
    small = max(best[dtype, BATCH] for dtype in DTYPES)
    verdict = "worth it" if full >= 1.25 else "not worth it: other batches fill a pass as well as drafts do"
    ending = f"At best {full:.2f} × with a full pass of {ROWS} rows, {small:.2f} × with {BATCH}: {verdict}."
    return text, f"{table(head, *rows)}\n\n{prose(ending)}", []


def page_int8(found):
    rows = [(line["kind"], ms(line["16"]), ms(line["64"]), f"{line['moved']:.2g}") for line in found["lines"]]
    worst = found["lines"][-1]["moved"]
    text = f"""Torch's dynamic int8 (engine {found["engine"]}) in the linear layers of {EMBEDDED_MODEL}: milliseconds
of a private pass, and how far a row's logits move, in nats, when other rows of its pass come or go."""
    slack = SynthesisConfig().numerical_slack
    verdict = f"moves by {'more' if worst > slack else 'no more'} than the {slack:g} nats that are paid for"
    ending = f"""Not used: activations are scaled by the largest of a whole pass, so that one record would decide how
another is rounded, and a row {verdict}."""
    return text, f"{table(('', '16 rows', '64 rows', 'moved'), *rows)}\n\n{prose(ending)}", []


def page_scale(found):
    sizes, names = (list(dict.fromkeys(row[key] for row in found)) for key in ("records", "name"))
    cells = {(row["name"], row["records"]): row for row in found}

    def shown(name, key, form):
        return (form.format(cells[name, size][key]) if (name, size) in cells else "" for size in sizes)

    rows = [(name, *shown(name, "seconds", "{:.4g}")) for name in names]
    rows.append(("GiB at the most", *shown(names[-1], "GiB", "{:.2f}")))
    text = (
        "Seconds of everything but embedding and decoding, by the size of the private table (`python bench/scale.py`)."
    )
    whole, aim = cells["all of it", sizes[-1]], f"{sizes[-1]:,} records but for embedding and decoding"
    targets = [
        (f"{aim}, s", f"≤ {MOST_SECONDS:g}", f"{whole['seconds']:.0f}", whole["seconds"] <= MOST_SECONDS),
        (f"{aim}, GiB", f"≤ {MOST_GIB:g}", f"{whole['GiB']:.2f}", whole["GiB"] <= MOST_GIB),
    ]
    return text, table(("", *(f"{size:,} records" for size in sizes)), *rows), targets


PAGE = {
    "peer": ("Against invink", page_peer),
    "peak": ("Against the machine", page_peak),
    "private": ("The private part of a step", page_private),
    "curves": ("Batch, pass and prompt", page_curves),
    "memory": ("The memory cap", page_memory),
    "drafting": ("Drafting by the public model", page_drafting),
    "int8": ("Eight-bit weights", page_int8),
    "scale": ("The size of the table", page_scale),
}


def page():
    """docs/speed.md and docs/speed.svg, from what has been measured."""
    parts, targets, machines, busy = [], [], [], {}
    for name, (title, write) in PAGE.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        if name != "scale":
            machines.append(found["machine"])
            if found["others"] >= 0.1:
                busy[title] = found["others"]
            found = found["result"]
        if isinstance(found, dict) and "skipped" in found:
            parts.append(f"## {title}\n\nNot measured: {found['skipped']}.")
            continue
        text, tables, own = write(found)
        parts.append(f"## {title}\n\n{prose(text)}\n\n{tables}")
        targets += own
    kinds = {
        f"{own['cores']} cores with {own['instructions']} ({own['threads']} in use), torch {own['torch']}, "
        f"transformers {own['transformers']}"
        for own in machines
    }
    opening = f"Made by `make bench` on {' and '.join(sorted(kinds))}; no figure is typed by hand."
    if busy:
        opening += (
            f" The machine was shared: other work took up to {max(busy.values()):.1f} cores meanwhile "
            f"({', '.join(busy)}), so that ratios say more than seconds."
        )
    opening = prose(opening)
    goals = table(("aim", "wanted", "found", ""), *(
        (aim, wanted, found, "reached" if reached else "**missed**") for aim, wanted, found, reached in targets
    ))  # fmt: skip
    (DOCS / "speed.md").write_text("\n\n".join(["# Speed and memory", opening, goals, *parts]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("section", choices=[*SECTIONS, "page", "all"])
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data", help="folder with AG News")
    parser.add_argument("--texts", type=int, default=24, help="texts of peer")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each of them")
    parser.add_argument("--steps", type=int, default=16, help="steps of every other figure")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if options.section == "all":
        # a process for each, so that none finds the memory or the kernels' choices of another
        for name in SECTIONS:
            subprocess.run([sys.executable, __file__, name, *sys.argv[2:]], check=True)
        subprocess.run([sys.executable, HERE / "scale.py"], check=True)
    if options.section in ("all", "page"):
        page()
    else:
        measured(options.section, options)


if __name__ == "__main__":
    main()
