"""How long a batch's budget lasts: individual accounting against the worst case, by batch size.

    python bench/individual_cost.py CONFIG --data FILE --centres centres.npz --embeddings private/embeddings.npy

Decodes some clustered batches of each size, with and without released examples, by the individual mean with nothing to
stop it, and counts each record's ρ at every token. A table entry is the number of tokens until half of a batch's
records have spent the budget of (ε, δ), extrapolated from the mean cost of the decoded tokens. Beside it the worst-case
mean at clip 10, and both at the smallest clip C at which the mean absolute clipped part of Δ is at most a given
distortion. The figures read private data: they are for a bench, not for a release.
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from observing import Observed
from plainchant.config import load_config
from plainchant.data.centres import Centres
from plainchant.data.tables import read_records
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.generation.prompting import Prompts, choose_examples
from plainchant.models.transformers.load import load_model
from plainchant.planning import make_plan
from plainchant.privacy.accounting import bounded_range_rho, rho_of
from plainchant.privacy.aggregation import CLIPS_BY_PUBLIC
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.randomness import SystemRandomness

# A budget that no text of the bench can spend.
UNLIMITED = 1e6


class Notes:
    """What every context pays, here and at each clip on a grid, and how much of Δ that clip would cut off."""

    grid = np.geomspace(0.25, 10, 24)

    def __init__(self, settings):
        self._settings = settings
        self.paid, self.cut, self.at = [], [], []

    def __call__(self, private, public, support, found):
        settings = self._settings
        self.paid.append(found.charges)
        wide = CLIPS_BY_PUBLIC[settings.clipping](private, public[support], 1e6)
        self.cut.append([float(np.maximum(np.abs(wide) - clip, 0).mean()) for clip in self.grid])
        unit = settings.guidance / settings.batch_size / settings.temperature
        reaches = [unit * np.ptp(np.clip(wide, -clip, clip), axis=1) for clip in self.grid]
        self.at.append(np.array(reaches, dtype=np.float64) ** 2 / 8)


def decode(model, mechanism, stop, works, rows):
    decoder = Decoder(model, mechanism, stop, rows=rows, randomness=SystemRandomness())
    return list(decoder.run(works))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--centres", required=True)
    parser.add_argument("--embeddings", required=True)
    parser.add_argument("--sizes", default="8,16,32,64")
    parser.add_argument("--batches", type=int, default=4, help="batches of each size, each in another cell")
    parser.add_argument("--texts", type=int, default=2, help="texts a batch")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--no-examples", action="store_true", help="without the hand-written examples of CONFIG")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    config = load_config(
        options.config,
        {"method": "plainchant", "clip": 10.0, "batch_size": 64, "epsilon": 8.0} | {"max_tokens": options.max_tokens},
    )
    if options.no_examples:
        prompt = config.prompt.model_copy(update={"examples": ()})
        config = config.model_copy(update={"prompt": prompt})
    budget = (1 - config.rebalance_share) * rho_of(config.epsilon, config.delta)
    records = read_records(options.data, label_column=config.label_column)
    nearest = Centres.load(options.centres).nearest(np.load(options.embeddings))
    model = load_model(config.model, device="cpu", dtype="float32", threads=options.threads)
    prompts = Prompts(config, model)
    stop = StopRule(prompts.stop, config.max_tokens, config.min_tokens)
    cells = {}
    for number, record in enumerate(records):
        cells.setdefault((record.label, int(nearest[number])), []).append(number)
    # the largest cell of each label in turn
    order = sorted(cells, key=lambda cell: -len(cells[cell]))
    chosen = [next(cell for cell in order if cell[0] == label) for label in config.labels]
    chosen = (chosen + [cell for cell in order if cell not in chosen])[: options.batches]
    generator = np.random.default_rng()
    examples: dict[Any, tuple[str, ...]] = dict.fromkeys(chosen, ())
    for shown in (False, True):
        for size in (int(size) for size in options.sizes.split(",")):
            settings = dataclasses.replace(make_plan(config).settings, batch_size=size)
            steps = options.texts * config.max_tokens
            notes = Notes(settings)
            mechanism = Observed(IndividualMeanMechanism(settings, UNLIMITED, steps), notes)
            works = []
            for number, cell in enumerate(chosen):
                members = generator.choice(cells[cell], size, replace=False)
                own = [prompts.records([records[member].text], cell[0]) for member in members]
                prefix = tuple(prompts.prefix(cell[0], examples[cell] if shown else ()))
                works.append(BatchWork(number, prefix, tuple(prompts.start(cell[0])), own, range(options.texts)))
            # a pass holds one batch, so that the notes are in order
            texts = decode(model, mechanism, stop, works, rows=1)
            tokens = [sum(text.tokens for text in texts if text.batch == number) for number in range(len(chosen))]
            ends = np.cumsum([0, *tokens])
            costs = [np.mean(notes.paid[a:b], axis=0) for a, b in itertools.pairwise(ends)]
            lasting = [budget / np.median(cost) for cost in costs]
            cut = np.mean(notes.cut, axis=0)
            distortion = {str(level): float(notes.grid[np.argmax(cut <= level)]) for level in (0.01, 0.05, 0.1)}

            def clipped(clip, notes=notes, ends=ends):
                place = int(np.flatnonzero(notes.grid == clip)[0])
                own = [np.mean([cost[place] for cost in notes.at[a:b]], axis=0) for a, b in itertools.pairwise(ends)]
                return float(np.mean([budget / np.median(cost) for cost in own]))

            def worst(clip, settings=settings):
                moved = settings.guidance * dataclasses.replace(settings, clip=clip).span / settings.batch_size
                return budget / bounded_range_rho((moved + 2 * settings.slack) / settings.temperature)

            unit = bounded_range_rho(settings.guidance / settings.batch_size / settings.temperature)
            print(
                json.dumps({
                    "released examples": config.parts.released_examples if shown else 0,
                    "batch size": size,
                    "tokens decoded": int(ends[-1]),
                    "rms range": round(float(np.sqrt(np.mean([c.mean() for c in costs]) / unit)), 2),
                    "tokens until half are spent": round(float(np.mean(lasting)), 1),
                    "worst case at clip 10": round(worst(10.0), 1),
                    "both at one clip, by distortion": {
                        level: {
                            "clip": round(clip, 2),
                            "individual": round(clipped(clip), 1),
                            "worst case": round(worst(clip), 1),
                        }
                        for level, clip in distortion.items()
                    },
                }),
                flush=True,
            )  # fmt: skip
            if not shown:
                for number, cell in enumerate(chosen):
                    written = [text.text for text in texts if text.batch == number]
                    examples[cell] = (*examples[cell], *written)
        examples = {
            cell: tuple(choose_examples(texts_of_cell, config.parts.released_examples))
            for cell, texts_of_cell in examples.items()
        }


if __name__ == "__main__":
    main()
