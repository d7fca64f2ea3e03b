"""Bad input: a clear message and the right exit code, or a sensible run; never a private word (see `command`)."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from doubles.tables import MARKER, OPTIONS, rows, write

from plainchant.cli.main import main
from plainchant.run.ledger import Ledger

USAGE, PRIVACY = 2, 3


@pytest.fixture
def run(command, model, tmp_path):
    def go(data, *extra, code=0, out="run"):
        return command("run", *OPTIONS, "--model", model, "--data", data, "--out", tmp_path / out, *extra, code=code)

    return go


@pytest.mark.parametrize(
    ("option", "value", "code", "words"),
    [
        ("--epsilon", "0", USAGE, "epsilon = 0"),
        ("--epsilon", "-1", USAGE, "epsilon = -1"),
        ("--epsilon", "nan", USAGE, "epsilon = nan"),
        ("--epsilon", "inf", USAGE, "epsilon = inf"),
        ("--epsilon", "many", USAGE, "'--epsilon': 'many'"),
        ("--epsilon", "1e-6", PRIVACY, "batch_size"),
        ("--delta", "0", USAGE, "delta = 0"),
        ("--delta", "1", USAGE, "delta = 1"),
        ("--method", "plainsong", USAGE, "clustered-mean"),
        ("--labels", "", USAGE, "labels"),
        ("--temperature", "0", USAGE, "temperature"),
        ("--temperature", "inf", USAGE, "temperature"),
        ("--numerical-slack", "inf", USAGE, "numerical_slack"),
        ("--numerical-slack", "5e-4", PRIVACY, "numerical_slack"),
        ("--max-record-tokens", "5000", USAGE, "max_record_tokens"),
        ("--accounting", "public", PRIVACY, "accounting"),
        ("--device", "abacus", USAGE, "device"),
        ("--dtype", "float16", USAGE, "dtype"),
        ("--rows", "none", USAGE, "rows"),
    ],
)
def test_options_out_of_bounds(run, table, tmp_path, option, value, code, words):
    assert words in run(table, option, value, code=code).err
    assert not (tmp_path / "run").exists()


def test_unknown_option_field_and_file(command, tmp_path):
    command("run", "--epsilom", 3, code=USAGE)
    config = tmp_path / "c.toml"
    config.write_text("epsilom = 3\n")
    assert "did you mean epsilon" in command("plan", config, code=USAGE).err
    config.write_text("epsilon = = 3\n")
    assert "TOML" in command("plan", config, code=USAGE).err
    assert "plainchant init" in command("plan", tmp_path / "none.toml", code=USAGE).err


def test_enormous_epsilon_runs_and_warns(run, table):
    assert "next to nothing" in run(table, "--epsilon", "1e9").err


def test_too_little_data_is_refused_after_the_noisy_counts(run, command, tmp_path):
    assert "too small" in run(write(tmp_path / "one.jsonl", rows(1)), "--batch-size", 60, code=PRIVACY).err
    # and says the same when it is asked to go on
    again = command("run", "--resume", "--data", tmp_path / "one.jsonl", "--out", tmp_path / "run", code=PRIVACY)
    assert "too small" in again.err
    assert not (tmp_path / "run" / "release").exists()


def test_one_label_only_is_a_run_with_fewer_texts(run, tmp_path):
    data = write(tmp_path / "red.jsonl", [row | {"label": "red"} for row in rows()])
    run(data)


def test_odd_records_are_records(run, tmp_path):
    odd = [
        {"text": f"{MARKER} " * 50_000, "label": "red"},
        {"text": f"🎵🏳️‍🌈 {MARKER} שלום مرحبا \u202e", "label": "blue"},
        {"text": f"a\x00b{MARKER}\x00", "label": "red"},
        {"text": "", "label": "blue"},
        {"text": None, "label": "red"},
        {"text": [MARKER], "label": "blue"},
        {"text": f"<eos><bos>{MARKER}", "label": "red"},
        {"text": f"\ud800{MARKER}", "label": "blue"},
        {"text": "of no label", "label": MARKER},
        {"text": "of none"},
    ]
    run(write(tmp_path / "odd.jsonl", rows() + odd))


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("labels = ['a']", "label_column"),
        ("label_column = 'label'", "labels"),
        ("label_column = 'label'\nlabels = ['a', 'a']", "labels"),
        ("labels = 'ab'", "labels"),
        ("epsilon = 'x'", "epsilon"),
        ("texts = 1.5", "texts"),
        ("max_tokens = 3", "min_tokens = 4"),
        ("batch_size = 0", "batch_size = 0"),
        ("centres = 0", "centres = 0"),
        ("kept = 0", "kept = 0"),
        ("clip = nan", "clip = nan"),
        ("rebalance_share = 1", "rebalance_share"),
        ("expected_units = 0", "expected_units"),
        ("prompt = 3", "prompt"),
        ("label_column = 'label'\nlabels = ['', 'a']", "labels"),
        ("label_column = 'label'\nlabels = ['Cafe\u0301', 'Caf\u00e9']", "labels"),
        ("encoding = 'none'", "encoding"),
        ("separator = 'none'", "separator"),
        ("[prompt]\nexample = 'no place for it'", "prompt.example"),
        ("[prompt]\nexamlpe = '{text}'", "did you mean example"),
        ("[[prompt.examples]]\ntext = 'a'\nlabel = 'zz'", "prompt.examples"),
    ],
)
def test_a_configuration_out_of_bounds_names_the_field(command, tmp_path, toml, words):
    (tmp_path / "c.toml").write_text(toml)
    refused = command("plan", tmp_path / "c.toml", code=USAGE)
    assert words in refused.err
    assert not refused.out


def test_a_batch_larger_than_the_data_is_refused(run, table):
    assert "batch_size = 5000" in run(table, "--batch-size", 5000, code=PRIVACY).err


def test_tables_that_are_no_tables(run, tmp_path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(MARKER.encode() * 20)
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\x00\xff" * 100 + MARKER.encode())
    headless = tmp_path / "headless.csv"
    headless.write_text(f"a note about {MARKER},red\nanother {MARKER},blue\n")
    for file, words in ((broken, "Parquet"), (binary, "JSON"), (headless, "header"), (tmp_path, "directory")):
        assert words in run(file, code=USAGE).err
        assert not (tmp_path / "run").exists()


def test_broken_lines_are_records(run, tmp_path):
    lines = tmp_path / "lines.jsonl"
    write(lines, rows())
    lines.write_text(f'{lines.read_text()}\n{{broken {MARKER}\n["{MARKER}"]\n"{MARKER}"\n')
    run(lines, out="lines")
    table = tmp_path / "table.csv"
    body = "\n".join(f"{MARKER} {n},{('red', 'blue')[n % 2]}" for n in range(80))
    table.write_bytes(
        f'text,label\n{body}\nnul \0 {MARKER},red\n{MARKER},red,too many\n"open {MARKER}'.encode() + b"\xff"
    )
    run(table, out="table")


def test_what_an_unexpected_error_says_is_not_shown(model, table, tmp_path, monkeypatch):
    """A library's exception may quote a record, in its own message or in the one it came from."""

    def fail(*_):
        try:
            raise KeyError(f"inner {MARKER}")
        except KeyError as error:
            raise ValueError(f"outer {MARKER}") from error

    monkeypatch.setattr("plainchant.generation.prompting.Prompts.record", fail)
    words = ["run", *OPTIONS, "--model", str(model), "--data", str(table), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "unexpected ValueError" in result.stderr
    assert MARKER not in result.output
    assert MARKER not in str(result.exception)


def _labelled(value):
    return [row | {"label": value(number)} for number, row in enumerate(rows())]


def test_public_inputs_that_are_private_are_refused(run, table, tmp_path):
    copy = write(tmp_path / "copy.jsonl", rows()[::-1])
    ledger = tmp_path / "ledger.json"
    Ledger.create(ledger, 100.0, 1e-6)
    before = ledger.read_bytes()
    for corpus in (table, copy):
        refused = run(
            table, "--clusters", "public-centres", "--public-corpus", corpus, "--ledger", ledger, code=PRIVACY
        )
        assert "public_corpus" in refused.err
    assert "centres" in run(table, "--clusters", "public-centres", "--centres", table, code=PRIVACY).err
    assert ledger.read_bytes() == before
    assert not (tmp_path / "run").exists()


def test_tables_of_a_wrong_form_are_refused_before_anything_is_made(run, tmp_path):
    text = "\n".join(f"Straße {MARKER} {n},{('red', 'blue')[n % 2]}" for n in range(80))
    latin = tmp_path / "latin.csv"
    latin.write_bytes(f"text,label\n{text}\n".encode("cp1252"))
    struct = tmp_path / "struct.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [{"body": MARKER}] * 80, "label": ["red"] * 80}), struct)
    empty = write(tmp_path / "empty.jsonl", [row | {"text": ""} for row in rows()])
    indented = tmp_path / "indented.jsonl"
    indented.write_text(json.dumps(rows(), indent=1))
    others = write(tmp_path / "others.jsonl", _labelled(lambda n: f"{MARKER}{n % 2}"))
    cases = (
        (latin, "--encoding"),
        (struct, "of type struct"),
        (empty, "have no text"),
        (indented, "JSON"),
        (others, "labels = red, blue"),
    )
    for file, words in cases:
        assert words in run(file, code=USAGE).err
        assert not (tmp_path / "run").exists()


def test_tables_of_another_dialect_are_read_with_a_note(run, tmp_path):
    text = "\n".join(f"{MARKER} café {n};{('Red', ' BLUE')[n % 2]}" for n in range(80))
    file = tmp_path / "semi.csv"
    file.write_bytes(f"text;label\n{text}\n".encode("utf-16"))
    told = run(file)
    assert "warning: data" in told.err
    assert "byte order mark" in told.err
    assert "separator ';'" in told.err
