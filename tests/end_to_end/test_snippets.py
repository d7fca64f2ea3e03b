"""The Python in README, docs and the docstring of the package runs as it stands, on made-up files and a stand-in."""

import functools
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from doubles.embedders import Hashing
from doubles.tiny import save_tiny_llama

import plainchant as pc
import tutorial
from plainchant.models.table import TableModel

ROOT = Path(__file__).parents[2]
# the start page is a part of the README, and the reference is made of docstrings, which have a test of their own
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted({*(ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "index.md", *(ROOT / "docs" / "reference").glob("*")}),
]
# Snippets that cannot run here, by a piece of their text, each with the reason.
SKIPPED: dict[str, str] = {"from airflow import DAG": "needs Airflow"}
WORDS = ("<eos>", "Text:", "Label:", "\n", " ", "lamp", "bus", "late", "street", "broken", "bill", "wrong", "again")
# Tables and corpora that snippets name: each is made with records that the plans of the snippets can pay for.
TABLES = ("tickets.csv", "tickets.parquet", "tickets.jsonl", "private.jsonl")
CORPORA = ("encyclopaedia.jsonl", "corpus.jsonl")


def snippets():
    """Every Python snippet with the page that it stands in."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for code in re.findall(r"^ *```python(?: title=.*)?\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            yield page.name, textwrap.dedent(code)
    yield "plainchant.__doc__", pc.__doc__.split("\n", 1)[1]


def model():
    logits = np.array([-1.0, *[-9.0] * 3, *[0.0] * (len(WORDS) - 4)])
    return TableModel(WORDS, lambda row: logits + 0.01 * (len(row) % 3), end_of_text={0}, context_length=2_048)


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """A directory with the files that snippets name, and a model and an embedder that need none."""
    words = WORDS[5:]
    texts = [f"{one} {other}" for one in words for other in words]
    labels = ("bug", "billing")
    rows = [
        {"text": texts[n % 20], "label": labels[n // 20 % 2], "customer": f"customer {n % 1_500}"} for n in range(3_000)
    ]
    for name in TABLES:
        if name.endswith(".csv"):
            lines = [",".join(row.values()) for row in rows]
            (tmp_path / name).write_text("\n".join(["text,label,customer", *lines]), encoding="utf-8")
        elif name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
        else:
            (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for name in CORPORA:
        (tmp_path / name).write_text(
            "\n".join(json.dumps({"text": f"{text} in public"}) for text in texts[:32]), encoding="utf-8"
        )
    monkeypatch.chdir(tmp_path)
    fast = pc.PerformanceOptions(rows=64)
    synthesize = functools.partial(pc.synthesize, model=model(), embedder=Hashing(), performance=fast)
    monkeypatch.setattr(pc, "synthesize", synthesize)
    for name in ("evaluate", "compare"):
        monkeypatch.setattr(pc, name, functools.partial(getattr(pc, name), embedder=Hashing()))


@pytest.mark.parametrize(("page", "code"), list(snippets()), ids=[page for page, _ in snippets()])
def test_a_snippet_runs_as_it_stands(page, code, stand_ins, capsys):
    for piece, reason in SKIPPED.items():
        if piece in code:
            pytest.skip(reason)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    if "print(" in code:
        assert capsys.readouterr().out.strip()


def test_every_page_with_python_was_looked_at():
    pages = [page for page, _ in snippets()]
    assert {"README.md", "plainchant.__doc__"} <= set(pages)
    # no block of another spelling is left out
    for page in PAGES:
        spelled = re.findall(r"^ *```(?:python|py|pycon)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(spelled) == pages.count(page.name)


def test_what_is_skipped_is_there():
    assert [piece for piece in SKIPPED if not any(piece in code for _, code in snippets())] == []


# the first example of the README


def first_example():
    """The commands of the README's first example, as .ci/first-example takes them."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"<!-- first example -->\n```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]


SHIM = """
import sys
from pathlib import Path
import pytest
from doubles.quick import make_quick
make_quick(pytest.MonkeyPatch(), Path(sys.argv.pop(1)))
from plainchant.cli.main import main
main(prog_name="plainchant")
"""


def with_tiny_model(lines, folder):
    """What shell lines write in folder/here, where plainchant has a tiny model in place of its own."""
    (folder / "shim.py").write_text(SHIM)
    model = save_tiny_llama(folder / "model")
    here = folder / "here"
    here.mkdir(exist_ok=True)
    shim = shlex.join([sys.executable, str(folder / "shim.py"), str(model)])
    functions = f'plainchant() {{ {shim} "$@"; }}\npython() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PLAINCHANT_MODEL": "tiny",
        # a token of this model is a byte, and it reads 512
        "PLAINCHANT_MAX_RECORD_TOKENS": "40",
        "PLAINCHANT_MAX_TOKENS": "16",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", functions + lines],
        cwd=here, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_the_first_example_runs_as_it_stands_with_a_tiny_model(tmp_path):
    said = with_tiny_model(first_example(), tmp_path)
    here = tmp_path / "here"
    assert "500 by 'customer', with 4 rows each in the median" in said
    assert "all records that share a value of 'customer'" in said
    rows = (here / "runs" / "tickets" / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")
    assert len(rows) == 20
    assert {json.loads(row)["label"] for row in rows} <= {"bug", "billing"}
    # what the README says of the table is true
    assert len((here / "tickets.csv").read_text().splitlines()) == 2_001


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands_with_a_tiny_model(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    lines = []
    for kind, line, content in tutorial.steps(tutorial.PAGE.read_text(encoding="utf-8")):
        if kind == "file":
            # where a later command wrote this name, the reader writes over it
            lines.append(f"cat > {line} <<'END OF FILE'\n{content}END OF FILE")
        else:
            lines.append(line)
    said = with_tiny_model("\n".join(lines), tmp_path)
    assert "1,401 by 'customer'" in said
    out = here / "runs" / "tickets"
    assert len((out / "release" / "synthetic.jsonl").read_text().splitlines()) == 15
    for name in ("release/report.html", "release/statement.md", "private/statement.md", "view.html"):
        assert (out / name).is_file()


@pytest.mark.slow
def test_the_first_example_runs_as_it_stands(tmp_path):
    """As .ci/first-example, in this environment."""
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", first_example()],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "runs" / "tickets" / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")
    assert len(rows) == 20
    assert all(json.loads(row)["text"].strip() for row in rows)
