"""A local Ray cluster: nothing lost or doubled when a worker dies, and speed that grows with workers."""

import functools
import json
import os
import sys
import time

import doubles.embedders
import doubles.models
import pytest
from doubles.embedders import Lengths
from doubles.models import Slow
from doubles.tables import MARKER, rows
from strategies import settings

from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.sample import Sample
from plainchant.data.tables import fingerprint, read_records
from plainchant.errors import ConfigError, DataError, PrivacyError, RunError
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.generation.executor import open_readers
from plainchant.generation.ray import RayEmbedder, RayExecutor, read_on_workers
from plainchant.planning import make_plan
from plainchant.privacy.aggregation import Clipping
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism
from plainchant.randomness import SeededRandomness, SystemRandomness
from plainchant.run.inputs import read_table
from plainchant.run.synthesis import synthesize

ray = pytest.importorskip("ray")
# Ray opens sockets and files that it leaves to the end of the process
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STOP = StopRule(None, 6, 5)
STEP = settings(batch_size=2, clipping=Clipping.DIFFERENCE, clip=3.0)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    # the workers know no tests
    for module in (sys.modules[__name__], doubles.models, doubles.embedders):
        ray.cloudpickle.register_pickle_by_value(module)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def decoder(mechanism, seconds=0.0, fails=None):
    return Decoder(Slow(seconds, fails), mechanism, STOP, rows=2, randomness=SystemRandomness())


def works(batches, texts=1):
    return (BatchWork(batch, (1,), (0,), [(1,), (2,), (2,)], range(texts)) for batch in range(batches))


def executor(workers, mechanism, **changes):
    options = PerformanceOptions(executor="ray", workers=workers)
    return RayExecutor(options, functools.partial(decoder, mechanism, **changes), together=1)


def test_a_lost_worker_loses_and_doubles_nothing():
    mechanism = IndividualMeanMechanism(STEP, 1.5, 4 * STOP.max_tokens)
    there = executor(2, mechanism, seconds=0.03)
    spent, places = {}, []
    for number, text in enumerate(there.run(works(8, texts=4))):
        places.append((text.batch, text.position))
        # sums only grow, also where a second worker goes on with a batch
        assert all(a <= b for a, b in zip(spent.get(text.batch, [0] * 3), text.spent, strict=True))
        spent[text.batch] = text.spent
        if number in (3, 9, 14):
            ray.kill(there._pool.workers[number % 2])
    there.close()
    assert sorted(places) == [(batch, place) for batch in range(8) for place in range(4)]
    assert max(map(max, spent.values())) <= 1.5


def test_workers_that_die_again_and_again_end_the_run():
    there = executor(1, MeanMechanism(STEP), seconds=5.0)
    stream = there.run(works(3))

    class Killing:
        """Kills the worker whenever the driver looks for news."""

        def __getattr__(self, name):
            if name == "wait":
                ray.kill(there._pool.workers[0])
            return getattr(ray, name)

    there._pool.ray = Killing()
    with pytest.raises(RunError, match="5 workers were lost"):
        next(stream)


def test_a_workers_error_quotes_nothing():
    there = executor(1, MeanMechanism(STEP), fails=f"{MARKER} in a message")
    with pytest.raises(RunError, match="ValueError") as caught:
        list(there.run(works(1)))
    assert MARKER not in str(caught.value)
    assert caught.value.__cause__ is None
    there.close()


def test_eight_workers_are_seven_times_one():
    def seconds(workers):
        there = executor(workers, MeanMechanism(STEP), seconds=0.08)
        # every worker is up before the clock starts
        list(there.run(works(workers)))
        began = time.perf_counter()
        assert len(list(there.run(works(24)))) == 24
        there.close()
        return time.perf_counter() - began

    assert seconds(1) >= 7 * seconds(8)


def test_a_run_on_two_workers_finishes_like_one_in_this_process_though_one_is_killed(model, tmp_path, monkeypatch):
    config = SynthesisConfig(
        method="plainchant", clusters="none", model=str(model), label_column="label", labels=("red", "blue"), texts=12,
        max_tokens=8, max_record_tokens=40, batch_size=10, expected_range=2.0, numerical_slack=1e-3,
    )  # fmt: skip
    made = []

    class Noted(RayExecutor):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr("plainchant.generation.executor.RayExecutor", Noted)
    options = PerformanceOptions(executor="ray", workers=2, threads=1, rows=64)
    decided, count = make_plan(config), 0
    with synthesize(rows(200), decided, out=tmp_path / "run", performance=options) as run:
        for _ in run:
            count += 1
            if count == 4:
                ray.kill(made[0]._pool.workers[0])
    texts = run.directory.texts()
    # what records wrote and what the public model wrote for them to choose from
    candidates = config.parts.candidates * config.texts
    assert count == len(texts) == candidates == len({(text.batch, text.position) for text in texts})
    assert len(run.directory.released()) == 12
    costs = json.loads((tmp_path / "run" / "private" / "costs.json").read_text())
    payments = [batch.payment for batch in run.directory.batches()]
    assert 0 < costs["records"]["largest"] <= costs["records"]["budget"] == max(payments)
    # nobody may choose what the workers draw
    with pytest.raises(PrivacyError, match="no seed"):
        synthesize(rows(200), decided, out=tmp_path / "seeded", performance=options, allow_not_private=True,
                   randomness=SeededRandomness(1))  # fmt: skip


class Dying:
    """Reads; the first process that comes to one of the files dies."""

    def __init__(self, function, mark):
        self.function, self.mark = function, mark

    def __call__(self, item):
        if "part-2" in str(item) and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return self.function(item)


def shards(folder, count=5, size=400):
    for part in range(count):
        lines = (f'{{"text": "text {part} {row}"}}\n' for row in range(size + part))
        (folder / f"part-{part}.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("sample", [None, Sample(bytes(range(32)), 0.3)])
def test_several_readers_find_what_one_does_though_one_is_lost(sample, tmp_path):
    (tmp_path / "data").mkdir()
    folder = shards(tmp_path / "data")
    read, mark = open_readers(PerformanceOptions(executor="ray")), tmp_path / "died"
    found = read_records(folder, sample=sample, readers=lambda function, items: read(Dying(function, mark), items))
    assert mark.exists()
    assert found == read_records(folder, sample=sample)


def test_what_a_reader_finds_wrong_is_said_and_quotes_nothing(tmp_path):
    read = open_readers(PerformanceOptions(executor="ray"))
    (tmp_path / "a.parquet").write_text(MARKER)
    with pytest.raises(DataError, match="parsed as Parquet") as caught:
        read_records(tmp_path, readers=read)
    assert MARKER not in str(caught.value)

    def fails(item):
        raise ValueError(f"{MARKER} in a message")

    with pytest.raises(RunError, match="ValueError") as failed:
        read(fails, [1])
    assert MARKER not in str(failed.value)


def test_a_run_on_a_sample_of_files_is_read_by_workers(model, tmp_path, monkeypatch):
    config = SynthesisConfig(
        method="plainchant", clusters="none", model=str(model), texts=4, max_tokens=6, max_record_tokens=40,
        expected_units=2000, sample_rate=0.4, numerical_slack=1e-3,
    )  # fmt: skip
    (tmp_path / "data").mkdir()
    names, real = [], read_on_workers
    monkeypatch.setattr(
        "plainchant.generation.executor.read_on_workers",
        lambda performance, function, items: names.append(len(items)) or real(performance, function, items),
    )
    options = PerformanceOptions(executor="ray", workers=2, threads=1, rows=64)
    run = synthesize(shards(tmp_path / "data"), make_plan(config), out=tmp_path / "run", performance=options)
    with run:
        run.finish()
    assert names == [5, 5]
    assert len(run.directory.released()) == 4
    # the sample is the one that a single process finds
    again = read_table(tmp_path / "data", config, run.directory.sample())
    assert fingerprint(again) == run.directory.origin.data


def test_embeddings_come_back_in_order():
    shares = []
    embedder = RayEmbedder(PerformanceOptions(executor="ray", workers=2), "lengths", Lengths)
    texts = ["x" * n for n in range(300)]
    found = embedder.encode(texts, alone=True, progress=shares.append)
    assert found.tolist() == [[n, 1.0] for n in range(300)]
    assert shares[-1] == 1.0
    assert len(embedder.encode([])) == 0


class Mortal(Lengths):
    """The first process that comes to one of the texts dies; with `again`, every one."""

    def __init__(self, mark, again=False):
        super().__init__()
        self.mark, self.again = mark, again

    def encode(self, texts, **options):
        if "x" * 200 in texts and (self.again or not self.mark.exists()):
            self.mark.touch()
            os._exit(1)
        return super().encode(texts, **options)


def test_an_embedder_that_is_lost_loses_nothing(tmp_path):
    options, mark = PerformanceOptions(executor="ray", workers=2), tmp_path / "died"
    embedder = RayEmbedder(options, "lengths", functools.partial(Mortal, mark))
    found = embedder.encode(["x" * n for n in range(300)], alone=True)
    assert mark.exists()
    assert found.tolist() == [[n, 1.0] for n in range(300)]
    embedder = RayEmbedder(options, "lengths", functools.partial(Mortal, mark, again=True))
    with pytest.raises(RunError, match="embedding failed on a worker"):
        embedder.encode(["x" * n for n in range(300)], alone=True)


def test_an_address_where_nobody_answers(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError))
    with pytest.raises(RunError, match="ray start --head"):
        RayEmbedder(PerformanceOptions(executor="ray", ray_address="127.0.0.1:1"), "lengths", Lengths).encode(["x"])
    with pytest.raises((ConfigError, ValueError)):
        PerformanceOptions(executor="carrier pigeon")
