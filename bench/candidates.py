"""How good public candidates are, by the way they are written: one vote through the code of a run, and what it chose.

    python bench/candidates.py write [PATTERN ...]      pools of candidates, into --work: public text by the model
    python bench/candidates.py measure [PATTERN ...]    their figures, into bench/study/candidates/
    python bench/candidates.py choices                  ways to choose, from all candidates that are written
    python bench/candidates.py strength                 what a vote chooses, by its strength
    python bench/candidates.py sureness                 votes of finished runs of the study, weighed by a classifier
    python bench/candidates.py names                    votes on candidates of finished runs, beside labels' names
    python bench/candidates.py cost                     what a large vote takes
    python bench/candidates.py page                     docs/candidates.md from the figures

A pool is named DATA/WAY. Ways after winners show what a vote on the pool DATA/plain chose. Both commands go on where
they stopped. The records that vote and those that judge are different ones.
"""

import argparse
import fnmatch
import functools
import hashlib
import json
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "study" / "candidates"
DATA = HERE.parent.parent / "shared" / "data"
# First words of a winner that a text may go on from.
FIRST_WORDS = 4
# Votes are repeated, with other noise, and real texts are drawn as often.
REPEATS = 2


@dataclass(frozen=True)
class Source:
    """A data set: its configuration, the file whose records vote, and the file that judges.

    Attributes:
        plain: candidates that are written the plain way.
        other: candidates that are written in each other way; in a mixture they stand for as many plain ones.
        units: numbers of records that vote.
        chosen: how many a vote chooses.
    """

    config: str
    voters: str
    judges: str
    plain: int
    other: int
    units: tuple[int, ...]
    chosen: int


SOURCES = {
    "ag_news": Source("ag_news.toml", "ag_news_test.jsonl", "ag_news_train_sample.jsonl", 1500, 500, (7600, 500), 600),
    "clinc150": Source("clinc150.toml", "clinc150_train.jsonl", "clinc150_test.jsonl", 906, 453, (15000,), 453),
}


@dataclass(frozen=True)
class Way:
    """A way of writing.

    Attributes:
        temperature: as a multiple of the configured one.
        support: number of tokens that may be drawn, None for the configured one.
        prompt: "as configured"; "rotated": other examples in another order; "words": each text has a word of a
            public list.
        least: number of tokens before a text may end, None for the configured one.
        after: how a text follows from winners; None: it follows from none.
        prior: zCDP of the noisy count of the records' words that the model is moved towards, 0 without.
    """

    temperature: float = 1.0
    support: int | None = None
    prompt: str = "as configured"
    least: int | None = None
    after: str | None = None
    prior: float = 0.0


WAYS = {
    "plain": Way(),
    "warm": Way(temperature=1.3),
    "hot": Way(temperature=1.6),
    "k100": Way(support=100),
    "k10000": Way(support=10000),
    "longer": Way(least=16),
    "rotated": Way(prompt="rotated"),
    "words": Way(prompt="words"),
    "after": Way(after="another"),
    "continue": Way(after="continue"),
    "cross": Way(after="cross"),
    "shorter": Way(after="shorter"),
    "prior-0.02": Way(prior=0.02),
    "prior-0.002": Way(prior=0.002),
    "rotated-warm": Way(temperature=1.3, prompt="rotated"),
    "rotated-prior-0.02": Way(prompt="rotated", prior=0.02),
    "after-prior-0.02": Way(after="another", prior=0.02),
    "rotated-prior-0.002": Way(prompt="rotated", prior=0.002),
}


# Pools.


def pool_path(work, data, way):
    return work / f"{data}-{way}.jsonl"


def read_pool(work, data, way):
    """(label, text) in the order of their positions."""
    path = pool_path(work, data, way)
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def size_of(data, way):
    """How many candidates a pool has."""
    return SOURCES[data].plain if way == "plain" else SOURCES[data].other


def candidates(work, data, ways):
    """The texts of a pool with their labels and ways: as many of each way, and plain ones up to the usual number.

    None while one of the ways is not written yet; nothing of no way.
    """
    source, found = SOURCES[data], []
    others = [way for way in ways if way != "plain"]
    for way in ways:
        pool = read_pool(work, data, way)
        wanted = source.other if way in others else max(source.plain - source.other * len(others), source.other)
        if len(pool) < wanted:
            return None
        found += [(text, label, way) for label, text in pool[:wanted]]
    return tuple(list(column) for column in zip(*found, strict=True))


class Writer:
    """Writes the pools of one data set."""

    def __init__(self, data, options):
        from plainchant.generation.decoding import StopRule
        from plainchant.generation.prompting import Prompts
        from plainchant.planning import make_plan

        self.data, self.options, self.config = data, options, config_of(data)
        self.model = options.loaded.model(self.config.model)
        self.prompts = Prompts(self.config, self.model)
        self.plan = make_plan(self.config)
        self.stop = StopRule(self.prompts.stop, self.config.max_tokens, self.config.min_tokens)
        self._ratios = {}

    def write(self, name):
        path, way = pool_path(self.options.work, self.data, name), WAYS[name]
        self.size = size_of(self.data, name)
        labels = [self.config.labels[place % len(self.config.labels)] for place in range(self.size)]
        if way.after is not None:
            labels = self.winners()[1]
        # what is written so far, label by label
        part = path.with_suffix(".part")
        texts = dict(map(tuple, json.loads(part.read_text()))) if part.exists() else {}
        for label in dict.fromkeys(labels):
            own = [place for place in range(self.size) if labels[place] == label]
            if own[0] not in texts:
                texts |= self.of_label(way, label, own)
                part.write_text(json.dumps(list(texts.items())))
        rows = [json.dumps([label, texts[place]]) for place, label in enumerate(labels)]
        path.write_text("\n".join(rows) + "\n")
        part.unlink()
        print(f"{self.data}/{name}: {len(rows)} texts", flush=True)

    def of_label(self, way, label, own):
        from plainchant.generation.decoding import BatchWork, Decoder
        from plainchant.privacy.aggregation import Support
        from plainchant.privacy.mechanisms import PublicMechanism
        from plainchant.randomness import SystemRandomness

        heads = {place: self.head(way, label, place) for place in own}
        settings = replace(
            self.plan.settings,
            support=Support.TOP_K,
            k=way.support or self.plan.settings.k,
            temperature=self.plan.settings.temperature * way.temperature,
            batch_size=1,
        )
        bias = self.bias(way.prior, label) if way.prior else None
        works = [
            BatchWork(place, tuple(prefix), tuple(start), (), (0,), bias=bias)
            for place, (prefix, start, _) in heads.items()
        ]
        works.sort(key=lambda work: work.prefix)
        stop = replace(self.stop, min_tokens=way.least or self.stop.min_tokens)
        decoder = Decoder(
            self.model, PublicMechanism(settings), stop, rows=self.options.rows, randomness=SystemRandomness()
        )
        return {text.batch: f"{heads[text.batch][2]} {text.text}".strip() for text in decoder.run(works)}

    # what stands before a text

    def encoded(self, text):
        return self.model.encode(text, trusted=True)

    def entry(self, label, text):
        return self.config.prompt.example.replace("{label}", label).replace("{text}", text)

    def head(self, way, label, place):
        """(prefix, start, first words of the text) of one text."""
        from plainchant.generation.prompting import TURNS, turned

        chance = np.random.default_rng([place, 7])
        if way.after is not None:
            return self.head_after(way.after, label, place, chance)
        if way.prompt == "as configured":
            return self.prompts.prefix(label), self.prompts.start(label), ""
        if way.prompt == "rotated":
            turn = place // len(self.config.labels) % TURNS
            return self.prompts.prefix(label, (), turn), self.prompts.start(label), ""
        examples, words = turned(self.config.prompt.examples, label, 0), word_list()
        entries = [(f"{example.label}, {keyword(example.text)}", example.text) for example in examples]
        label = f"{label}, {words[int(chance.integers(len(words)))]}"
        text = self.config.prompt.header + "".join(self.entry(*entry) for entry in entries)
        return [*self.model.start_tokens, *self.encoded(text)], self.prompts.start(label), ""

    def winners(self):
        """(label, near winner, winner) after which each place is written."""
        if not hasattr(self, "_winners"):
            chosen, vectors = chosen_by_plain(self.data, self.options)
            count = len(chosen)
            turns = [place * count // self.size for place in range(self.size)]
            self._chosen, self._vectors, self._winners = chosen, vectors, turns
        return self._winners, [self._chosen[turn][0] for turn in self._winners]

    def head_after(self, after, label, place, chance):
        turn = self.winners()[0][place]
        text = self._chosen[turn][1]
        same = [i for i in range(len(self._chosen)) if self._chosen[i][0] == label and i != turn]
        near = sorted(same, key=lambda i: -float(self._vectors[i] @ self._vectors[turn]))
        number = place - self.winners()[0].index(turn)
        first, shown = "", [text]
        if near and after in ("another", "shorter"):
            shown = [self._chosen[near[number % len(near)]][1], text]
        if near and after == "cross":
            shown = [self._chosen[near[int(chance.integers(len(near)))]][1], text]
        if after == "shorter":
            shown = [" ".join(own.split()[: max(3, len(own.split()) // 2)]) for own in shown]
        if after == "continue":
            first = " ".join(text.split()[:FIRST_WORDS])
            shown = [self._chosen[near[number % len(near)]][1]] if near else []
        start = self.prompts.start(label)
        if first:
            start = [*start, *self.model.encode(" " + first, trusted=False)]
        return self.prompts.prefix(label, shown), start, first

    def bias(self, rho, label):
        """Towards the words of the records that vote, counted once for each ρ as a run counts them."""
        from plainchant.generation.decoding import Bias
        from plainchant.privacy.histograms import VOTE_GRID, noise_sigma, noisy_votes
        from plainchant.randomness import SystemRandomness
        from plainchant.run.vocabulary import LISTED, log_ratios, public_list, word_votes

        if rho not in self._ratios:
            plain = read_pool(self.options.work, self.data, "plain")
            listed = public_list([text for _, text in plain], self.prompts, LISTED)
            labels, (records, theirs) = list(self.config.labels), rows_of(SOURCES[self.data].voters)
            counts = [
                word_votes(self.prompts, texts, np.array([labels.index(own) for own in told]), listed, len(labels))
                for texts, told in ((records, theirs), ([text for _, text in plain], [own for own, _ in plain]))
            ]
            counts[0] = noisy_votes(counts[0], rho, SystemRandomness())
            votes = np.stack(counts, axis=1).reshape(len(labels), len(listed), 2)
            self._ratios[rho] = np.array(listed), log_ratios(votes, VOTE_GRID * noise_sigma(rho))
        listed, ratios = self._ratios[rho]
        return Bias(listed, ratios[self.config.labels.index(label)].astype(np.float32))


def keyword(text):
    """The longest word of an example that the public list has."""
    words = {word.strip(".,") for word in text.lower().split()}
    return max(words & set(word_list()) or words, key=lambda word: (len(word), word))


_WORDS = []


def word_list():
    """Words of an encyclopaedia that are neither rare nor everywhere: public."""
    if not _WORDS:
        counts = {}
        for text in rows_of("dbpedia14.jsonl")[0]:
            for word in {word for word in text.split() if word.isalpha() and word.islower() and len(word) > 3}:
                counts[word] = counts.get(word, 0) + 1
        _WORDS.extend(sorted(word for word, count in counts.items() if 15 <= count <= 300))
    return _WORDS


# Data, the model and the embedder.


def config_of(data):
    from plainchant.config import load_config

    wishes = {"method": "private-evolution", "centres": 20}
    return load_config(HERE.parent / "examples" / SOURCES[data].config, wishes)


def rows_of(file):
    rows = [json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], [row.get("label") for row in rows]


class Loaded:
    """The model and the embedder, once a process; vectors of public text are kept."""

    def __init__(self, options):
        self._options, self._model, self._embedder = options, None, None
        self._path = options.work / "embeddings.npz"
        self._known = dict(np.load(self._path)) if self._path.exists() else {}

    def model(self, name):
        from plainchant.models.transformers.load import load_model

        if self._model is None:
            self._model = load_model(name, dtype=self._options.dtype, threads=1)
        return self._model

    def vectors(self, texts):
        from plainchant.data.embedding import load_embedder

        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            self._embedder = self._embedder or load_embedder("all-MiniLM-L6-v2")
            found = self._embedder.encode(list(missing.values()))
            self._known |= dict(zip(missing, found, strict=True))
            np.savez(self._path, **self._known)
        return np.array([self._known[key] for key in keys])


# One vote.


@dataclass(frozen=True)
class Pool:
    """Candidates with the number of the label that each prompt asked for."""

    texts: list
    asked: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Voters:
    """Records that vote."""

    labels: np.ndarray
    vectors: np.ndarray


def voters_of(data, units, options):
    config = config_of(data)
    texts, labels = rows_of(SOURCES[data].voters)
    order = np.random.default_rng(0).permutation(len(texts))[:units]
    vectors = options.loaded.vectors(texts)[order]
    index = {label: place for place, label in enumerate(config.labels)}
    return Voters(np.array([index[labels[row]] for row in order]), vectors)


def hold(pool, voters, config, rho, count, seed):
    """The tally of one vote as a run holds it, the candidates left out, and the form of the ballot."""
    from plainchant.data.nearest import nearest_points
    from plainchant.privacy.histograms import VOTE_GRID, count_votes, noise_sigma, noisy_votes
    from plainchant.randomness import SeededRandomness
    from plainchant.run.choosing import Tally
    from plainchant.run.filters import sound_candidates
    from plainchant.run.votes import ballot_form, first_of_equal, make_ballot

    sound, left_out = sound_candidates(pool.texts, pool.asked, pool.vectors, count)
    size = len(config.labels)
    spread, reach = ballot_form(config, rho, len(voters.labels) / size, len(sound) // size, len(sound))
    ballot = make_ballot(pool.texts, pool.asked, pool.vectors, sound, [(spread, reach)] * size)

    def nearest(units, candidates, most):
        return nearest_points(voters.vectors[units], pool.vectors[candidates], most)

    votes = noisy_votes(count_votes(voters.labels, nearest, ballot), rho, SeededRandomness(seed))
    labels = np.repeat(np.arange(len(config.labels)), [len(own) for own in ballot.candidates])
    places, sigma = np.concatenate(ballot.candidates), VOTE_GRID * noise_sigma(rho)
    return Tally(labels, places, votes, sigma, first_of_equal(pool.texts)), left_out, (spread, reach)


def chosen_by(tally, pool, config, count, choice):
    from plainchant.run.choosing import choose, quotas_of

    quotas = quotas_of("auto", tally, len(config.labels), count)
    if CHOICES[choice] is not None:
        return CHOICES[choice](tally, pool.vectors, quotas)
    return choose(tally, pool.vectors, quotas, choice, fill=count)


def whole_budget(config, epsilon):
    from plainchant.planning import make_plan

    return make_plan(config.model_copy(update={"epsilon": epsilon})).rho_vote


def chosen_by_plain(data, options):
    """(label, text) of the winners of a vote on the plain pool at half of ε = 8, and their vectors."""
    config, count = config_of(data), SOURCES[data].chosen
    texts, labels, _ = candidates(options.work, data, ["plain"])
    pool = as_pool(config, texts, labels, options)
    rho = whole_budget(config, 8.0) / 2
    tally, _, _ = hold(pool, voters_of(data, SOURCES[data].units[0], options), config, rho, count, 0)
    chosen = chosen_by(tally, pool, config, count, "highest")
    return [(config.labels[label], texts[place]) for label, place in chosen], pool.vectors[[p for _, p in chosen]]


def as_pool(config, texts, labels, options):
    index = {label: place for place, label in enumerate(config.labels)}
    return Pool(texts, np.array([index[label] for label in labels]), options.loaded.vectors(texts))


# Figures.


def judge(data, texts, labels, options, seed):
    """Accuracy, accuracy by words, MAUVE and label agreement of labelled texts on records that did not vote."""
    from plainchant.evaluation.measures import TEXTS_PER_BIN, Sample, mauve, predicted

    real = judges_of(data, options)
    synthetic = Sample(texts, labels, options.loaded.vectors(texts))
    draw = np.random.default_rng([seed, 3]).permutation(len(real))
    some = real.take(draw[: len(texts)])
    truth = np.array(real.labels)
    return {
        "accuracy": float((predicted(synthetic, real) == truth).mean()),
        "by words": float((predicted(synthetic, real, by_words=True) == truth).mean()),
        "MAUVE": mauve(synthetic.vectors, some.vectors, bins=round(2 * len(texts) / TEXTS_PER_BIN), seed=seed),
    }


def judge_chosen(data, pool, chosen, options, seed):
    """The same of the chosen (label, candidate) of a pool."""
    labels = config_of(data).labels
    texts, named = [pool.texts[place] for _, place in chosen], [labels[label] for label, _ in chosen]
    return judge(data, texts, named, options, seed)


_JUDGES = {}


def judges_of(data, options):
    from plainchant.evaluation.measures import Sample

    if data not in _JUDGES:
        texts, labels = rows_of(SOURCES[data].judges)
        order = np.random.default_rng(1).permutation(len(texts))[:2000]
        texts, labels = [texts[row] for row in order], [labels[row] for row in order]
        _JUDGES[data] = Sample(texts, labels, options.loaded.vectors(texts))
    return _JUDGES[data]


def measured(data, pool, ways, options, *, counts, units, choices=("highest",)):
    """One row for each number of voters, ε, number chosen and way to choose; figures of all repeats."""
    config, rows = config_of(data), []
    for number in units:
        voters = voters_of(data, number, options)
        for epsilon in (8.0, 1.0):
            rho = whole_budget(config, epsilon)
            for count in counts:
                held = [hold(pool, voters, config, rho, count, seed) for seed in range(REPEATS)]
                for choice in choices:
                    found = [chosen_by(tally, pool, config, count, choice) for tally, *_ in held]
                    figures = [judge_chosen(data, pool, chosen, options, seed) for seed, chosen in enumerate(found)]
                    won = {way: float(np.mean([np.mean([ways[place] == way for _, place in chosen])
                                               for chosen in found])) for way in sorted(set(ways))}  # fmt: skip
                    rows.append(
                        {
                            "units": number, "epsilon": epsilon, "count": count, "choice": choice,
                            "form": held[0][2], "left out": held[0][1], "figures": figures, "won": won,
                        }
                    )  # fmt: skip
    return rows


# Runs whose votes are weighed once more, and powers of the probability.
SURENESS_RUNS = {
    "ag_news": ("ag_news/rounds-600-epsilon1", "ag_news/rounds-no-deals-600"),
    "clinc150": ("clinc150/rounds-epsilon1", "clinc150/rounds"),
}
SURENESS_POWERS = (0.0, 0.25, 0.5, 1.0)
# Runs on whose candidates votes are held with names beside them: the records that vote, ε, and how many are chosen.
NAMED_RUNS = {
    "ag_news": (
        "ag_news/rounds-200-records500-epsilon3",
        ((500, 3.0, 40), (7600, 1.0, 40), (7600, 8.0, 40), (500, 3.0, 200), (7600, 1.0, 200), (7600, 8.0, 200)),
    ),
    "clinc150": ("clinc150/cut-epsilon1", ((15000, 1.0, 453), (15000, 8.0, 453))),
}
NAMED_WEIGHTS = (0.0, 0.5, 1.0, 2.0)


# Commands.


def wanted(options, names):
    """(data, name) in the order of the patterns."""
    every = [(data, name) for data in SOURCES for name in names]
    found = [own for pattern in options.patterns or ["*"] for own in every if fnmatch.fnmatch("/".join(own), pattern)]
    return list(dict.fromkeys(found))


def write(options):
    writers = {}
    for data, name in wanted(options, WAYS):
        if pool_path(options.work, data, name).exists():
            continue
        if data not in writers:
            writers[data] = Writer(data, options)
        writers[data].write(name)


# Pools of three ways, as many candidates of each.
COMBINED = [
    ("plain", "rotated", "warm"),
    ("plain", "rotated", "rotated-warm"),
    ("plain", "rotated", "words"),
    ("plain", "rotated", "longer"),
    ("plain", "rotated", "after"),
    ("plain", "rotated", "continue"),
    ("plain", "rotated", "cross"),
    ("plain", "rotated", "prior-0.02"),
    ("plain", "rotated", "rotated-prior-0.02"),
    ("plain", "rotated", "rotated-prior-0.002"),
    ("plain", "rotated", "after-prior-0.02"),
    ("prior-0.02", "rotated-prior-0.02", "after-prior-0.02"),
]


def groups(data, options):
    """What is measured as one pool, by name: each way beside plain ones, three ways, and all that are written."""
    there = [way for way in WAYS if read_pool(options.work, data, way)]
    return {
        **{way: list(dict.fromkeys(["plain", way])) for way in there},
        **{"+".join(ways): list(ways) for ways in COMBINED if set(ways) <= set(there)},
        f"together-{len(there)}": there,
    }


def measure(options):
    RESULTS.mkdir(parents=True, exist_ok=True)
    for data in SOURCES:
        for name, ways in groups(data, options).items():
            wished = not options.patterns or any(fnmatch.fnmatch(f"{data}/{name}", own) for own in options.patterns)
            if wished and not (RESULTS / f"{data}--{name}.json").exists():
                measure_one(data, name, ways, options)


def measure_one(data, name, ways, options):
    source, found = SOURCES[data], candidates(options.work, data, ways)
    if not found:
        return
    pool = as_pool(config_of(data), found[0], found[1], options)
    units = source.units[:1] if "+" in name else source.units
    rows = measured(data, pool, found[2], options, counts=(source.chosen,), units=units)
    own = read_pool(options.work, data, name)[: source.other]
    unvoted = judge(data, [text for _, text in own], [label for label, _ in own], options, 0) if own else None
    sizes = {way: found[2].count(way) for way in ways}
    document = {"data": data, "name": name, "sizes": sizes, "ways": ways, "unvoted": unvoted, "rows": rows}
    (RESULTS / f"{data}--{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"{data}/{name}: unvoted {unvoted}")
    for row in rows:
        mean = {key: round(mean_of(row, key), 3) for key in row["figures"][0]}
        print(" ", row["units"], row["epsilon"], row["form"], mean, row["won"], flush=True)


def mean_of(row, figure):
    return float(np.mean([own[figure] for own in row["figures"]]))


def choices(options):
    """Ways to choose from all candidates that are written, with the same noisy votes."""
    for data, counts in (("ag_news", (600, 2000)), ("clinc150", (453, 906))):
        path, ways = RESULTS / f"choices-{data}.json", groups(data, options)
        found = candidates(options.work, data, next(reversed(ways.values())))
        if path.exists() or not found:
            continue
        pool = as_pool(config_of(data), found[0], found[1], options)
        rows = measured(
            data, pool, found[2], options, counts=counts, units=SOURCES[data].units[:1], choices=tuple(CHOICES)
        )
        path.write_text(json.dumps({"data": data, "candidates": len(found[0]), "rows": rows}, indent=1) + "\n")
        for row in rows:
            mean = {key: round(mean_of(row, key), 3) for key in row["figures"][0]}
            print(data, row["units"], row["epsilon"], row["count"], row["choice"], row["form"], mean, flush=True)


# Votes of other strengths: numbers of records, zCDP of the vote, and how many it chooses.
STRENGTHS = {
    "ag_news": ((500, 2500, 7600), (0.0025, 0.01, 0.04, 0.16, 0.64), (200, 600)),
    "clinc150": ((3000, 15000), (0.0025, 0.01, 0.04, 0.16, 0.64), (453,)),
}
# The pool that they choose from.
STRENGTH_WAYS = {
    "ag_news": ["plain", "rotated", "warm", "rotated-warm", "rotated-prior-0.02", "words"],
    "clinc150": ["plain", "rotated"],
}


def strength(options):
    """What a vote chooses from one pool, by its strength: units for each candidate, divided by σ of a whole vote."""
    from plainchant.privacy.histograms import noise_sigma

    for data, (units, rhos, counts) in STRENGTHS.items():
        path, config = RESULTS / f"strength-{data}.json", config_of(data)
        found = candidates(options.work, data, STRENGTH_WAYS[data])
        if path.exists() or not found:
            continue
        pool, rows = as_pool(config, found[0], found[1], options), []
        for number in units:
            voters = voters_of(data, number, options)
            for rho, count in ((rho, count) for rho in rhos for count in counts):
                figures, form = [], (0, 0)
                for seed in range(REPEATS):
                    tally, _, form = hold(pool, voters, config, rho, count, seed)
                    chosen = chosen_by(tally, pool, config, count, "highest")
                    figures.append(judge_chosen(data, pool, chosen, options, seed))
                there = number / len(pool.texts) / noise_sigma(rho)
                rows.append({"units": number, "rho": rho, "count": count, "strength": there, "form": form,
                             "figures": figures})  # fmt: skip
                print(data, number, rho, count, f"{there:.3f}", form, flush=True)
        document = {"data": data, "candidates": len(pool.texts), "rows": rows}
        path.write_text(json.dumps(document, indent=1) + "\n")


def pool_of_run(name, options):
    """The directory of a finished run of the study, and its candidates."""
    from plainchant.evaluation.runs import directory_of
    from plainchant.run.released import Released

    directory = directory_of(options.runs / f"{name.replace('/', '--')}--1")
    released, size = Released.of(directory), len(directory.config.label_set)
    texts = [text.text for text in released.texts]
    asked = np.array([released.label_of(text, size) for text in released.texts])
    return directory, Pool(texts, asked, options.loaded.vectors(texts))


def sureness(options):
    """Chooses once more from the last votes of finished runs of the study, by several powers of the probability."""
    from plainchant.privacy.histograms import VOTE_GRID, noise_sigma
    from plainchant.run import choosing
    from plainchant.run.votes import first_of_equal

    for data, names in SURENESS_RUNS.items():
        rows = []
        for name in names:
            directory, pool = pool_of_run(name, options)
            config, plan, entries = directory.config, directory.plan, directory.votes(directory.plan["rounds"] - 1)
            places = {(text.batch, text.position): place for place, text in enumerate(directory.texts())}
            labels, candidates = (np.array(own) for own in zip(
                *((label, places[batch, position]) for label, batch, position, _ in entries), strict=True))  # fmt: skip
            sigma = VOTE_GRID * noise_sigma(plan["rho_vote"] / plan["rounds"])
            votes = np.array([count for *_, count in entries])
            tally = choosing.Tally(labels, candidates, votes, sigma, first_of_equal(pool.texts))
            quotas = choosing.quotas_of("auto", tally, len(config.label_set), config.released)
            for power in SURENESS_POWERS:
                weighed = tally.own_first(pool.asked)
                weighed = weighed.sure_first(pool.vectors, pool.asked, power) if power else weighed
                chosen = choosing.choose(weighed, pool.vectors, quotas, config.choice, fill=config.released)
                figures = [judge_chosen(data, pool, chosen, options, seed) for seed in range(4)]
                rows.append({"run": name, "count": config.released, "power": power, "figures": figures})
                print(name, power, {figure: round(mean_of(rows[-1], figure), 3) for figure in FIGURES}, flush=True)
        (RESULTS / f"sureness-{data}.json").write_text(json.dumps({"data": data, "rows": rows}, indent=1) + "\n")


def names(options):
    """Votes on the candidates of finished runs, at half of a budget for votes alone, with names at several weights."""
    from plainchant.run.choosing import choose, likely_by_name, quotas_of

    for data, (name, forms) in NAMED_RUNS.items():
        config, rows = config_of(data), []
        _, pool = pool_of_run(name, options)
        shown = options.loaded.vectors([config.prompt.shown(label) for label in config.labels])
        likely = likely_by_name(pool.vectors, shown, pool.asked)
        for units, epsilon, count in forms:
            voters, rho = voters_of(data, units, options), whole_budget(config, epsilon) / 2
            held = [hold(pool, voters, config, rho, count, seed)[0] for seed in range(REPEATS)]
            for weight in NAMED_WEIGHTS:
                figures = []
                for seed, tally in enumerate(held):
                    quotas = quotas_of("auto", tally, len(config.labels), count)
                    weighed = tally.own_first(pool.asked).named_first(likely, weight)
                    chosen = choose(weighed, pool.vectors, quotas, "highest", fill=count)
                    figures.append(judge_chosen(data, pool, chosen, options, seed))
                rows.append({"units": units, "epsilon": epsilon, "count": count, "weight": weight, "figures": figures})
                print(data, units, epsilon, count, weight, {f: round(mean_of(rows[-1], f), 3) for f in FIGURES})
        document = {"data": data, "run": name, "candidates": len(pool.texts), "rows": rows}
        (RESULTS / f"names-{data}.json").write_text(json.dumps(document, indent=1) + "\n")


def thinned(tally, vectors, quotas, discount):
    """A trial: the highest votes, each less the more it is like what is chosen already, label by label."""
    order = np.argsort(-tally.votes, kind="stable")
    _, first = np.unique(tally.twins[tally.candidates[order]], return_index=True)
    mine = np.zeros(len(order), dtype=bool)
    mine[order[first]] = True
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        cells = np.flatnonzero(mine & (tally.labels == label))
        own = tally.candidates[cells]
        weights, near = np.maximum(tally.votes[cells] - tally.sigma, 1.0), np.zeros(len(cells))
        for _ in range(min(quota, len(cells))):
            place = int(np.argmax(weights * (1 - np.maximum(near, 0) ** discount)))
            near = np.maximum(near, vectors[own] @ vectors[own[place]])
            near[place], weights[place] = 1.0, 0.0
            chosen.append((label, int(own[place])))
    return chosen


CHOICES = {
    "highest": None,
    "matching": None,
    "thinned-1": functools.partial(thinned, discount=1),
    "thinned-3": functools.partial(thinned, discount=3),
}


def cost(_):
    """Processor seconds of a vote of a million records on 20,000 candidates, from a piece of it; and of its noise."""
    from plainchant.data.nearest import nearest_points
    from plainchant.randomness import SystemRandomness

    records, points, dimensions, piece, spread, cells = 1_000_000, 20_000, 384, 1_000, 16, 100_000
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(piece, dimensions)).astype(np.float32)
    others = generator.normal(size=(points, dimensions)).astype(np.float32)
    began = time.process_time()
    nearest_points(rows, others, spread)
    votes, began = time.process_time() - began, time.process_time()
    SystemRandomness().add_discrete_gaussian([0] * cells, 1e4)
    noise = time.process_time() - began
    found = {
        "records": records, "candidates": points, "dimensions": dimensions, "spread": spread,
        "votes, minutes": votes * records / piece / 60, "noise, seconds per million cells": noise * 1e6 / cells,
        "GiB at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip
    (RESULTS / "cost.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


# The page.


FIGURES = ("accuracy", "by words", "MAUVE")


def figures_of(rows, **wanted):
    """The figures of one row as a table shows them."""
    (row,) = [own for own in rows if all(own[name] == value for name, value in wanted.items())]
    return " / ".join(f"{mean_of(row, figure):.3f}" for figure in FIGURES)


def ways_table(results, data):
    """Markdown: a row a way; unvoted, beside plain candidates after a vote, and how many of its candidates win."""
    own = {name: document for name, document in results.items() if document.get("data") == data and "ways" in document}
    together = together_of(results)
    forms = list(dict.fromkeys((row["units"], row["epsilon"]) for row in own["plain"]["rows"]))
    heads = ["way", "unvoted", *(f"{units:,} records, ε = {epsilon:g}" for units, epsilon in forms)]
    heads += ["win, ε = 8 / 1"] if together else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in (name for name in WAYS if name in own or (together and name in together["sizes"])):
        cells = [name, *["–"] * (1 + len(forms))]
        if name in own:
            unvoted = " / ".join(f"{own[name]['unvoted'][figure]:.3f}" for figure in FIGURES)
            voted = [figures_of(own[name]["rows"], units=units, epsilon=epsilon) for units, epsilon in forms]
            cells = [name, unvoted, *voted]
        if together:
            cells.append(" / ".join(won_of(together, name, SOURCES[data], epsilon) for epsilon in (8.0, 1.0)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def strength_table(results, data):
    """Markdown: a row a strength, the weakest first; a column a number of texts that are chosen."""
    rows = sorted(results[f"strength-{data}"]["rows"], key=lambda row: row["strength"])
    counts = list(dict.fromkeys(row["count"] for row in rows))
    heads = ["strength", "records", "ρ of the vote", "Q, K", *(f"{count} texts" for count in counts)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for units, rho in dict.fromkeys((row["units"], row["rho"]) for row in rows):
        own = [row for row in rows if (row["units"], row["rho"]) == (units, rho)]
        figures = [figures_of(own, count=count) for count in counts]
        form = ", ".join(map(str, own[0]["form"]))
        lines.append(f"| {own[0]['strength']:.2f} | {units:,} | {rho:g} | {form} | {' | '.join(figures)} |")
    return "\n".join(lines)


def sureness_table(results, data):
    """Markdown: a row a run, a column a power of the probability."""
    rows = results[f"sureness-{data}"]["rows"]
    heads = ["run", "texts", "votes alone", *(f"times p to the {power:g}" for power in SURENESS_POWERS if power)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, count in dict.fromkeys((row["run"], row["count"]) for row in rows):
        own = [figures_of(rows, run=name, power=power) for power in SURENESS_POWERS]
        lines.append(f"| {name} | {count} | {' | '.join(own)} |")
    return "\n".join(lines)


def names_table(results, data):
    """Markdown: a row a number of records, ε and number of texts; a column a weight of names."""
    rows = results[f"names-{data}"]["rows"]
    heads = ["records", "ε", "texts", "votes alone", *(f"{weight:g} σ a nat" for weight in NAMED_WEIGHTS if weight)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for units, epsilon, count in dict.fromkeys((row["units"], row["epsilon"], row["count"]) for row in rows):
        form = {"units": units, "epsilon": epsilon, "count": count}
        own = [figures_of(rows, **form, weight=weight) for weight in NAMED_WEIGHTS]
        lines.append(f"| {units:,} | {epsilon:g} | {count} | {' | '.join(own)} |")
    return "\n".join(lines)


def together_of(results):
    """The largest pool of all ways, None where it is not measured."""
    found = [document for name, document in results.items() if name.startswith("together")]
    return max(found, key=lambda one: len(one["sizes"]), default=None)


def combined_table(results):
    """Markdown: a row a pool of three ways."""
    forms = [(row["units"], row["epsilon"]) for row in results["plain"]["rows"]][:2]
    heads = ["pool", *(f"{units:,} records, ε = {epsilon:g}" for units, epsilon in forms)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in ("plain", "rotated", *("+".join(ways) for ways in COMBINED)):
        if name in results:
            found = [figures_of(results[name]["rows"], units=units, epsilon=epsilon) for units, epsilon in forms]
            sizes = ", ".join(f"{size:,} {way}" for way, size in results[name]["sizes"].items())
            lines.append(f"| {sizes} | {' | '.join(found)} |")
    return "\n".join(lines)


def won_of(document, way, source, epsilon):
    """The share of a way's candidates that win where all ways stand in one pool, all records voting."""
    (row,) = [own for own in document["rows"] if (own["units"], own["epsilon"]) == (source.units[0], epsilon)]
    size = document["sizes"].get(way)
    return "–" if not size else f"{row['won'].get(way, 0.0) * source.chosen / size:.2f}"


def choices_table(results, data):
    """Markdown: a row a number of records, ε and number of texts; a column a way to choose."""
    rows = results[f"choices-{data}"]["rows"]
    ways = list(dict.fromkeys(row["choice"] for row in rows))
    lines = [f"| records | ε | texts | {' | '.join(ways)} |", "|---" * (3 + len(ways)) + "|"]
    for units, epsilon, count in dict.fromkeys((row["units"], row["epsilon"], row["count"]) for row in rows):
        own = [figures_of(rows, units=units, epsilon=epsilon, count=count, choice=way) for way in ways]
        lines.append(f"| {units:,} | {epsilon:g} | {count:,} | {' | '.join(own)} |")
    return "\n".join(lines)


def every_result():
    """The documents by data and name, in a public order."""
    found = {}
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text())
        found.setdefault(document.get("data", "cost"), {})[path.stem.rpartition("--")[2]] = document
    return found


def page_text(found):
    """docs/candidates.md as a text: a function of the results and the template alone."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((HERE / "study" / "candidates.md.jinja").read_text())
    return template.render(
        found=found,
        cost=found["cost"]["cost"],
        ways=lambda data: ways_table(found[data], data),
        combined=lambda data: combined_table(found[data]),
        choices=lambda data: choices_table(found[data], data),
        strengths=lambda data: strength_table(found[data], data),
        sureness=lambda data: sureness_table(found[data], data),
        names=lambda data: names_table(found[data], data),
        together={data: together_of(own) for data, own in found.items()},
    )


def page(_):
    (HERE.parent / "docs" / "candidates.md").write_text(page_text(every_result()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = (write, measure, choices, strength, sureness, names, cost, page)
    parser.add_argument("command", choices=[command.__name__ for command in commands])
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    parser.add_argument("--work", type=Path, default=HERE / "results" / "candidates")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "study" / "runs", help="runs of bench/study.py")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.loaded = Loaded(options)
    {command.__name__: command for command in commands}[options.command](options)


if __name__ == "__main__":
    main()
