"""How many rows share a pass: by speed and memory, and by nothing private (guarantee 4.1, 7)."""

import numpy as np
import pytest
from doubles.models import WORDS, Timed
from doubles.randomness import Repeatable

from plainchant import plan, synthesize
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.generation.prompting import Prompts
from plainchant.models.table import TableModel
from plainchant.randomness import SeededRandomness
from plainchant.run.tuning import PATIENCE, fastest_rows, measure

CONFIG = SynthesisConfig(
    method="clustered-mean", clusters="none", clip=1.0, batch_size=4, max_tokens=3, min_tokens=1, texts=12
)
TABLES = {
    "short": [{"text": " a"}] * 64,
    "long": [{"text": " b c" * 20}] * 640,
}


def fastest(model, batch_size=4, most=1e9):
    return fastest_rows(model, (1, 3), np.arange(3), batch_size=batch_size, most=most)


@pytest.mark.parametrize(
    ("cost", "rows"),
    [
        # what a pass costs whatever it holds is shared by more rows, until it does not matter
        (lambda rows: 0.016 + 0.001 * rows, 128),
        (lambda rows: 0.0032 + 0.0001 * rows, 256),
        (lambda rows: 0.001 * rows, 64),
        # beyond 128 rows a pass gets slow at once
        (lambda rows: 0.02 + (rows > 128) * 0.01 * rows, 128),
    ],
)
def test_a_pass_is_doubled_while_rows_a_second_grow_by_a_tenth(cost, rows, monkeypatch):
    model = Timed(cost, monkeypatch)
    assert fastest(model) == rows
    assert max(model.asked) == 2 * rows


def test_a_pass_is_a_number_of_batches(monkeypatch):
    assert fastest(Timed(lambda rows: 0.02 + (rows > 100) * rows, monkeypatch), batch_size=24) == 96


def test_public_passes_count_as_often_as_there_is_one(monkeypatch):
    # reading all weights for a public pass is dear: where several private passes share one, wider ones gain little
    def rows(passes):
        model = Timed(lambda rows: 0.06 if rows <= 1000 else 1e9, monkeypatch)
        found = fastest_rows(model, (1, 3), np.arange(3), batch_size=64, most=64, passes=passes)
        assert max(len(group) for group in model.opened) == 64
        return found, sum(len(group) == 1 for group in model.opened)

    assert rows(1) == (64, 1)
    assert rows(4) == (64, 4)


def test_no_pass_is_measured_that_memory_does_not_allow(monkeypatch):
    for most, rows in ((3, 4), (4, 4), (31.9, 28), (32, 32), (50, 48), (100, 100)):
        model = Timed(lambda rows: 0.01, monkeypatch)
        assert fastest(model, most=most) == rows == max(model.asked)


def test_a_slow_machine_is_not_measured_for_long(monkeypatch):
    model = Timed(lambda rows: 0.2 + 0.003 * rows, monkeypatch)
    assert fastest(model) == 128
    assert PATIENCE < model.now < 3 * PATIENCE
    model = Timed(lambda rows: 60.0, monkeypatch)
    assert fastest(model) == 64
    assert model.asked == [16, 64] * 2


def test_one_slow_step_does_not_decide(monkeypatch):
    hiccups = iter([0.0] * 5 + [0.5] + [0.0] * 100)
    model = Timed(lambda rows: 0.0032 + 0.0001 * rows + next(hiccups), monkeypatch)
    assert fastest(model) == 256


# in a run


class Heard:
    def __init__(self):
        self.stages = []

    def stage(self, name, share):
        self.stages.append(name)

    def texts(self, *_): ...

    def tokens(self, *_): ...


def passes_of(table, tmp_path, model, randomness=None, **options):
    """How many private rows the passes of a run hold at most, by the public size, and what it says."""
    heard = Heard()
    widths = []
    real = model.step
    with synthesize(
        TABLES[table], plan(CONFIG), out=tmp_path / table, model=model, randomness=randomness or Repeatable(0),
        allow_not_private=True, progress=heard, performance=PerformanceOptions(**options),
    ) as run:  # fmt: skip
        model.step = lambda groups, *rest: (widths.append(len(groups)), real(groups, *rest))[1]
        assert len(run.finish()) == 12
    return 4 * max(widths), heard.stages


@pytest.mark.parametrize("table", TABLES)
def test_a_run_measures_before_it_shows_the_model_a_record(table, tmp_path, monkeypatch):
    model = Timed(lambda rows: 0.02 + (rows > 64) * rows, monkeypatch)
    rows, stages = passes_of(table, tmp_path, model, rows="auto")
    # public rows for four passes of 16 and then of 32 batches, and one of those passes
    measured = [([[]], 4), ([[]] * 4, 1)]
    expected = [group for batches in (16, 32) for own, passes in measured for group in [own] * (passes * batches)]
    assert model.opened[: len(expected)] == expected
    assert rows <= 64
    assert stages == ["measuring speed: 64 rows per forward pass"]


def test_the_choice_is_the_same_whatever_the_records_are(tmp_path, monkeypatch):
    found = [
        passes_of(table, tmp_path, Timed(lambda rows: 0.02 + (rows > 16) * rows, monkeypatch), rows="auto")
        for table in TABLES
    ]
    assert found[0] == found[1]


def test_with_a_seed_nothing_is_measured(tmp_path, monkeypatch):
    model = Timed(lambda rows: 1.0, monkeypatch)
    assert passes_of("short", tmp_path, model, randomness=SeededRandomness(0), rows="auto")[1] == []


def test_a_number_is_used_as_it_is(tmp_path, monkeypatch):
    model = Timed(lambda rows: 1.0, monkeypatch)
    rows, stages = passes_of("short", tmp_path, model, rows=8)
    assert rows == 8
    assert stages == []
    assert [[]] * 4 not in model.opened


def test_memory_bounds_what_is_measured(tmp_path, monkeypatch):
    narrow = Timed(float, monkeypatch)
    row = narrow.row_bytes(Prompts(CONFIG, narrow).longest) / 2**30
    capped = Timed(lambda rows: 0.02, monkeypatch)
    assert passes_of("short", tmp_path, capped, rows="auto", memory=22.5 * row)[0] == 8
    # without a cap, a quarter of all that the device has
    monkeypatch.setattr("plainchant.models.transformers.load.device_memory", lambda device: 4 * 22.5 * row)
    assert passes_of("long", tmp_path, Timed(lambda rows: 0.02, monkeypatch), rows="auto")[0] == 8


@pytest.mark.parametrize(("end", "ended"), [(60.0, 1.0), (-60.0, 0.0)])
def test_a_trial_tells_complete_texts_from_those_that_are_cut_off(end, ended):
    model = TableModel(WORDS, lambda _: np.array([end, -60, -60, 0, 0, 0, -60]), end_of_text={0})
    # the mean of what differs from the public prediction: nothing here
    config = SynthesisConfig(**(CONFIG.model_dump() | {"clipping": "difference"}))
    found = measure(plan(config), model, ["a public text"], rows=8)
    assert found.ended == ended
    assert found.tokens_per_text == (2 if ended else 3)


def test_rows_are_a_number_or_auto():
    assert PerformanceOptions().rows == "auto"
    assert PerformanceOptions().width == PerformanceOptions(rows=64).width
    for rows in ("automatic", 0, -1, 1.5):
        with pytest.raises(ValueError, match="rows"):
            PerformanceOptions(rows=rows)
