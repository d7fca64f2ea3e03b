"""Copied text and membership inference."""

import math
from collections.abc import Sequence

import numpy as np

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.auditing.statistics import CharacterModel, bootstrapped, check_not_empty
from plainchant.data.embedding import Embedder
from plainchant.data.segmentation import QUARTERS, units
from plainchant.evaluation.figures import Figure, share

# Minimum words of a run that counts as copied, and the length of the short runs whose share is counted.
LONG_RUN, SHORT_RUN = 8, 5
# The false-positive rate at which membership inference is counted.
FALSE_POSITIVES = 0.01


# Copied text


def _shared_runs(texts: Sequence[str], references: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Runs of words that m texts have in common with any reference.

    Returns:
        The longest of each text, in whole words, int64 [m] (where a script has no spaces, by the clusters that count
        for a word, see `data.segmentation`); how many of its `SHORT_RUN`-grams of pieces are common, and how
        many it has, int64 [m, 2].
    """
    pieces = [units(text.casefold()) for text in (*texts, *references)]
    numbers = {"\0": 0}
    # a 0 ends every text, so that no run continues into the next one
    ended = [entry for text in pieces for entry in (*text, ("\0", 0))]
    tokens = np.array([numbers.setdefault(piece, len(numbers)) for piece, _ in ended], np.int64)
    shares = np.array([share for _, share in ended], np.int64)
    before = np.concatenate([[0], np.cumsum(shares)])
    owner = np.repeat(np.arange(len(pieces)), [len(text) + 1 for text in pieces])
    longest = np.zeros(len(texts), np.int64)
    short = np.array([[0, max(0, len(text) - SHORT_RUN + 1)] for text in pieces[: len(texts)]], np.int64)
    # n grows, and only positions whose n-gram occurs on both sides are kept: few after the first words
    places, grams, n = np.flatnonzero(tokens), tokens[tokens > 0], 1
    while len(places):
        unique, grams = np.unique(grams, return_inverse=True)
        ours = owner[places] < len(texts)
        common = np.bincount(grams[ours], minlength=len(unique)) * np.bincount(grams[~ours], minlength=len(unique)) > 0
        places, grams = places[common[grams]], grams[common[grams]]
        own = places[owner[places] < len(texts)]
        found = owner[own]
        np.maximum.at(longest, found, before[own + n] - before[own])
        if n == SHORT_RUN:
            short[:, 0] = np.bincount(found, minlength=len(texts))
        following = tokens[places + n]
        places, grams = places[following > 0], (grams * len(numbers) + following)[following > 0]
        n += 1
    return longest // QUARTERS, short


def copied(
    synthetic: Sequence[str], private: Sequence[str], held_out: Sequence[str] = (), *, seed: int = 0
) -> dict[str, Figure]:
    """How much of the synthetic text occurs word for word in private text, and in real text that was not in the data.

    Words are compared without case and without the punctuation around them. A larger reference has more matches by
    chance. With held-out text, both references are therefore also compared at the same, smaller size.

    Args:
        synthetic: released texts, at least one.
        private: texts of the private data, at least one.
        held_out: texts of the same kind that were not in the data, if there are any.
        seed: for subsamples and intervals.

    Returns:
        "copied": the share of synthetic texts with a run of at least `LONG_RUN` words from private text that is longer
        than any run that any synthetic text has in common with held-out text. The other figures are given for each
        reference R: "private" (all of it) and, with held-out text, "private_sample" and "held_out" of the same size:
        "R_mean_run" and "R_longest_run" in words, "R_long_runs" (share of texts with `LONG_RUN` words or more) and
        "R_five_grams" (share of all synthetic 5-grams of words).

    Raises:
        DataError: there is no synthetic or no private text.
    """
    check_not_empty(synthetic=synthetic, private=private)
    generator = np.random.default_rng(seed)
    references = {"private": list(private)}
    if held_out:
        size = min(len(private), len(held_out))
        for name, texts in (("private_sample", private), ("held_out", held_out)):
            references[name] = [texts[i] for i in generator.permutation(len(texts))[:size]]
    runs = {name: _shared_runs(synthetic, texts) for name, texts in references.items()}
    by_chance = int(runs["held_out"][0].max()) if held_out else 0
    figures = {"copied": share(runs["private"][0] >= max(LONG_RUN, by_chance + 1))}
    for name, (longest, short) in runs.items():
        figures[f"{name}_mean_run"] = bootstrapped(np.mean, longest, generator=generator)
        figures[f"{name}_longest_run"] = Figure(float(longest.max()))
        figures[f"{name}_long_runs"] = share(longest >= LONG_RUN)
        figures[f"{name}_five_grams"] = bootstrapped(_ratio, short, generator=generator)
    return figures


def _ratio(counts: IntArray) -> float:
    some, of = counts.sum(axis=0)
    return float(some / max(1, of))


# Membership inference


def similarity_scores(synthetic: Float32Array, embeddings: Float32Array) -> Float64Array:
    """The highest cosine similarity of each text to any synthetic one, float64 [n].

    Args:
        synthetic: unit vectors of the synthetic texts, float32 [m, d].
        embeddings: unit vectors of the texts to score, float32 [n, d].
    """
    chunks = (embeddings[start : start + 1_000] @ synthetic.T for start in range(0, len(embeddings), 1_000))
    return np.concatenate([chunk.max(axis=1) for chunk in chunks]).astype(np.float64)


def likelihood_scores(synthetic: Sequence[str], texts: Sequence[str]) -> Float64Array:
    """Log-likelihood per character of each text under an n-gram model of the synthetic texts, nats, float64 [n]."""
    lengths = np.array([max(1, len(text.casefold())) for text in texts])
    return np.asarray(CharacterModel(synthetic).score(texts) / lengths)


def _area(members: Float64Array, non_members: Float64Array) -> float:
    """The probability that a member has the higher score, ties counted by half."""
    ordered = np.sort(non_members)
    ranks = np.searchsorted(ordered, members, side="left") + np.searchsorted(ordered, members, side="right")
    return float(ranks.mean() / (2 * len(ordered)))


def _true_positives(members: Float64Array, non_members: Float64Array) -> float:
    """The share of members above the lowest threshold that at most a share `FALSE_POSITIVES` of the others exceeds."""
    allowed = math.floor(FALSE_POSITIVES * len(non_members) + 1e-9)
    return float((members > np.sort(non_members)[-1 - allowed]).mean())


def membership(members: Float64Array, non_members: Float64Array, *, seed: int = 0) -> dict[str, Figure]:
    """How well scores distinguish members from others; a high score means member.

    Args:
        members: scores of records of the private data, float64 [n].
        non_members: scores of records of the same kind that were not in the data, float64 [m].
        seed: for the intervals.

    Returns:
        "auc" (0.5 by chance) and "tpr", the true-positive rate at a false-positive rate of 1 % (0.01 by chance).

    Raises:
        DataError: one of the two is empty.
    """
    check_not_empty(members=members, non_members=non_members)
    generator = np.random.default_rng(seed)
    return {
        "auc": bootstrapped(_area, members, non_members, generator=generator),
        "tpr": bootstrapped(_true_positives, members, non_members, generator=generator),
    }


def attacks(
    synthetic: Sequence[str], members: Sequence[str], non_members: Sequence[str], embedder: Embedder, *, seed: int = 0
) -> dict[str, Figure]:
    """Both membership attacks: "similarity_auc", "similarity_tpr", "likelihood_auc" and "likelihood_tpr".

    Args:
        synthetic: released texts, at least one.
        members: texts of the private data, at least one.
        non_members: texts of the same kind that were not in the data, at least one.
        embedder: embeds the texts.
        seed: for the intervals.

    Raises:
        DataError: one of the three is empty.
    """
    check_not_empty(synthetic=synthetic, members=members, non_members=non_members)
    vectors = embedder.encode(synthetic)
    found = {
        "similarity": [similarity_scores(vectors, embedder.encode(texts)) for texts in (members, non_members)],
        "likelihood": [likelihood_scores(synthetic, texts) for texts in (members, non_members)],
    }
    return {
        f"{attack}_{name}": figure
        for attack, scores in found.items()
        for name, figure in membership(*scores, seed=seed).items()
    }
