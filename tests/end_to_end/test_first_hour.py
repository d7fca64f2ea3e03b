"""The first hour of a stranger: what costs nothing, what is said before it costs, and what is right when it ends."""

import json

import pytest
from doubles.tables import OPTIONS, rows, write

from plainchant.run.ledger import Ledger
from plainchant.run.store import RunDirectory


@pytest.fixture
def misspelt(tmp_path):
    """Two rows have a label that is named, so that the table is read; the label of the others is spelled otherwise."""
    return write(
        tmp_path / "private.jsonl", [row | {"label": "red" if n < 2 else "blue"} for n, row in enumerate(rows())]
    )


def test_a_run_without_a_batch_names_its_counts_and_pays_for_them_alone(command, model, misspelt, tmp_path):
    ledger, out = tmp_path / "private.ledger", tmp_path / "run"
    command("account", "--ledger", ledger, "--epsilon", 10)
    wrong = ["--labels", "red,bleu", "--batch-size", 60, "--model", model]
    begin = ["run", *OPTIONS, *wrong, "--data", misspelt, "--out", out, "--ledger", ledger]
    said = command(*begin, code=3).err
    counts = {"red": 0, "bleu": 0}
    for cell in RunDirectory.open(out).cells():
        counts[("red", "bleu")[cell.label]] = cell.noisy_size
    assert all(f"'{label}' {count}" in said for label, count in counts.items())
    assert "plainchant check" in said
    assert "Plan" not in said
    [entry] = Ledger(ledger).runs
    plan = json.loads((out / "plan.json").read_text())
    assert entry["rho"] == plan["rho_select"] + plan["rho_size"]
    # nothing goes on, and nothing says that it would
    status = " ".join(command("status", out).out.split())
    assert "--resume" not in status
    assert "start a new run" in status
    assert "whole label" in status
    assert json.loads(command("status", out, "--format", "json").out)["ended"]
    resume = ["run", "--resume", "--data", misspelt, "--out", out]
    assert "has ended" in command(*resume, "--ledger", ledger, code=3).err
    assert Ledger(ledger).spent.rho == entry["rho"]
    command(*resume, code=3)
    assert "will have none" in command("report", out, code=2).err
