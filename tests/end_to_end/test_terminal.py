"""Odd terminals, full disks, closed pipes and impatient users: one sentence, the right exit code, nothing lost."""

import errno
import json
import os
import shlex
import subprocess
import sys

import pytest
from doubles.tables import MARKER, OPTIONS

from plainchant.cli.console import Console, OutputError
from plainchant.evaluation.figures import MAUVE, Evaluation, Figure
from plainchant.run.store import RunDirectory

ESCAPES = "red\x1b[31m\x9b2J\x07\r\u202e"
SHOWN = r"red\x1b[31m\x9b2J\x07\x0d\u202e"
# A process that presses Ctrl-C on itself when a module is first looked for.
PRESS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["PRESS_AT"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
from plainchant.__main__ import entry
entry()
"""
# One that is asked to end after two texts.
TERMINATED = """
import os, signal, time
from plainchant.run.store import RunDirectory
real, left = RunDirectory.commit, iter("ab")
def commit(self, text):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    real(self, text)
RunDirectory.commit = commit
from plainchant.__main__ import entry
entry()
"""
# One that presses it in the middle of a commit, and once more while the first is handled.
TWICE = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from plainchant.run.store import RunDirectory
def commit(self, text):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
RunDirectory.commit = commit
from plainchant.__main__ import entry
entry()
"""


def python(*arguments, **settings):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | settings.pop("env", {})
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, timeout=300, env=environment, **settings
    )


def told(done):
    message = done.stderr.decode()
    for word in ("Traceback", "unexpected", MARKER):
        assert word not in message, message
    return message


@pytest.mark.parametrize(
    "module", ["plainchant.cli.main", "numpy", "click", "pydantic", "scipy.optimize", "plainchant.cli.judge"]
)
def test_interrupted_while_the_command_line_is_imported(module):
    done = python("-c", PRESS, "plan", env={"PRESS_AT": module})
    assert told(done).split() == ["error:", "interrupted"]
    assert done.returncode == 130
    assert not done.stdout


@pytest.mark.parametrize("module", ["plainchant.run.synthesis", "torch", "transformers", "plainchant.models"])
def test_interrupted_while_a_command_imports(module, model, table, tmp_path):
    arguments = ["--format", "quiet", "run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run"]
    done = python("-c", PRESS, *arguments, env={"PRESS_AT": module})
    assert "error: interrupted" in told(done)
    assert done.returncode == 130
    assert len(done.stderr.decode().strip().splitlines()) == 1


def test_interrupted_twice(model, table, tmp_path):
    arguments = ["run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run"]
    done = python("-c", TWICE, *arguments)
    assert "interrupted again" in told(done)
    assert done.returncode == 130


def test_asked_to_end(model, table, tmp_path):
    arguments = ["run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run"]
    done = python("-c", TERMINATED, *arguments)
    saved = "2 of 10 texts are saved (--no-more-texts ends the run with these)"
    assert f"interrupted; {saved}. Continue with: plainchant run --resume" in told(done)
    assert done.returncode == 130


@pytest.fixture
def interrupted(command, model, table, tmp_path, monkeypatch):
    """Starts a run in the current directory that is interrupted after two texts; what it said."""

    def go(*arguments):
        commit = RunDirectory.commit
        left = iter("ab")

        def interrupt(self, text):
            if next(left, None) is None:
                raise KeyboardInterrupt
            commit(self, text)

        with monkeypatch.context() as patched:
            patched.setattr(RunDirectory, "commit", interrupt)
            return command("run", *OPTIONS, *arguments, code=130).err

    return go


def test_an_interrupt_names_the_command_that_goes_on(command, interrupted, model, table, tmp_path):
    out = tmp_path / "a run"
    message = interrupted("--model", model, "--data", table, "--out", out, "--threads", 1)
    assert "2 of 10 texts are saved" in message
    words = shlex.split(message.split("Continue with: ")[1])
    assert words[:3] == ["plainchant", "run", "--resume"]
    assert "--threads" in words
    assert len(RunDirectory.open(out).texts()) == 2
    said = " ".join(command(*words[1:]).out.split())
    assert (out / "release" / "synthetic.jsonl").exists()
    assert said.startswith("Resumed guarantee")
    assert "data needed" not in said
    assert "seconds since it was resumed" in said


def test_relative_paths_of_a_run_resumed_elsewhere(command, interrupted, model, table, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "tiny").symlink_to(model)
    monkeypatch.chdir(tmp_path / "here")
    interrupted("--model", "./tiny", "--data", "../private.jsonl", "--out", "run")
    monkeypatch.chdir(tmp_path / "there")
    command("run", "--resume", "--data", "../private.jsonl", "--out", "../here/run")
    assert (tmp_path / "here" / "run" / "release" / "synthetic.jsonl").exists()


def test_interrupted_before_anything_is_there(command, table, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("plainchant.run.synthesis.synthesize", interrupt)
    assert "nothing was written yet" in command("run", "--data", table, "--out", tmp_path / "run", code=130).err


@pytest.mark.parametrize("show", ["say", "warn", "fail"])
def test_escapes_in_talk_are_marks(capsys, show):
    getattr(Console("human"), show)(ESCAPES)
    message = capsys.readouterr().err
    assert SHOWN in message
    assert not set(ESCAPES) & set("\x1b\x9b\x07\r\u202e") & set(message)


def test_escapes_in_results_are_marks(capsys):
    human = Console("human")
    human.table(ESCAPES, [(ESCAPES, ESCAPES)])
    human.grid([ESCAPES], [[ESCAPES]])
    Console("quiet").result({}, ESCAPES)
    shown = capsys.readouterr().out
    assert shown.count(SHOWN) == 6
    assert not set("\x1b\x9b\x07\r\u202e") & set(shown)
    Console("json").result({"label": ESCAPES})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"label": ESCAPES}
    assert not set("\x1b\x9b\x07\r\u202e") & set(shown)


def test_text_that_looks_like_markup_stays(capsys):
    Console("human").grid([":red_heart:"], [["[bold]a[/bold] :warning:"]])
    shown = capsys.readouterr().out
    assert ":red_heart:" in shown
    assert "[bold]a[/bold] :warning:" in shown


def test_escapes_in_file_names_are_marks(command, tmp_path):
    assert r"x\x1b[2J" in command("status", tmp_path / "x\x1b[2J", code=2).err
    assert r"x\x1b[2J" in command("init", tmp_path / "x\x1b[2J.toml").err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("arguments", [["plan"], ["plan", "--format", "quiet"], ["plan", "--help"]])
def test_a_terminal_that_lacks_characters(encoding, arguments):
    done = python("-m", "plainchant", *arguments, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, told(done)
    assert "epsilon" in done.stdout.decode(encoding)
    assert not told(done)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_json_for_a_terminal_that_lacks_characters(encoding):
    done = python("-m", "plainchant", "plan", "--format", "json", env={"PYTHONIOENCODING": encoding})
    assert "ε" in json.loads(done.stdout)["guarantee"]["statement"]
    assert not told(done)


@pytest.mark.parametrize("arguments", [["plan"], ["plan", "--format", "json"], ["plan", "--help"], ["--version"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_is_full(arguments, unbuffered):
    words = [sys.executable, "-m", "plainchant", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}
        )
    assert done.returncode == 1
    assert told(done).startswith("error: standard output: cannot be written")
    assert told(done).count("\n") == 1


@pytest.mark.parametrize("arguments", [["plan"], ["plan", "--format", "json"], ["run", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads_standard_output(arguments, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "plainchant", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, env=environment)
    os.close(writing)
    assert done.returncode == 1
    assert not done.stderr


def test_nobody_reads_standard_error(model, table, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run"]
    words = [sys.executable, "-m", "plainchant", *map(str, arguments)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=writing, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    os.close(writing)
    assert done.returncode == 0
    assert b"Done" in done.stdout


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.ENOLCK])
def test_what_the_machine_refuses_is_one_sentence(command, monkeypatch, number):
    def refuse(_):
        raise OSError(number, f"{MARKER}", "/somewhere/file")

    monkeypatch.setattr("plainchant.cli.plan.make_plan", refuse)
    message = command("plan", code=1).err
    assert message.startswith(f"error: /somewhere/file: {os.strerror(number)}; ")
    assert message.count("\n") == 1


def test_a_full_disk_in_a_run_keeps_what_is_there(command, model, table, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def full(*_):
        raise OSError(errno.ENOSPC, MARKER)

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "write_release", full)
        message = command("run", *OPTIONS, "--model", model, "--data", table, "--out", out, code=1).err
    assert os.strerror(errno.ENOSPC) in message
    command(*shlex.split(message.split("Continue with: ")[1])[1:])
    assert (out / "release" / "synthetic.jsonl").exists()


@pytest.mark.parametrize("wrong", ["data", "model"])
def test_an_error_stands_before_the_plan_that_it_makes_void(command, model, table, tmp_path, wrong):
    places = {"data": table, "model": model} | {wrong: tmp_path / "none"}
    arguments = ["--data", places["data"], "--model", places["model"], "--out", tmp_path / "run"]
    code = {"data": 2, "model": 1}[wrong]
    refused = command("run", *OPTIONS, *arguments, code=code)
    assert "Plan" not in refused.out
    assert "error:" in refused.err


def test_a_home_that_cannot_be_written(model, table, tmp_path):
    arguments = ["run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run"]
    homeless = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "XDG_CONFIG_HOME": "/proc/none"}
    done = python("-m", "plainchant", *arguments, env=homeless)
    assert done.returncode == 0, told(done)


def test_format_stands_before_or_after_the_command(command):
    before, after = command("--format", "json", "plan"), command("plan", "--format", "json")
    assert json.loads(before.out) == json.loads(after.out)
    assert len(command("--format", "json", "plan", "--format", "quiet").out.splitlines()) == 1


def test_performance_options_are_read_from_the_environment(command):
    assert "--rows" in command("plan", env={"PLAINCHANT_ROWS": "0"}, code=2).err
    assert "--dtype" in command("plan", env={"PLAINCHANT_DTYPE": "float8"}, code=2).err


@pytest.fixture
def evaluated(command, model, table, tmp_path, monkeypatch):
    """A finished run and the arguments that evaluate it; its one figure is given, for speed."""
    out = tmp_path / "run"
    command("run", *OPTIONS, "--model", model, "--data", table, "--out", out)
    found = Evaluation({"fidelity": {MAUVE: Figure(0.625)}}, texts=10, compared=10, real=40)
    monkeypatch.setattr("plainchant.evaluation.runs.evaluate", lambda *_, **__: found)
    return ["evaluate", out, "--real", table]


def test_figures_that_cannot_be_saved_are_shown(command, evaluated, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, MARKER)

    monkeypatch.setattr(RunDirectory, "write_private", full)
    shown = command(*evaluated, code=1)
    assert "0.625" in shown.out
    assert "evaluation.json: cannot be written" in shown.err
    assert os.strerror(errno.ENOSPC) in shown.err


def test_evaluate_shows_a_few_figures_first_and_all_of_them_on_request(command, evaluated, monkeypatch):
    figures = {name: Figure(0.5) for name in (MAUVE, "precision", "recall")}
    found = Evaluation({"fidelity": figures}, texts=500, compared=500, real=40)
    monkeypatch.setattr("plainchant.evaluation.runs.evaluate", lambda *_, **__: found)
    short, full = command(*evaluated), command(*evaluated, "-v")
    for shown, is_full in ((short, False), (full, True)):
        assert "like the real texts? (MAUVE)" in shown.out
        assert ("precision" in shown.out) == is_full
        assert ("-v shows all 3 figures" in shown.err) != is_full
    assert set(json.loads(command(*evaluated, "--format", "json").out)["groups"]["fidelity"]) == set(figures)


def test_figures_that_cannot_be_shown_are_saved(command, evaluated, monkeypatch):
    def full(*_):
        raise OutputError(OutputError.MESSAGE)

    monkeypatch.setattr(Console, "grid", full)
    assert "standard output" in command(*evaluated, code=1).err
    saved = json.loads((evaluated[1] / "private" / "evaluation.json").read_text())
    assert saved["groups"]["fidelity"][MAUVE]["value"] == 0.625


def test_a_directory_that_cannot_be_made(command, model, table):
    arguments = ["run", *OPTIONS, "--model", model, "--data", table, "--out", "/proc/none/run"]
    assert "/proc/none/run: cannot be made" in command(*arguments, code=2).err
