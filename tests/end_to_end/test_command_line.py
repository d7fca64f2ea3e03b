"""What holds for commands in general: formats, the order of settings, configuration files, whole tables of any kind."""

import json
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from doubles.tables import MARKER, OPTIONS, rows

from plainchant.config import SynthesisConfig, parse_config

# prompt and columns are tables of a configuration file
FIELDS = [name for name in SynthesisConfig.model_fields if name not in ("prompt", "columns")]


@pytest.fixture
def finished(command, model, table, tmp_path):
    command("run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["plan", "account", "status", "run"])
def test_json_is_one_document_and_quiet_one_line(command, model, table, tmp_path, finished, name):
    commands: dict[str, list[Any]] = {
        "plan": ["plan"],
        "account": ["account", "--epsilon", 8, "--max-tokens", 20],
        "status": ["status", finished],
        "run": ["run", "--resume", "--data", table, "--out", finished],
    }
    arguments = commands[name]
    document = command(*arguments, "--format", "json")
    assert isinstance(json.loads(document.out), dict)
    assert not document.err
    quiet = command(*arguments, "--format", "quiet")
    assert len(quiet.out.splitlines()) == 1
    assert not quiet.err
    human = command(*arguments)
    with pytest.raises(ValueError):
        json.loads(human.out)
    assert human.out.strip()


def test_a_refusal_in_json_leaves_stdout_empty(command, tmp_path):
    refused = command("plan", "--epsilon", 0, "--format", "json", code=2)
    assert not refused.out
    assert "epsilon = 0" in refused.err


@pytest.mark.parametrize("name", ["plan", "run"])
def test_every_field_is_an_option(command, name):
    text = command(name, "--help").out
    for field in FIELDS:
        assert f"--{field.replace('_', '-')} " in text
    assert "VALUE" not in text
    assert "\\b" not in text


def test_a_run_takes_option_before_environment_before_file(command, model, table, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(
        f'method = "clustered-mean"\nmodel = "{model}"\n'
        'clusters = "none"\nsupport = "top_k"\nclipping = "difference"\nclip = 1.5\n'
        'batch_size = 10\nmax_tokens = 12\nmax_record_tokens = 40\nlabel_column = "label"\nlabels = ["green"]\n'
        "texts = 3\ntop_k = 50\n"
        '[prompt]\nheader = "Notes:\\n\\n"\n[[prompt.examples]]\nlabel = "red"\ntext = "A made-up note"\n'
    )
    environment = {"PLAINCHANT_LABELS": "red, blue", "PLAINCHANT_TEXTS": "5", "PLAINCHANT_EPSILON": "9"}
    out = tmp_path / "run"
    command("run", file, "--texts", 4, "--data", table, "--out", out, env=environment)
    kept = parse_config((out / "config.toml").read_text(encoding="utf-8"))
    assert (kept.texts, kept.epsilon, kept.labels, kept.top_k) == (4, 9.0, ("red", "blue"), 50)
    assert kept.delta == SynthesisConfig().delta
    assert kept.prompt.examples[0].text == "A made-up note"
    assert len((out / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")) == 4
    # what stands in the environment is asked for on resume too, and another value is refused
    assert (
        "texts" in command("run", "--resume", "--data", table, "--out", out, env={"PLAINCHANT_TEXTS": "6"}, code=2).err
    )


def test_the_same_table_in_another_format_is_the_same_data(command, table, tmp_path, finished):
    before = (finished / "release" / "synthetic.jsonl").read_bytes()
    records = rows()
    parquet = tmp_path / "private.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), parquet)
    csv = tmp_path / "private.csv"
    csv.write_text("unit,label,text\n" + "\n".join(f"{r['unit']},{r['label']},{r['text']}" for r in records))
    for data in (parquet, csv):
        command("run", "--resume", "--data", data, "--out", finished)
    assert (finished / "release" / "synthetic.jsonl").read_bytes() == before
    # one record less, or two that change places, is not
    shorter = tmp_path / "shorter.csv"
    shorter.write_text("\n".join(csv.read_text().splitlines()[:-1]))
    assert "data" in command("run", "--resume", "--data", shorter, "--out", finished, code=2).err


def test_a_unit_column_is_what_the_guarantee_protects(command, model, tmp_path):
    data = tmp_path / "units.jsonl"
    data.write_text("\n".join(json.dumps(row | {"unit": row["unit"][:-1]}) for row in rows(400)))
    out = tmp_path / "run"
    command("run", *OPTIONS, "--model", model, "--data", data, "--unit-column", "unit", "--out", out, "--texts", 2)
    guarantee = json.loads((out / "release" / "guarantee.json").read_text())
    assert "'unit'" in guarantee["unit"]
    assert guarantee["unit"] in guarantee["statement"]


def test_private_files_are_for_their_owner_alone(finished):
    readable = {path.name for path in (finished / "private").iterdir() if path.stat().st_mode & 0o077}
    assert readable <= {"lock"}, "and that one is empty"
    assert not (finished / "private" / "lock").read_bytes()


def test_release_holds_no_measured_cost_and_no_private_word(finished):
    files = {path.name: path.read_text() for path in (finished / "release").glob("*.[jm]*")}
    assert set(files) == {"README.md", "guarantee.json", "synthetic.jsonl"}
    assert not any(word in content for content in files.values() for word in ("ex_post", '"loss"', MARKER))
    assert {"text", "label", "cell"} == set(json.loads(files["synthetic.jsonl"].split("\n")[0]))
    plan = json.loads((finished / "plan.json").read_text())
    assert plan["guarantee"] == json.loads(files["guarantee.json"])


def test_doctor_says_what_does_not_load(command, model, tmp_path):
    found = command(
        "doctor", "--model", model, "--embedder", tmp_path / "none", "--rows", 2, "--format", "json", code=1
    )
    assert "embedder" in json.loads(found.out)["verdict"]
    assert "seconds to load" in found.out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-tokens", 0),
        ("--max-tokens", -5),
        ("--batch-size", 0),
        ("--numerical-slack", -1),
        ("--clip", 0),
        ("--temperature", "nan"),
    ],
)
def test_account_names_what_is_out_of_bounds(command, option, value):
    message = command("account", "--epsilon", 8, "--batch-size", 10, option, value, code=2).err
    assert option.lstrip("-").replace("-", "_") in message.replace("-", "_")


def test_init_where_nothing_can_be_written(command, tmp_path):
    assert "FILE = " in command("init", tmp_path / "missing" / "c.toml", code=2).err


def test_status_of_a_run_in_progress_says_how_to_go_on(command, model, table, tmp_path, monkeypatch):
    from plainchant.run.store import RunDirectory

    def interrupt(self, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "commit", interrupt)
        command("run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run", code=130)
    assert "--resume" in command("status", tmp_path / "run").out
    document = json.loads(command("status", tmp_path / "run", "--format", "json").out)
    assert not document["finished"]
    assert document["texts"] == 0
    assert document["texts_planned"] == 10
