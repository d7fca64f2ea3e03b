"""What a backend must show before it may read a record: broken twins of an exact model must be refused."""

from typing import Any

import numpy as np
import pytest

import plainchant
from plainchant import models
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.errors import ConfigError, ModelError
from plainchant.generation.executor import checked_for
from plainchant.models import conformance
from plainchant.models.table import TableModel

WORDS = ("<eos>", "<s>", " a", "e", "n", "i", " ")


class Exact(TableModel):
    """A model whose logits depend on every token of a row; `step` notes the sizes of its groups."""

    def __init__(self) -> None:
        super().__init__(WORDS, lambda row: np.cos(np.arange(7) * (1 + sum(row))), end_of_text={0})
        self.special = frozenset({0, 1})
        self.numerical_slack = 1e-3
        self.sizes: list[list[int]] = []

    def step(self, groups: Any, supports: Any = None) -> Any:
        self.sizes.append([rows.count for rows, _ in groups])
        return super().step(groups, supports)


class NotFinite(Exact):
    def step(self, groups: Any, supports: Any = None) -> Any:
        return [np.where(np.arange(logits.shape[1]) == 3, np.nan, logits) for logits in super().step(groups, supports)]


class Spreading(Exact):
    """Rows move each other, a little more with each of them."""

    def __init__(self, nats: float) -> None:
        super().__init__()
        self.nats = nats

    def step(self, groups: Any, supports: Any = None) -> Any:
        rows = sum(group.count for group, _ in groups)
        return [logits + np.float32(self.nats * (rows > 1)) for logits in super().step(groups, supports)]


class Neighbours(Exact):
    """Batches that share a pass move each other by the smallest amount."""

    def step(self, groups: Any, supports: Any = None) -> Any:
        rows = [group.count for group, _ in groups]
        answers = super().step(groups, supports)
        return [
            np.nextafter(logits, np.float32(9)) if sum(rows) - own > 30 else logits
            for logits, own in zip(answers, rows, strict=True)
        ]


class WideOnly(Exact):
    """Rows move each other in wide passes alone, as where a kernel changes with the shape."""

    def __init__(self, still: int = 59) -> None:
        super().__init__()
        self.still = still

    def step(self, groups: Any, supports: Any = None) -> Any:
        rows = sum(group.count for group, _ in groups)
        return [logits + np.float32(0.5 * (rows > self.still)) for logits in super().step(groups, supports)]


class Remembering(Exact):
    """The public row changes by the smallest amount once private rows have been there."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def step(self, groups: Any, supports: Any = None) -> Any:
        answers = super().step(groups, supports)
        if sum(group.count for group, _ in groups) > 1:
            self.seen = True
        elif self.seen:
            answers = [np.nextafter(logits, np.float32(9)) for logits in answers]
        return answers


class Naming(Exact):
    def encode(self, text: str, *, trusted: bool) -> list[int]:
        return [*super().encode(text, trusted=trusted), *[1] * ("<s>" in text)]


class Beyond(Exact):
    def encode(self, text: str, *, trusted: bool) -> list[int]:
        return [*super().encode(text, trusted=trusted), *[7] * ("中" in text)]


class Larger(Exact):
    def __init__(self) -> None:
        super().__init__()
        self.largest_id = 7


def test_an_exact_model_conforms() -> None:
    conformance.check(Exact())
    conformance.check_width(Exact(), rows=64, batch_size=10)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (NotFinite(), "not finite"),
        (Spreading(1e-3), "a row's logits move by 0.001 nats among 40 rows"),
        (Remembering(), "public row's logits change"),
        (Naming(), "turns text into special tokens"),
        (Beyond(), "ids beyond its 7 logits"),
        (Larger(), "ids up to 7, and the model has 7 logits"),
    ],
)
def test_a_broken_model_is_refused(model: Exact, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        conformance.check(model)


def test_what_shows_in_wide_passes_alone_is_refused_by_their_width() -> None:
    model = WideOnly()
    conformance.check(model)
    conformance.check_width(model, rows=30, batch_size=10)
    with pytest.raises(ModelError, match="in a pass of 60 rows"):
        conformance.check_width(model, rows=60, batch_size=10)


def test_passes_are_tried_as_wide_as_noise_may_make_them() -> None:
    # eight batches of eight hold more than 65 rows as often as not
    model = WideOnly(65)
    conformance.check_width(model, rows=64, batch_size=8)
    with pytest.raises(ModelError, match="in passes of 64 to 300 rows"):
        conformance.check_width(model, rows=64, batch_size=8, most=300)


def test_batches_that_move_each_other_by_a_bit_do_not_share_a_pass() -> None:
    plan = plainchant.plan(SynthesisConfig(batch_size=10, texts=10, expected_units=5000, released_examples=0))
    assert not conformance.check_width(Neighbours(), rows=64, batch_size=10)
    assert conformance.check_width(Neighbours(), rows=10, batch_size=10, most=60)
    for model, rows in ((Exact(), 64), (Neighbours(), 10)):
        assert checked_for(plan, model, PerformanceOptions(rows=64)).width == rows
    # the batch that grows may move within ξ, the others may not: ξ is paid for one's own batch alone
    assert not conformance.check_width(Spreading(3e-4), rows=20, batch_size=1)


def test_a_little_movement_is_allowed() -> None:
    conformance.check(Spreading(3e-4))
    conformance.check_width(Spreading(3e-4), rows=64, batch_size=10)


def test_no_more_movement_is_allowed_than_a_plan_has_paid_for() -> None:
    conformance.check_width(Spreading(3e-4), rows=64, batch_size=10, movement=3.1e-4)
    with pytest.raises(ModelError, match=r"allowed: 0\.00029.*numerical_slack"):
        conformance.check_width(Spreading(3e-4), rows=64, batch_size=10, movement=2.9e-4)


@pytest.mark.parametrize(("rows", "batch_size"), [(64, 10), (4, 10), (1, 1), (200, 200)])
def test_a_pass_as_wide_as_a_runs_is_tried(rows: int, batch_size: int) -> None:
    model = Exact()
    conformance.check_width(model, rows=rows, batch_size=batch_size)
    batches = max(1, rows // batch_size)
    assert [batch_size] * batches in model.sizes
    assert [*[batch_size] * (batches - 1), batch_size + 1] in model.sizes


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_no_maximum_passes_over_what_is_not_finite(broken: float) -> None:
    whole = np.zeros((2, 3), dtype=np.float32)
    odd = whole.copy()
    odd[0, 1] = broken
    for one, other in ((whole, odd), (odd, whole), (odd, odd)):
        assert conformance.moved_by(one, other) == np.inf
    assert conformance.moved_by(whole[:0], whole[:0]) == 0.0


def test_another_backend_is_loaded_by_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_LOADERS", {})
    asked: list[Any] = []

    def loader(name: str, performance: PerformanceOptions) -> Exact:
        asked.append((name, performance))
        return Exact() if name == "good" else NotFinite()

    models.register("mine", loader)
    performance = PerformanceOptions(rows=8)
    assert isinstance(models.load("mine:good", performance), Exact)
    assert asked == [("good", performance)]
    with pytest.raises(ModelError, match="not finite"):
        models.load("mine:bad", performance)
    for scheme in ("mine", "x", "a b", ""):
        with pytest.raises(ConfigError, match="scheme"):
            models.register(scheme, loader)


def test_a_model_is_checked_whole_once_and_for_its_width_each_time() -> None:
    model = Exact()
    assert models.checked(model, rows=20, batch_size=10, support=200) is True
    first = len(model.sizes)
    models.checked(model, rows=20, batch_size=10, support=200)
    assert 0 < len(model.sizes) - first < first
    with pytest.raises(ModelError, match="not finite"):
        models.checked(NotFinite(), rows=20, batch_size=10, support=200)


class WholeHead(Exact):
    """Batches move each other where the head of a whole vocabulary is computed for all of them at once."""

    def step(self, groups: Any, supports: Any = None) -> Any:
        rows = [group.count for group, _ in groups]
        answers = super().step(groups, supports)
        moves = supports is not None and min(map(len, supports)) == self.vocabulary_size and sum(rows) > 30
        return [np.nextafter(logits, np.float32(9)) if moves else logits for logits in answers]


def test_a_run_looks_at_the_head_that_it_uses() -> None:
    common: dict[str, Any] = {"batch_size": 10, "texts": 10, "expected_units": 5000}
    few = plainchant.plan(SynthesisConfig(**common, top_k=3, released_examples=0))
    every = plainchant.plan(SynthesisConfig(method="clustered-mean", **common, epsilon=400.0))
    for plan, rows in ((few, 64), (every, 10)):
        assert checked_for(plan, WholeHead(), PerformanceOptions(rows=64)).width == rows
