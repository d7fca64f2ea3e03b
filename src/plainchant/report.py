"""The data set card: what a stranger must know of a release, the guarantee first."""

import json
from collections.abc import Sequence

from plainchant.planning import Guarantee, Plan
from plainchant.rebalancing import WHOLE_LABEL, Cell

EX_POST_NOTE = (
    "Measured after the run, for this data and this output: except with probability δ, seeing the release moved "
    "nobody's odds about any one unit by more than a factor of e^ε. Nothing was promised beforehand, another run "
    "may cost more, and the figure itself depends on the private data: keep it in private/."
)

_PROMISE = {
    "ex-ante": (
        "Whoever sees this data learns hardly more about any one unit than if that unit had not been in the private "
        "data at all: the odds of any conclusion change by a factor of at most e^ε, except with probability δ. The "
        "figures were fixed before the run and hold whatever the data was."
    ),
    "ex-post": (
        "Every token was drawn from a distribution that no single unit can move far, and how far it could was "
        "measured. The measured figure depends on the private data and is not released; no figure was promised in "
        "advance."
    ),
    "none": "There is no guarantee. This data may repeat private records word for word.",
}


def data_set_card(plan: Plan, guarantee: Guarantee, cells: Sequence[Cell], texts: int) -> str:
    """The card of a release, Markdown with the front matter that Hugging Face reads. Holds released facts only.

    Args:
        plan: the run's plan.
        guarantee: the release's guarantee.
        cells: the kept cells, released under the plan's ρ_rebalance.
        texts: how many texts the release has.
    """
    config = plan.config

    def figure(value: float | None) -> str:
        return "–" if value is None else f"{value:.6g}"

    rows = "\n".join(
        f"| {config.label_set[cell.label] or '–'} | {'whole label' if cell.centre == WHOLE_LABEL else cell.centre} | "
        f"{cell.noisy_size} | {cell.batches} |"
        for cell in cells
    )
    private_cells = (
        "\n## Cells\n\nNoisy counts of units"
        + ("." if guarantee.kind == "none" else ", paid for by the guarantee.")
        + "\n\n"
        f"| label | public centre | noisy size | batches |\n|---|---|---|---|\n{rows}\n"
        if plan.rho_rebalance
        else ""
    )
    expanded = (
        f", {config.expand} of them written by the language model from the others (source = expanded)"
        if config.expand
        else ""
    )
    corpus = "a corpus named by the author" if config.public else "texts sampled from the model"
    return f"""---
pretty_name: Synthetic texts by plainchant
tags:
- synthetic
- differential-privacy
size_categories:
- {_size_category(texts)}
configs:
- config_name: default
  data_files: synthetic.parquet
---

# Synthetic texts

**{guarantee.statement}**

| kind | ε | δ | ρ (zCDP) | unit | neighbouring relation | method | plainchant |
|---|---|---|---|---|---|---|---|
| {guarantee.kind} | {figure(guarantee.epsilon)} | {figure(guarantee.delta)} | {figure(guarantee.rho)} | \
{guarantee.unit} | add or remove one unit | {guarantee.method} | {guarantee.version} |

{_PROMISE[guarantee.kind]}

- **Public by assumption:** the configuration and its prompts{", the label set" if config.labels else ""}, \
the language model (`{_name(config.model)}`), the embedding model (`{_name(config.embedder)}`), the public \
centres ({corpus}).
- **Not covered:** what the language model had learnt before; facts that many units share; anything else that was \
released from the same data. Guarantees of several releases add up.
- **Not true to fact:** the texts are made up. {texts} texts of at most {config.max_tokens} tokens\
{expanded}.
{private_cells}
## Settings

```json
{json.dumps({name: value for name, value in plan.as_dict().items() if name != "guarantee"}, indent=2)}
```
"""


def _size_category(texts: int) -> str:
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if texts < bound:
            return name
    return "100K<n<1M"


def _name(path: str) -> str:
    """The last part of a path: a release does not tell where things lie on its author's machine."""
    return path.rstrip("/").split("/")[-1] if path.startswith(("/", ".", "~")) else path
