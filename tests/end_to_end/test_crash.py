"""Killed at any moment, a run goes on, and neither spends nor releases anything twice."""

import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubles import crashes
from doubles.tables import OPTIONS

from plainchant.run import store
from plainchant.run.ledger import Ledger

TEXTS = 60
LONG = [*OPTIONS, "--texts", str(TEXTS), "--epsilon", "60", "--max-tokens", "48", "--rows", "10"]


def committed(out):
    """Rows of the texts table, or None before there is one."""
    try:
        # not read-only: whoever opens the database after a kill within a commit has to roll that back
        with sqlite3.connect(f"file:{out}/private/run.sqlite?mode=rw", uri=True, timeout=10) as database:
            found = database.execute("SELECT batch, position, text, tokens, rho FROM texts").fetchall()
        database.close()
        return found
    except sqlite3.OperationalError:
        return None


def wait_for(out, count, child):
    while child.poll() is None and len(committed(out) or ()) < count:
        time.sleep(0.02)


def test_kill_nine_three_times_and_resume(process, model, table, tmp_path):
    out = tmp_path / "run"
    arguments = ["run", *LONG, "--model", model, "--data", table, "--out", out]
    chance = random.Random()
    before = []
    for least in (1, 8, 16):
        child = process(*arguments)
        wait_for(out, least, child)
        time.sleep(chance.random() * 0.5)
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL, "the run ended before it could be killed"
        now = committed(out)
        assert set(before) <= set(now), "a committed text changed"
        before = now
        arguments = ["run", "--resume", "--data", table, "--out", out]
    assert not (out / "release").exists()
    child = process(*arguments)
    message = child.communicate()[1]
    assert child.returncode == 0, message
    found = committed(out)
    plan = json.loads((out / "plan.json").read_text())
    with sqlite3.connect(out / "private" / "run.sqlite") as database:
        planned = database.execute("SELECT batch, texts FROM batches WHERE texts > 0").fetchall()
    database.close()
    assert set(before) <= set(found)
    assert {(batch, position) for batch, position, *_ in found} == {
        (batch, position) for batch, texts in planned for position in range(texts)
    }
    assert len(found) == sum(texts for _, texts in planned) == TEXTS
    released = [
        json.loads(line)["text"] for line in (out / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")
    ]
    assert sorted(released) == sorted(text for _, _, text, _, _ in found)
    # the recorded cost is that of what was released, and within the plan
    costs = json.loads((out / "private" / "costs.json").read_text())
    assert costs["tokens"] == sum(tokens for *_, tokens, _ in found)
    for entry in costs["batches"]:
        own = [(tokens, rho) for batch, _, _, tokens, rho in found if batch == entry["batch"]]
        assert entry["tokens"] == sum(tokens for tokens, _ in own) <= plan["tokens_per_batch"]
        assert entry["rho"] == pytest.approx(entry["tokens"] * plan["rho_per_token"])
        assert entry["rho"] <= plan["rho_batch"] * (1 + 1e-9)


def test_control_c_leaves_a_run_that_goes_on(process, model, table, tmp_path):
    out = tmp_path / "run"
    arguments = ["run", *LONG, "--model", model, "--data", table, "--out", out]
    child = process(*arguments)
    wait_for(out, 1, child)
    # asleep it keeps the directory, however long the second one takes to begin
    child.send_signal(signal.SIGSTOP)
    second = process("run", "--resume", "--data", table, "--out", out)
    refusal = second.communicate()[1]
    assert second.returncode == 1
    assert "another process" in refusal
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGCONT)
    message = child.communicate()[1]
    assert child.returncode == 130, message
    assert "--resume" in message
    child = process("run", "--resume", "--data", table, "--out", out)
    child.communicate()
    assert child.returncode == 0
    assert len(committed(out)) == TEXTS


def everything(out):
    """All tables but the texts: noise, secret draws, notes."""
    with sqlite3.connect(out / "private" / "run.sqlite") as database:
        found = {
            table: database.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("origin", "cells", "batches", "members")
        }
    database.close()
    return found


def test_nothing_is_drawn_again_after_an_interruption(command, model, table, tmp_path, monkeypatch):
    """Interrupted before the first commit, between commits, and in the middle of the release."""
    out = tmp_path / "run"
    arguments = ["run", *OPTIONS, "--model", model, "--data", table, "--out", out]
    real, left = store.RunDirectory.commit, 0

    def commit(self, text):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        real(self, text)

    drawn, before = None, []
    with monkeypatch.context() as patched:
        patched.setattr(store.RunDirectory, "commit", commit)
        for left in (0, 1, 4):  # noqa: B007
            assert "--resume" in command(*arguments, code=130).err
            drawn = drawn or everything(out)
            now = committed(out)
            assert everything(out) == drawn
            assert set(before) <= set(now)
            assert not (out / "release").exists()
            before = now
            arguments = ["run", "--resume", "--data", table, "--out", out]
    assert len(before) == 5

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_parquet", interrupt)
        command(*arguments, code=130)
    complete = committed(out)
    assert len(complete) == 10
    assert set(before) <= set(complete)
    assert not (out / "release" / "guarantee.json").exists()
    command(*arguments)
    assert committed(out) == complete
    assert everything(out) == drawn
    released = [
        json.loads(line)["text"] for line in (out / "release" / "synthetic.jsonl").read_text().rstrip("\n").split("\n")
    ]
    assert sorted(released) == sorted(text for _, _, text, _, _ in complete)
    assert (out / "release" / "guarantee.json").exists()


def test_two_processes_cannot_share_a_directory(command, model, table, tmp_path):
    out = tmp_path / "run"
    command("run", *OPTIONS, "--model", model, "--data", table, "--out", out)
    with store.RunDirectory.open(out).locked():
        assert "another process" in command("run", "--resume", "--data", table, "--out", out, code=1).err
        command("status", out)


@pytest.fixture
def quick():
    with crashes.quick() as patch:
        yield patch


def test_random_runs_with_crashes_draw_write_and_pay_everything_once(quick, tmp_path):
    """A part of the thousand of `python bench/crashes.py`, always the same configurations and crashes."""
    found = [crashes.run(seed, tmp_path / str(seed)) for seed in range(40)]
    assert [(seed, outcome.wrong) for seed, outcome in enumerate(found) if outcome.wrong] == []
    # the test has power only where runs crash, at every stage, and units come close to what they may pay
    assert sum(outcome.crashes.total() for outcome in found) >= 40
    assert len({stage for outcome in found for stage in outcome.stages}) == 5
    assert sum(outcome.paid > 0.8 for outcome in found) >= 5
    kinds = {kind for outcome in found for kind in outcome.kinds}
    assert kinds >= {"plainchant", "invisibleink", "clustered-mean", "amin2024", "deals", "votes", "words", "a sample"}


def test_random_runs_that_are_killed_go_on():
    script = Path(__file__).parents[2] / "bench" / "crashes.py"
    command = [sys.executable, str(script), "--runs", "8", "--kills", "8", "--first", "1000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9" in done.stdout
    assert "0 violations" in done.stdout


@pytest.mark.parametrize("name", crashes.TWINS)
def test_power_broken_resumes_are_caught(quick, tmp_path, name):
    twin = crashes.TWINS[name]
    twin.breaks(quick)
    for seed in range(200):
        (tmp_path / f"plan {seed}").mkdir()
        if twin.shows_in(crashes.world_of(seed, tmp_path / f"plan {seed}").made):
            found = crashes.run(seed, tmp_path / str(seed), points=twin.points)
            if any(twin.wrong in wrong for wrong in found.wrong):
                return
    pytest.fail(f"{name}: was not found in any run")


def test_status_of_a_run_in_progress(command, model, table, tmp_path, monkeypatch):
    out, ledger = tmp_path / "run", tmp_path / "private.ledger"
    command("account", "--ledger", ledger, "--epsilon", 10)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        # before the ledger is charged, and with it before any noise is drawn
        patched.setattr("plainchant.run.synthesis.prepare_cells", interrupt)
        begin = ["run", *OPTIONS, "--model", model, "--data", table, "--out", out]
        command(*begin, "--ledger", ledger, code=130)
    assert not Ledger(ledger).runs
    for is_running in (True, False):
        with store.RunDirectory.open(out).locked() if is_running else contextlib.nullcontext():
            said = " ".join(command("status", out).out.split())
            found = json.loads(command("status", out, "--format", "json").out)
        assert found["running"] == is_running == ("a process is working in it now" in said)
        assert ("--resume" in said) != is_running
        # a path may be broken over lines
        assert (f"--ledger{ledger}" in said.replace(" ", "")) != is_running


def test_status_names_the_command_that_goes_on_as_fast_as_before(command, model, table, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("plainchant.run.synthesis.Run.finish", interrupt)
    out = tmp_path / "run"
    for passes in (3, 5):
        resumed = ["--resume"] * out.exists()
        command(
            "run", *OPTIONS, "--model", model, "--data", table, "--out", out, "--passes", passes, *resumed, code=130
        )
        said = " ".join(command("status", out).out.split())
        assert f"--resume --passes {passes}" in said
