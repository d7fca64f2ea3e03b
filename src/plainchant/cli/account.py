"""The calculator and the ledger."""

from pathlib import Path
from typing import Any

import click

from plainchant.cli.console import Console
from plainchant.cli.options import formatted
from plainchant.errors import ConfigError
from plainchant.privacy.accounting import Cost, rho_of
from plainchant.privacy.aggregation import Clipping, Support
from plainchant.privacy.choice import smallest_batch
from plainchant.privacy.mechanisms import MeanMechanism, TokenSettings


@click.command()
@click.option("--epsilon", type=float, help="ε, to be turned into ρ.")
@click.option("--rho", type=float, help="ρ of zCDP, to be turned into ε.")
@click.option("--delta", type=float, default=1e-6, show_default=True)
@click.option("--tokens", type=click.IntRange(min=1), help="Tokens a batch is to release: gives the batch size.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Contexts a batch: gives the tokens that it pays for.")
@click.option("--clip", type=float, default=10.0, show_default=True, help="Clip norm, nats.")
@click.option("--temperature", type=float, default=1.0, show_default=True)
@click.option("--guidance", type=float, default=1.0, show_default=True)
@click.option("--slack", type=click.FloatRange(min=0), default=1e-3, show_default=True, help="Numerical slack, nats.")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    help="Show what all runs on a data set have cost together; with --epsilon and --delta, begin one with that cap.",
)
@formatted
def account(
    console: Console,
    epsilon: float | None,
    rho: float | None,
    delta: float,
    tokens: int | None,
    batch_size: int | None,
    clip: float,
    temperature: float,
    guidance: float,
    slack: float,
    ledger: Path | None,
) -> None:
    r"""A calculator: ρ to ε and back, and batch size to tokens and back for the worst-case mean; a data set's ledger.

    \b
    plainchant account --epsilon 8 --delta 1e-6 --batch-size 52
    plainchant account --rho 1 --tokens 64
    plainchant account --ledger tickets.ledger --epsilon 8      begins a ledger with this cap
    plainchant account --ledger tickets.ledger                  what is spent, what is left
    """
    if ledger is not None:
        _show_ledger(console, ledger, epsilon, delta)
        return
    if epsilon is not None and rho is None:
        rho = rho_of(epsilon, delta)
    elif rho is None or epsilon is not None:
        raise ConfigError("epsilon, rho: give exactly one of --epsilon and --rho")
    budget = Cost(rho)
    document: dict[str, Any] = {"rho": rho, "epsilon": budget.epsilon(delta), "delta": delta}
    settings = TokenSettings(
        support=Support.FULL,
        k=1,
        clipping=Clipping.DIFFERENCE,
        clip=clip,
        guidance=guidance,
        temperature=temperature,
        batch_size=batch_size or 1,
        slack=slack,
    )
    if tokens is not None:
        document["batch_size"] = smallest_batch(MeanMechanism(settings), budget, tokens)
    if batch_size is not None:
        document["tokens"] = MeanMechanism(settings).affordable(budget)
    console.table("", document.items())
    console.result(document, " ".join(f"{value:.6g}" for value in document.values()))


def _show_ledger(console: Console, path: Path, epsilon: float | None, delta: float) -> None:
    from plainchant.run.ledger import Ledger

    book = Ledger(path) if epsilon is None else Ledger.create(path, epsilon, delta)
    cap, spent, left, runs = book.cap, book.spent, book.left, book.runs
    document = {
        "ledger": str(path),
        "epsilon": book.epsilon,
        "delta": book.delta,
        "rho": cap.rho,
        "rho_spent": spent.rho,
        "epsilon_spent": spent.epsilon(book.delta),
        "rho_left": left.rho,
        "runs": runs,
    }
    rows: list[tuple[str, Any]] = [
        ("cap", f"ε = {book.epsilon:g} at δ = {book.delta:g}, ρ = {cap.rho:.4g}"),
        ("spent", f"ρ = {spent.rho:.4g}, together ε = {document['epsilon_spent']:.4g}"),
        ("left", f"ρ = {document['rho_left']:.4g}"),
    ]
    console.table(f"Ledger {path}", rows)
    if runs:
        console.grid(
            ("run", "method", "ρ", "begun"), [(r["run"], r["method"], f"{r['rho']:.4g}", r["begun"]) for r in runs]
        )
    console.result(document, f"{document['rho_left']:.6g}")
