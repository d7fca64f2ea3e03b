"""Every command, as a user types it."""

import json
import stat

import pyarrow.parquet
import pytest
from doubles.tables import OPTIONS, write

from plainchant.config import SynthesisConfig, parse_config
from plainchant.planning import make_plan
from plainchant.privacy.histograms import Cell
from plainchant.run.store import Batch, RunDirectory

GUARANTEE = {
    "kind", "epsilon", "delta", "rho", "curve", "unit", "relation", "method", "version", "statement", "delta_found",
}  # fmt: skip


def test_init_writes_the_defaults_and_plan_reads_them(command, tmp_path):
    file = tmp_path / "mine.toml"
    command("init", file)
    assert parse_config(file.read_text(encoding="utf-8")) == SynthesisConfig()
    uncommented = "\n".join(
        line[2:] if line.startswith(("# epsilon =", "# texts =", "# labels =")) else line
        for line in file.read_text(encoding="utf-8").splitlines()
    )
    assert parse_config(uncommented) == SynthesisConfig()
    assert "guarantee" in command("plan", file).out
    command("init", file, code=2)


def test_formats_put_data_on_stdout_only(command):
    document = json.loads(command("plan", "--format", "json").out)
    assert set(document["guarantee"]) == GUARANTEE
    quiet = command("plan", "--format", "quiet")
    assert quiet.out.strip() == document["guarantee"]["statement"]
    assert not quiet.err
    assert json.loads(command("account", "--rho", 1, "--format", "json").out)["epsilon"] == pytest.approx(
        7.77, abs=0.01
    )


def test_option_goes_before_environment_before_file_before_default(command, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("epsilon = 4.0\n")

    def epsilon(*arguments, env=None):
        document = json.loads(command("plan", *arguments, "--format", "json", env=env).out)
        return round(document["guarantee"]["epsilon"])

    environment = {"PLAINCHANT_EPSILON": "5"}
    assert epsilon() == 8
    assert epsilon(file) == 4
    assert epsilon(file, env=environment) == 5
    assert epsilon(file, "--epsilon", 6, env=environment) == 6
    # a promise does not change unseen
    assert "warning: epsilon = 5 is taken from PLAINCHANT_EPSILON" in command("plan", file, env=environment).err
    assert "PLAINCHANT" not in command("plan", file, "--epsilon", 6, env=environment).err


def test_account_turns_batch_sizes_into_tokens_and_back(command):
    size = json.loads(command("account", "--epsilon", 8, "--max-tokens", 50, "--format", "json").out)["batch_size"]
    for batch_size, pays in ((size, True), (size - 1, False)):
        out = command("account", "--epsilon", 8, "--batch-size", batch_size, "--format", "json").out
        assert (json.loads(out)["tokens_per_batch"] >= 50) is pays
    command("account", code=2)
    command("account", "--rho", 1, "--epsilon", 1, code=2)
    # where no batch is large enough
    small = command("account", "--epsilon", 0.02, "--max-tokens", 64)
    assert "no batch of up to 100,000 records pays for 64 tokens" in small.err
    assert command("account", "--epsilon", 0.02, "--max-tokens", 64, "--format", "quiet").out.split()[-1] == "–"


def test_run_releases_resumes_and_refuses(command, model, table, tmp_path):
    out = tmp_path / "run"
    arguments = ["run", *OPTIONS, "--model", model, "--data", table, "--out", out]
    done = command(*arguments, "--format", "json")
    told = json.loads(done.out)
    texts = [json.loads(line) for line in (out / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")]
    assert len(texts) == told["texts"]
    assert {text["label"] for text in texts} == {"red", "blue"}
    assert pyarrow.parquet.read_table(out / "release" / "synthetic.parquet").to_pylist() == texts
    guarantee = json.loads((out / "release" / "guarantee.json").read_text())
    assert set(guarantee) == GUARANTEE
    assert guarantee["kind"] == "ex-ante"
    assert 7 < guarantee["epsilon"] <= 8
    assert guarantee["statement"] in (out / "release" / "README.md").read_text()
    assert stat.S_IMODE((out / "private").stat().st_mode) == 0o700
    assert sorted(path.name for path in (out / "release").iterdir()) == [
        "README.md", "guarantee.json", "synthetic.jsonl", "synthetic.parquet",
    ]  # fmt: skip
    # a finished run stays as it is; its own configuration is what --resume takes
    command("run", "--resume", "--data", table, "--out", out)
    assert [
        json.loads(line) for line in (out / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")
    ] == texts
    command(*arguments, code=2)
    command("run", "--resume", "--epsilon", 7, "--data", table, "--out", out, code=2)
    other = write(tmp_path / "other.jsonl", [{"text": "another", "label": "red"}] * 40)
    command("run", "--resume", "--data", other, "--out", out, code=2)
    status = json.loads(command("status", out, "--format", "json").out)
    assert status["finished"]
    assert status["texts"] == len(texts)
    assert status["private"]["note"]
    # what was measured afterwards would read like a promise that was broken
    said = command("status", out).out
    assert "ex post" not in said
    assert "fixed before the run" in " ".join(said.split())
    # what is written without a release is not finished: evaluate would find nothing
    (out / "private" / "release.json").unlink()
    assert not json.loads(command("status", out, "--format", "json").out)["finished"]
    assert "--resume" in command("status", out).out


def test_release_loads_as_a_data_set(command, model, table, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "run"
    command("run", *OPTIONS, "--model", model, "--data", table, "--out", out)
    loaded = datasets.load_dataset(str(out / "release"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == len((out / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n"))


def test_public_reads_no_data_and_non_private_needs_to_be_meant(command, model, table, tmp_path):
    small = ["--model", model, "--max-tokens", 8, "--texts", 4]
    command("run", "--method", "public", *small, "--out", tmp_path / "public")
    guarantee = json.loads((tmp_path / "public" / "release" / "guarantee.json").read_text())
    assert guarantee["epsilon"] == 0
    assert guarantee["kind"] == "ex-ante"
    bare = ["run", "--method", "non-private", "--clusters", "none", *small, "--data", table, "--out", tmp_path / "bare"]
    assert "i-know-this-is-not-private" in command(*bare, code=3).err
    assert not (tmp_path / "bare").exists()
    command(*bare, "--i-know-this-is-not-private")
    assert json.loads((tmp_path / "bare" / "release" / "guarantee.json").read_text())["kind"] == "none"


@pytest.mark.parametrize(
    "name", ["", "demo", "init", "plan", "run", "status", "account", "doctor", "view", "statement", "push"]
)
def test_help_is_there(command, name):
    assert "Usage" in command(*([name] if name else []), "--help").out


def test_help_is_a_command_too(command):
    assert command("help").out == command("--help").out
    for name in ("run", "audit"):
        assert command("help", name).out == command(name, "--help").out
    assert "labels: no such command; known are account, audit" in command("help", "labels", code=2).err


def test_a_ledger_refuses_before_anything_is_read(command, model, table, tmp_path):
    ledger = tmp_path / "private.ledger"
    command("account", "--ledger", ledger, "--epsilon", 10)
    command("run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "a", "--ledger", ledger)
    command("run", "--resume", "--data", table, "--out", tmp_path / "a", "--ledger", ledger)
    document = json.loads(command("account", "--ledger", ledger, "--format", "json").out)
    assert len(document["runs"]) == 1
    assert 0 < document["epsilon_spent"] <= 8
    # neither the model nor the data exists: the refusal comes first
    arguments = ["--model", tmp_path / "none", "--data", tmp_path / "none", "--out", tmp_path / "b"]
    assert "left of its cap" in command("run", *OPTIONS, *arguments, "--ledger", ledger, code=3).err
    assert not (tmp_path / "b").exists()


def test_the_default_method_runs_and_its_plan_is_measured(command, model, table, tmp_path):
    """Individual accounting and released examples, on a transformer, through an interruption."""
    out = tmp_path / "run"
    options = ["--clusters", "none", "--batch-size", 10, "--expected-range", "0.3", "--texts", 14, "--max-tokens", 12]
    options += ["--max-record-tokens", 40, "--model", model]
    command("plan", *options, "--public-corpus", table, "--measure", "--format", "json")
    command("run", *options, "--data", table, "--out", out)
    guarantee = json.loads((out / "release" / "guarantee.json").read_text())
    assert guarantee["kind"] == "ex-ante"
    assert guarantee["epsilon"] <= 8
    assert guarantee["method"] == "plainchant"
    paid = json.loads(command("status", out, "--format", "json").out)["private"]["records"]
    assert 0 < paid["median"] <= paid["largest"] <= paid["budget"]
    directory = RunDirectory.open(out)
    payments = {batch.batch: batch.payment for batch in directory.batches()}
    assert len({batch.deal for batch in directory.batches()}) > 1
    spent = [(spent, payments[batch]) for batch, own in directory.members().items() for _, spent in own]
    assert max(paid for paid, _ in spent) > 0
    assert all(paid <= payment for paid, payment in spent)
    assert len((out / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")) == 14


def test_several_units_share_a_context(command, model, table, tmp_path):
    out = tmp_path / "run"
    options = ["--clusters", "none", "--batch-size", 10, "--expected-range", "0.3", "--texts", 3, "--max-tokens", 12]
    options += ["--max-record-tokens", 40, "--model", model, "--records-per-context", 2, "--no-deals"]
    command("run", *options, "--data", table, "--out", out)
    directory = RunDirectory.open(out)
    contexts = [(records, spent) for own in directory.members().values() for records, spent in own]
    assert max(len(own) for own in directory.members().values()) <= 10
    assert max(len(records) for records, _ in contexts) > 1
    # without deals every unit is in one context
    assert sum(len(records) for records, _ in contexts) == 80
    # the units of a context pay together, a quarter of the budget at most
    plan = json.loads((out / "plan.json").read_text())
    assert all(spent <= plan["rho_batch"] / 4 for _, spent in contexts)
    assert max(spent for _, spent in contexts) > 0


@pytest.mark.parametrize(("method", "own"), [("plainchant", [7, 2]), ("private-evolution", [0, 0])])
def test_status_counts_batches_in_one_way(command, tmp_path, method, own):
    """Those that a cell's units are drawn into; with deals fewer of them write, and some of them several times."""
    plan = make_plan(SynthesisConfig(method=method, labels=("red", "blue"), label_column="label", expected_units=5_000))
    assert bool(plan.deals) == (method == "plainchant")
    out = RunDirectory.create(tmp_path / "run", plan, plan.guarantee, data="x", private=True)
    cells = [Cell(label, 0, 90, count or 1) for label, count in enumerate(own)]
    writing = [Batch(number, 0, 1, number, 0.01) for number in range(3)] if any(own) else []
    out.save_batches(cells, writing, [])
    document = json.loads(command("status", out.path, "--format", "json").out)
    assert [cell["batches"] for cell in document["cells"]] == own
    said = command("status", out.path).out.splitlines()
    assert f"2, {sum(own)}" in " ".join(next(line for line in said if line.startswith("kept cells")).split())
    assert [int(line.split()[-1]) for line in said[-2:]] == own
