"""A vote of the records on candidates: the public ballot, the noisy count, and what follows from it (guarantee 8)."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from plainchant.arrays import Float32Array, IntArray
from plainchant.config import SynthesisConfig
from plainchant.data.nearest import nearest_points
from plainchant.generation.decoding import FinishedText
from plainchant.generation.prompting import field_names
from plainchant.planning import strong_votes
from plainchant.privacy.histograms import VOTE_GRID, Ballot, Cell, count_votes, noise_sigma, noisy_votes
from plainchant.run.choosing import (
    Tally,
    choose,
    choose_for_rows,
    few_per_label,
    likely_by_name,
    numbers_asked,
    quotas_of,
)
from plainchant.run.filters import ALIKE, said_before, sound_candidates
from plainchant.run.preparation import Preparation
from plainchant.run.store import RunDirectory, Winner

# How soon none but its own label is open to a unit where votes are weaker than strong; fitted by hand to measured votes
# (docs/candidates.md).
STEEP = 3.5
# The weaker the votes the wider they are spread, up to bounds beyond which the choice loses variety, or says nothing: a
# vote for more than an eighth of what is open to a unit hardly prefers anything.
SPREAD, WIDEST, WIDEST_PART = 1.5, 32, 8
# Where nothing is known of the data's size.
UNKNOWN_SPREAD = 8


def hold_vote(
    preparation: Preparation,
    number: int,
    cells: Sequence[Cell],
    texts: Sequence[FinishedText],
    labels: IntArray,
    rows: IntArray | None = None,
) -> None:
    """Holds one vote and commits it with what it chose.

    Args:
        preparation: the run's.
        number: of the vote, from 0.
        cells: the kept cells.
        texts: all candidates so far.
        labels: the label that each one's prompt asked for, by number, int64 [m].
        rows: the attribute row that each one is written for, int64 [m], -1 where it has none; None where there are no
            attributes.
    """
    config, directory = preparation.config, preparation.directory
    rho, randomness, size = preparation.plan.rho_round, preparation.randomness, len(config.label_set)
    words = [text.text for text in texts]
    vectors = preparation.encode(words, stage="embedding the candidates")
    examples = [example.text for example in config.prompt.examples]
    sound, left_out = sound_candidates(words, labels, vectors, config.released, examples, field_names(config))
    known = known_units(preparation.plan.units, directory, cells, number, size)
    own = np.bincount(labels[sound], minlength=size).tolist()
    forms = [ballot_form(config, rho, *label, len(sound)) for label in zip(known, own, strict=True)]
    least = numbers_asked(config) or ()
    if rows is not None:
        # a text belongs to its row, and so does its label: whoever has no row has no vote
        forms, least = [(spread, 1) for spread, _ in forms], ()
    ballot = make_ballot(words, labels, vectors, sound, forms, least)
    counts = _counted(preparation, ballot, vectors)
    votes = noisy_votes(counts, rho, randomness)
    tally = Tally(
        np.repeat(np.arange(size), [len(own) for own in ballot.candidates]),
        np.concatenate(ballot.candidates),
        votes,
        VOTE_GRID * noise_sigma(rho),
        first_of_equal(words),
    )
    # too few different candidates: what the rules left out is better than less than was asked for
    if rows is None:
        shown = [config.prompt.shown(label) for label in config.label_set]
        chosen = chosen_by_rules(config, tally, labels, vectors, preparation.encode(shown))
        lacking = 0 if isinstance(config.quotas, dict) else config.released - len(chosen)
        spare = _spare(words, tally.twins, [place for _, place in chosen])
        filled = [(int(labels[place]), place) for place in spare[:lacking]]
    else:
        chosen = [(int(labels[place]), place) for place in choose_for_rows(tally, rows)]
        there = {-1, *(int(rows[place]) for _, place in chosen)}
        first: dict[int, int] = {}
        for place in _spare(words, tally.twins, [place for _, place in chosen]):
            first.setdefault(int(rows[place]), place)
        filled = [(int(labels[place]), place) for row, place in sorted(first.items()) if row not in there]
    spreads, reaches = zip(*forms, strict=True)
    winners = [Winner(label, texts[place].batch, texts[place].position) for label, place in chosen + filled]
    silent, kept = tally.without_signal(size).tolist(), [place for _, place in chosen + filled]
    facts = {
        "round": number + 1,
        "candidates": len(texts),
        "left_out": left_out,
        "spread": [min(spreads), max(spreads)],
        "labels_open": [min(reaches), max(reaches)],
        "chosen": len(winners),
        "filled_up": len(filled),
        "alike": int(said_before(np.zeros_like(kept), vectors[kept], ALIKE).sum()),
        "labels_without_signal": [config.label_set[label] or "all" for label in silent],
    }
    entries = [
        (int(label), texts[place].batch, texts[place].position, int(count))
        for label, place, count in zip(tally.labels, tally.candidates, votes, strict=True)
    ]
    directory.save_vote(number, entries, winners, facts)


def _spare(texts: Sequence[str], twins: IntArray, chosen: Sequence[int]) -> list[int]:
    """The places that are not chosen, those first whose text is neither blank nor there already.

    Args:
        texts: m candidates.
        twins: for each the first one with the same text, int64 [m].
        chosen: places.
    """
    left, taken = sorted(set(range(len(texts))).difference(chosen)), set(twins[list(chosen)].tolist())
    again = {place for place in left if twins[place] in taken or twins[place] != place}
    return sorted(left, key=lambda place: (not texts[place].strip(), place in again))


def chosen_by_rules(
    config: SynthesisConfig, tally: Tally, asked_for: IntArray, vectors: Float32Array, names: Float32Array
) -> list[tuple[int, int]]:
    """The (label, candidate) that the configuration's rules choose; where the user named quotas, no more than these.

    Args:
        config: what was asked for.
        tally: the vote.
        asked_for: the label that each candidate's prompt asked for, int64 [m].
        vectors: of the candidates, float32 [m, d].
        names: of the labels as prompts show them, float32 [labels, d].
    """
    asked: Literal["auto", "votes", "balanced"] | dict[int, int]
    if isinstance(config.quotas, dict):
        asked, fill = {config.labels.index(label): count for label, count in config.quotas.items()}, 0
    else:
        asked, fill = config.quotas, config.released
    size = len(config.label_set)
    quotas, own = quotas_of(asked, tally, size, config.released), tally.own_first(asked_for)
    weighed = own
    if size > 1 and few_per_label(size, config.released):
        # a name says where a label's first texts lie; of many it would choose those that are like it
        weighed = weighed.named_first(likely_by_name(vectors, names, asked_for))
    elif size > 1:
        weighed = weighed.sure_first(vectors, asked_for)
    return choose(weighed, vectors, quotas, config.choice, fill=fill, sizes=own.votes)


def _counted(preparation: Preparation, ballot: Ballot, vectors: Float32Array) -> IntArray:
    """The exact votes of all units on a ballot. Secret."""
    embeddings = preparation.embeddings(preparation.directory.voters())

    def nearest(units: IntArray, candidates: IntArray, count: int) -> IntArray:
        return nearest_points(embeddings[units], vectors[candidates], count)

    return count_votes(preparation.labels_of(preparation.directory.voters()), nearest, ballot)


def known_units(
    units: int | None, directory: RunDirectory, cells: Sequence[Cell], number: int, labels: int
) -> list[float | None]:
    """About how many units of each label vote; public or released.

    By noisy sizes. Without these, by an earlier vote or as the plan has it, and then the same for all.
    """
    counted = np.zeros(labels)
    for cell in cells:
        counted[cell.label] += max(cell.noisy_size, 0)
    if counted.any():
        return list(map(float, counted))
    if number:
        # of one form for all labels, as no sizes were known
        spread, _ = directory.facts()[number - 1]["spread"]
        mass = sum(votes for *_, votes in directory.votes(number - 1))
        return [max(mass, 0) / (VOTE_GRID * math.sqrt(spread)) / labels] * labels
    return [None if units is None else units / labels] * labels


def ballot_form(config: SynthesisConfig, rho: float, units: float | None, own: int, candidates: int) -> tuple[int, int]:
    """(Q, K) of a label: over how many candidates its votes are spread, and how many labels' candidates are open to it.

    Args:
        config: what was asked for.
        rho: zCDP of the vote.
        units: about how many units of the label vote, None where nobody knows.
        own: how many candidates were written for it; where there are none, those of all labels are open.
        candidates: how many there are in all.
    """
    labels = len(config.label_set)
    strength = None if units is None else units / max(own, 1) / noise_sigma(rho)
    if own == 0:
        # near to none, so all are open to it
        reach = labels
    elif config.vote_labels == "auto":
        open_share = 0.0 if strength is None else min(1.0, (strength / strong_votes(candidates, labels)) ** STEEP)
        reach = 1 + math.floor((labels - 1) * open_share)
    else:
        reach = min(config.vote_labels, labels)
    if config.vote_spread != "auto":
        return config.vote_spread, reach
    if strength is None:
        return UNKNOWN_SPREAD, reach
    wanted = SPREAD * math.sqrt(reach) / strength if strength > 0 else math.inf
    eligible = own + (reach - 1) * candidates / labels
    return round(max(1.0, min(WIDEST, wanted, max(2.0, eligible / WIDEST_PART)))), reach


def make_ballot(
    texts: Sequence[str],
    asked: IntArray,
    vectors: Float32Array,
    sound: IntArray,
    forms: Sequence[tuple[int, int]],
    least: Sequence[int] = (),
) -> Ballot:
    """For each label the candidates that were written for it or for its nearest labels, each text and vector once.

    Labels are near whose candidates' means are near: public.

    Args:
        texts: m candidates.
        asked: the label that each one's prompt asked for, int64 [m].
        vectors: theirs, float32 [m, d].
        sound: those that may be voted for, ascending, int64 [k].
        forms: (Q, K) of each label, K from 1 to their number.
        least: for each label how many candidates it needs; further labels' are open to it until there are so many.
    """
    labels = len(forms)
    asked_for = np.bincount(asked[sound], minlength=labels)
    means = np.zeros((labels, vectors.shape[1]))
    for label in range(labels):
        own = sound[asked[sound] == label]
        if len(own):
            mean = vectors[own].astype(np.float64).mean(axis=0)
            means[label] = mean / (np.linalg.norm(mean) or 1.0)
    nearness = means @ means.T
    np.fill_diagonal(nearness, np.inf)
    eligible = []
    for label, (_, reach) in enumerate(forms):
        near = np.argsort(-nearness[label], kind="stable")
        if least:
            reach = max(reach, int(np.searchsorted(np.cumsum(asked_for[near]), least[label])) + 1)
        own = sound[np.isin(asked[sound], near[:reach])]
        seen: set[str | bytes] = set()
        once = []
        for place in own.tolist():
            names = (texts[place], vectors[place].tobytes())
            if not seen.intersection(names):
                once.append(place)
            seen.update(names)
        eligible.append(np.array(once, dtype=np.int64))
    return Ballot(tuple(eligible), tuple(spread for spread, _ in forms))


def first_of_equal(texts: Sequence[str]) -> IntArray:
    """For each text the place of the first one that is equal to it, int64 [m]."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, place) for place, text in enumerate(texts)], dtype=np.int64)
