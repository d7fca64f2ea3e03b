"""Words of any script, used to choose examples, to count words and to measure copies.

In scripts with spaces, words are what lies between spaces; vowel signs and other marks belong to the letter before
(Hindi, Tamil, Arabic, Hebrew). Scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are split into
grapheme clusters by Unicode's rules (UAX #29), as the library `regex` finds them. Four clusters of Thai or Lao, or two
of the others, count as a word. No dictionary is used. Where words are compared, *every* run of that many clusters is a
word, as search engines do for Chinese, so the position of a phrase in a text does not matter. Everything here takes
time linear in the text.
"""

from collections.abc import Iterator

import regex

# One word of a spaced script is 4 quarters; so are 2 clusters of syllabic scripts, and 4 of alphabetic ones.
QUARTERS = 4
_SYLLABIC = r"[[\p{Han}\p{Hiragana}\p{Katakana}\u30FC\p{Khmer}\p{Myanmar}]&&[\p{L}\p{N}]]"
_ALPHABETIC = r"[[\p{Thai}\p{Lao}]&&[\p{L}\p{N}]]"
_UNSPACED = rf"[{_SYLLABIC}{_ALPHABETIC}]"
# Letters, digits and the underscore, as \w of Python's `re` has them; then also marks, and joiners inside a word.
_LETTER = rf"[[\p{{L}}\p{{N}}_]--{_UNSPACED}]"
_FOLLOWING = rf"[[\p{{L}}\p{{N}}\p{{M}}_\u200C\u200D]--{_UNSPACED}]"
# the characters that str.split treats as spaces
_SPACE = r"\s\x1C-\x1F"
_CLUSTERS = rf"(?P<two>(?={_SYLLABIC})\X)|(?P<four>(?={_ALPHABETIC})\X)"
_WORDS = regex.compile(rf"(?V1){_CLUSTERS}|{_LETTER}{_FOLLOWING}*+")
# words that are joined by signs without a space, as in "don't" or "3.5", are one
_JOINED = regex.compile(
    rf"(?V1){_CLUSTERS}|{_LETTER}{_FOLLOWING}*+(?:[^\p{{L}}\p{{N}}\p{{M}}_{_SPACE}]++{_LETTER}{_FOLLOWING}*+)*+"
)
_ANY_UNSPACED = regex.compile(rf"(?V1){_UNSPACED}")
_LETTERS = regex.compile(r"(?V1)[\p{L}\p{N}][\p{M}\u200C\u200D]*+" + f"|[{_SPACE}]")


def words(text: str) -> list[str]:
    """The words of a text in order; where a script has no spaces, every run of clusters that counts as a word."""
    return [word for pieces, size in _runs(text) for word in _shingles(pieces, size)]


def chunks(text: str) -> list[str]:
    """The parts between spaces, signs included; where a script has no spaces, its words as in `words`."""
    return [
        word
        for chunk in text.split()
        for word in (words(chunk) if _ANY_UNSPACED.search(chunk) is not None else [chunk])
    ]


def word_count(text: str) -> float:
    """The number of words in a text, split as by `chunks`; clusters count by their share of a word."""
    quarters = sum(
        sum(share for _, share in units(chunk)) if _ANY_UNSPACED.search(chunk) is not None else QUARTERS
        for chunk in text.split()
    )
    return quarters / QUARTERS


def units(text: str) -> list[tuple[str, int]]:
    """A text as the pieces that a copy must repeat, in order, each with its share of a word in `QUARTERS`.

    A piece is a word, with what is joined to it by signs without a space, or a cluster of a script without spaces.
    """
    return [(found[0], QUARTERS // _clusters_per_word(found)) for found in _JOINED.finditer(text)]


def share_of_signs(text: str) -> float:
    """The share of characters that are neither letters or digits, with their marks, nor spaces; 0 of an empty text."""
    letters = sum(len(found[0]) for found in _LETTERS.finditer(text))
    return (len(text) - letters) / max(1, len(text))


def _clusters_per_word(found: "regex.Match[str]") -> int:
    return {"two": 2, "four": 4}.get(found.lastgroup or "", 1)


def _runs(text: str) -> Iterator[tuple[list[str], int]]:
    """Single words, and runs of adjacent clusters of one kind."""
    run: list[str] = []
    size, end = 1, -1
    for found in _WORDS.finditer(text):
        own = _clusters_per_word(found)
        if run and (own == 1 or own != size or found.start() != end):
            yield run, size
            run = []
        run.append(found[0])
        size, end = own, found.end()
    if run:
        yield run, size


def _shingles(pieces: list[str], size: int) -> Iterator[str]:
    for start in range(max(1, len(pieces) - size + 1)):
        yield "".join(pieces[start : start + size])
