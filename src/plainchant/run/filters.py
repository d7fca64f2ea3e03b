"""Public rules about candidates before a vote: functions of text that is released already, so they cost nothing."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from plainchant.arrays import BoolArray, Float32Array, IntArray
from plainchant.data.segmentation import share_of_signs, word_count, words
from plainchant.generation.prompting import MOST_SIGNS, repetitive

# A candidate of fewer words is too short to stand for a record.
SHORTEST = 2
# Words in a row that two texts share by no chance; a text is a copy where half of its own such rows are another's.
COPIED_WORDS = 5
# Cosine from which on a candidate says what an earlier one of its label has said.
NEAR_DUPLICATE = 0.95
# Cosine from which on two chosen texts are much alike: they say the same of the same thing.
ALIKE = 0.8
# A script with this share of all candidates' letters is one that the texts use; a language may use several.
USUAL_SHARE = 0.05
# Scripts that are written together: where the first is in use, the others are.
_TOGETHER = {"HIRAGANA": ("KATAKANA", "CJK"), "KATAKANA": ("HIRAGANA", "CJK"), "HANGUL": ("CJK",), "BOPOMOFO": ("CJK",)}
_MARKUP = re.compile(r"</?[a-z][^<>]*>|\[\[|\]\]|\{\{|\}\}|https?://\S+\s*$", re.IGNORECASE)
# The name of a speaker or of a field at the start of a line: a few words.
_NAME = re.compile(r"([^\W_][^\n:!?]{0,30}):(?=\s|$)")
_BLOCK = 1024


def too_short(text: str) -> bool:
    """Hardly a word; in scripts without spaces, hardly the letters of one."""
    return word_count(text) < SHORTEST


def markup(text: str) -> bool:
    """Tags, wiki brackets, an address at the end, or mostly signs."""
    return share_of_signs(text) > MOST_SIGNS or _MARKUP.search(text) is not None


Rule = Callable[[str], bool]
RULES: Mapping[str, Rule] = {"too short": too_short, "repetitive": repetitive, "markup": markup}


def entry_like(fields: Sequence[str]) -> Rule:
    r"""Whether a line of a text begins with one of these names, as the entries of its prompt do.

    >>> entry_like(["Product:"])("It is broken.\n product: a lamp"), entry_like(["Product:"])("My product: a lamp")
    (True, False)
    """
    names = re.compile(rf"^[^\S\n]*(?:{'|'.join(map(re.escape, fields))})", re.IGNORECASE | re.MULTILINE)
    return lambda text: names.search(text) is not None


def rules_for(examples: Sequence[str], fields: Sequence[str] = ()) -> dict[str, Rule]:
    """The rules for data of the form that public examples show, in prompts whose entries have these fields.

    A rule that an example breaks is not applied. Where all examples are JSON objects, a text is left out that is none,
    or that lacks a key which all of them have. Of several other examples the lines are looked at (see `lines_unlike`).

    >>> list(rules_for(['{"city": "Graz", "paid": true}']))
    ['not JSON as in the examples', 'too short', 'repetitive']
    """
    every = {**({"with a field of the prompt": entry_like(fields)} if fields else {}), **RULES}
    rules = {name: rule for name, rule in every.items() if not any(map(rule, examples))}
    objects = [_object(example) for example in examples]
    if not objects or None in objects:
        # one example alone does not say what of its form the others share
        return {"with lines unlike the examples'": lines_unlike(examples), **rules} if len(examples) > 1 else rules
    keys = set[str].intersection(*(set(found or ()) for found in objects))

    def not_json(text: str) -> bool:
        found = _object(text)
        return found is None or not keys <= set(found)

    # the first: a rule is not applied where too few would be left
    return {"not JSON as in the examples": not_json, **rules}


def lines_unlike(examples: Sequence[str]) -> Rule:
    r"""Whether a text lacks what the lines of all examples have: breaks, blank lines, names before colons.

    A name with which lines of all examples begin must begin a line of a text. Where all lines of all examples begin
    with some name, those of a text must as well, and may have other names.

    >>> unlike = lines_unlike(["Ann: Hi.\nBob: Hello.", "Eve: No.\nBob: Why?"])
    >>> unlike("Bob: Hi.\nMia: Hello."), unlike("Bob: Hi.\nHello."), unlike("Ann: Hi.\nEve: No."), unlike("Bob: Hi.")
    (False, True, True, True)
    """
    every = [_lines(example) for example in examples]
    shared = set[str].intersection(*(set(_names(lines)) for lines in every)) - {""}
    named = all(all(_names(lines)) for lines in every)
    broken, spaced = (all(mark in example.strip() for example in examples) for mark in ("\n", "\n\n"))

    def unlike(text: str) -> bool:
        names, text = _names(_lines(text)), text.strip()
        return (
            (broken and "\n" not in text)
            or (spaced and "\n\n" not in text)
            or not shared <= set(names)
            or (named and not all(names))
        )

    return unlike


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _names(lines: Sequence[str]) -> list[str]:
    """What stands before a colon at the start of each line; "" where nothing does that could be a name."""
    return [found[1] if (found := _NAME.match(line)) else "" for line in lines]


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, or None."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def scripts(text: str) -> Counter[str]:
    """How many letters of each script a text has; letters of Chinese and of Japanese kanji are "CJK".

    The first word of a letter's Unicode name is its script, once full-width and styled letters are plain ones.

    >>> sorted(scripts("Σ is a sum").items())
    [('GREEK', 1), ('LATIN', 6)]
    """
    letters = (letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha())
    return Counter(unicodedata.name(letter, "UNKNOWN").partition(" ")[0] for letter in letters)


def _foreign(texts: Sequence[str], examples: Iterable[str]) -> BoolArray:
    """Whether most letters of a text are of scripts that neither the examples nor the texts together use, bool [m]."""
    found = [scripts(text) for text in texts]
    every: Counter[str] = Counter()
    for own in found:
        every.update(own)
    usual = {script for script, count in every.items() if count >= USUAL_SHARE * every.total()}
    usual.update(script for example in examples for script in scripts(example))
    usual.update(other for script in list(usual) for other in _TOGETHER.get(script, ()))
    return np.array(
        [2 * sum(own[script] for script in own if script not in usual) > own.total() for own in found], dtype=bool
    )


def _copies(texts: Sequence[str], examples: Sequence[str]) -> BoolArray:
    """Whether a text repeats one of the examples, as small models do, bool [m]."""
    known = {row for example in examples for row in _rows_of_words(example)}
    rows = [_rows_of_words(text) for text in texts]
    return np.array([2 * sum(row in known for row in own) >= max(len(own), 1) for own in rows], dtype=bool)


def _rows_of_words(text: str) -> list[tuple[str, ...]]:
    """All so many words in a row; of a shorter text the whole."""
    said = words(text.casefold())
    return [tuple(said[start : start + COPIED_WORDS]) for start in range(max(1, len(said) - COPIED_WORDS + 1))]


def sound_candidates(
    texts: Sequence[str],
    labels: IntArray,
    vectors: Float32Array,
    least: int,
    examples: Sequence[str] = (),
    fields: Sequence[str] = (),
) -> tuple[IntArray, dict[str, int]]:
    """The candidates that may be voted for, and how many each rule has left out: both public.

    A rule that would leave fewer than `least` is not applied: what a rule takes for junk may be the data's form.

    Args:
        texts: m candidates, in a public order.
        labels: each one's label, as its prompt asked for it, int64 [m].
        vectors: theirs, unit vectors, float32 [m, d].
        least: how many must be left.
        examples: the public ones, whose form and scripts are sound (see `rules_for`).
        fields: names with which the entries of the prompts begin their lines.

    Returns:
        Indices, ascending, int64 [k]; rule → number, of rules that left some out.
    """
    left, dropped = np.arange(len(texts)), {}
    rules = rules_for(examples, fields)
    masks = {name: np.array([rule(text) for text in texts], dtype=bool) for name, rule in rules.items()}
    masks["copy of an example"] = _copies(texts, examples)
    masks["wrong script"] = _foreign(texts, examples)
    for name in (*masks, "near-duplicate"):
        out = masks[name][left] if name in masks else said_before(labels[left], vectors[left], NEAR_DUPLICATE)
        if out.any() and len(left) - out.sum() >= least:
            dropped[name] = int(out.sum())
            left = left[~out]
    return left, dropped


def said_before(labels: IntArray, vectors: Float32Array, cosine: float) -> BoolArray:
    """Whether an earlier candidate of the same label is at least so near; in bounded memory.

    Args:
        labels: of the candidates, int64 [k].
        vectors: theirs, unit vectors, float32 [k, d].
        cosine: what counts as near.

    Returns:
        bool [k].
    """
    found = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        for start in range(0, len(own), _BLOCK):
            rows = own[start : start + _BLOCK]
            earlier = own[: start + len(rows)]
            near = vectors[rows] @ vectors[earlier].T >= cosine
            found[rows] = np.tril(near, start - 1).any(axis=1)
    return found
