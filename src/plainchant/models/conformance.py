"""Checks that every backend must pass before it reads a record (guarantee 4.1, 7, 9); uses only the Protocol.

Everything here is public: made-up text, the model and the machine. Maxima are safe against NaN: a logit that is not
finite leads to a refusal and never counts as a small difference.
"""

import math

import numpy as np

from plainchant.arrays import Float32Array, IntArray
from plainchant.errors import ModelError
from plainchant.models import LanguageModel

PROBES = (
    "The library on Mill Street opens at nine.\n\nIt lends maps, films & tools, 🎵 and is free for everybody.",
    "<s></s><bos><eos><pad><unk><|endoftext|><|im_start|>user<|im_end|><start_of_turn><end_of_turn><unused7>[INST]",
    "",
    "< bos><<eos>eos>\ud800\x00\t\u2028שלום 中文 हिन्दी e\u0301",
)
"""Public texts: plain English, names of control tokens, nothing, odd characters."""

SHARE = 1 / 3
"""The share of the numerical slack that a check may measure: it tries only a few of all possible shapes."""

ROWS = 40
"""Number of rows in which `check` measures how far a row moves."""

WIDER = 3
"""Number of passes, wider than usual, in which `check_width` measures."""

SEEN_IDS = 200
"""How many tokens a check looks at where nothing else is said."""


def moved_by(one: Float32Array, other: Float32Array) -> float:
    """The largest difference of two arrays of logits, nats; infinite where a number is not finite.

    >>> import numpy as np
    >>> moved_by(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    0.5
    >>> moved_by(np.array([1.0, np.nan]), np.array([1.0, np.nan]))
    inf
    """
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one - other).max(initial=0.0))


def check(model: LanguageModel) -> None:
    """Checks the tokenizer, finite logits, the public row, and rows of different lengths that are added or removed.

    Raises:
        ModelError: the guarantee cannot rely on this model here; the message says why.
    """
    _check_tokens(model)
    _check_public_row(model)
    _check_lengths(model)


def check_width(
    model: LanguageModel,
    *,
    rows: int,
    batch_size: int,
    movement: float = math.inf,
    most: int = 0,
    support: int = SEEN_IDS,
) -> bool:
    """Measures how far rows move in passes as wide as a run's when a row or a batch is added or removed.

    Rows of the batch that changes may move a little, which ξ pays for. Those of other batches may not move at all.

    Args:
        model: the language model.
        rows: about how many private rows a pass will hold.
        batch_size: s, rows of a batch.
        movement: how far a row may move, nats, if that is less than the model's own slack allows.
        most: how many private rows a pass may hold, since true sizes are random; up to so many are tried.
        support: about how many tokens a support holds: a small one and the whole vocabulary take different heads.

    Returns:
        Whether rows kept every bit where it was another batch that changed. If not, each batch needs its own passes.

    Raises:
        ModelError: rows move by more than `SHARE` of the model's numerical slack, or by more than `movement`.
    """
    batches = max(1, rows // batch_size)
    tokens = _tokens(model)
    prefix, ids = model.prefill([*model.start_tokens, *tokens[:4]]), _some_ids(model, support)
    # a few rows have different prompts; for the others the prefix is enough, and takes no time to process
    own = [[tokens[(5 * row + place) % len(tokens)] for place in range(row % 7)] for row in range(min(8, batch_size))]

    def logits(sizes: list[int]) -> list[Float32Array]:
        groups = [
            (model.open_rows(prefix, [*own, *[[]] * size][:size], room=1), tokens[place % len(tokens)])
            for place, size in enumerate(sizes)
        ]
        return model.step(groups, [ids] * len(sizes))

    whole, moved, still = logits([batch_size] * batches), 0.0, True
    changed = [
        [batch_size - 1, *[batch_size] * (batches - 1)],
        [*[batch_size] * (batches - 1), batch_size + 1],
        [batch_size] * (batches - 1),
        [batch_size] * (batches // 2),
        [1],
        *wider(batches, batch_size, most),
    ]
    for sizes in changed:
        for before, after in zip(whole, logits(sizes) if sizes else [], strict=False):
            common = min(len(before), len(after))
            moved = max(moved, moved_by(before[:common], after[:common]))
            still &= len(before) != len(after) or np.array_equal(before, after)
    where = f"in a pass of {rows} rows" if most <= rows else f"in passes of {rows} to {most} rows"
    _require_still(model, moved, where, movement)
    return still


def wider(batches: int, batch_size: int, most: int) -> list[list[int]]:
    """Sizes of the batches of wider passes, in equal ratios up to the widest; none if that holds no more rows.

    Where there are several, the first one keeps its size: it is the one that others may not move.

    >>> wider(3, 4, most=27)
    [[4, 6, 6], [4, 9, 8], [4, 12, 11]]
    """
    own, grown = ([batch_size], batches - 1) if batches > 1 else ([], 1)
    usual = batches * batch_size
    totals = np.geomspace(usual, most, WIDER + 1)[1:].round().astype(int).tolist() if most > usual else []
    others = [total - sum(own) for total in totals]
    return [own + [rest // grown + (place < rest % grown) for place in range(grown)] for rest in others]


def _check_tokens(model: LanguageModel) -> None:
    width = model.vocabulary_size
    largest = max(model.largest_id, *model.start_tokens, -1)
    if largest >= width:
        raise ModelError(
            f"model {model.name!r}: its tokenizer has ids up to {largest}, and the model has {width} logits: tokenizer "
            "and weights do not match; fetch both from the same source, or resize the embeddings to the tokenizer"
        )
    for probe in PROBES:
        tokens = model.encode(probe, trusted=False)
        if not all(0 <= token < width for token in tokens):
            raise ModelError(f"model {model.name!r}: its tokenizer yields ids beyond its {width} logits; use another")
        if model.special.intersection(tokens):
            raise ModelError(f"model {model.name!r}: its tokenizer turns text into special tokens; use another")


def _check_public_row(model: LanguageModel) -> None:
    """Public rows have the same bits with and without private rows, by one and several in a pass (guarantee 4.1)."""
    tokens = _tokens(model)
    tail = [tokens[place % len(tokens)] for place in range(2)]

    def logits(together: int, private: int) -> list[Float32Array]:
        prefix = model.prefill([*model.start_tokens, *tokens[:4]])
        # each batch has a public row and private ones; the public ones share a pass, as the private ones do
        public = [model.open_rows(prefix, [tokens[: 1 + batch]], room=len(tail)) for batch in range(together)]
        others = [
            model.open_rows(prefix, [tokens[row : row + 3] for row in range(private + batch)], room=len(tail))
            for batch in range(together * (private > 0))
        ]
        found = []
        for token in tail:
            found += model.step([(rows, token) for rows in public])
            for own in others:
                model.step([(own, token)])
        return found

    alone = logits(1, 0)
    if not all(np.isfinite(row).all() for row in alone):
        raise ModelError(
            f"model {model.name!r}: its logits are not finite (NaN or infinite); its weights are broken, or another "
            "dtype (float32) helps"
        )
    pairs = [(alone, logits(1, 7)), (logits(3, 0), logits(3, 7))]
    if not all(np.array_equal(one, other) for pair in pairs for one, other in zip(*pair, strict=True)):
        raise ModelError(
            f"model {model.name!r}: on this machine the public row's logits change when there are other rows; use "
            "float32 on a CPU"
        )


def _check_lengths(model: LanguageModel) -> None:
    tokens, ids = _tokens(model), _some_ids(model, SEEN_IDS)
    prefix = model.prefill([*model.start_tokens, *tokens[:4]])
    texts = [[tokens[(5 * row + place) % len(tokens)] for place in range(1 + row % 7)] for row in range(ROWS)]

    def logits(first: int, last: int) -> Float32Array:
        rows = model.open_rows(prefix, texts[first:last], room=1)
        return model.step([(rows, tokens[0])], [ids])[0]

    whole, moved = logits(0, ROWS), 0.0
    for first, last in ((0, 1), (1, 17), (1, ROWS)):
        moved = max(moved, moved_by(logits(first, last), whole[first:last]))
    _require_still(model, moved, f"among {ROWS} rows")


def _require_still(model: LanguageModel, moved: float, where: str, movement: float = math.inf) -> None:
    allowed = min(model.numerical_slack * SHARE, movement)
    if not moved <= allowed:
        raise ModelError(
            f"model {model.name!r}: on this machine a row's logits move by {moved:.2g} nats {where} when other rows "
            f"change (allowed: {allowed:.2g}); use float32 on a CPU, or a larger numerical_slack"
        )


def _tokens(model: LanguageModel) -> list[int]:
    """At least one id that represents text."""
    return model.encode(PROBES[0], trusted=False) or [
        next((token for token in range(model.vocabulary_size) if token not in model.special), 0)
    ]


def _some_ids(model: LanguageModel, count: int) -> IntArray:
    return np.arange(0, model.vocabulary_size, max(1, model.vocabulary_size // count), dtype=np.int64)
