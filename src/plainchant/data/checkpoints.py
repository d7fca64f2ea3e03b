"""Finds faults in a model's folder from its files alone: nothing is computed and none of its code runs."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from plainchant.data.files import sha256

_TEXT_FILES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "modules.json", "config_sentence_transformers.json",
    "sentence_bert_config.json",
}  # fmt: skip
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_LARGE = 2**20  # bytes of a JSON file that is not read whole
_POINTER = b"version https://git-lfs"


def fault_of(folder: Path) -> str | None:
    """Why the files of a folder cannot be a complete model, with the next step; None if no fault is found.

    Folders that modules.json names are checked too: sentence embedders keep their parts there.
    """
    if not folder.is_dir():
        return f"{folder} is a file; give the folder that holds config.json and model.safetensors"
    try:
        return next(_faults(folder), None)
    except OSError as error:
        return f"{error.filename or folder} cannot be read ({error.strerror}); check its permissions"


def weights_sha256(folder: Path) -> str:
    """The SHA-256 of a folder's weights, hex.

    Of the file itself where there is one, as `sha256sum model.safetensors` shows it; of several, that of what
    `sha256sum *.safetensors` prints.
    """
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(f"{sha256(file)}  {file.name}\n" for file in files).encode()).hexdigest()


def incomplete(missing: Collection[str], unexpected: Collection[str], misshapen: Collection[str]) -> str | None:
    """Why weights do not fit a model, from the loading report; None if all of them fit.

    Args:
        missing: names that the model has and the files lack.
        unexpected: names that the files have and the model lacks.
        misshapen: names with another shape in the files than in the model.
    """
    if not (missing or unexpected or misshapen):
        return None
    for prefix in ("_orig_mod.", "module.", "model."):
        if missing and all(prefix + name in unexpected for name in missing):
            return (
                f"the names of its weights begin with {prefix!r}, as a wrapped model's do ({_some(unexpected)}); save "
                "the model itself and not its wrapper"
            )
    parts = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("missing", missing),
            ("of another shape than config.json says", misshapen),
            ("unknown to its architecture", unexpected),
        )
        if names
    ]
    scaled = any("scale" in name or "quant" in name for name in unexpected)
    step = "its weights are quantised, use the original model" if scaled else "fetch the model again"
    return f"its weights do not fit config.json ({'; '.join(parts)}); {step}"


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _parts(folder: Path) -> list[Path]:
    """The folder itself, and those of a sentence embedder's modules."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        parts = [folder / module["path"] for module in modules]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        parts = []
    return [folder, *(part for part in parts if part != folder and part.is_dir())]


def _faults(folder: Path) -> Iterator[str]:
    if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
        if any(folder.glob("*.gguf")):
            yield f"{folder} holds GGUF, which only the embedded demo model is read from; give a folder of safetensors"
        yield f"{folder} has no config.json; give the folder of a model"
    files = sorted(path for part in _parts(folder) for path in part.iterdir() if path.is_file())
    for path in files:
        if path.name in _TEXT_FILES or path.name.endswith(".index.json"):
            yield from _faults_of_json(path)
        elif path.suffix == ".safetensors":
            yield from _faults_of_weights(path)
    named = {path.parent for path in files if path.suffix == ".safetensors"}
    for path in files:
        if path.suffix in _PICKLED and "model" in path.stem and path.parent not in named:
            yield (
                f"{path} is pickled, and unpickling can run any code in the file: weights are read from safetensors "
                "only; save the model again with save_pretrained"
            )
    if not named:
        yield f"{folder} has no weights (model.safetensors); fetch the model again"


def _faults_of_json(path: Path) -> Iterator[str]:
    size = os.stat(path).st_size
    with path.open("rb") as file:
        content = file.read() if size <= _LARGE else file.read(len(_POINTER))
    if not content:
        yield f"{path} is empty; fetch the model again"
    if content.startswith(_POINTER):
        yield f"{path} is a Git LFS pointer and not the file; fetch the model again (git lfs pull)"
    if size > _LARGE:
        return
    try:
        document = json.loads(content)
    except ValueError:
        yield f"{path} is not JSON; fetch the model again"
        return
    shards = document.get("weight_map") if path.name.endswith(".safetensors.index.json") else None
    if isinstance(shards, dict):
        for shard in sorted(set(shards.values())):
            if not (path.parent / shard).exists():
                yield f"{path.parent / shard}, a part of the weights, is not there; fetch the model again"


def _faults_of_weights(path: Path) -> Iterator[str]:
    size = os.stat(path).st_size
    with path.open("rb") as file:
        length = file.read(8)
        if not size:
            yield f"{path} is empty; fetch the model again"
        if (length + file.read(len(_POINTER))).startswith(_POINTER):
            yield f"{path} is a Git LFS pointer and not the weights; fetch the model again (git lfs pull)"
        file.seek(8)
        header = int.from_bytes(length, "little")
        if header + 8 > size:
            yield f"{path} is broken or incomplete; fetch the model again"
            return
        try:
            tensors = json.loads(file.read(header))
            ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            yield f"{path} is not in the safetensors format; fetch the model again"
            return
    if 8 + header + max(ends, default=0) != size:
        yield (
            f"{path} is broken or incomplete ({size:,} bytes of {8 + header + max(ends, default=0):,}); fetch the "
            "model again"
        )
