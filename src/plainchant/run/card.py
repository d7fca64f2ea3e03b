"""The data set card: what a stranger must know about a release, the guarantee first."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from plainchant.config import Clusters, SynthesisConfig
from plainchant.data.marks import visible
from plainchant.planning import Guarantee, Plan
from plainchant.privacy.histograms import WHOLE_LABEL, Cell

EX_POST_NOTE = (
    "Measured after the run, for this data and this output: except with probability δ, seeing the release changed "
    "nobody's odds about any one unit by more than a factor of e^ε, whether or not they know which units were drawn "
    "into which batch. No figure was promised before the run, and another run may cost more. The figure itself "
    "depends on the private data: keep it in private/."
)
COSTS_NOTE = (
    "What the records have paid depends on the private data: keep it in private/. The promise was fixed before the run "
    "and stands. A bound that is measured after the run knows nothing of it: it is looser and not informative here."
)
# Up to these ε a promise is strong, or moderate.
STRONG_EPSILON, MODERATE_EPSILON = 1.0, 4.0
_PROMISE = {
    "ex-post": (
        "Every token was drawn from a distribution that no single unit can change much, and the largest possible "
        "change was measured. The measured figure depends on the private data and is not released. No figure was "
        "promised in advance."
    ),
    "none": "There is no guarantee. This data may repeat private records word for word.",
}
KIND = {"ex-ante": "ex ante: fixed before the run", "ex-post": "ex post: measured after the run", "none": "none"}
PAID = {"ex-ante": ", paid for by the guarantee", "ex-post": ", paid for by the guarantee", "none": ""}
NOT_COVERED = (
    "what the language model learnt before, from its own training data",
    "facts that many units share",
    "anything else released from the same data: the costs of several releases add up",
)


# The promise in words.


def odds_in_words(epsilon: float) -> str:
    """What a promised ε means, in the figure's own words.

    >>> odds_in_words(1.0)
    'odds change by at most 2.7 times'
    >>> odds_in_words(8.0)[:38]
    'odds change by at most 2,981 times: by'
    """
    if epsilon == 0:
        return "nothing was read"
    said = f"odds change by at most {_times(epsilon)} times"
    if epsilon <= STRONG_EPSILON:
        return said
    if epsilon <= MODERATE_EPSILON:
        return f"{said}: a moderate promise"
    return f"{said}: by itself a weak promise for the worst case; the audit says what attacks found"


def _times(epsilon: float) -> str:
    """e^ε for reading."""
    if epsilon > math.log(1e9):
        return f"10^{math.ceil(epsilon / math.log(10))}"
    factor = math.exp(epsilon)
    return f"{factor:.3g}" if factor < 1.5 else f"{factor:.2g}" if factor < 100 else f"{factor:,.0f}"


def promise_in_words(guarantee: Guarantee) -> str:
    """What a release promises, for people."""
    if guarantee.kind != "ex-ante" or guarantee.epsilon is None:
        return _PROMISE[guarantee.kind]
    if guarantee.epsilon == 0:
        return "No private data was read, so this data says nothing about any unit."
    odds = odds_in_words(guarantee.epsilon).replace(" times", " times (e^ε)", 1)
    return (
        "Take any one unit out of the private data. Whatever somebody concludes from this release, the "
        f"{odds}. This fails with probability δ at most. The figures were fixed before the run and hold for any data."
    )


# The card.


def data_set_card(
    plan: Plan, guarantee: Guarantee, cells: Sequence[Cell], texts: int, votes: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The card of a release: Markdown with the front matter that Hugging Face reads. Contains released facts only.

    Args:
        plan: the run's plan.
        guarantee: the release's guarantee.
        cells: the kept cells, released under the plan's ρ_rebalance.
        texts: how many texts the release has.
        votes: public facts about the votes (`RunDirectory.facts`).
    """
    from huggingface_hub import DatasetCardData

    config = plan.config
    labelled = bool(config.labels)
    # neither language nor licence: both are unknown here
    front_matter = DatasetCardData(
        pretty_name=f"{config.name}: synthetic texts" if config.name else "Synthetic texts by plainchant",
        tags=["synthetic", "differential-privacy"],
        task_categories=["text-generation", *["text-classification"] * labelled],
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

# {markdown_cell(config.name) + ": synthetic texts" if config.name else "Synthetic texts"}

**{markdown_cell(guarantee.statement)}**

| kind | ε | δ | ρ (zCDP) | unit | neighbouring relation | method | plainchant |
|---|---|---|---|---|---|---|---|
| {figures} |

{promise_in_words(guarantee)}

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


def noisy_counts(cells: Sequence[Cell], config: SynthesisConfig) -> list[tuple[str | None, int]]:
    """For each label the noisy number of its units, over its kept cells. Released under the plan's ρ_rebalance."""
    totals = dict.fromkeys(range(len(config.label_set)), 0)
    for cell in cells:
        totals[cell.label] += cell.noisy_size
    return [(config.label_set[label], total) for label, total in totals.items()]


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
    items = ["the configuration and its prompts", f"the language model ({shared_name(config.model)})"]
    if config.labels:
        items.insert(1, "the label set")
    clustered = config.parts.clusters is Clusters.PUBLIC_CENTRES and config.reads_records
    if clustered or config.votes:
        items.append(f"the embedding model ({shared_name(config.embedder)})")
    if clustered:
        if config.centres_file is not None:
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
    said = f"the texts are made up. {texts} texts of at most {config.max_tokens} tokens"
    if config.votes:
        said += ", chosen by " + ("a noisy vote" if config.parts.rounds == 1 else "noisy votes") + " of the records"
    if config.further and not config.written:
        said += ", all of them written by the language model, to which no record was shown (source = expanded)"
    elif config.further:
        count = "some" if config.votes else config.further
        said += f", {count} of them written by the language model from the others (source = expanded)"
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
