"""A language model small enough to run whole commands in seconds, and a private table with a marker in every cell."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from plainchant.cli.main import main

MARKER = "zanzibarquartz"
# what every small run shares; batches of 10 pay for a text of 12 tokens at this clip
OPTIONS = [
    *("--method", "clustered-mean", "--clusters", "none", "--support", "top_k", "--clipping", "difference"),
    *("--clip", "1.5", "--batch-size", "10", "--label-column", "label", "--labels", "red,blue"),
    *("--max-tokens", "12", "--max-record-tokens", "40", "--texts", "10"),
]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The directory of a tiny random Llama over bytes."""
    path = tmp_path_factory.mktemp("model")
    names = ["<bos>", "<eos>", *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names[:2]])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")
    wrapped.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(names), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    return path


def rows(count=80):
    return [
        {"text": f"{MARKER} note {n} about the harbour", "label": ("red", "blue")[n % 2], "unit": f"{MARKER}{n}"}
        for n in range(count)
    ]


def write(path: Path, records) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "private.jsonl", rows())


@pytest.fixture
def command(model):
    """Runs a command in this process and checks that no private text shows, whatever happens."""

    def go(*arguments, code=0, env=None):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)
        assert MARKER not in result.output
        assert "Traceback" not in result.output and "its message is not shown" not in result.output, result.output
        assert result.exit_code == code, result.output
        return SimpleNamespace(out=result.stdout, err=result.stderr)

    return go


@pytest.fixture
def process(model):
    """Starts a command in a process of its own."""

    def go(*arguments):
        words = [sys.executable, "-m", "plainchant", *map(str, arguments)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    return go
