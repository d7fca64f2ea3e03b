"""The records' words: one noisy count per label, and how it moves the model that writes candidates (guarantee 8.5).

Words are tokens of that model: every model has them in every language, and its logits are about them.
"""

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from plainchant.arrays import Float64Array, IntArray
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

# Words that a text votes for, and the longest list. Predicted best on the sets of docs/candidates.md, by little.
MOST, LISTED = 32, 2000
# Cells of the histogram: exact noise for so many takes half a minute.
CELLS = 1_000_000
# Nats by which a logit is moved at most.
LARGEST = 3.0
# Deviations by which a label's votes must exceed none to move anything, and those that a word's excess is cut by.
SIGNAL, CHANCE = 2.0, 1.0
# Words of a label that are shown to people.
SHOWN = 8


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
    ballot = Ballot((np.array(listed, dtype=np.int64),) * size, MOST)
    written = [text for text in released.texts if released.is_expanded(text)]
    asked = np.array([released.label_of(text, size) for text in written], dtype=np.int64)
    expected = count_votes(asked, _first_words(prompts, [text.text for text in written]), ballot)
    texts = [preparation.table[record].text for record in directory.voters()]
    votes = count_votes(preparation.labels_of_voters(), _first_words(prompts, texts), ballot)
    noisy = noisy_votes(votes, preparation.plan.rho_words, preparation.randomness)
    words = {token: model.decode([token]).strip() for token in listed}
    labels = np.repeat(np.arange(size), len(listed)).tolist()
    directory.save_words(words, list(zip(labels, listed * size, noisy.tolist(), expected.tolist(), strict=True)))


def public_list(texts: Sequence[str], prompts: Prompts, most: int) -> list[int]:
    """The tokens that most of the released texts hold, ascending."""
    found = Counter(token for text in texts for token in set(prompts.body(text, None)))
    # ties go to the lower id
    return sorted(sorted(found, key=lambda token: (-found[token], token))[:most])


def _first_words(prompts: Prompts, texts: Sequence[str]) -> "functools.partial[IntArray]":
    """The votes of texts for words, as `count_votes` asks for them."""
    return functools.partial(votes_for_words, prompts, texts)


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

    What the model alone would say is scaled to the records by the direction that both have in common. Of an excess or
    a lack, one deviation is taken off, since noise and chance do as much; ratios are smoothed by as much. Words on the
    list together become no likelier than before, compared with all else, such as the end of a text.

    Args:
        votes: noisy votes and the model's own, int64 [labels, words, 2].
        sigma: of the noise.

    Returns:
        0 where nothing is known, at most `LARGEST` from it, float64 [labels, words].

    >>> votes = np.array([[[90_000, 30_000], [60_000, 10_000], [0, 10_000]]])
    >>> np.round(log_ratios(votes, sigma=2_000.0), 1).tolist()
    [[0.0, 0.5, -1.2]]
    """
    noisy, alone = votes[..., 0].astype(np.float64), votes[..., 1].astype(np.float64)
    length = np.linalg.norm(alone, axis=1, keepdims=True)
    scale = np.maximum((noisy * alone).sum(axis=1, keepdims=True) / np.maximum(length, 1.0) ** 2, 0.0)
    expected = scale * alone
    # texts on both sides are samples, too: a word comes with the weight of a vote among many
    chance = np.sqrt(sigma**2 + vote_weight(MOST) * expected * (1 + scale))
    excess = noisy - expected
    excess = np.sign(excess) * np.maximum(np.abs(excess) - CHANCE * chance, 0.0)
    ratios = np.log((np.maximum(expected + excess, 0.0) + chance) / (expected + chance))
    weights = alone / np.maximum(alone.sum(axis=1, keepdims=True), 1.0)
    ratios -= np.log1p((weights * np.expm1(ratios)).sum(axis=1, keepdims=True))
    return np.where(scale * length > SIGNAL * sigma, np.clip(ratios, -LARGEST, LARGEST), 0.0)


def words_found(directory: RunDirectory, rho: float) -> list[list[str]]:
    """For each label the words that the records say more than the model by itself, the most first. Public.

    Args:
        directory: the run's.
        rho: zCDP of the noisy count.
    """
    words = list(directory.words().values())
    if not words:
        return []
    ratios = log_ratios(directory.word_votes(), VOTE_GRID * noise_sigma(rho))
    found = []
    for own in ratios:
        places = [place for place in np.argsort(-own, kind="stable").tolist() if own[place] > 0]
        found.append([words[place] for place in places if words[place].isalpha()][:SHOWN])
    return found
