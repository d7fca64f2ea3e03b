"""An end-to-end run on built-in data."""

from pathlib import Path

import click

from plainchant.cli.console import Console
from plainchant.cli.options import command, formatted, option, with_performance
from plainchant.cli.run import execute
from plainchant.config import Method, PerformanceOptions, SynthesisConfig
from plainchant.errors import PrivacyError
from plainchant.planning import make_plan


@command()
@option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    group="Output",
    help="Directory of the run.  [default: runs/demo, or the next free name]",
)
@with_performance
@formatted
def demo(console: Console, out: Path | None, performance: PerformanceOptions) -> None:
    """Run everything once on built-in data: plan, run, evaluate, report. About five minutes on two cores."""
    from plainchant.cli.demo_data import DEMO_LABELS, DEMO_PROMPT, PLANTED_SECRETS, demo_public_texts, demo_records
    from plainchant.data.embedding import load_embedder
    from plainchant.data.files import write_jsonl
    from plainchant.evaluation.figures import ACCURACY, ON_REAL, ON_SYNTHETIC
    from plainchant.evaluation.runs import evaluate as measure
    from plainchant.reporting.runs import report as write_pages
    from plainchant.run.store import RunDirectory, next_free

    out = out or next_free(Path("runs") / "demo")
    inputs = out.with_name(f"{out.name}-input")
    inputs.mkdir(parents=True, exist_ok=True)
    records = demo_records()
    write_jsonl(inputs / "private.jsonl", records)
    write_jsonl(inputs / "public.jsonl", [{"text": text} for text in demo_public_texts()])
    console.say(f"{len(records)} made-up messages to a city's service desk, some with planted secrets: {inputs}")
    config = SynthesisConfig(
        method=Method.PLAINCHANT,
        labels=DEMO_LABELS,
        label_column="label",
        public_corpus=str(inputs / "public.jsonl"),
        centres=6,
        texts=20,
        # fewer than the default, so that the demo takes minutes
        candidates=4,
        max_tokens=48,
        expected_units=len(records),
        prompt=DEMO_PROMPT,
    )
    private = inputs / "private.jsonl"
    texts = execute(console, make_plan(config), private, out, performance=performance, samples=5)
    run = RunDirectory.open(out)
    embedder = load_embedder(config.embedder, device=performance.device)
    figures = measure(run, private, embedder=embedder)
    run.write_private("evaluation.json", figures.as_dict())
    page, private_page = write_pages(run)
    console.table(
        "\nUsefulness (private figures, with 95 % intervals; plainchant evaluate shows more)",
        [
            (name, str(figures.figure(name)))
            for name in (
                f"{ACCURACY}, {ON_SYNTHETIC}",
                f"{ACCURACY}, {ON_REAL}",
                f"{ACCURACY}, largest class",
                "label agreement",
            )
        ],
    )
    console.table("", [("to share, the report", page), ("keep private", private_page)])
    found = sum(any(secret in text for text in texts) for secret in PLANTED_SECRETS)
    console.say(f"planted secrets found in the release: {found} of {len(PLANTED_SECRETS)}")
    if found:
        raise PrivacyError(
            "a planted secret was found in the release, which the guarantee makes all but impossible; please report it"
        )
