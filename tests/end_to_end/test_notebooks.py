"""The notebooks were executed as they stand, and run again here: small, with stand-ins for the models."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from doubles.embedders import Hashing

from end_to_end.test_snippets import model

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
# in the order in which a reader goes through them: the second opens the run of the first
NOTEBOOKS = ("first_release", "judge_a_release")
SMALL = {"RECORDS": 400, "TEXTS": 12, "MAX_TOKENS": 8}


def cells(name):
    document = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_run_here():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_outputs_are_those_of_one_run_from_the_top(name):
    found = cells(name)
    assert [cell["execution_count"] for cell in found] == list(range(1, len(found) + 1))
    assert not [output for cell in found for output in cell["outputs"] if output["output_type"] == "error"]
    for cell in found:
        last = ast.parse("".join(cell["source"])).body[-1]
        if isinstance(last, ast.Expr):
            assert cell["outputs"], cell["source"]
    # nothing tells of the machine that ran it
    assert not re.search(r"/(home|root|work|tmp|usr)/", json.dumps([cell["outputs"] for cell in found]))


def executed(source, names):
    """Runs a cell; what its last expression would show."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return getattr(value, "_repr_html_", value.__repr__)()


def test_the_notebooks_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("plainchant.models.load", lambda *_: model())
    monkeypatch.setattr("plainchant.models.revision_of", lambda _: None)
    for module in ("generation.executor", "evaluation.runs"):
        monkeypatch.setattr(f"plainchant.{module}.load_embedder", lambda *_, **__: Hashing())
    for name in NOTEBOOKS:
        names: dict[str, Any] = {"__name__": "__main__"}
        for cell in cells(name):
            shown = executed("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                names |= {key: value for key, value in SMALL.items() if key in names}
            assert (shown is None) or str(shown).strip()
    assert "Privacy statement" in capsys.readouterr().out
    assert (tmp_path / "runs" / "tickets" / "private" / "statement.html").exists()
