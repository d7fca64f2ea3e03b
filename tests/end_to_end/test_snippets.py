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
from plainchant.models.table import TableModel

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Snippets that cannot run here, by a piece of their text, each with the reason.
SKIPPED: dict[str, str] = {}
WORDS = ("<eos>", "Text:", "Label:", "\n", " ", "lamp", "bus", "late", "street", "broken", "bill", "wrong", "again")
# Tables and corpora that snippets name: each is made with records that the plans of the snippets can pay for.
TABLES = ("tickets.csv", "tickets.parquet", "tickets.jsonl", "private.jsonl")
CORPORA = ("encyclopaedia.jsonl", "corpus.jsonl")


def snippets():
    """Every Python snippet with the page that it stands in."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for code in re.findall(r"^ *```python\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
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


def test_the_first_example_runs_as_it_stands_with_a_tiny_model(tmp_path):
    (tmp_path / "shim.py").write_text(SHIM)
    model = save_tiny_llama(tmp_path / "model")
    here = tmp_path / "here"
    here.mkdir()
    shim = shlex.join([sys.executable, str(tmp_path / "shim.py"), str(model)])
    functions = f'plainchant() {{ {shim} "$@"; }}\npython() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PLAINCHANT_MODEL": "tiny",
        # a token of this model is a byte
        "PLAINCHANT_MAX_RECORD_TOKENS": "60",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", functions + first_example()],
        cwd=here, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "500 by 'customer', with 4 rows each in the median" in said
    assert "all records that share a value of 'customer'" in said
    rows = (here / "runs" / "tickets" / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")
    assert len(rows) == 20
    assert {json.loads(row)["label"] for row in rows} <= {"bug", "billing"}
    # what the README says of the table is true
    assert len((here / "tickets.csv").read_text().splitlines()) == 2_001
