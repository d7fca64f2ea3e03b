"""Language models behind one small Protocol (guarantee 4.1).

The decoder knows token ids only. A model keeps the key-value cache of a *prefix*, which is public and shared, and the
caches of the prompts of a group of *rows* (the contexts of one batch), so that nothing is computed twice.
"""

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from plainchant.arrays import Float32Array, IntArray
from plainchant.config import PerformanceOptions
from plainchant.data.checkpoints import weights_sha256
from plainchant.errors import ConfigError


class Rows(Protocol):
    """The contexts of one batch inside a model: caches of n rows that share no state with other groups of rows."""

    @property
    def count(self) -> int:
        """n, the number of rows; may be zero. Secret where the rows are private."""

    def rewind(self) -> None:
        """Forget every token after the prompt, keep the prompt's cache."""


class LanguageModel(Protocol):
    """A causal language model over token ids.

    Implementations must guarantee:

    * the logits of a row are a function of that row's own tokens, up to `numerical_slack` nats in any coordinate when
      the number, the length or the content of other rows changes (guarantee 7);
    * `encode(text, trusted=False)` never yields an id of `special` (guarantee 9: special tokens inside private text);
    * `prefill` and `open_rows` store nothing on disk and log none of their inputs.
    """

    name: str
    vocabulary_size: int
    """V, the width of the logits."""
    context_length: int
    """Maximum tokens of a row, prompt and continuation together."""
    largest_id: int
    """The largest id that represents text in the tokenizer; must be below V for a model that reads records."""
    start_tokens: tuple[int, ...]
    """The tokens at the start of every prompt (beginning of sequence); may be empty."""
    end_of_text: frozenset[int]
    """Ids after which a text is finished."""
    special: frozenset[int]
    """Ids that represent no text: outside every support unless in `end_of_text` (guarantee 4.2)."""
    numerical_slack: float
    """Nats by which a logit may move when other rows change (guarantee 7); 0 for exact models."""

    def row_bytes(self, tokens: int) -> int:
        """Bytes of cache for a row with `tokens` tokens."""

    def encode(self, text: str, *, trusted: bool) -> list[int]:
        """Token ids of a text, without `start_tokens`. Trusted (public) text may contain special tokens' names."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special ids left out."""

    def chat(self, user: str) -> str:
        """A user's message in the model's chat format, up to the start of the assistant's answer (trusted text).

        Raises:
            ModelError: the model has no chat template.
        """

    def prefill(self, prefix: Sequence[int]) -> Any:
        """Computes a public prefix once; the result is passed to `open_rows` any number of times."""

    def open_rows(self, prefix: Any, suffixes: Sequence[Sequence[int]], *, room: int) -> Rows:
        """Rows that each continue `prefix` with their own suffix, with room for `room` further tokens.

        Suffixes may be empty and of different lengths, and there may be none at all.
        """

    def step(
        self, groups: Sequence[tuple[Rows, int]], supports: Sequence[IntArray] | None = None
    ) -> list[Float32Array]:
        """One forward pass: appends one token to every row of each group.

        Args:
            groups: rows, and the token that each row of the group reads.
            supports: for each group the ids whose logits are needed, int64 [|S|]; None for all of them.

        Returns:
            For each group the next-token logits, float32 [n, |S|] or [n, V].
        """


Loader = Callable[[str, PerformanceOptions], LanguageModel]

PACKAGES = ("torch", "transformers")
"""Packages whose versions affect the results of the built-in backend."""

_LOADERS: dict[str, Loader] = {}
# Models that have passed `conformance.check`, as weak references.
_CONFORMING: weakref.WeakSet[Any] = weakref.WeakSet()


def register(scheme: str, loader: Loader) -> None:
    """Registers another backend: it loads all names that begin with `scheme:`.

    Args:
        scheme: letters before the colon, such as "mine" for "mine:a-model".
        loader: called with the part after the colon and the performance options. Its model is checked like any other.

    Raises:
        ConfigError: the scheme is already registered, or is not a word of at least two letters.
    """
    if scheme in _LOADERS or not scheme.isalpha() or len(scheme) < 2:
        raise ConfigError(f"scheme = {scheme!r}: must be a new word of at least two letters")
    _LOADERS[scheme] = loader


def load(name: str, performance: PerformanceOptions) -> LanguageModel:
    """Loads a language model by name and runs the checks that every backend must pass (see `conformance.check`).

    Args:
        name: a path or name that the built-in backend loads, or `scheme:rest` for a registered one.
        performance: device, dtype and threads.

    Raises:
        ConfigError: device or dtype cannot be used.
        MissingDependencyError: an extra is needed.
        ModelError: the model is not found, broken, not supported, or fails a check.
    """
    from plainchant.models.conformance import check

    scheme, colon, rest = name.partition(":")
    if colon and scheme in _LOADERS:
        model = _LOADERS[scheme](rest, performance)
    else:
        from plainchant.models.transformers.load import load_model

        model = load_model(name, device=performance.device, dtype=performance.dtype, threads=performance.threads)
    check(model)
    _CONFORMING.add(model)
    return model


def revision_of(name: str) -> str | None:
    """Which version of a model a name stands for on this machine.

    Returns:
        "commit " and the Hub's commit; or "sha256 " and the checksum of the weights in a folder (`data.checkpoints`);
        None where neither is known, as for other backends.
    """
    scheme, colon, _ = name.partition(":")
    if colon and scheme in _LOADERS:
        return None
    from plainchant.models.transformers.load import folder_of

    folder = folder_of(name)
    if folder is None:
        return None
    return f"commit {folder.name}" if folder.parent.name == "snapshots" else f"sha256 {weights_sha256(folder)}"


def load_tokenizer(name: str) -> Callable[[str], list[int]]:
    """The tokenizer of a language model, for untrusted text; of the built-in backend without loading any weights.

    Args:
        name: as for `load`.

    Raises:
        MissingDependencyError: an extra is needed.
        ModelError: the model is not found.
    """
    scheme, colon, _ = name.partition(":")
    if colon and scheme in _LOADERS:
        return functools.partial(load(name, PerformanceOptions()).encode, trusted=False)
    from plainchant.models.transformers.load import load_encoder

    return load_encoder(name)


def licence_of(name: str) -> str | None:
    """The licence that a model's files name, for the built-in backend; None where it is not known."""
    scheme, colon, _ = name.partition(":")
    if colon and scheme in _LOADERS:
        return None
    from plainchant.models.transformers.load import licence_of as found

    return found(name)


def checked(
    model: LanguageModel, *, rows: int, batch_size: int, support: int, movement: float = math.inf, most: int = 0
) -> bool:
    """Checks that rows do not move in passes as wide as the run's on this machine (guarantee 7).

    A run calls this before it reads or charges anything. Models that `load` did not return get all other checks too.

    Args:
        model: the language model.
        rows: about how many private rows a forward pass will hold.
        batch_size: s.
        support: how many tokens a support holds.
        movement: how far a row may move, nats, if that is less than the model's own slack allows.
        most: how many private rows a forward pass may hold, by the plan.

    Returns:
        Whether batches may share passes: none of them moved another one's rows by a bit.

    Raises:
        ModelError: the guarantee cannot rest on this model here.
    """
    from plainchant.models.conformance import check, check_width

    if model not in _CONFORMING:
        check(model)
        _CONFORMING.add(model)
    return check_width(model, rows=rows, batch_size=batch_size, movement=movement, most=most, support=support)


def device_memory(performance: PerformanceOptions) -> float:
    """Total memory in GiB of the device in the performance options, not just the free part."""
    from plainchant.models.transformers.load import device_memory as memory

    return memory(performance.device)


def describe_device() -> dict[str, str | int]:
    """Versions, threads and device of the built-in backend on this machine."""
    from plainchant.models.transformers.load import describe_device as described

    return described()
