"""The topics of a release: its public centres, described by the released texts around them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plainchant.config import SynthesisConfig
from plainchant.data.segmentation import words
from plainchant.privacy.histograms import WHOLE_LABEL, Cell

# Sample texts per topic, and words that describe it.
_SAMPLES, _WORDS = 2, 4


@dataclass(frozen=True)
class Topic:
    """A public centre that cells were kept around.

    Attributes:
        centre: its number.
        words: what its texts say more often than others.
        labels: of its cells, in order.
        units: their noisy sizes together.
        texts: how many released texts were written for it.
        samples: some of them.
    """

    centre: int
    words: tuple[str, ...]
    labels: tuple[str | None, ...]
    units: int
    texts: int
    samples: tuple[Mapping[str, Any], ...]


def topics_of(config: SynthesisConfig, cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]]) -> list[Topic]:
    """The topics with texts, the one with most texts first.

    * A function of the release and of public things only: it uses nothing private.

    Args:
        config: the run's configuration.
        cells: the kept cells.
        rows: the released rows, with the number of their cell.
    """
    own: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        # a cell that is not there belongs to a damaged release, which the reader of it refuses
        centre = cells[row["cell"]].centre if 0 <= row["cell"] < len(cells) else WHOLE_LABEL
        if centre != WHOLE_LABEL:
            own.setdefault(centre, []).append(row)
    said = {centre: [_words_in(row["text"]) for row in texts] for centre, texts in own.items()}
    known = Counter(word for texts in said.values() for text in texts for word in text)
    total = sum(map(len, said.values()))
    found = [
        Topic(
            centre,
            _describing(said[centre], known, total),
            tuple(dict.fromkeys(config.label_set[cell.label] for cell in cells if cell.centre == centre)),
            sum(cell.noisy_size for cell in cells if cell.centre == centre),
            len(texts),
            tuple(texts[:: max(1, len(texts) // _SAMPLES)][:_SAMPLES]),
        )
        for centre, texts in own.items()
    ]
    return sorted(found, key=lambda topic: (-topic.texts, -topic.units, topic.centre))


def _words_in(text: str) -> set[str]:
    # short words of the Latin alphabet are mostly articles and the like; in other scripts two characters are a word
    found = (word for word in words(text.casefold()) if len(word) > (3 if word.isascii() else 1))
    return {word for word in found if not any(map(str.isdigit, word))}


def _describing(texts: Sequence[set[str]], known: Counter[str], total: int) -> tuple[str, ...]:
    """Words in several of a topic's texts and in few others."""
    counts = Counter(word for text in texts for word in text)
    least = 2 if len(texts) > 3 else 1
    scores = {
        word: count / len(texts) * math.log((1 + total) / (known[word] - count + 1))
        for word, count in counts.items()
        if count >= least
    }
    return tuple(sorted(scores, key=lambda word: (-scores[word], word))[:_WORDS])
