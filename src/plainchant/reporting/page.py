"""One self-contained page about a run, what it is and what it promises first."""

import importlib.metadata
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import tomli_w

from plainchant import models
from plainchant.auditing.runs import EXPLANATIONS as OF_AUDITS
from plainchant.config import SynthesisConfig
from plainchant.errors import RunError
from plainchant.evaluation.figures import (
    BESIDE,
    EXPLANATIONS,
    FEWEST_FOR_MAUVE,
    WEAK_MAUVE,
    Beside,
    beside,
    shown_name,
)
from plainchant.planning import Guarantee, Plan
from plainchant.privacy.accounting import Cost
from plainchant.privacy.deals import DealRule
from plainchant.privacy.histograms import Cell, noise_sigma
from plainchant.reporting.pictures import histogram
from plainchant.reporting.rendering import render
from plainchant.reporting.topics import topics_of
from plainchant.run.card import (
    KIND,
    NOT_COVERED,
    PAID,
    accountant_of,
    by_records,
    centre_name,
    full_figure,
    invented,
    last_part,
    made_of,
    made_up,
    public_inputs,
    settings_json,
    shared_name,
    short_figure,
    title_of,
    vote_advice,
    vote_in_words,
)
from plainchant.run.store import RunDirectory
from plainchant.run.vocabulary import words_found
from plainchant.run.words import cost_in_words, one_in, promise_in_words, times

# Texts per label, and topics, that are shown before a fold.
_SHOWN, _TOPICS = 4, 12
# Characters of a model's version on the first screen.
_REVISION = len("sha256 ") + 12
# A share of the budget that is smaller than this is what adding up has rounded off.
_ROUNDING = 1e-12


def report_page(
    *,
    plan: Plan,
    guarantee: Guarantee,
    cells: Sequence[Cell],
    rows: Sequence[Mapping[str, Any]],
    private: Mapping[str, Any] | None = None,
    votes: Sequence[Mapping[str, Any]] = (),
    words: Sequence[Sequence[str]] = (),
    date: str | None = None,
    model: str | None = None,
) -> str:
    """One HTML page that needs nothing else: no network, no fonts, no scripts except its few lines.

    * Without `private` it depends only on the release and on public things, and may be shared with the release.
    * Its content security policy lets it load nothing and run only its own script, whatever a text contains.

    Args:
        plan: the run's plan.
        guarantee: the release's guarantee.
        cells: the kept cells, released under the plan's ρ_rebalance.
        rows: the released rows: text, and label, cell and origin where there are any.
        private: figures that depend on the private data: "costs", "evaluation" and "audit". With them the page is the
            private version, and says so.
        votes: public facts about the votes (`RunDirectory.facts`).
        words: for each label what the records say more often than the model (`run.vocabulary.words_found`).
        date: the day of the release.
        model: the language model's version (`models.revision_of`).
    """
    config = plan.config
    lengths, shown = [len(row["text"]) for row in rows if "text" in row], [_shown_row(config, row) for row in rows]
    topics = topics_of(config, cells, shown)
    return render(
        "report.html.jinja",
        ("theme.js",),
        {"figure": full_figure, "short": short_figure, "read": readable, "centre": centre_name, "interval": _interval,
         "shown_name": shown_name, "times": times, "one_in": one_in, "beside": _beside},
        config=config,
        plan=plan,
        guarantee=guarantee,
        title=title_of(config),
        facts=made_of(config, date, model if model is None else model[:_REVISION]),
        kind=KIND[guarantee.kind],
        paid=PAID[guarantee.kind],
        short_promise=_short_promise(guarantee),
        model=model,
        promise=promise_in_words(guarantee),
        cost=cost_in_words(guarantee),
        accountant=accountant_of(plan, guarantee),
        public=public_inputs(config),
        not_covered=NOT_COVERED,
        made_up=made_up(config, len(rows), by_records(rows)),
        invented=invented(config),
        votes=[
            *(f"Vote {facts['round']}: {vote_in_words(facts)}." for facts in votes),
            *(f"{advice}." for advice in vote_advice(votes)),
        ],
        budget=_budget(plan, guarantee),
        cells=cells,
        sigma=noise_sigma(plan.rho_size) if plan.rho_size else None,
        texts_of_cell=Counter(row.get("cell") for row in rows),
        words=[(label, own) for label, own in zip(config.label_set, words, strict=False) if own],
        topics=topics[:_TOPICS],
        more_topics=topics[_TOPICS:],
        samples=_samples(config, shown),
        size=len(rows),
        lengths=lengths,
        quartiles=np.percentile(lengths, [0, 25, 50, 75, 100]).tolist() if lengths else [],
        lengths_svg=histogram(lengths) if lengths else None,
        configuration=_shared_configuration(config),
        settings=settings_json(plan),
        versions=_versions(),
        private=private,
        fewest_for_mauve=FEWEST_FOR_MAUVE,
        mauve_note=WEAK_MAUVE,
        explanations={"Evaluation": EXPLANATIONS, "Audit": OF_AUDITS},
    )  # fmt: skip


def write_report(directory: RunDirectory, plan: Plan, guarantee: Guarantee) -> list[Path]:
    """Writes release/report.html, and private/report.html where there are private figures.

    Args:
        directory: a finished run.
        plan: its plan.
        guarantee: its release's guarantee.

    Returns:
        The pages written.

    Raises:
        ConfigError: the run has no release yet.
        RunError: its private figures are damaged.
    """
    rows, cells = directory.released(), directory.cells()

    def page(private: Mapping[str, Any] | None) -> Path:
        try:
            html = report_page(
                plan=plan, guarantee=guarantee, cells=cells, rows=rows, private=private, votes=directory.facts(),
                words=words_found(directory, plan.rho_words),
                date=directory.release_date(), model=directory.origin.model,
            )  # fmt: skip
        except (jinja2.UndefinedError, TypeError, KeyError, ValueError):
            if private is None:
                raise
            files = ", ".join(str(directory.private / f"{name}.json") for name in private)
            raise RunError(
                f"{files}: at least one is not as it was written; make it again with run --resume, evaluate or audit"
            ) from None
        return directory.write_page("report.html", html, private=private is not None)

    names = [*["costs"] * plan.mechanism.measured, "evaluation", "audit"]
    found = {name: directory.read_private(f"{name}.json") for name in names}
    figures = {name: content for name, content in found.items() if content is not None}
    return [page(None), *([page(figures)] if figures else [])]


def readable(value: float | None) -> str:
    """A figure with the digits that a reader needs.

    >>> [readable(value) for value in (0.008404, 0.9057, 0.0012, 41.25, 8675.0, None)]
    ['0.01', '0.91', '0.001', '41.2', '8,675', '–']
    """
    if value is None or not math.isfinite(value):
        return short_figure(value)
    size = abs(value)
    if 0 < size < 0.005:
        return f"{value:.1g}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _short_promise(guarantee: Guarantee) -> str:
    """The promise in one line, for the first screen."""
    if guarantee.kind != "ex-ante" or guarantee.epsilon is None:
        return "none: not private" if guarantee.kind == "none" else "none beforehand; the cost was measured"
    if not guarantee.epsilon:
        return "no private data was read (ε = 0)"
    odds, epsilon = times(guarantee.epsilon), full_figure(guarantee.epsilon)
    return f"the odds about any one unit ({guarantee.unit}) change by at most {odds} times (ε = {epsilon})"


@dataclass(frozen=True)
class _Part:
    """A part of the budget: its name, its cost for reading, its share (None where there is none), what it pays for."""

    name: str
    symbol: str
    cost: str
    share: float | None
    pays_for: str


def _budget(plan: Plan, guarantee: Guarantee) -> list[_Part]:
    """The parts of the budget; empty where there is none."""
    if not guarantee.delta:
        # nothing is promised, or nothing was spent
        return []
    total, pays = guarantee.cost, plan.mechanism.pays_for(plan.tokens_per_batch)
    if plan.deals is not None and total.is_limited:
        return _budget_with_deals(plan, plan.deals, pays)
    # ρ of a part is a share of the whole only where ρ is all there is
    shared = total.rho if total.is_limited and not total.curve else None
    tokens = plan.batch if total.is_limited else None
    if shared is not None:
        rest = shared - plan.rho_counts
        # what rounding leaves of a budget that counts have spent is no part
        tokens = Cost(rest if rest > _ROUNDING * shared else 0.0)
    parts = [*_counts(plan), ("tokens", "batch", tokens, pays)]
    return [
        _Part(name, symbol, _cost(cost, guarantee.delta), cost.rho / shared if cost and shared else None, pays_for)
        for name, symbol, cost, pays_for in parts
        if cost is None or not cost.is_zero
    ]


def _budget_with_deals(plan: Plan, rule: DealRule, pays_for: str) -> list[_Part]:
    """The parts at the order at which deals are counted, nats: zCDP of ρ is αρ there (guarantee 13.7)."""
    total = rule.order * plan.rho_counts + rule.budget
    parts = [(name, symbol, rule.order * cost.rho, said) for name, symbol, cost, said in _counts(plan)]
    return [
        _Part(name, symbol, short_figure(nats), nats / total, said)
        for name, symbol, nats, said in (*parts, ("tokens", "batch", rule.budget, pays_for))
        if nats
    ]


def _counts(plan: Plan) -> list[tuple[str, str, Cost, str]]:
    """Names, symbols and costs of noisy counts, and what they pay for."""
    return [
        ("choice of cells", "select", Cost(plan.rho_select), "a noisy count for each label and public centre"),
        ("sizes of cells", "size", Cost(plan.rho_size), "a noisy count for each kept cell"),
        ("attributes", "table", plan.table, "noisy counts of single columns and of pairs"),
        ("words", "words", Cost(plan.rho_words),
         "for each label and word of a public list, one noisy count of the units whose texts hold it"),
        ("vote", "vote", Cost(plan.rho_vote),
         "for each label and candidate, in each round, a noisy count of the units that it is near to"),
    ]  # fmt: skip


def _cost(cost: Cost | None, delta: float) -> str:
    """A cost in one figure: ρ, or ε by itself where a curve has no ρ."""
    if cost is None or not cost.is_limited:
        return short_figure(None)
    return short_figure(cost.rho) if not cost.curve else f"ε = {cost.epsilon(delta):.3g} by itself"


def _samples(config: SynthesisConfig, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All texts by label: those shown at once, and those behind a fold."""
    samples = []
    for label in config.label_set:
        own = [row for row in rows if row.get("label") == label]
        samples.append({"label": label, "texts": len(own), "first": own[:_SHOWN], "more": own[_SHOWN:]})
    return samples


def _shown_row(config: SynthesisConfig, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its attributes in one line; of a row without text they are the text."""
    names = config.columns.attributes
    attributes = ", ".join(f"{name}: {'–' if row.get(name) is None else row[name]}" for name in names)
    return {**row, "text": row.get("text", attributes), "attributes": attributes if "text" in row else ""}


def _beside(
    figures: Mapping[str, Mapping[str, Any]], content: Mapping[str, Any]
) -> tuple[dict[str, str], list[Beside[Mapping[str, Any]]]]:
    """The figures of a group with those that they are read against, and which kinds of these there are, as titles."""
    rows = list(beside(figures, content.get("as_real", {}), content.get("public", {})))
    return {kind: title for kind, title in BESIDE.items() if any(getattr(row, kind) for row in rows)}, rows


def _shared_configuration(config: SynthesisConfig) -> str:
    """The configuration as TOML, without the folders of its files and the address of an endpoint."""
    values = config.model_dump(mode="json", exclude_none=True, exclude={"candidate_endpoint"})
    names = [name for name in ("model", "candidate_model", "embedder") if name in values]
    values |= {name: shared_name(values[name]) for name in names}
    files = {"public_corpus": config.public_corpus, "centres": config.centres_file}
    return tomli_w.dumps(values | {name: last_part(path) for name, path in files.items() if path is not None})


def _versions() -> dict[str, str]:
    packages = ("plainchant", *models.PACKAGES, "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _interval(figure: Mapping[str, Any]) -> dict[str, float] | None:
    """A share and its interval as per cent of the scale from 0 to 1; None for figures of another kind."""
    value = figure["value"]
    low, high = (value if figure.get(end) is None else figure[end] for end in ("low", "high"))
    return {"low": 100 * low, "value": 100 * value, "width": 100 * (high - low)} if 0 <= low <= high <= 1 else None
