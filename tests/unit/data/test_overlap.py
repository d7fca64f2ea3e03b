"""Public inputs that are private are refused by content, and never shown."""

import json
import shutil
import time
from pathlib import Path

import pytest

from plainchant.config import PromptConfig, SynthesisConfig
from plainchant.data.overlap import Overlap, check_public_inputs
from plainchant.data.tables import Record, read_records
from plainchant.errors import DataError, PrivacyError
from plainchant.planning import make_plan
from plainchant.run.inputs import read_corpus, refuse_private_inputs
from plainchant.run.ledger import Ledger
from plainchant.run.synthesis import synthesize

MARKER = "zqxsecretzqx"
TEXTS = [f"{MARKER} note {number}" for number in range(40)]
TABLE = [Record(text, None, None) for text in TEXTS]


def _save(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def _refused(field: str, **inputs: object) -> None:
    with pytest.raises(PrivacyError) as caught:
        check_public_inputs(inputs.pop("source", None), TABLE, **inputs)  # type: ignore[arg-type]
    assert str(caught.value).startswith(field)
    assert MARKER not in str(caught.value)
    assert caught.value.exit_code == 3


def test_the_same_file_is_refused_under_any_name(tmp_path: Path) -> None:
    data = _save(tmp_path / "private.jsonl", TEXTS)
    (tmp_path / "link.jsonl").symlink_to(data)
    shutil.copy(data, tmp_path / "copy.jsonl")
    for name in ("private.jsonl", "link.jsonl", "copy.jsonl"):
        _refused("public_corpus", source=data, public_corpus=str(tmp_path / name), corpus=TEXTS)
        _refused("centres", source=data, centres=str(tmp_path / name))


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS,
        TEXTS[::-1],
        [f"  {text.upper()}\n" for text in TEXTS],
        *([f"{text}{sign}" for text in TEXTS] for sign in (".", "\u0301", "\u200b", "\u202e", "!?", "\u00ad")),
        [text.replace("e", "\uff45").replace("s", "\u017f") for text in TEXTS],  # other forms of the same letters
        TEXTS[:21],  # most of the corpus, and most of the table
        TEXTS[:3],  # all of the corpus
        [*TEXTS, *(f"public {number}" for number in range(400))],  # all of the table
    ],
)
def test_most_rows_the_same_are_refused(texts: list[str]) -> None:
    _refused("public_corpus", corpus=texts)


def test_a_smaller_overlap_is_a_share() -> None:
    corpus = [*TEXTS[:10], *(f"public {number}" for number in range(30))]
    found = check_public_inputs(None, TABLE, corpus=corpus, examples=[TEXTS[0], "made up", "another"])
    assert found == Overlap(0.25, 0.25, 1 / 3)
    assert check_public_inputs(None, TABLE) == Overlap()
    assert check_public_inputs("private.jsonl", TABLE, centres=100) == Overlap()


def test_blank_texts_are_nothing_in_common() -> None:
    table = [Record("", None, None)] * 30 + TABLE[:1]
    assert check_public_inputs(None, table, corpus=["", "a"]) == Overlap()


def test_examples_that_are_rows_are_refused() -> None:
    _refused("prompt.examples", examples=[TEXTS[3]])
    _refused("prompt.examples", examples=[TEXTS[3], f" {TEXTS[4]} ", "made up"])


@pytest.mark.parametrize("field", ["header", "example", "chat"])
def test_templates_that_are_rows_are_refused(field: str) -> None:
    for template in (TEXTS[0], f"{TEXTS[0]}.\n{TEXTS[1]}\nText: {{text}}\n", f"{TEXTS[2].upper()} {{text}}"):
        _refused(f"prompt.{field}", templates={f"prompt.{field}": template})
    prompt = PromptConfig(**{field: f"{TEXTS[3]}\n{TEXTS[4]}\n{{text}}"})
    with pytest.raises(PrivacyError, match=f"prompt.{field}: consists mostly"):
        refuse_private_inputs(None, TABLE, None, SynthesisConfig(prompt=prompt))


def test_a_short_line_of_a_template_may_be_a_row_by_chance() -> None:
    table = [Record("Text:", None, None), Record("note", None, None)]
    templates = {"prompt.example": "Text: {text}\n", "prompt.header": "Notes that people wrote:\n"}
    assert check_public_inputs(None, table, templates=templates) == Overlap()


def test_texts_of_signs_only_are_compared_as_they_are() -> None:
    table = [Record("\U0001f600 \U0001f600", None, None)]
    assert check_public_inputs(None, table, corpus=["\U0001f600", "!!"]) == Overlap()
    with pytest.raises(PrivacyError, match="public_corpus"):
        check_public_inputs(None, table, corpus=["\U0001f600  \U0001f600"])


def test_a_corpus_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_corpus(SynthesisConfig(public_corpus=str(tmp_path / "none.jsonl")))


def test_it_is_linear() -> None:
    long = "word " * 800_000 + "\u0301\u0316" * 400_000
    began = time.monotonic()
    check_public_inputs(None, [Record(long, None, None)], corpus=["a"])
    assert time.monotonic() - began < 20


def test_a_run_refuses_before_anything_is_made_or_spent(tmp_path: Path) -> None:
    data = _save(tmp_path / "private.jsonl", TEXTS)
    config = SynthesisConfig(method="plainchant", epsilon=8, public_corpus=str(data), model="no such model")
    ledger = tmp_path / "ledger.json"
    Ledger.create(ledger, 10.0, 1e-6)
    before = sorted(tmp_path.iterdir())
    ledger_before = ledger.read_bytes()
    with pytest.raises(PrivacyError, match="public_corpus: is the private table itself"):
        synthesize(data, make_plan(config), out=tmp_path / "run", ledger=ledger)
    with pytest.raises(PrivacyError, match="public_corpus: holds most"):
        synthesize([{"text": text} for text in TEXTS], make_plan(config), out=tmp_path / "run", ledger=ledger)
    assert ledger.read_bytes() == ledger_before
    assert sorted(tmp_path.iterdir()) == before
    assert len(read_records(data)) == len(TEXTS)
