"""The data set card: what a stranger must know about a release, the guarantee first."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from plainchant.config import Clusters, SynthesisConfig
from plainchant.data.marks import visible
from plainchant.data.schema import Schema
from plainchant.planning import Guarantee, Plan
from plainchant.privacy.histograms import WHOLE_LABEL, Cell

EX_POST_NOTE = (
    "Measured after the run, for this data and this output: except with probability δ, seeing the release changed "
    "nobody's odds about any one unit by more than a factor of e^ε, whether or not they know which units were drawn "
    "into which batch. No figure was promised before the run, and another run may cost more. The figure itself "
    "depends on the private data: keep it in private/."
)
PROMISE = {
    "ex-ante": (
        "Whoever sees this data learns hardly more about any one unit than if that unit had not been in the private "
        "data at all: the odds of any conclusion change by a factor of at most e^ε, except with probability δ. The "
        "figures were fixed before the run and hold for any data."
    ),
    "ex-post": (
        "Every token was drawn from a distribution that no single unit can change much, and the largest possible "
        "change was measured. The measured figure depends on the private data and is not released. No figure was "
        "promised in advance."
    ),
    "none": "There is no guarantee. This data may repeat private records word for word.",
}
KIND = {"ex-ante": "ex ante: fixed before the run", "ex-post": "ex post: measured after the run", "none": "none"}
PAID = {"ex-ante": ", paid for by the guarantee", "ex-post": ", paid for by the guarantee", "none": ""}
ORIGINS = (
    "records: private records contributed to the text, at a cost",
    "model: a language model wrote it from texts that were released already",
)
NOT_COVERED = (
    "what the language model learnt before, from its own training data",
    "facts that many units share",
    "anything else released from the same data: the costs of several releases add up",
)


# The card.


def data_set_card(
    plan: Plan,
    guarantee: Guarantee,
    cells: Sequence[Cell],
    texts: int,
    votes: Sequence[Mapping[str, Any]] = (),
    schema: Schema | None = None,
) -> str:
    """The card of a release: Markdown with the front matter that Hugging Face reads. Contains released facts only.

    Args:
        plan: the run's plan.
        guarantee: the release's guarantee.
        cells: the kept cells, released under the plan's ρ_rebalance.
        texts: how many texts the release has.
        votes: public facts about the votes (`RunDirectory.facts`).
        schema: the attributes with the values that were found; None where there are none.
    """
    from huggingface_hub import DatasetCardData

    config = plan.config
    labelled = bool(config.labels)
    # neither language nor licence: both are unknown here
    front_matter = DatasetCardData(
        pretty_name=f"Synthetic {'texts' if config.has_text else 'rows'} by plainchant",
        tags=["synthetic", "differential-privacy"],
        task_categories=["text-generation", *["text-classification"] * labelled] if config.has_text else ["other"],
        annotations_creators=["machine-generated" if labelled else "no-annotation"],
        language_creators=["machine-generated"],
        source_datasets=["original"],
        size_categories=[_size_category(texts)],
        configs=[{"config_name": "default", "data_files": "synthetic.parquet"}],
    )
    rows = "\n".join(
        f"| {markdown_cell(config.label_set[cell.label])} | {centre_name(cell)} | {cell.noisy_size} | {cell.batches} |"
        for cell in cells
    )
    counts = (
        f"\n## Cells\n\nNoisy counts of units{PAID[guarantee.kind]}.\n\n"
        f"| label | public centre | noisy size | batches |\n|---|---|---|---|\n{rows}\n"
        if plan.rho_rebalance
        else ""
    )
    counts += "".join(
        [
            "\n## Votes\n\n| vote | what it chose from |\n|---|---|\n" * bool(votes),
            *(f"| {facts['round']} | {markdown_cell(vote_in_words(facts))} |\n" for facts in votes),
        ]
    )
    counts += data_dictionary(config, schema)
    figures = " | ".join(
        markdown_cell(value)
        for value in (
            guarantee.kind, full_figure(guarantee.epsilon), full_figure(guarantee.delta), full_figure(guarantee.rho),
            guarantee.unit, "add or remove one unit", guarantee.method, guarantee.version,
        )
    )  # fmt: skip
    return f"""---
{front_matter.to_yaml()}
---

# Synthetic {"texts" if config.has_text else "rows"}

**{markdown_cell(guarantee.statement)}**

| kind | ε | δ | ρ (zCDP) | unit | neighbouring relation | method | plainchant |
|---|---|---|---|---|---|---|---|
| {figures} |

{PROMISE[guarantee.kind]}

- **Kind:** {KIND[guarantee.kind]}. **Accountant:** {accountant_of(plan, guarantee)}.
- **Public by assumption:** {"; ".join(markdown_cell(item) for item in public_inputs(config))}.
- **Not covered:** {"; ".join(NOT_COVERED)}.
- **Not true to fact:** {made_up(config, texts)}
{counts}
## Settings

```json
{settings_json(plan)}
```
"""


def data_dictionary(config: SynthesisConfig, schema: Schema | None) -> str:
    """The columns of a release: name, type, meaning and values. Released facts only."""
    names = config.released_names
    rows = [(names["text"], "string", "the text", "written by a language model")] * config.has_text
    if config.labels:
        rows.append((names["label"], "string", "the label", ", ".join(config.labels)))
    for name, kind in (schema.attributes if schema else {}).items():
        found = " (found in the data, with noise)" if name in config.columns.found else ""
        rows.append((name, kind.column_type, kind.meaning or "an attribute", f"{kind.described()}, missing{found}"))
    rows.append(("cell", "int64", "number of the cell that the row belongs to", "from 0"))
    if config.further:
        rows.append(("origin", "string", "what the text was written from", "; ".join(ORIGINS)))
    lines = "\n".join(f"| {' | '.join(markdown_cell(part) for part in row)} |" for row in rows)
    return f"\n## Columns\n\n| column | type | meaning | values |\n|---|---|---|---|\n{lines}\n"


def _size_category(texts: int) -> str:
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if texts < bound:
            return name
    return "1M<n<10M"


def markdown_cell(text: Any) -> str:
    """Text escaped for a table cell: a label can hold anything."""
    plain = "–" if text is None else visible(" ".join(str(text).split()))
    return re.sub(r"[\\`*_\[\]<>|&]", lambda match: f"&#{ord(match[0])};", plain)


# What card and page both say.


def full_figure(value: float | None) -> str:
    """A figure with all its digits."""
    return "–" if value is None else "∞" if math.isinf(value) else f"{value:.6g}"


def short_figure(value: float | None) -> str:
    """A figure rounded for reading."""
    return "–" if value is None else "∞" if math.isinf(value) else f"{value:.4g}"


def centre_name(cell: Cell) -> str:
    """The public centre of a cell, by number, or "whole label"."""
    return "whole label" if cell.centre == WHOLE_LABEL else str(cell.centre)


def shared_name(path: str) -> str:
    """The last part of a path: a release does not reveal the folders of its author's machine."""
    return last_part(path) if path.startswith(("/", ".", "~")) or "\\" in path else path


def last_part(path: str) -> str:
    """The last part of a path."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def accountant_of(plan: Plan, guarantee: Guarantee) -> str:
    """How the cost was counted, in a sentence."""
    # with a seed the mechanism promises nothing
    return {"none": "none"}.get(guarantee.kind, plan.mechanism.accountant)


def public_inputs(config: SynthesisConfig) -> list[str]:
    """What the guarantee takes as public."""
    items = ["the configuration and its prompts"] if config.has_text else ["the configuration"]
    items += ["the label set"] * bool(config.labels) + ["the schema of the attributes"] * bool(
        config.columns.attributes
    )
    items += [f"the language model ({shared_name(config.model)})"] * config.has_text
    clustered = config.parts.clusters is Clusters.PUBLIC_CENTRES and config.reads_records
    if clustered or config.votes:
        items.append(f"the embedding model ({shared_name(config.embedder)})")
    if clustered:
        if isinstance(config.centres, str):
            source = "taken from a file declared public by the data holder"
        else:
            source = (
                "computed from a corpus declared public by the data holder"
                if config.public_corpus
                else "computed from texts sampled from the model"
            )
        items.append(f"the cluster centres, {source}")
    return items


def made_up(config: SynthesisConfig, texts: int) -> str:
    """A sentence that the texts are made up, with their number and how they were written."""
    if not config.has_text:
        return f"the rows are made up. {texts} rows, drawn from a law that was fitted to noisy counts."
    said = f"the texts are made up. {texts} texts of at most {config.max_tokens} tokens"
    if config.votes:
        said += ", chosen by " + ("a noisy vote" if config.parts.rounds == 1 else "noisy votes") + " of the records"
    if config.further and not config.written:
        said += ", all of them written by the language model, to which no record was shown (origin = model)"
    elif config.further:
        count = "some" if config.votes else config.further
        said += f", {count} of them written by the language model from the others (origin = model)"
    return said + "."


def vote_in_words(facts: Mapping[str, Any]) -> str:
    """Public facts about a vote, for people."""
    said = f"{facts['chosen']} chosen of {facts['candidates']} candidates"
    if facts["left_out"]:
        said += ", left out: " + ", ".join(f"{count} {rule}" for rule, count in facts["left_out"].items())
    if facts["filled_up"]:
        said += f"; {facts['filled_up']} chosen without votes, since too few different ones were left"
    said += f"; a vote spread over {facts['spread']}, from {facts['labels_open']} of the labels"
    if facts["labels_without_signal"]:
        said += "; no signal above the noise for " + ", ".join(facts["labels_without_signal"])
    return said


def settings_json(plan: Plan) -> str:
    """The plan as JSON."""
    return json.dumps({name: value for name, value in plan.as_dict().items() if name != "guarantee"}, indent=2)
