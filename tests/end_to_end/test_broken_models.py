"""Models that are broken, incomplete or not supported: refused at load, in one sentence with the next step.

Each kind is made here from the tiny model; the shared cases are in `test_faults`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles.tables import OPTIONS
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig

Weights = dict[str, torch.Tensor]


def weights(change: Callable[[Weights], Weights]) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return broken


def configured(**values: Any) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return broken


def written(name: str, content: bytes | None) -> Callable[[Path], None]:
    """Puts bytes in the place of a file; None takes it away."""

    def broken(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)

    return broken


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def sharded(folder: Path) -> None:
    names = list(load_file(folder / "model.safetensors"))
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors") | {names[0]: "model-00002.st"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def spoilt(value: float, name: str) -> Callable[[Path], None]:
    def change(all_weights: Weights) -> Weights:
        all_weights[name][-1] = value
        return all_weights

    return weights(change)


def quantised(all_weights: Weights) -> Weights:
    name = "model.layers.0.mlp.up_proj.weight"
    return all_weights | {
        name: all_weights[name].to(torch.float8_e4m3fn),
        f"{name}_scale_inv": torch.ones(1, 1),
    }


def larger_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    document = json.loads(file.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    document["added_tokens"].append({"id": 258, "content": "harbour", **flags})
    file.write_text(json.dumps(document))


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def gguf(folder: Path) -> None:
    emptied(folder)
    (folder / "model.gguf").write_bytes(b"GGUF")


def mamba(folder: Path) -> None:
    config = MambaConfig(vocab_size=258, hidden_size=32, state_size=8, num_hidden_layers=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 130248\n"
KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "prefix of torch.compile": (weights(lambda x: {f"_orig_mod.{k}": v for k, v in x.items()}), "'_orig_mod.'"),
    "prefix of a wrapper": (weights(lambda x: {f"module.{k}": v for k, v in x.items()}), "'module.'"),
    "a layer more in the configuration": (configured(num_hidden_layers=3), "missing: model.layers.2.input_layernorm"),
    "a layer less in the configuration": (configured(num_hidden_layers=1), "unknown to its architecture: model.layers"),
    "no head": (weights(lambda x: {k: v for k, v in x.items() if k != "lm_head.weight"}), "missing: lm_head.weight"),
    "one renamed": (weights(lambda x: {k.replace("q_proj", "query"): v for k, v in x.items()}), "q_proj.weight"),
    "eight bits with scales": (weights(quantised), "weights are quantised"),
    "another shape": (configured(hidden_size=64), "of another shape than config.json says: lm_head.weight"),
    "cut file": (cut, "model.safetensors is broken or incomplete"),
    "pointer": (written("model.safetensors", LFS), "is a Git LFS pointer and not the weights"),
    "empty file": (written("model.safetensors", b""), "model.safetensors is empty"),
    "another format": (written("model.safetensors", b"\x08" + bytes(7) + b"notjson!"), "not in the safetensors format"),
    "header beyond the end": (written("model.safetensors", b"\xff" * 40), "is broken or incomplete"),
    "no weights": (written("model.safetensors", None), "has no weights"),
    "pickled": (pickled, "is pickled"),
    "missing shard": (sharded, "model-00002.st, a part of the weights, is not there"),
    "NaN in one row": (spoilt(float("nan"), "model.embed_tokens.weight"), "not finite (NaN or infinite): model.embed"),
    "infinite": (spoilt(float("inf"), "lm_head.weight"), "not finite (NaN or infinite): lm_head.weight"),
    "overflow": (spoilt(3e38, "lm_head.weight"), "logits are not finite"),
    "larger tokenizer": (larger_tokenizer, "its tokenizer has ids up to 258"),
    "no configuration": (written("config.json", None), "has no config.json"),
    "configuration is no JSON": (written("config.json", b"{"), "config.json is not JSON"),
    "empty configuration": (written("config.json", b""), "config.json is empty"),
    "configuration of nothing": (written("config.json", b"{}"), "cannot be loaded"),
    "unknown architecture": (configured(model_type="nobody-knows"), "nobody-knows"),
    "no tokenizer": (written("tokenizer.json", None), "tokenizer"),
    "tokenizer is no JSON": (written("tokenizer.json", b"nothing"), "tokenizer.json is not JSON"),
    "tokenizer of another format": (written("tokenizer.json", b'{"model": 3}'), "cannot be loaded"),
    "no attention": (mamba, "is not supported, because 0 of its 2 layers use attention"),
    "GGUF only": (gguf, "holds GGUF"),
    "empty folder": (emptied, "has no config.json"),
}


def told(answer: Any) -> str:
    """The error, without the line breaks of a terminal."""
    return "".join(answer.err.split())


def refused(command: Any, folder: Path, table: Path, out: Path, *more: object, config: Path | None = None) -> str:
    first = [] if config is None else [config]
    answer = command("run", *first, *OPTIONS, "--model", folder, "--data", table, "--out", out, *more, code=1)
    assert "unexpected" not in answer.err
    assert not out.exists()
    return told(answer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_model_is_refused_at_load(kind: str, command: Any, model: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(model, folder)
    breaks, reason = KINDS[kind]
    breaks(folder)
    assert "".join(reason.split()) in refused(command, folder, table, tmp_path / "out")


def test_a_file_and_a_path_to_nothing_are_no_models(command: Any, table: Path, tmp_path: Path) -> None:
    assert "isafile" in refused(command, table, table, tmp_path / "out")
    assert "nosuchpath" in refused(command, tmp_path / "nothing", table, tmp_path / "out")


def test_nothing_is_charged_for_a_model_that_does_not_work(
    command: Any, model: Path, table: Path, tmp_path: Path
) -> None:
    folder, ledger = tmp_path / "broken", tmp_path / "ledger.json"
    shutil.copytree(model, folder)
    spoilt(float("nan"), "lm_head.weight")(folder)
    command("account", "--ledger", ledger, "--epsilon", 100, "--delta", 1e-3)
    before = ledger.read_bytes()
    refused(command, folder, table, tmp_path / "out", "--ledger", ledger)
    assert ledger.read_bytes() == before


TEMPLATES = {
    "needs a system message": ("{% if messages[0]['role'] != 'system' %}{{ raise_exception('A system message is "
                               "required') }}{% endif %}", "A system message is required"),
    "syntax": ("{% for m in messages %}{{ m['content']}", "fails in line 1"),
    "JSON": ("{% for m in messages %}{{ m['content'] | tojson }}{% endfor %}<|assistant|>", "unchanged"),
    "HTML": ("{% for m in messages %}{{ m['content'] | e }}{% endfor %}<|assistant|>", "unchanged"),
    "drops": ("{{ 'hello' }}", "unchanged"),
    "twice": ("{% for m in messages %}{{ m['content'] + m['content'] }}{% endfor %}:", "unchanged"),
    "unknown name": ("{{ messages[1]['content'] }}", "fails"),
}  # fmt: skip


def chat_form(folder: Path) -> Path:
    file = folder / "chat.toml"
    file.write_text('[prompt]\nform = "chat"\n')
    return file


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_chat_template_that_cannot_show_a_record_is_named(
    kind: str, command: Any, model: Path, table: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(model, folder)
    template, reason = TEMPLATES[kind]
    (folder / "chat_template.jinja").write_text(template)
    error = refused(command, folder, table, tmp_path / "out", config=chat_form(tmp_path))
    assert "chattemplate" in error
    assert "".join(reason.split()) in error


def test_tied_embeddings_need_no_head_of_their_own(command: Any, model: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tied"
    shutil.copytree(model, folder)
    configured(tie_word_embeddings=True)(folder)
    weights(lambda x: {k: v for k, v in x.items() if k != "lm_head.weight"})(folder)
    command("run", *OPTIONS, "--model", folder, "--data", table, "--out", tmp_path / "out")


def test_weights_that_nothing_reads_are_no_fault(command: Any, model: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(model, folder)
    weights(lambda x: x | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})(folder)
    command("run", *OPTIONS, "--model", folder, "--data", table, "--out", tmp_path / "out")


@pytest.mark.parametrize("shared", [0, 2])
def test_gemma_4_is_supported(shared: int, command: Any, model: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gemma4"
    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    try:
        config = AutoConfig.for_model(
            "gemma4_text", hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, global_head_dim=16, vocab_size=258, vocab_size_per_layer_input=258,
            max_position_embeddings=512, sliding_window=8, num_kv_shared_layers=shared,
            layer_types=["sliding_attention", "full_attention"] * 3,
        )  # fmt: skip
    except ValueError:
        pytest.skip("this transformers has no gemma4_text")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    command("run", *OPTIONS, "--model", folder, "--data", table, "--out", tmp_path / "out")
