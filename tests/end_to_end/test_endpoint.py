"""Candidates from an endpoint: what it is sent, what it must not be, and what is left when it fails."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from doubles.embedders import Hashing
from doubles.models import Spy
from doubles.randomness import AsTold
from doubles.server import KEY, MODEL, serving, status
from doubles.tables import MARKER, rows, write

from plainchant import Ledger, models, plan, synthesize
from plainchant.cli.main import main
from plainchant.config import PerformanceOptions, PromptConfig, SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.errors import ConfigError, ModelError, RunError
from plainchant.models import endpoint
from plainchant.reporting.page import write_report
from plainchant.run.candidates import Expansion
from plainchant.run.store import RunDirectory
from plainchant.run.writers import Request, all_used, job_of

LABELLED: dict[str, Any] = {"labels": ("red", "blue"), "label_column": "label"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("plainchant.models.checked", lambda *_, **__: True)
    for name in (endpoint.KEY, endpoint.OPENAI_KEY):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_model(monkeypatch):
    """No language model can be loaded."""

    def load(name, performance):
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(models, "load", load)


@pytest.fixture
def server():
    with serving() as served:
        yield served


def evolution(address, **changes):
    values: dict[str, Any] = {"method": "private-evolution", "texts": 6, "max_tokens": 8, "candidates": 4, "rounds": 2}
    own = {"candidate_model": MODEL, "candidate_endpoint": address}
    return SynthesisConfig(**(LABELLED | values | own | changes))


@pytest.fixture
def default(tmp_path, monkeypatch):
    """The default method in small: records write, the endpoint writes further texts, and the records vote twice."""
    path = tmp_path / "centres.npz"
    Centres(np.eye(3, dtype=np.float32)).save(path)
    # no text of so small a model would pass for a sound one
    monkeypatch.setattr("plainchant.run.candidates.choose_examples", lambda texts, count, like=(): list(texts)[:count])

    def make(address, **changes):
        values: dict[str, Any] = {
            "clip": 1.0, "batch_size": 4, "texts": 6, "max_tokens": 5, "min_tokens": 1, "max_record_tokens": 8,
            "rebalance_share": 0.5, "min_cell": 1, "centres": str(path), "expected_range": 0.1, "candidates": 3,
            "vote_share": 0.2, "top_k": 4, "numerical_slack": 2e-3, "candidate_model": MODEL,
            "candidate_endpoint": address,
        }  # fmt: skip
        return SynthesisConfig(**(LABELLED | values | changes))

    return make


@pytest.fixture
def run(tmp_path):
    def go(config, records=None, out="out", **rest):
        options: dict[str, Any] = {"embedder": Hashing(), "performance": PerformanceOptions(rows=64, requests=1)} | rest
        records = rows() if records is None else records
        with synthesize(records, plan(config), out=tmp_path / out, **options) as made:
            made.finish()
        return made

    return go


def noted(directory):
    return [entry for entry in directory.requests() if "body" in entry]


def test_private_evolution_needs_no_language_model_here(run, server, no_model, tmp_path):
    config = evolution(server.address)
    made = run(config, performance=PerformanceOptions(requests=4))
    released = [json.loads(line) for line in (made.directory.release / "synthetic.jsonl").read_text().splitlines()]
    texts = {text.text for text in made.directory.texts()}
    assert texts == {f"text number {number} about a harbour" for number in range(3, 27)}
    assert len(released) == 6
    assert {row["text"] for row in released} <= texts
    assert {row["origin"] for row in released} == {"model"}
    assert made.guarantee.kind == "ex-ante"
    assert 1 < server.most <= 4
    # a trial, and every text once
    assert len(server.asked) == len(noted(made.directory)) == 27
    costs = json.loads((made.directory.private / "costs.json").read_text())["endpoint"]
    read = sum(len(body["prompt"]) // 4 for _, body in server.asked)
    assert costs == {"requests": 27, "tokens_read": read, "tokens_written": 189, "answers_without_figures": 0}
    told = json.loads(CliRunner().invoke(main, ["status", str(tmp_path / "out"), "--format", "json"]).stdout)
    assert told["finished"]
    assert told["endpoint"] == costs
    # the address may name a machine of a private network
    write_report(made.directory, made.plan, made.guarantee)
    assert (made.directory.release / "report.html").exists()
    for file in made.directory.release.iterdir():
        assert b"127.0.0.1" not in file.read_bytes()
    card = (made.directory.release / "README.md").read_text()
    assert f"the language model of the candidates ({MODEL})" in card
    assert "gemma" not in card
    assert (made.directory.private / "requests.jsonl").stat().st_mode & 0o777 == 0o600


def test_before_the_first_vote_private_evolution_sends_public_text_only(run, server, no_model):
    config = evolution(server.address)
    made = run(config)
    public = [
        dict(job_of(config, Request((0, 0), label, (), warmth)).body) for label in LABELLED["labels"]
        for warmth in (1.0, 1.3)
    ]  # fmt: skip
    before, after = server.asked[:19], server.asked[19:]
    assert all(body in public for _, body in before)
    assert len(after) == 8
    assert not any(body in public for _, body in after)
    winners = {text.text for text in made.directory.texts() if text.batch < 2}
    assert all(any(text in body["prompt"] for text in winners) for _, body in after)


@pytest.fixture
def forced(monkeypatch):
    """Noisy counts, votes and tokens are the same in every run, whatever its records are."""
    places = iter(range(10**9))

    def start():
        nonlocal places
        places = iter(range(10**9))

    def sample(scores, _):
        return next(places) % len(scores)

    monkeypatch.setattr("plainchant.privacy.mechanisms.sample", sample)
    return start


@pytest.mark.parametrize("method", ["private-evolution", "plainchant"])
def test_requests_are_the_same_for_neighbours_where_what_is_released_is(run, default, forced, method):
    """A request is a function of public inputs, released texts and noisy votes: with these equal, so are requests."""
    asked = {}
    for gone in (None, 0, 7, 79):
        records = [row for place, row in enumerate(rows()) if place != gone]
        forced()
        with serving() as server:
            # the address is public, and not the same twice
            config = (evolution if method == "private-evolution" else default)(server.address)
            own = {} if method == "private-evolution" else {"model": Spy()}
            made = run(config, records, f"{gone}", randomness=AsTold(range(10**4)), **own)
        asked[gone] = [(path, body) for path, body in server.asked]
        assert [entry["body"] for entry in noted(made.directory)] == [body for _, body in server.asked]
        assert MARKER not in str(server.asked) + str(server.headers)
    assert len(asked[None]) > 10
    assert all(asked[gone] == asked[None] for gone in (0, 7, 79))


def test_power_a_request_that_shows_a_record_is_caught(run, forced, monkeypatch):
    plain, asked = Expansion._requests, []

    def leaking(self, released, **options):
        for request in plain(self, released, **options):
            yield Request(request.place, request.label, (self.preparation.table[0].text,), request.warmth)

    monkeypatch.setattr(Expansion, "_requests", leaking)
    for gone in (None, 0):
        forced()
        with serving() as server:
            records = [row for place, row in enumerate(rows()) if place != gone]
            run(evolution(server.address), records, f"{gone}", randomness=AsTold(range(10**4)))
        asked.append(server.asked)
    assert asked[0] != asked[1]
    assert MARKER in str(asked)


def test_requests_show_what_records_wrote_once_that_is_released(run, default, server):
    made = run(default(server.address), model=Spy())
    batches = len(made.directory.batches())
    private = {text.text for text in made.directory.texts() if text.batch < batches and len(text.text) > 3}
    written = {text.text for text in made.directory.texts() if text.batch >= batches}
    assert all(text.startswith("text number") for text in written)
    shown = [body["prompt"] for _, body in server.asked]
    assert any(f"Text: {text}\n" in prompt for text in private for prompt in shown)


def test_the_whole_cost_is_booked_before_anything_is_sent_that_follows_from_records(run, default, tmp_path):
    book = Ledger.create(tmp_path / "ledger", 20, 1e-5)
    runs = []

    def text(number, prompt):
        runs.append(len(book.runs))
        return f" text number {number}"

    with serving(text=text) as server:
        decided = default(server.address)
        run(decided, model=Spy(), ledger=tmp_path / "ledger")
    # the trial of public text alone may come first
    assert runs[:3] == [0, 0, 0]
    assert set(runs[3:]) == {1}
    assert book.spent == plan(decided).guarantee.cost


def test_what_a_run_cost_stays_booked_when_it_is_given_up(run, server, no_model, tmp_path):
    book = Ledger.create(tmp_path / "ledger", 20, 1e-5)
    config = evolution(server.address)
    # 19 before the first vote, three after it
    server.faults[:] = [None] * 22 + [status(400)]
    with pytest.raises(ModelError, match="refuses the request"):
        run(config, ledger=tmp_path / "ledger")
    assert book.spent.rho == pytest.approx(plan(config).guarantee.rho)
    # nothing is asked for again
    before = RunDirectory.open(tmp_path / "out").texts()
    assert len(before) == 19
    made = run(config, ledger=tmp_path / "ledger", resume=True)
    assert made.directory.texts()[:16] == before[:16]
    assert set(before) <= set(made.directory.texts())
    assert len(server.asked) == 3 + 24 + 1
    assert book.spent.rho == pytest.approx(plan(config).guarantee.rho)


def test_plan_says_what_is_sent_and_what_that_means(command, default):
    address = "http://models.example.org/v1/"
    words = ["--method", "private-evolution", "--labels", "red,blue", "--label-column", "label"]
    words += ["--candidate-model", "large", "--candidate-endpoint", address]
    shown = command("plan", *words)
    text = " ".join((shown.out + shown.err).split())
    assert "large at http://models.example.org/v1/completions; no language model is loaded here" in text
    assert "Before the first vote public text only" in text
    assert "released the moment they are sent" in text
    assert "even if the run is given up" in text
    assert "--ledger FILE" in text
    assert "http:// is not encrypted" in text
    assert "<released text 1>" in text
    found = json.loads(command("plan", *words, "--format", "json").out)["sends"]
    config = SynthesisConfig(
        method="private-evolution", **LABELLED, candidate_model="large", candidate_endpoint=address
    )  # fmt: skip
    assert found["requests"] == config.further == 1100
    assert found["tokens_written"] == 1100 * 64
    assert found["body"] == job_of(config, Request((0, 0), "red", ("<released text 1>", "<released text 2>"))).body
    # one vote: nothing that follows from it is sent
    once = command("plan", *words, "--rounds", "1", "--candidate-form", "chat")
    assert "released the moment" not in once.err
    assert "<released text" not in once.out
    assert "no language model is loaded here" not in " ".join(command("plan", *words[2:]).out.split())
    assert "no record is shown" in command("plan", *words, "--measure", code=2).err
    assert "no local language model is loaded" in " ".join(command("plan", "--help").out.split())


def test_the_key_is_nowhere_on_disk_and_in_no_message(command, table, tmp_path, monkeypatch):
    monkeypatch.setenv(endpoint.KEY, KEY)
    monkeypatch.setattr("plainchant.run.preparation.open_embedder", lambda *_: Hashing())
    with serving(key=KEY) as server:
        words = ["run", "--method", "private-evolution", "--labels", "red,blue", "--label-column", "label"]
        words += ["--candidate-model", MODEL, "--candidate-endpoint", server.address, "--texts", "4"]
        words += ["--max-tokens", "9", "--data", table, "--out", tmp_path / "out"]
        shown = command(*words)
        server.key = "another"
        refused = command(*words[:-1], tmp_path / "other", code=1)
    assert "refuses the key" in refused.err
    assert not (tmp_path / "other").exists()
    assert KEY not in shown.out + shown.err + refused.out + refused.err
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file != table]
    assert len(files) > 8
    for file in files:
        assert KEY.encode() not in file.read_bytes(), file
        # nor is a record where requests are noted
        if file.name == "requests.jsonl":
            assert MARKER.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"faults": [status(404, {"detail": "Not Found"})]}, "has no model 'a-model', or does not answer"),
        ({"text": lambda *_: " "}, "its answers hold no text"),
        ({"text": lambda *_: " one"}, "writes the same text 3 times"),
        ({"faults": [status(200, b"<html>")] * 2}, "answers with something else than a completion, 2 times"),
    ],
)
def test_what_is_wrong_with_an_endpoint_shows_before_anything_is_made_or_charged(run, no_model, tmp_path, state, said):
    Ledger.create(tmp_path / "ledger", 20, 1e-5)
    with serving(**state) as server, pytest.raises(ModelError, match=said):
        run(evolution(server.address), ledger=tmp_path / "ledger")
    assert not (tmp_path / "out").exists()
    assert Ledger(tmp_path / "ledger").runs == []


def test_an_answer_without_text_fills_its_place_and_many_in_a_row_end_the_run(run, no_model, tmp_path):
    def text(number, prompt):
        return " " if 5 <= number < 8 else f" text number {number}"

    with serving(text=text) as server:
        made = run(evolution(server.address))
        assert [text.text for text in made.directory.texts()].count("") == 1
        assert len(server.asked) == 3 + 24 + 2
        released = (made.directory.release / "synthetic.jsonl").read_text()
        assert '"text": ""' not in released
        server.text = lambda number, prompt: "one" if number == 29 else ""
        with pytest.raises(ModelError, match="its answers hold no text"):
            run(evolution(server.address), out="other")


def test_texts_end_as_local_ones_do_whatever_the_server_sends(run, no_model):
    def text(number, prompt):
        return f"\n text number {number} {'and so on ' * 10_000}\x00\n\nLabel: red"

    with serving(text=text, usage=False) as server:
        made = run(evolution(server.address, prompt={"example": "{label}: {text}###"}))
        (longest,) = {len(text.text) // 100 for text in made.directory.texts()}
        assert longest <= made.plan.config.max_tokens
        assert "\x00" not in str(made.directory.texts())
        assert all_used(made.directory.requests())["answers_without_figures"] == 27
        server.text = lambda number, prompt: f"number {number} is here ### and more"
        made = run(evolution(server.address, prompt={"example": "{label}: {text}###"}), out="other")
        assert all(text.text.endswith("is here") and text.finish == "stop" for text in made.directory.texts())


def test_another_local_model_may_write_the_candidates(run, default, monkeypatch):
    loaded = []

    def load(name, performance):
        loaded.append(name)
        return other

    monkeypatch.setattr(models, "load", load)
    own, other = Spy(), Spy()
    config = default(None, candidate_model="other", candidate_form="examples", labels=(), label_column=None)
    made = run(config, model=own)
    assert loaded == ["other"]
    # the run's own model sees records, and the other one released texts alone
    written = {text.text.strip() for text in made.directory.texts()}
    assert any(len(rows) > 1 for call in own.calls for _, rows, _ in call)
    groups = [(rows, token) for call in other.calls for _, rows, token in call]
    assert {len(rows) for rows, _ in groups} == {1}
    shown = {entry for (row,), token in groups for entry in other.entries(row, token)}
    assert shown
    assert shown <= written
    # private-evolution loads one model only
    run(evolution(None, candidate_model="other", max_record_tokens=8), out="evolution")
    assert loaded == ["other", "other"]


def test_one_of_two_prompt_forms(run, server, no_model):
    config = evolution(server.address, candidate_form="chat", prompt=PromptConfig(examples=({"text": "E1"},)))
    run(config)
    assert {path for path, _ in server.asked} == {"/v1/chat/completions"}
    # several requests are under way at a time: they come in any order
    asked = [message for _, own in server.asked for message in own["messages"]]
    assert {
        "role": "user", "content": "Here is a text with the label red:\n\nE1\n\nWrite one new text of the same kind "
        "and length with the label red. Answer with the text only."
    } in asked  # fmt: skip
    shown = "Label: \nText: E1\n\nLabel: blue\nText: text number "
    assert any(own["content"].startswith(shown) for own in asked)
    assert not any("stop" in own for _, own in server.asked)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"candidate_model": None}, "candidate_model: not given, but candidate_endpoint is"),
        ({"candidate_model": None, "candidate_endpoint": None, "candidate_form": "chat"}, "but candidate_form is"),
        ({"method": "clustered-mean", "candidates": 1}, "writes candidates and further texts, and there are none"),
        *(
            ({"candidate_endpoint": address}, "candidate_endpoint: is not an address")
            for address in ("localhost:8000", "ftp://a/v1", "http://", "http://a b/", "http://a:x/", "http://ä/", "")
        ),
        *(
            ({"candidate_endpoint": f"https://{secret}"}, "give the bare address, and the key in the environment")
            for secret in ("me:zebra@a/v1", "a/v1?key=zebra", "a/v1#zebra")
        ),
    ],
)
def test_what_no_endpoint_follows_from_is_refused_without_quoting_it(changes, said):
    with pytest.raises(ConfigError, match=said) as error:
        evolution("http://localhost:8000/v1", **changes)
    assert "zebra" not in str(error.value)


RUN = """
import sys
from doubles.embedders import Hashing
from doubles.tables import rows
from plainchant import plan, synthesize
from plainchant.config import PerformanceOptions, load_config
config = load_config(sys.argv[1])
with synthesize(rows(), plan(config), out=sys.argv[2], resume=sys.argv[3] == "resume", embedder=Hashing(),
                performance=PerformanceOptions(requests=6)) as run:
    run.finish()
"""


@pytest.mark.slow
def test_two_thousand_candidates_survive_two_kills_and_none_is_asked_for_again(tmp_path):
    def committed():
        try:
            with sqlite3.connect(f"file:{tmp_path}/out/private/run.sqlite?mode=rw", uri=True, timeout=10) as database:
                found = database.execute("SELECT batch, position, text FROM texts").fetchall()
            database.close()
            return set(found)
        except sqlite3.OperationalError:
            return set()

    folder = str(write(tmp_path / "run.py", []).parent)
    (tmp_path / "run.py").write_text(RUN)
    with serving(seconds=0.005) as server:
        config = tmp_path / "config.toml"
        config.write_text(
            f'method = "private-evolution"\ntexts = 200\ncandidates = 10\nlabels = ["red", "blue"]\n'
            f'label_column = "label"\ncandidate_model = "{MODEL}"\ncandidate_endpoint = "{server.address}"\n'
        )
        before, word = set(), "new"
        for least in (300, 1500, None):
            child = subprocess.Popen(
                [sys.executable, "run.py", str(config), "out", word],
                cwd=folder,
                env={**_environment(), "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
            while least and child.poll() is None and len(committed()) < least:
                time.sleep(0.02)
            if least:
                child.kill()
            message = child.communicate()[1]
            assert child.returncode == (-signal.SIGKILL if least else 0), message
            now = committed()
            assert before <= now
            before, word = now, "resume"
        # a trial, and beyond that only what was under way at a kill
        assert 2000 <= len(server.asked) - 3 <= 2000 + 2 * 6
    assert len(before) == 2000
    assert len({text for *_, text in before}) == 2000
    directory = RunDirectory.open(tmp_path / "out")
    # a request is noted first: a kill may come before it is sent
    assert len(server.asked) <= len(noted(directory)) <= len(server.asked) + 2 * 6
    assert len((directory.release / "synthetic.jsonl").read_text().splitlines()) == 200


def _environment():
    tests = str(Path(__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_nothing_is_sent_that_cannot_be_noted(run, server, no_model, tmp_path):
    config = evolution(server.address)
    server.faults[:] = [None] * 8 + [status(400)]
    with pytest.raises(ModelError):
        run(config)
    log = tmp_path / "out" / "private" / "requests.jsonl"
    log.rename(log.with_suffix(".old"))
    log.mkdir()
    asked = len(server.asked)
    with pytest.raises(RunError, match=r"requests.jsonl: cannot be written .*nothing is sent without being noted"):
        run(config, resume=True)
    assert len(server.asked) == asked


def test_further_texts_without_a_vote_come_from_the_endpoint_too(run, default, command):
    with serving() as server:
        changes = {"candidates": 1, "rounds": 1, "expand": 5}
        made = run(default(server.address, **changes), model=Spy())
    rows = [json.loads(line) for line in (made.directory.release / "synthetic.jsonl").read_text().splitlines()]
    assert sorted(row["origin"] for row in rows) == ["model"] * 5 + ["records"] * 6
    assert all((row["origin"] == "model") == row["text"].startswith("text number") for row in rows)
    words = [
        "--candidates",
        "1",
        "--expand",
        "5",
        "--candidate-model",
        "m",
        "--candidate-endpoint",
        "http://[::1]:1/v1",
    ]
    shown = command("plan", *words)
    assert "Public text and texts from records; all of it is noted" in " ".join(shown.out.split())
    assert "not encrypted" not in shown.err


def test_a_log_with_an_unfinished_line_goes_on(tmp_path, run, server, no_model):
    made = run(evolution(server.address))
    log = made.directory.private / "requests.jsonl"
    log.write_bytes(log.read_bytes() + b'{"place": [0, 1], "bo')
    used = all_used(made.directory.requests())
    made.directory.log_request({"place": [0, 2], "try": 1, "body": {"prompt": "ä"}})
    assert all_used(made.directory.requests())["requests"] == used["requests"] + 1
    assert log.read_text().endswith('"ä"}}\n')


@pytest.mark.slow
def test_control_c_does_not_wait_for_answers(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    with serving() as server:
        config = tmp_path / "config.toml"
        config.write_text(
            f'method = "private-evolution"\ntexts = 20\nlabels = ["red", "blue"]\nlabel_column = "label"\n'
            f'candidate_model = "{MODEL}"\ncandidate_endpoint = "{server.address}"\n'
        )
        child = subprocess.Popen(
            [sys.executable, "run.py", str(config), "out", "new"], cwd=tmp_path, env=_environment(),
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while child.poll() is None and len(server.asked) < 30:
            time.sleep(0.02)
        server.seconds = 60.0
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        message = child.communicate(timeout=40)[1]
        assert time.monotonic() - began < 20
        assert child.returncode != 0
        assert "KeyboardInterrupt" in message
