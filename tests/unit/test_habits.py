"""What the project says of itself in two places is the same in both."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def names(text):
    return re.findall(r"\w+", text)


def test_the_table_of_layers_is_that_of_import_linter():
    (contract,) = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \| ([^|]*) \|$", CONTRIBUTING, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert [sorted(names(packages)) for _, packages, _ in rows] == [
        sorted(names(layer)) for layer in contract["layers"]
    ]
    assert all(what.strip() for _, _, what in rows)


def test_every_module_has_a_layer():
    (contract,) = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    layers = {name for layer in contract["layers"] for name in names(layer)}
    here = {path.stem for path in (ROOT / "src" / "plainchant").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert here - {"__init__", "__main__", "__pycache__"} == layers


def test_hosted_checks_run_every_python_that_is_promised():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    assert re.findall(r"3\.\d+", matrix) == promised
    assert "run: .ci/run" in workflow


def test_every_dependency_of_development_is_pinned():
    pinned = {re.split("==", line)[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = {re.split(r"[<>=\[]", one)[0].lower() for one in PROJECT["project"]["optional-dependencies"]["dev"]}
    assert wanted <= pinned


def test_the_package_says_that_it_is_typed():
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]
    assert (ROOT / "src" / "plainchant" / "py.typed").exists()


def test_no_file_holds_the_marks_of_an_unfinished_merge():
    marks = re.compile(rf"^({'<' * 7}|{'>' * 7}|{re.escape('|' * 7)}) ", re.MULTILINE)
    pages = [path for pattern in ("*.md", "*.toml", "docs/**/*.md") for path in ROOT.glob(pattern)]
    assert len(pages) > 20
    assert [path.name for path in pages if marks.search(path.read_text(encoding="utf-8"))] == []
