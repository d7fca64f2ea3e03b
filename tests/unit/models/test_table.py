"""The table model: what other tests and proofs rest on."""

from typing import Any

import numpy as np
import pytest

from plainchant.errors import ModelError
from plainchant.models import LanguageModel
from plainchant.models.table import TableModel


def make(**options: Any) -> TableModel:
    return TableModel(
        ["a", "b", "ab", ""], lambda tokens: [len(tokens), sum(tokens), tokens[-1], 0.5], end_of_text=[3], **options
    )


def test_encode_takes_the_longest_match_and_drops_what_it_does_not_know() -> None:
    model: LanguageModel = make()
    assert model.encode("aabxb", trusted=False) == [0, 2, 1]
    assert model.decode([0, 2, 3, 1]) == "aabb"
    assert model.encode("", trusted=True) == []


def test_untrusted_text_never_yields_special_ids() -> None:
    model = TableModel(["a", "<end>"], lambda tokens: [0, 0], end_of_text=[1])
    assert model.encode("a<end>a", trusted=False) == [0, 0]
    assert model.encode("a<end>a", trusted=True) == [0, 1, 0]


def test_logits_are_those_of_the_whole_row() -> None:
    model = make()
    rows = model.open_rows(model.prefill([0, 1]), [[], [2, 2]], room=2)
    empty = model.open_rows(model.prefill([0]), [], room=2)
    first, none = model.step([(rows, 1), (empty, 1)])
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, [[3, 2, 1, 0.5], [5, 6, 1, 0.5]])
    assert none.shape == (0, 4)
    model.step([(rows, 0)])
    rows.rewind()
    np.testing.assert_array_equal(model.step([(rows, 1)])[0], first)
    assert (model.row_steps, model.forward_passes) == (6, 3)
    model.step([(empty, 1)])
    assert (model.row_steps, model.forward_passes) == (6, 3)


def test_room_and_context_are_bounds() -> None:
    model = make(context_length=4)
    with pytest.raises(ModelError, match="4 tokens"):
        model.open_rows((0,), [[0, 0]], room=2)
    rows = model.open_rows((0,), [[0]], room=1)
    model.step([(rows, 0)])
    with pytest.raises(ModelError, match="room"):
        model.step([(rows, 0)])


def test_there_is_no_chat() -> None:
    with pytest.raises(ModelError, match="chat"):
        make().chat("hello")
