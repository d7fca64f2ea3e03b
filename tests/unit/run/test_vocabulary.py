"""How noisy counts of words move the model, and that a run does it (guarantee 8.5)."""

from typing import Any

import numpy as np
import pytest
from doubles.embedders import Hashing
from doubles.models import Spy
from doubles.randomness import AsTold, Noise

from plainchant import plan, synthesize
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.errors import ConfigError
from plainchant.privacy.histograms import vote_weight
from plainchant.run import vocabulary
from plainchant.run.store import RunDirectory
from plainchant.run.vocabulary import LARGEST, MOST, log_ratios, words_found

# every record says c, and those of y nothing else
RECORDS = [{"text": " c" if place % 2 else " c b", "label": "xy"[place % 2]} for place in range(400)]
VALUES: dict[str, Any] = {
    "method": "private-evolution", "texts": 12, "max_tokens": 6, "min_tokens": 1, "candidates": 8, "rounds": 2,
    "labels": ("x", "y"), "label_column": "label", "top_k": 6, "max_record_tokens": 8,
    "prompt": {"example": "Text: {text}\n"},
}  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("plainchant.models.checked", lambda *_, **__: True)

    def go(records=RECORDS, resume=False, model=None, randomness=None, **changes):
        decided = plan(SynthesisConfig(**VALUES | changes))
        return synthesize(
            records, decided, out=tmp_path / "out", resume=resume, model=model or Spy(), embedder=Hashing(),
            performance=PerformanceOptions(rows=64), randomness=randomness or Noise(),
        )  # fmt: skip

    return go


def test_words_that_records_say_more_are_raised_and_the_others_lowered(run):
    # a share and a number of texts at which what is true stands out of noise and chance
    with run(texts=240, word_share=0.5) as made:
        made.finish()
    directory = made.directory
    words = list(directory.words().values())
    ratios = log_ratios(directory.word_votes(), 1024 / np.sqrt(2 * made.plan.rho_words))
    by_word = [dict(zip(words, own, strict=True)) for own in ratios]
    for own in by_word:
        assert own["c"] > 0.2
        assert own["a"] < -0.2
    assert by_word[0]["b"] > by_word[1]["b"]
    found = words_found(directory, made.plan.rho_words)
    assert set(found[0]) == {"b", "c"}
    assert found[1][0] == "c"
    assert "a" not in found[1]


def test_candidates_are_written_with_the_words_once_they_are_counted(run):
    """The same model with and without: the first half of the first candidates knows nothing of the records."""
    with run(texts=60) as made:
        made.finish()
    first = [text for text in made.directory.texts() if text.batch < 2]
    half = [sum(text.batch == batch for text in first) // 2 for batch in range(2)]

    def share(texts):
        said = "".join(text.text for text in texts)
        return said.count("c") / max(1, sum(map(said.count, "abc")))

    before = share(text for text in first if text.position < half[text.batch])
    after = share(text for text in first if text.position >= half[text.batch])
    assert after > before + 0.15


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_the_count_draws_it_once(run, tmp_path, monkeypatch, when):
    real = RunDirectory.save_words

    def crash(self, *values):
        if when == "after":
            real(self, *values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "save_words", crash)
        with pytest.raises(KeyboardInterrupt), run() as made:
            made.finish()
    directory = RunDirectory.open(tmp_path / "out")
    texts, kept = directory.texts(), directory.word_votes().tolist()
    assert bool(kept) == (when == "after")
    assert directory.facts() == []
    source = Noise()
    with run(resume=True, randomness=source) as made:
        made.finish()
    # two votes, and the words only where they were not committed
    assert len(source.asked) == 2 + (when == "before")
    if kept:
        assert directory.word_votes().tolist() == kept
    assert set(map(str, texts)) <= set(map(str, directory.texts()))
    assert len(directory.texts()) == 96


def test_words_are_counted_between_candidates(run):
    with run() as made:
        assert [type(own).__name__ for own in made._rounds] == [
            "Expansion", "Words", "Expansion", "Vote", "Variation", "Vote",
        ]  # fmt: skip


def test_without_a_share_none_is_counted(run):
    with run(word_share=0) as made:
        assert [type(own).__name__ for own in made._rounds] == ["Expansion", "Vote", "Variation", "Vote"]
        made.finish()
    assert made.directory.words() == {}
    assert made.plan.rho_words == 0
    assert words_found(made.directory, 0.0) == []


def test_who_counts_words():
    def share(**values):
        return SynthesisConfig(**values).share_of_words

    assert share() == share(method="private-evolution") == 0.1
    assert share(method="clustered-mean", candidates=4) == share(candidates=1) == 0
    assert share(method="clustered-mean", candidates=4, word_share=0.2) == 0.2
    served: dict[str, Any] = {"candidate_model": "m", "candidate_endpoint": "http://localhost:1/v1"}
    assert share(method="private-evolution", **served) == 0
    for values in ({"candidates": 1}, {"method": "private-evolution", **served}):
        with pytest.raises(ConfigError, match=r"word_share = 0\.1"):
            SynthesisConfig(**values, word_share=0.1)


def test_what_noise_does_by_itself_moves_no_label():
    generator = np.random.default_rng(0)
    alone = np.sort(generator.integers(0, 200, 2000))[::-1] * vote_weight(MOST)
    # no record at all: a label moves by chance only, and then by little
    moved = []
    for _ in range(40):
        noisy = np.round(generator.normal(size=2000) * 20_000)
        moved.append(log_ratios(np.stack([noisy, alone], axis=1)[None].astype(np.int64), 20_000.0))
    assert sum(own.any() for own in moved) <= 4
    # ten thousand records who write as the model does: hardly anything moves
    noisy = alone * 50 + np.round(generator.normal(size=2000) * 20_000)
    likewise = log_ratios(np.stack([noisy, alone], axis=1)[None].astype(np.int64), 20_000.0)
    assert np.abs(likewise).mean() < 0.1
    assert np.abs(likewise).max() < LARGEST


def test_listed_words_together_stay_as_likely_as_they_were():
    generator = np.random.default_rng(1)
    alone = generator.integers(1, 100, 500) * 1000
    noisy = alone * generator.choice([0, 10, 30], 500)
    (ratios,) = log_ratios(np.stack([noisy, alone], axis=1)[None], 100.0)
    assert (alone * np.exp(ratios)).sum() == pytest.approx(alone.sum())
    assert ratios.max() > 0.5


def test_a_list_is_what_most_released_texts_hold(run):
    with run(randomness=AsTold([])) as made:
        made.finish()
        prompts = made._rounds[0].preparation.writer.loaded.prompts
    listed = vocabulary.public_list([" a b", " a", " c b a"], prompts, 2)
    assert prompts._model.decode(listed) == " a b"
    assert vocabulary.public_list([], prompts, 2) == []
