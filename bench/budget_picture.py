"""The picture of docs/how-it-works.md: what each token of one text cost the records behind it.

    python bench/budget_picture.py docs/budget.svg

Writes one text from a batch of the demo's made-up messages with the embedded model and draws what every record paid.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from observing import Observed
from plainchant.cli.demo_data import DEMO_LABELS, DEMO_PROMPT, demo_records
from plainchant.config import SynthesisConfig
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.generation.prompting import Prompts
from plainchant.models.transformers.load import load_model
from plainchant.planning import make_plan
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.randomness import SystemRandomness


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--label", default="transport")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    config = SynthesisConfig(
        labels=DEMO_LABELS,
        label_column="label",
        max_tokens=40,
        batch_size=18,
        deals=False,
        prompt=DEMO_PROMPT,
    )
    decided = make_plan(config)
    model = load_model(config.model, threads=options.threads)
    prompts = Prompts(config, model)
    messages = [record["text"] for record in demo_records() if record["label"] == options.label]
    chosen = np.random.default_rng().permutation(len(messages))[: config.batch_size]
    records = [prompts.records([messages[row]], options.label) for row in chosen]
    charges = []
    individual = IndividualMeanMechanism(decided.settings, decided.rho_batch, config.max_tokens)
    mechanism = Observed(individual, lambda private, public, support, found: charges.append(found.charges))
    stop = StopRule(prompts.stop, config.max_tokens, config.min_tokens)
    decoder = Decoder(model, mechanism, stop, rows=64, randomness=SystemRandomness())
    prefix, start = tuple(prompts.prefix(options.label)), tuple(prompts.start(options.label))
    (text,) = decoder.run([BatchWork(0, prefix, start, records, (0,))])
    paid = np.array(charges)
    words = [model.decode([token]).replace("\n", "⏎") for token in model.encode(text.text, trusted=True)]
    words = (words + ["⏎"] * len(paid))[: len(paid)]

    share = 100 * paid / decided.rho_batch
    order = np.argsort(share.sum(axis=0))
    figure = Figure((9, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    steps = np.arange(len(paid))
    above.bar(steps, np.median(share, axis=1), color="#9e2a2b", label="the median record")
    above.vlines(steps, share.min(axis=1), share.max(axis=1), color="#555", linewidth=0.8, label="all of them")
    above.set_ylabel("% of its budget that a\nrecord pays for this token")
    above.legend(frameon=False)
    left = 100 - np.cumsum(share, axis=0)
    for place, name, colour in ((0, "the cheapest", "#3a7d44"), (len(order) // 2, "the median", "#9e2a2b"),
                                (-1, "the dearest", "#1d3557")):  # fmt: skip
        below.step(steps, left[:, order[place]], where="mid", color=colour, label=f"{name} record")
    below.set_ylim(0, 102)
    below.set_ylabel("% of its budget left")
    below.legend(frameon=False, loc="lower left")
    below.set_xticks(steps, words, rotation=60, ha="right", fontsize=8)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.file, metadata={"Date": None} if options.file.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    main()
