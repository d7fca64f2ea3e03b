"""What the sections share: models, made-up work, where results go."""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from plainchant.cli.demo_data import demo_records
from plainchant.config import SynthesisConfig
from plainchant.generation.decoding import BatchWork
from plainchant.models import LanguageModel
from plainchant.models.transformers.load import load_model
from plainchant.planning import make_plan
from plainchant.privacy.mechanisms import TokenMechanism
from smollm2 import smollm2

HERE = Path(__file__).resolve().parent
RESULTS, ROOT = HERE / "results", HERE.parents[1]
DTYPES = ("float32", "bfloat16")
SMOLLM2 = "SmolLM2-135M"
ROWS, BATCH = 64, 16  # rows of a full pass, and of a batch where nothing else is said
PROMPT = 64  # tokens of a prompt where nothing else is said
CONTEXT, WRITTEN = 96, 48  # tokens of a short record's prompt, half of them public, and of a text
WARM = 2  # steps before the clock starts


class Skipped(Exception):
    """A section cannot be run here; the page says why."""


def load(name: str, dtype: str) -> LanguageModel:
    return load_model(smollm2() if name == SMOLLM2 else name, dtype=dtype)


def news(options: argparse.Namespace) -> Path:
    path: Path = options.data / "ag_news_test.jsonl"
    if not path.exists():
        raise Skipped(f"AG News was not there ({path.name}; SOURCE.md beside the data sets says where it comes from)")
    return path


def instructions() -> str:
    """The vector instructions that torch uses here, and whether there are matrix units, which bfloat16 is fast with."""
    matrices = torch.cpu._is_amx_tile_supported()
    return torch.backends.cpu.get_cpu_capability() + (" and AMX" if matrices else ", no AMX")


def made_up(model: LanguageModel, batches: int, size: int, prompt: int = PROMPT) -> list[BatchWork]:
    """Batches of contexts of exactly `prompt` tokens, half of them public, from the demo's messages."""
    tokens = model.encode(" ".join(record["text"] for record in demo_records()), trusted=False)
    half = prompt // 2
    prefix = tuple([*model.start_tokens, *tokens][:half])

    def record(number: int) -> list[int]:
        first = (half + 7 * number) % (len(tokens) - prompt)
        return tokens[first : first + prompt - half - 1]

    return [
        BatchWork(batch, prefix, (tokens[0],), [record(batch * size + row) for row in range(size)], (0,))
        for batch in range(batches)
    ]


def mechanism_of(method: str, size: int) -> TokenMechanism:
    """A method's mechanism with a budget that nothing here uses up."""
    values: dict[str, Any] = {"method": method, "batch_size": size, "texts": 1, "epsilon": 1000.0, "top_k": 100}
    return make_plan(SynthesisConfig(**values)).mechanism


def best_seconds(function: Callable[[], Any], times: int) -> float:
    """The shortest of several calls after a first one."""
    function()
    each = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        each.append(time.perf_counter() - began)
    return min(each)


def measured(section: Callable[[argparse.Namespace], Any], options: argparse.Namespace, folder: Path) -> None:
    """Runs a section; writes what it found, on what, when, and how much of the machine others took meanwhile."""

    def clocks() -> tuple[float, float, float]:
        busy = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(busy) - busy[3] - busy[4]) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]), time.perf_counter()

    name, before = section.__name__, clocks()
    try:
        result = section(options)
    except Skipped as why:
        print(f"{name}: left out, {why}")
        result = {"skipped": str(why)}
    busy, own, seconds = (after - since for after, since in zip(clocks(), before, strict=True))
    machine = {
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__, "instructions": instructions(),
    }  # fmt: skip
    others = max(0.0, busy - own) / seconds
    found = {"measured": time.strftime("%Y-%m-%d"), "machine": machine, "others": others, "seconds": seconds}
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found | {"result": result}, indent=1) + "\n")
    print(f"{name}: {seconds:.0f} s, other work took {others:.1f} of {machine['cores']} cores", flush=True)
