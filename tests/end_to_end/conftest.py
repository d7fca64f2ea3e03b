"""A tiny language model, a private table with a marker in every cell, and commands on them."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from doubles.tables import MARKER, rows, write
from doubles.tiny import save_tiny_llama

from plainchant.cli.main import main


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The directory of a tiny random Llama over bytes."""
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "private.jsonl", rows())


@pytest.fixture
def command(model):
    """Runs a command in this process and checks that no private text shows, whatever happens."""

    def go(*arguments, code=0, env=None):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)
        assert MARKER not in result.output
        assert "Traceback" not in result.output, result.output
        assert "its message is not shown" not in result.output, result.output
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
