"""What this machine was measured to do, kept and used; nothing of it is private."""

import dataclasses
import stat

import pytest
from doubles.embedders import Hashing

from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.models.table import TableModel
from plainchant.planning import make_plan
from plainchant.run.speed import (
    Speed,
    expected,
    keep_embedding_speed,
    keep_speed,
    kept_embedding_speed,
    kept_speed,
    measure_embedder,
    measure_speed,
    samples_corpus,
)

SPEED = Speed(1000.0, 100.0, 50.0, 64, 1.0, 1000, 2**30, "2024-01-01")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "plainchant" / "speed.json"


def test_a_measurement_is_kept_for_its_model_and_way_to_compute(cache):
    usual, other = PerformanceOptions(), PerformanceOptions(dtype="bfloat16")
    assert kept_speed("a", usual) is None
    assert keep_speed("a", usual, SPEED) == cache
    keep_speed("b", usual, dataclasses.replace(SPEED, load=2.0))
    assert kept_speed("a", usual) == SPEED
    assert kept_speed("b", usual).load == 2.0
    assert kept_speed("a", other) is None
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', "\x00"])
def test_a_cache_that_cannot_be_used_is_none(cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    assert kept_speed("a", PerformanceOptions()) is None
    assert keep_speed("a", PerformanceOptions(), SPEED) is not None
    assert kept_speed("a", PerformanceOptions()) == SPEED


def test_a_cache_that_cannot_be_written_is_none(cache):
    cache.parent.write_text("")
    assert keep_speed("a", PerformanceOptions(), SPEED) is None
    assert kept_speed("a", PerformanceOptions()) is None


def test_a_model_is_measured():
    model = TableModel([" text", *"abc"], lambda row: [0.0] * 4)
    found = measure_speed(model, PerformanceOptions(rows=4), load=1.0)
    assert found.rows == 4
    assert min(found.prompt_tokens, found.private_rows, found.public_rows) > 0
    assert found.token_bytes == 8


def test_an_embedder_is_measured_and_its_time_counted(cache):
    usual = PerformanceOptions()
    assert measure_embedder(Hashing()) > 0
    assert kept_embedding_speed("e", usual) is None
    assert keep_embedding_speed("e", usual, 50.0) == cache
    keep_speed("e", usual, SPEED)
    assert kept_embedding_speed("e", usual) == 50.0
    cache.write_text(cache.read_text().replace("50.0", "-1"))
    assert kept_embedding_speed("e", usual) is None

    voted = make_plan(SynthesisConfig(texts=20, max_tokens=32, expected_units=5000))
    assert expected(voted, SPEED, 50.0).embedding == pytest.approx((5000 + 11 * 20) / 50)
    assert expected(voted, SPEED).embedding is None
    assert expected(make_plan(SynthesisConfig(texts=20, max_tokens=32)), SPEED, 50.0).embedding is None
    # nothing is grouped around centres, and nobody votes
    public = make_plan(SynthesisConfig(method="public", texts=20, max_tokens=32))
    assert expected(public, SPEED).embedding == 0


def test_time_follows_from_rows_and_a_sampled_corpus_is_told_apart():
    plain = make_plan(SynthesisConfig(method="clustered-mean", texts=20, max_tokens=32, public_corpus="x.jsonl"))
    found = expected(plain, SPEED)
    steps = 20 * 32
    reads = plain.batches_needed * plain.settings.batch_size * 192 / 2 / 1000
    assert found.texts == pytest.approx(steps * plain.settings.batch_size / 100 + steps / 50 + reads)
    assert found.corpus == 0
    assert not samples_corpus(plain)
    sampled = make_plan(SynthesisConfig(method="clustered-mean", texts=20, max_tokens=32))
    assert samples_corpus(sampled)
    assert expected(sampled, SPEED).corpus == pytest.approx(400 * 32 / 50)
    assert expected(sampled, SPEED).texts == found.texts
    # all records are nearest to a single centre, so nothing is sampled to find it
    single = make_plan(SynthesisConfig(method="clustered-mean", texts=20, max_tokens=32, centres=1))
    assert not samples_corpus(single)
    assert expected(single, SPEED).corpus == 0
    # no record, no batch
    public = make_plan(SynthesisConfig(method="public", texts=20, max_tokens=32))
    assert expected(public, SPEED).texts < found.texts
