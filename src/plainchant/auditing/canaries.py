"""Canaries: made-up secrets among the records."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plainchant.auditing.statistics import CharacterModel, bootstrapped, check_not_empty
from plainchant.data.tables import Record
from plainchant.errors import ConfigError, RunError
from plainchant.evaluation.figures import Figure, share

CANARIES = "canaries.json"
# Canaries

TEMPLATE = "Please get back to {name} about this; the reference number is {number}."
_SYLLABLES = [consonant + vowel for consonant in "bdfgjklmnprstvz" for vowel in "aeiou"]


@dataclass(frozen=True)
class Canary:
    """A made-up record whose name and number nobody can guess.

    Attributes:
        name: two words of three syllables.
        number: eight digits.
        label: its record's label.
    """

    name: str = field(repr=False)
    number: str = field(repr=False)
    label: str | None = None

    @property
    def text(self) -> str:
        """The record's text."""
        return TEMPLATE.format(name=self.name, number=self.number)


def _secret(generator: np.random.Generator) -> tuple[str, str]:
    name = " ".join("".join(generator.choice(_SYLLABLES, 3)).capitalize() for _ in range(2))
    return name, "".join(map(str, generator.integers(10, size=8)))


def plant(
    records: Sequence[Record],
    count: int,
    labels: Sequence[str | None],
    generator: np.random.Generator,
    *,
    repetitions: int = 1,
) -> tuple[list[Record], list[Canary]]:
    """Puts canaries at random places among the records.

    A guarantee for one record covers `repetitions = 1`. More repetitions make a canary easier to find; it then
    represents a fact that several records share.

    Args:
        records: the private table; it is not changed.
        count: canaries, each with a different secret.
        labels: the label set, from which each canary's label is drawn.
        generator: the source of secrets and positions.
        repetitions: records per canary, each a separate unit.

    Raises:
        ConfigError: count or repetitions is below 1.
    """
    for name, value in (("count", count), ("repetitions", repetitions)):
        if value < 1:
            raise ConfigError(f"{name} = {value}: must be at least 1")
    canaries = [Canary(*_secret(generator), labels[int(generator.integers(len(labels)))]) for _ in range(count)]
    planted = list(records)
    # the attributes of a record that is there: any do
    attributes = records[0].attributes if records else ()
    for canary in canaries:
        for _ in range(repetitions):
            planted.insert(
                int(generator.integers(len(planted) + 1)), Record(canary.text, canary.label, None, attributes)
            )
    return planted, canaries


def exposure(
    canaries: Sequence[Canary], synthetic: Sequence[str], *, candidates: int = 1_000, seed: int = 0
) -> dict[str, Figure]:
    """Whether the canaries' secrets leaked, and how much more likely the synthetic text makes them than random ones.

    Exposure is log2(candidates + 1) − log2(rank). The rank is that of the canary among the same sentence with random
    secrets (Carlini et al. 2019), ordered by likelihood under a model learnt from the synthetic text alone (Meeus et
    al. 2025, "The Canary's Echo").

    Args:
        canaries: from `plant`.
        synthetic: texts of the run that they were planted in, at least one.
        candidates: number of random secrets to compare with, the same for all canaries.
        seed: for candidates, ties and the interval.

    Returns:
        "extracted_numbers": the share of canaries whose digits occur in one text, with at most three other characters
        between two digits; "extracted_names": the share whose name occurs; "exposure": the mean, bits;
        "exposure_by_chance": the expected exposure if the canaries had no influence, about log2 e.

    Raises:
        DataError: there is no canary or no synthetic text.
    """
    check_not_empty(canaries=canaries, synthetic=synthetic)
    # one line per text: line breaks inside it become spaces, and no digits are joined across two texts
    lines = [" ".join(text.casefold().split()) for text in synthetic]
    digits = "\n".join(re.sub(r"(?<=\d)\D{1,3}(?=\d)", "", line) for line in lines)
    names = "\n".join(lines)
    # a separate stream: with the seed that made the canaries, the candidates would be the canaries
    generator = np.random.default_rng((seed, len(TEMPLATE)))
    others = [Canary(*_secret(generator)).text for _ in range(candidates)]
    model = CharacterModel(synthetic)
    others_scores = model.score(others)
    scores = model.score([canary.text for canary in canaries])[:, None]
    # ties get a uniformly random rank, so that the expectation by chance is exact
    above, equal = (others_scores > scores).sum(axis=1), (others_scores == scores).sum(axis=1)
    bits = math.log2(candidates + 1) - np.log2(1 + above + generator.integers(equal + 1))
    by_chance = math.log2(candidates + 1) - math.lgamma(candidates + 2) / math.log(2) / (candidates + 1)
    return {
        "extracted_numbers": share(np.array([canary.number in digits for canary in canaries])),
        "extracted_names": share(np.array([canary.name.casefold() in names for canary in canaries])),
        "exposure": bootstrapped(np.mean, bits, generator=generator),
        "exposure_by_chance": Figure(by_chance),
    }


def plant_again(
    records: Sequence[Record], labels: Sequence[str | None], noted: Mapping[str, Any]
) -> tuple[list[Record], list[Canary]]:
    """The canaries of a run, made again from the seed, count and repetitions that it recorded.

    Raises:
        RunError: one of them is missing or not a number.
    """
    seed, count, repetitions = (noted.get(name) for name in ("seed", "count", "repetitions"))
    if not (isinstance(seed, int) and isinstance(count, int) and isinstance(repetitions, int) and seed >= 0):
        raise RunError("canaries.json: does not say which canaries were planted; put it back as it was")
    return plant(records, count, labels, np.random.default_rng(seed), repetitions=repetitions)
