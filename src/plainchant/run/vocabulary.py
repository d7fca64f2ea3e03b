"""The records' words: one noisy count per label, and how it moves the model that writes candidates (guarantee 8.5).

Words are tokens of that model: every model has them in every language, and its logits are about them.
"""

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from plainchant.arrays import Float64Array, IntArray
from plainchant.data.segmentation import words as segmented
from plainchant.errors import RunError, foreign_messages_hidden
from plainchant.generation.decoding import Bias
from plainchant.generation.prompting import Prompts
from plainchant.privacy.histograms import (
    NO_CELL,
    VOTE_GRID,
    Ballot,
    count_votes,
    noise_sigma,
    noisy_votes,
    vote_weight,
)
from plainchant.run.preparation import Preparation
from plainchant.run.released import Released
from plainchant.run.store import RunDirectory
from plainchant.run.writers import LocalWriter

# Words that a text votes for, and the longest list. Chosen by hand on AG News and CLINC150, where half of either does
# about as well; words that are rarer still are mostly noise.
MOST, LISTED = 32, 4000
# Cells of the histogram: exact noise for so many takes half a minute.
CELLS = 1_000_000
# Nats by which a logit is moved at most.
LARGEST = 3.0
# Deviations by which a label's votes must exceed none to move anything, and those that a word's excess is cut by.
SIGNAL, CHANCE = 2.0, 0.5
# Words of a label that are shown to people, and by how many deviations they must stand out: noise alone does so for
# one of thirty thousand.
SHOWN, SURE = 8, 4.0


def count_words(preparation: Preparation, released: Released) -> None:
    """Counts the words of the records with noise and commits the counts.

    Args:
        preparation: the run's; a local model writes its candidates.
        released: all texts so far. Those that the public model wrote by itself say what it would write anyway.
    """
    writer, config, directory = preparation.writer, preparation.config, preparation.directory
    if not isinstance(writer, LocalWriter):
        raise RunError("word_share: words are counted for a local model, and this run has none for its candidates")
    size, prompts, model = len(config.label_set), writer.loaded.prompts, writer.loaded.model
    listed = public_list([text.text for text in released.texts], prompts, min(LISTED, CELLS // size))
    written = [text for text in released.texts if released.is_expanded(text)]
    asked = np.array([released.label_of(text, size) for text in written], dtype=np.int64)
    expected = word_votes(prompts, [text.text for text in written], asked, listed, size)
    texts = [preparation.table[record].text for record in directory.voters()]
    votes = word_votes(prompts, texts, preparation.labels_of(preparation.directory.voters()), listed, size)
    noisy = noisy_votes(votes, preparation.plan.rho_words, preparation.randomness)
    words = {token: model.decode([token]).strip() for token in listed}
    labels = np.repeat(np.arange(size), len(listed)).tolist()
    directory.save_words(words, list(zip(labels, listed * size, noisy.tolist(), expected.tolist(), strict=True)))


def public_list(texts: Sequence[str], prompts: Prompts, most: int) -> list[int]:
    """The tokens that are in the largest number of released texts, ascending."""
    found = Counter(token for text in texts for token in set(prompts.body(text, None)))
    # ties go to the lower id
    return sorted(sorted(found, key=lambda token: (-found[token], token))[:most])


def word_votes(prompts: Prompts, texts: Sequence[str], labels: IntArray, listed: Sequence[int], size: int) -> IntArray:
    """The exact votes of texts for the words of a list. Secret for records.

    Args:
        prompts: they read a text as the model would.
        texts: one of each unit.
        labels: theirs, by number, NO_CELL for a text without a vote, int64 [n].
        listed: the list, ascending.
        size: number of labels.

    Returns:
        Votes in units of the grid, word by word, label by label, int64 [size · words] (`count_votes`).
    """
    ballot = Ballot((np.array(listed, dtype=np.int64),) * size, (MOST,) * size)
    return count_votes(labels, functools.partial(votes_for_words, prompts, texts), ballot)


def votes_for_words(prompts: Prompts, texts: Sequence[str], units: IntArray, listed: IntArray, count: int) -> IntArray:
    """The first different listed words of each unit's text: a function of that text alone. Secret for records.

    Args:
        prompts: they read a text as the model would.
        texts: of all units.
        units: whose votes are wanted, int64 [u].
        listed: the list, ascending, int64 [w].
        count: how many words a unit votes for at most.

    Returns:
        Places on the list, NO_CELL where a text has fewer words, int64 [u, count].
    """
    votes = np.full((len(units), count), NO_CELL, dtype=np.int64)
    place = {token: number for number, token in enumerate(listed.tolist())}
    for row, unit in enumerate(units.tolist()):
        with foreign_messages_hidden("the language model's tokenizer"):
            tokens = prompts.body(texts[unit], None)
        own = [place[token] for token in dict.fromkeys(tokens) if token in place][:count]
        votes[row, : len(own)] = own
    return votes


def biases_of(preparation: Preparation) -> list[Bias | None]:
    """For each label how the public logits are moved; None where nothing is counted or the noise drowns it."""
    directory, rho = preparation.directory, preparation.plan.rho_words
    tokens = np.array(list(directory.words()), dtype=np.int64)
    if not len(tokens):
        return [None] * len(preparation.config.label_set)
    ratios = log_ratios(directory.word_votes(), VOTE_GRID * noise_sigma(rho))
    return [Bias(tokens, own.astype(np.float32)) if own.any() else None for own in ratios]


def log_ratios(votes: IntArray, sigma: float) -> Float64Array:
    """How much more the records say a word than the model by itself, in nats: post-processing (guarantee 8.5).

    Of an excess or a lack, half a deviation is taken off, since noise and chance do as much; ratios are smoothed by a
    whole one. Words on the list together become no likelier than before, compared with all else, such as the end of a
    text.

    Args:
        votes: noisy votes and the model's own, int64 [labels, words, 2].
        sigma: of the noise.

    Returns:
        0 where nothing is known, at most `LARGEST` from it, float64 [labels, words].

    >>> votes = np.array([[[90_000, 30_000], [60_000, 10_000], [0, 10_000]]])
    >>> np.round(log_ratios(votes, sigma=2_000.0), 1).tolist()
    [[0.0, 0.6, -1.5]]
    """
    alone = votes[..., 1].astype(np.float64)
    expected, excess, deviation = _compared(votes, sigma)
    left = np.sign(excess) * np.maximum(np.abs(excess) - CHANCE * deviation, 0.0)
    ratios = np.log((np.maximum(expected + left, 0.0) + deviation) / (expected + deviation))
    weights = alone / np.maximum(alone.sum(axis=1, keepdims=True), 1.0)
    ratios -= np.log1p((weights * np.expm1(ratios)).sum(axis=1, keepdims=True))
    known = np.linalg.norm(expected, axis=1, keepdims=True) > SIGNAL * sigma
    return np.where(known, np.clip(ratios, -LARGEST, LARGEST), 0.0)


def _compared(votes: IntArray, sigma: float) -> tuple[Float64Array, Float64Array, Float64Array]:
    """For each label and word the votes that are expected, the excess over them, and its deviation.

    What the model alone says is scaled to the records by the direction that both have in common.
    """
    noisy, alone = votes[..., 0].astype(np.float64), votes[..., 1].astype(np.float64)
    square = np.maximum((alone * alone).sum(axis=1, keepdims=True), 1.0)
    scale = np.maximum((noisy * alone).sum(axis=1, keepdims=True) / square, 0.0)
    expected = scale * alone
    # texts on both sides are samples, too: a word comes with the weight of a vote among many
    deviation = np.sqrt(sigma**2 + vote_weight(MOST) * expected * (1 + scale))
    return expected, noisy - expected, deviation


def words_found(directory: RunDirectory, rho: float) -> list[list[str]]:
    """For each label the words of which the records say more than noise and chance explain, the surest first. Public.

    Tokens that stand for no whole word in any written text, such as "ization", are left out.

    Args:
        directory: the run's.
        rho: zCDP of the noisy count.
    """
    words, found = list(directory.words().values()), list[list[str]]()
    if not words:
        return found
    whole = {word for text in directory.texts() for word in segmented(text.text)}
    _, excess, deviation = _compared(directory.word_votes(), VOTE_GRID * noise_sigma(rho))
    for own in excess / deviation:
        places = [place for place in np.argsort(-own, kind="stable").tolist() if own[place] > SURE]
        shown = (words[place] for place in places)
        found.append([word for word in shown if word.isalpha() and _stands_alone(word, whole)][:SHOWN])
    return found


def _stands_alone(token: str, whole: set[str]) -> bool:
    """Whether a token is one of the whole words, or several of a script without spaces.

    >>> [_stands_alone(token, {"news"}) for token in ("news", "ization", "人工智能")]
    [True, False, True]
    """
    return token in whole or segmented(token) != [token]
