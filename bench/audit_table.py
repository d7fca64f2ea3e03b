"""The audit's table: lower bounds on ε by replay, for real mechanisms and for ones that are broken on purpose.

    python bench/audit_table.py [--markdown docs/audit.md]

A batch of the demo's made-up messages, one of them with a planted secret, on the embedded model: logits along that
record's own text are kept once, and each mechanism draws 100,000 sequences with and without that record. Real ones must
stay below what they claim; broken ones must be caught. Everything is made up, so the table may be shown.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

import numpy as np

from plainchant.auditing.replay import Steps, record_steps, replay, replay_deal
from plainchant.cli.demo_data import DEMO_LABELS, DEMO_PROMPT, PLANTED_SECRETS, demo_records
from plainchant.config import SynthesisConfig
from plainchant.generation.decoding import BatchWork
from plainchant.generation.prompting import Prompts
from plainchant.models.transformers.load import load_model
from plainchant.planning import make_plan
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism
from plainchant.randomness import SeededRandomness, SystemRandomness

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from doubles.broken import AlwaysFullWeight, ForgetsWhatIsSpent, NoClipping, shared_padding

SIZE, STEPS, TEXTS, DELTA = 18, 32, 4, 1e-6
# A unit draws from so many batches, of which two write.
AMONG = 8
BROKEN = "broken: "


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    shared = {
        "epsilon": options.epsilon,
        "delta": DELTA,
        "labels": DEMO_LABELS,
        "label_column": "label",
        "texts": 1,
        "max_tokens": STEPS,
        "prompt": DEMO_PROMPT,
    }
    messages = demo_records()
    secret = next(m for m in messages if any(planted in m["text"] for planted in PLANTED_SECRETS))
    label = secret["label"]
    others = [m["text"] for m in messages if m["label"] == label and m is not secret]
    order = np.random.default_rng().permutation(len(others))
    # a batch, and another one in which the unit may be
    chosen = [[secret["text"], *(others[row] for row in order[place::2][: SIZE - 1])] for place in range(2)]
    model = load_model("gemma-3-270m", threads=options.threads)
    prompts = Prompts(SynthesisConfig(**shared, batch_size=100, method="invisibleink"), model)
    work, other = (
        BatchWork(
            number,
            tuple(prompts.prefix(label)),
            tuple(prompts.start(label)),
            [prompts.records([text], label) for text in texts],
            (0,),
        )
        for number, texts in enumerate(chosen)
    )
    said = model.encode(" " + secret["text"], trusted=False)[: STEPS - 1]

    # the individual budget is planned for texts that are too dear at this size: it then bites, as it should
    individual = make_plan(
        SynthesisConfig(**shared, batch_size=SIZE, expected_range=0.3, candidates=1, deals=False, numerical_slack=2e-3)
    ).mechanism
    assert isinstance(individual, IndividualMeanMechanism)
    clipped = make_plan(SynthesisConfig(**shared, batch_size=SIZE, method="invisibleink")).mechanism
    logits = make_plan(
        SynthesisConfig(**(shared | {"epsilon": 50.0}), batch_size=SIZE, method="clustered-mean")
    ).mechanism
    top = MeanMechanism(dataclasses.replace(clipped.settings, support=individual.settings.support))
    # kept on more tokens than it needs, so that a support that moves can be seen
    wide = MeanMechanism(dataclasses.replace(top.settings, k=400))
    kinds = {"top": top, "wide": wide, "plus": clipped, "full": logits}
    steps = {name: record_steps(model, mechanism, work, said) for name, mechanism in kinds.items()}
    elsewhere = record_steps(model, top, other, said)

    # the same logits again and again, as over several texts of a batch: what was spent then matters
    once = steps["top"]
    longer = Steps(np.tile(once.public, (TEXTS, 1)), [*once.private] * TEXTS, [*once.ids] * TEXTS)

    def seeded():
        return SeededRandomness(42)

    broken = {
        "no clipping": (NoClipping(clipped.settings), steps["plus"], SystemRandomness),
        "forgets what was spent": (
            ForgetsWhatIsSpent(individual.settings, individual.budget, len(longer.ids)),
            longer,
            SystemRandomness,
        ),
        "no filter": (
            AlwaysFullWeight(individual.settings, individual.budget, individual.steps), steps["top"], SystemRandomness,
        ),
        "public row padded with private ones": (top, shared_padding(steps["wide"]), SystemRandomness),
        "seed 42": (clipped, steps["plus"], seeded),
    }  # fmt: skip
    real = {
        "plainchant (individual mean)": (individual, steps["top"], SystemRandomness),
        f"plainchant, {TEXTS} texts": (
            IndividualMeanMechanism(individual.settings, individual.budget, len(longer.ids)),
            longer,
            SystemRandomness,
        ),
        "invisibleink (mean of differences)": (clipped, steps["plus"], SystemRandomness),
        "clustered-mean (mean of logits)": (logits, steps["full"], SystemRandomness),
    }

    def replays(group, prefix=""):
        return {
            prefix + name: functools.partial(replay, mechanism, instance, 0, randomness=source)
            for name, (mechanism, instance, source) in group.items()
        }

    deal = functools.partial(
        replay_deal,
        individual.for_budget(individual.budget),
        [once, elsewhere],
        [0, 0],
        among=AMONG,
        payment=individual.budget,
        randomness=SystemRandomness,
    )
    dealt = {f"plainchant, a deal: one of {AMONG} batches is drawn, two of them write": deal}
    lines = ["| mechanism | ε claimed | ε at least | largest ε it could show | |", "|---|---|---|---|---|"]
    wrong = []
    for name, attack in (replays(real) | dealt | replays(broken, BROKEN)).items():
        found = attack(runs=options.runs, delta=DELTA, alpha=1e-6)
        verdict = "**refuted**" if found.refuted else "not refuted"
        figures = (found.epsilon_claimed, found.epsilon_low, found.epsilon_limit)
        lines.append(f"| {name} | {' | '.join(f'{figure:.3g}' for figure in figures)} | {verdict} |")
        print(lines[-1], flush=True)
        if found.refuted != name.startswith(BROKEN):
            wrong.append(name)
    if options.markdown:
        about = (
            f"# Audit by replay\n\nWritten by `python bench/audit_table.py --markdown docs/audit.md`: {STEPS} tokens\n"
            f"of a batch of {SIZE} made-up messages on the embedded model, {options.runs:,} sequences with and\n"
            f"without the one that holds a planted secret, δ = {DELTA:g}. Each bound is wrong with probability\n"
            "at most 1e-6. A deal is claimed for less than its batches are, and its draw is made in every replay.\n\n"
            "An audit can refute a claim, never prove it. Real bounds are usually far below their claims, because a\n"
            "claim holds for the worst possible logits.\n\n"
        )
        options.markdown.write_text(about + "\n".join(lines) + "\n", encoding="utf-8")
    if wrong:
        sys.exit(f"not as it should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
