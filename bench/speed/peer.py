"""The peer, then we, one after another: the same model, records and prompts."""

import argparse
import json
import os
import re
import subprocess
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.tables import read_texts
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.generation.prompting import Prompts
from plainchant.planning import make_plan
from plainchant.randomness import SystemRandomness
from plainchant.run.tuning import fastest_rows
from smollm2 import smollm2
from speed.common import DTYPES, ROOT, SMOLLM2, load, news
from speed.machine import flops, gemm_rate
from speed.watching import module_of, timed_passes

PEER = ROOT / ".venv-peer"


def peer_python() -> Path:
    """An environment for the peer, with the versions that we have; its one line that Python 3.11 refuses is mended."""
    python = PEER / "bin" / "python"
    if not (PEER / "installed").exists():
        venv.create(PEER, with_pip=True)
        (PEER / ".gitignore").write_text("*\n")
        install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
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


def peer(options: argparse.Namespace) -> dict[str, Any]:
    """The peer, then we; of each the seconds, and tokens a second to the peer's in float32."""
    records = read_texts(news(options))[: 8 * options.texts]
    python, directory = peer_python(), smollm2()
    template = MESSAGE.replace("{text}", "{1}") + "{0}"  # the peer's own order: a description, then the record
    same = {"system_prompt": SYSTEM, "prv_prompt": template, "pub_prompt": template, "dataset_desc": " "}
    own = {"dataset_desc": "Short news items."}

    def theirs(name: str, texts: int, prompts: dict[str, str], dtype: str = "float32") -> dict[str, Any]:
        job: dict[str, Any] = {
            "txt_list_or_path": records,
            "model_name_or_path": directory,
            "num": texts,
            "max_toks": options.tokens,
        }
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
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {"name": name, "dtype": dtype} | found

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

    def ours(dtype: str) -> dict[str, Any]:
        model, mechanism = load(SMOLLM2, dtype), make_plan(config).mechanism
        prompts = Prompts(config, model)
        prefix, start = tuple(prompts.prefix(None)), tuple(prompts.start(None))
        # as rows = "auto" does, with prompts of about the length that comes and passes as they are by default
        prompt = [*prefix, *start[-1:] * 64, *start]
        passes = PerformanceOptions().passes
        rows = fastest_rows(model, prompt, np.arange(100), batch_size=8, most=8 * options.texts, passes=passes)
        decoder = Decoder(model, mechanism, stop, rows=rows, passes=passes, randomness=SystemRandomness())
        works = (
            BatchWork(batch, prefix, start, [prompts.record(text, None) for text in records[8 * batch :][:8]], (0,))
            for batch in range(options.texts)
        )
        module = module_of(model)
        with timed_passes(module) as timed:
            began = time.perf_counter()
            tokens = [text.tokens for text in decoder.run(works)]
            seconds = time.perf_counter() - began
        line: dict[str, Any] = {"name": "plainchant", "dtype": dtype, "tokens": tokens, "seconds": seconds}
        line |= {"threads": torch.get_num_threads(), "prefill": timed["prompts"], "rows": rows, "passes": passes}
        # what the operations of this run would take at the machine's peak, attention left out
        read = len(prefix) + sum(len(prompts.record(text, None)) + len(start) - 1 for text in records)
        steps = sum(tokens)
        needed = sum(
            flops(module, count, 0, ids) for count, ids in ((read, 0), (8 * steps, 100), (steps, model.vocabulary_size))
        )
        return line | {"at the peak": needed / gemm_rate(getattr(torch, dtype))}

    # by turns, since a machine that others use is not equally fast all the time
    turns = [
        [theirs("invink 0.1.0", half, same), *(ours(dtype) for dtype in DTYPES)]
        for half in (options.texts - options.texts // 2, options.texts // 2)
    ]
    found = [
        one | {name: one[name] + two[name] for name in ("seconds", "prefill", "tokens")}
        for one, two in zip(*turns, strict=True)
    ]
    few = max(1, options.texts // 8)
    found.append(theirs("invink 0.1.0", few, same, "bfloat16"))
    found.append(theirs("invink 0.1.0, its own prompts", few, own))
    for line in found:
        if set(line["tokens"]) != {options.tokens}:
            raise SystemExit(f"{line['name']}: a text did not have exactly {options.tokens} tokens")
        line["rate"] = sum(line["tokens"]) / line["seconds"]
    return summary(found, options.tokens)


def summary(found: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """What the page shows: no text, no list of lengths."""
    first, least = found[0], found[1]["at the peak"]
    kept = ("name", "dtype", "seconds", "prefill", "rate", "rows", "passes")
    lines = [
        {name: line[name] for name in kept if name in line}
        | {"texts": len(line["tokens"]), "to the peer": line["rate"] / first["rate"]}
        for line in found
    ]
    bound = {"seconds": least, "to the peer": first["seconds"] / least}
    return {"tokens": tokens, "threads": first["threads"], "lines": lines, "at the peak": bound}
