"""Public rules about candidates before a vote: functions of text that is released already, so they cost nothing."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plainchant.arrays import BoolArray, Float32Array, IntArray
from plainchant.generation.prompting import MOST_REPEATED, MOST_SIGNS

# A candidate of fewer words is too short to stand for a record.
SHORTEST = 2
# Cosine from which on a candidate says what an earlier one of its label has said.
NEAR_DUPLICATE = 0.95
_MARKUP = re.compile(r"</?[a-z][^<>]*>|\[\[|\]\]|\{\{|\}\}|https?://\S+\s*$", re.IGNORECASE)
_BLOCK = 1024


def too_short(text: str) -> bool:
    """Hardly a word."""
    return len(text.split()) < SHORTEST


def repetitive(text: str) -> bool:
    """More than half of its words come again."""
    words = text.lower().split()
    return len(set(words)) < (1 - MOST_REPEATED) * len(words)


def markup(text: str) -> bool:
    """Tags, wiki brackets, an address at the end, or mostly signs."""
    signs = sum(not (character.isalnum() or character.isspace()) for character in text)
    return signs > MOST_SIGNS * len(text) or _MARKUP.search(text) is not None


Rule = Callable[[str], bool]
RULES: Mapping[str, Rule] = {"too short": too_short, "repetitive": repetitive, "markup": markup}


def rules_for(examples: Sequence[str]) -> dict[str, Rule]:
    """The rules for data of the form that public examples show.

    A rule that an example breaks is not applied. Where all examples are JSON objects, a text is left out that is none,
    or that lacks a key which all of them have.

    >>> list(rules_for(['{"city": "Graz", "paid": true}']))
    ['not JSON as in the examples', 'too short', 'repetitive']
    """
    rules = {name: rule for name, rule in RULES.items() if not any(map(rule, examples))}
    objects = [_object(example) for example in examples]
    if not objects or None in objects:
        return rules
    keys = set[str].intersection(*(set(found or ()) for found in objects))

    def not_json(text: str) -> bool:
        found = _object(text)
        return found is None or not keys <= set(found)

    # the first: a rule is not applied where too few would be left
    return {"not JSON as in the examples": not_json, **rules}


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, or None."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def sound_candidates(
    texts: Sequence[str],
    labels: IntArray,
    vectors: Float32Array,
    least: int,
    rules: Mapping[str, Rule] = RULES,
) -> tuple[IntArray, dict[str, int]]:
    """The candidates that may be voted for, and how many each rule has left out: both public.

    A rule that would leave fewer than `least` is not applied: what a rule takes for junk may be the data's form.

    Args:
        texts: m candidates, in a public order.
        labels: each one's label, as its prompt asked for it, int64 [m].
        vectors: theirs, unit vectors, float32 [m, d].
        least: how many must be left.
        rules: by name, in order; near-duplicates are left out after all of them.

    Returns:
        Indices, ascending, int64 [k]; rule → number, of rules that left some out.
    """
    left, dropped = np.arange(len(texts)), {}
    masks = {name: np.array([rule(text) for text in texts], dtype=bool) for name, rule in rules.items()}
    for name in (*masks, "near-duplicate"):
        out = masks[name][left] if name in masks else _said_before(labels[left], vectors[left])
        if out.any() and len(left) - out.sum() >= least:
            dropped[name] = int(out.sum())
            left = left[~out]
    return left, dropped


def _said_before(labels: IntArray, vectors: Float32Array) -> BoolArray:
    """Whether an earlier candidate of the same label is nearer than `NEAR_DUPLICATE`, bool [k]; in bounded memory."""
    found = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        for start in range(0, len(own), _BLOCK):
            rows = own[start : start + _BLOCK]
            earlier = own[: start + len(rows)]
            near = vectors[rows] @ vectors[earlier].T >= NEAR_DUPLICATE
            found[rows] = np.tril(near, start - 1).any(axis=1)
    return found
