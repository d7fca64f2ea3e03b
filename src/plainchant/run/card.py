"""The data set card: what a stranger must know about a release, the guarantee first."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from plainchant.config import SynthesisConfig
from plainchant.data.marks import visible
from plainchant.data.schema import Schema
from plainchant.planning import Guarantee, Plan
from plainchant.privacy.histograms import WHOLE_LABEL, Cell
from plainchant.run.words import DRAWN, INVENTED, cost_in_words, promise_in_words

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
KIND = {"ex-ante": "ex ante: fixed before the run", "ex-post": "ex post: measured after the run", "none": "none"}
PAID = {"ex-ante": ", paid for by the guarantee", "ex-post": ", paid for by the guarantee", "none": ""}
# Labels that are named in a sentence.
MOST_NAMED = 5
# Share of texts much like another one from which on fewer texts would say as much; of 5,000 real news items it is 4 %.
MUCH_ALIKE = 0.25
# Share of the candidates from which on choosing them is hardly a choice (docs/candidates.md).
HARDLY_A_CHOICE = 0.5
NOT_COVERED = (
    "what the language model learnt before, from its own training data",
    "facts that many units share, such as what the records of several units say of a person whom they mention",
    "anything else released from the same data: the costs of several releases add up",
)


# The card.


def data_set_card(
    plan: Plan,
    guarantee: Guarantee,
    cells: Sequence[Cell],
    texts: int,
    votes: Sequence[Mapping[str, Any]] = (),
    *,
    date: str | None = None,
    model: str | None = None,
    licence: str | None = None,
    schema: Schema | None = None,
    by_records: int | None = None,
    texts_of_label: Mapping[str, int] | None = None,
) -> str:
    """The card of a release: Markdown with the front matter that Hugging Face reads. Contains released facts only.

    Args:
        plan: the run's plan.
        guarantee: the release's guarantee.
        cells: the kept cells, released under the plan's ρ_rebalance.
        texts: how many texts the release has.
        votes: public facts about the votes (`RunDirectory.facts`).
        date: the day of the release.
        model: the language model's version (`models.revision_of`).
        licence: of the language model, as its files name it (`models.licence_of`).
        schema: the attributes with the values that were found; None where there are none.
        by_records: how many of the texts were written by records together, where both kinds are released.
        texts_of_label: how many there are of each label that has some; None where there are no labels.
    """
    config = plan.config
    figures = " | ".join(
        markdown_cell(value)
        for value in (
            guarantee.kind, full_figure(guarantee.epsilon), full_figure(guarantee.delta), cost_in_words(guarantee),
            guarantee.unit, "add or remove one unit", guarantee.method, guarantee.version,
        )
    )  # fmt: skip
    facts = "".join(f"- **{name}:** {markdown_cell(value)}.\n" for name, value in made_of(config, date, model, licence))
    return f"""---
{_front_matter(config, texts)}
---

# {markdown_cell(title_of(config))}

**{markdown_cell(guarantee.statement)}**

{markdown_cell(promise_in_words(guarantee))}

| kind | ε | δ | cost | unit | neighbouring relation | method | plainchant |
|---|---|---|---|---|---|---|---|
| {figures} |

{facts}- **Kind:** {KIND[guarantee.kind]}. **Accountant:** {accountant_of(plan, guarantee)}.
- **Public by assumption:** {"; ".join(markdown_cell(item) for item in public_inputs(config))}.
- **Not covered:** {"; ".join(NOT_COVERED)}.
- **Not true to fact:** {made_up(config, texts, by_records)} {invented(config)}

## Columns

| column | type | meaning |
|---|---|---|
{"".join(f"| {' | '.join(map(markdown_cell, row))} |{chr(10)}" for row in _dictionary(config, schema))}
{"" if texts_of_label is None else _labels(config, texts_of_label, cells)}{_counts(plan, guarantee, cells, votes)}
## Settings

```json
{settings_json(plan)}
```
"""


def _front_matter(config: SynthesisConfig, texts: int) -> str:
    from huggingface_hub import DatasetCardData

    labelled = bool(config.labels)
    languages = [code.strip() for code in config.language.split(",")] if config.language else None
    data = DatasetCardData(
        pretty_name=visible(title_of(config)) + " by plainchant" * (config.name is None),
        license=config.license,
        language=languages,
        tags=["synthetic", "differential-privacy"],
        task_categories=["text-generation", *["text-classification"] * labelled] if config.has_text else ["other"],
        annotations_creators=["machine-generated" if labelled else "no-annotation"],
        language_creators=["machine-generated"],
        source_datasets=["original"],
        size_categories=[_size_category(texts)],
        configs=[{"config_name": "default", "data_files": "synthetic.parquet"}],
    )
    return data.to_yaml()


def _labels(config: SynthesisConfig, texts_of_label: Mapping[str, int], cells: Sequence[Cell]) -> str:
    """The section about labels: how many rows each one has and, where it has none, why. Released facts only."""
    what, kept = "texts" if config.has_text else "rows", {config.labels[cell.label] for cell in cells}

    def why(label: str) -> str:
        if not config.reads_records:
            return "fewer texts than labels"
        if isinstance(config.quotas, dict) and not config.quotas.get(label):
            return "none were asked for"
        if cells and label not in kept:
            return "too few records, by their noisy count"
        if config.columns.attributes:
            return "no row was drawn for it, by the noisy counts"
        return "too few votes" if config.votes else "too small a share, by its noisy count"

    rows = "".join(
        f"| {markdown_cell(label)} | {count if (count := texts_of_label.get(label, 0)) else f'0: {why(label)}'} |\n"
        for label in config.labels
    )
    return f"\n## Labels\n\n| label | {what} |\n|---|---|\n{rows}"


def _counts(plan: Plan, guarantee: Guarantee, cells: Sequence[Cell], votes: Sequence[Mapping[str, Any]]) -> str:
    """The sections about noisy counts and votes, where there are any."""
    rows = "".join(
        f"| {markdown_cell(plan.config.label_set[cell.label])} | {centre_name(cell)} | {cell.noisy_size} | "
        f"{cell.batches} |\n"
        for cell in cells
    )
    counts = (
        f"\n## Cells\n\nNoisy counts of units{PAID[guarantee.kind]}.\n\n"
        f"| label | public centre | noisy size | batches |\n|---|---|---|---|\n{rows}"
        if plan.rho_rebalance
        else ""
    )
    held = "".join(f"| {facts['round']} | {markdown_cell(vote_in_words(facts))} |\n" for facts in votes)
    return counts + (f"\n## Votes\n\n| vote | what it chose from |\n|---|---|\n{held}" if held else "")


def released_columns(config: SynthesisConfig) -> list[str]:
    """The columns of the release beside the attributes; text and label may have other names there."""
    labels, origins = bool(config.labels), bool(config.further)
    return [*["text"] * config.has_text, *["label"] * labels, "cell", *["origin"] * origins]


def _dictionary(config: SynthesisConfig, schema: Schema | None) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each column. Released facts only."""
    # with attributes a text keeps the label of its row
    chosen = config.votes and schema is None
    asked = "the label that the records gave it by their votes" if chosen else "the label that was asked for"
    meanings = {
        "text": ("string", f"A synthetic text of at most {config.max_tokens} tokens."),
        "label": ("string", f"One of {len(config.labels)} labels: {asked}."),
        "cell": (
            "integer",
            f"Number of the cell that the {'text was written' if config.has_text else 'row was drawn'} for, from 0. "
            "A cell is a label and a topic.",
        ),
        "origin": (
            "string",
            "records: by records together. model: by the model alone, after texts that the guarantee covers.",
        ),
    }
    rows = [(config.released_names.get(name, name), *meanings[name]) for name in released_columns(config)]
    for name, kind in (schema.attributes if schema else {}).items():
        found = " (found in the data, with noise)" if name in config.columns.found else ""
        physical = "" if kind.column_type == kind.type else f" ({kind.column_type})"
        rows.append(
            (name, kind.type + physical, f"{kind.meaning or 'An attribute'}: {kind.described()}, or missing{found}.")
        )
    return [*rows, *((name, "string", "Follows from the label.") for name in config.columns.of_label)]


def _size_category(texts: int) -> str:
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if texts < bound:
            return name
    return "1M<n<10M"


def markdown_cell(text: Any) -> str:
    """Text escaped for a table cell: a label can hold anything."""
    plain = "–" if text is None else visible(" ".join(str(text).split()))
    # inside a word an underscore means itself
    return re.sub(r"[\\`*\[\]<>|&]|(?<![^\W_])_|_(?![^\W_])", lambda match: f"&#{ord(match[0])};", plain)


# What card and page both say.


def title_of(config: SynthesisConfig) -> str:
    """The title of a release: the name of its data set, or what it holds."""
    return config.name or ("Synthetic texts" if config.has_text else "Synthetic rows")


def made_of(
    config: SynthesisConfig, date: str | None, model: str | None, licence: str | None = None
) -> list[tuple[str, str]]:
    """What a release was made of, by whom and when: names and values, where they are known."""
    facts = [
        ("Made by", config.holder),
        ("Date", date),
        ("Model", "; ".join(models_of(config, model))),
        ("Licence of the model", licence),
    ]
    return [(name, value) for name, value in facts if value]


def models_of(config: SynthesisConfig, version: str | None) -> list[str]:
    """The language models that wrote, each with its version where that is known."""
    own = [shared_name(config.model) + (f", {version}" if version else "")] if config.needs_model else []
    others = [config.candidate_model] if config.candidate_model is not None else []
    return own + [f"{shared_name(other)} for candidates, version not recorded" for other in others]


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
    if guarantee.kind == "none":
        return "none"
    counted = plan.mechanism.accountant
    if plan.deals is not None:
        counted = (
            f"amplification by the secret draw of batches at the Rényi order {plan.deals.order}; each text: {counted}"
        )
    if plan.sample_rate < 1:
        counted += f"; then amplification by one secret Poisson sample of the units at rate {plan.sample_rate:.3g}"
    return counted


def public_inputs(config: SynthesisConfig) -> list[str]:
    """What the guarantee takes as public."""
    items = ["the configuration and its prompts" if config.has_text else "the configuration"]
    if config.needs_model:
        items.append(f"the language model ({shared_name(config.model)})")
    if config.candidate_model is not None:
        # not the address, which may name a machine of a private network
        items.append(f"the language model of the candidates ({shared_name(config.candidate_model)})")
    if config.columns.attributes:
        items.insert(1, "the schema of the attributes")
    if config.labels:
        items.insert(1, "the label set")
    if config.clustered or config.votes:
        items.append(f"the embedding model ({shared_name(config.embedder)})")
    if config.clustered:
        if config.centres_file is not None:
            source = "taken from a file declared public by the data holder"
        else:
            source = (
                "computed from a corpus declared public by the data holder"
                if config.public_corpus
                else "computed without private data"
            )
        items.append(f"the cluster centres, {source}")
    return items


def made_up(config: SynthesisConfig, texts: int, by_records: int | None = None) -> str:
    """A sentence that the texts are made up, with their number and how they were written.

    Args:
        config: the run's.
        texts: how many there are.
        by_records: how many of them were written by records together, where that is known.
    """
    if not config.has_text:
        return f"the rows are made up. {texts} rows, drawn from a law that was fitted to noisy counts."
    fewer = f" ({config.texts} were asked for)" if texts < config.texts else ""
    said = f"the texts are made up. {texts} texts{fewer} of at most {config.max_tokens} tokens"
    if config.votes:
        said += ", chosen by " + ("a noisy vote" if config.parts.rounds == 1 else "noisy votes") + " of the records"
    if config.further and not config.written:
        said += ", all of them written by the language model, to which no record was shown (origin = model)"
    elif config.further and by_records is not None:
        said += (
            f"; {by_records} of them written by records together (origin = records), and {texts - by_records} by the "
            "language model alone, after texts that the guarantee covers (origin = model)"
        )
    return said + "."


def by_records(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """How many released rows were written by records together; None where no row says who wrote it."""
    origins = [row["origin"] for row in rows if "origin" in row]
    return origins.count("records") if origins else None


def invented(config: SynthesisConfig) -> str:
    """What names and numbers in a release are worth."""
    return INVENTED if config.has_text else DRAWN


def vote_in_words(facts: Mapping[str, Any]) -> str:
    """Public facts about a vote, for people."""
    spread, labels = (" to ".join(map(str, dict.fromkeys(facts[name]))) for name in ("spread", "labels_open"))
    said = f"the records chose {facts['chosen']} of {facts['candidates']} candidates: each voted for the "
    said += "nearest one" if spread == "1" else f"{spread} nearest ones"
    said += " of its label" if labels == "1" else f" of {labels} labels"
    if facts["left_out"]:
        said += "; left out before: " + ", ".join(f"{count} {rule}" for rule, count in facts["left_out"].items())
    if facts["filled_up"]:
        said += f"; {facts['filled_up']} were taken without votes, since too few different ones were left"
    if facts["alike"]:
        said += f"; {facts['alike']} of them much like another one"
    if silent := facts["labels_without_signal"]:
        further = f" and {len(silent) - MOST_NAMED} more" if len(silent) > MOST_NAMED else ""
        said += "; no signal above the noise for " + ", ".join(silent[:MOST_NAMED]) + further
    return said


def vote_advice(votes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the holder should know of what the last vote chose; made from public facts about the votes."""
    if not votes:
        return []
    last, said = votes[-1], []
    if last["alike"] > MUCH_ALIKE * last["chosen"]:
        said.append(
            f"{last['alike']} of {last['chosen']} texts are much like another one: so many different ones were not "
            "to be had. Fewer texts would say as much; more candidates, or a higher temperature, bring more variety"
        )
    if last["chosen"] > HARDLY_A_CHOICE * last["candidates"]:
        said.append(
            f"{last['chosen']} of {last['candidates']} candidates were chosen, which is hardly a choice; raise "
            "candidates or ask for fewer texts"
        )
    if last["filled_up"]:
        said.append(
            f"{last['filled_up']} of {last['chosen']} texts were chosen without votes, since too few different "
            "candidates were left; raise candidates or ask for fewer texts"
        )
    if silent := last["labels_without_signal"]:
        said.append(
            f"{len(silent)} of the labels got no votes above the noise, so their texts are hardly better than unvoted "
            "ones; a larger ε, or fewer labels, would help"
        )
    return said


def settings_json(plan: Plan) -> str:
    """The plan as JSON."""
    return json.dumps({name: value for name, value in plan.as_dict().items() if name != "guarantee"}, indent=2)
