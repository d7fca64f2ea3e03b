"""The calculator and the ledger (the `account` command)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plainchant.cli.console import Console
from plainchant.cli.options import command, formatted, option
from plainchant.errors import ConfigError
from plainchant.privacy.accounting import Cost, rho_of, shown_epsilon
from plainchant.privacy.aggregation import Clipping, Support
from plainchant.privacy.choice import LARGEST_BATCH, smallest_batch
from plainchant.privacy.mechanisms import MeanMechanism, TokenSettings

if TYPE_CHECKING:
    from plainchant.run.ledger import Ledger


@command()
@option("--epsilon", type=float, metavar="X>0", group="Guarantee", help="ε, converted to ρ.")
@option("--rho", type=float, metavar="X>0", group="Guarantee", help="ρ of zCDP, converted to ε.")
@option("--delta", type=float, metavar="0<X<1", default=1e-6, group="Guarantee", help="δ.  [default: 1e-06]")
@option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N>=1",
    group="Batches",
    help="Maximum tokens per text: gives the smallest batch size whose budget covers one text.",
)
@option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N>=1",
    group="Batches",
    help="Average number of contexts per batch: gives the tokens that the budget of a batch covers.",
)
@option("--clip", type=float, metavar="X>0", default=10.0, group="Batches", help="Clip norm, nats.  [default: 10]")
@option("--temperature", type=float, metavar="X>0", default=1.0, group="Batches",
        help="Sampling temperature.  [default: 1]")  # fmt: skip
@option("--guidance", type=float, metavar="X>0", default=1.0, group="Batches",
        help="How strongly the private mean moves the public prediction.  [default: 1]")  # fmt: skip
@option(
    "--numerical-slack",
    type=click.FloatRange(min=0),
    metavar="X>=0",
    default=1e-3,
    group="Batches",
    help="Allowed numerical error of a prediction, nats.  [default: 0.001]",
)
@option(
    "--ledger",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Ledger",
    help="Show what all runs on a data set have cost together; with --epsilon and --delta, create one with that cap.",
)
@formatted
def account(
    console: Console,
    epsilon: float | None,
    rho: float | None,
    delta: float,
    max_tokens: int | None,
    batch_size: int | None,
    clip: float,
    temperature: float,
    guidance: float,
    numerical_slack: float,
    ledger: Path | None,
) -> None:
    """Create or show a ledger, which adds up what all runs on a table cost; convert ρ to ε and batch size to tokens.

    \b
    plainchant account --epsilon 8 --delta 1e-6 --batch-size 52
    plainchant account --rho 1 --max-tokens 64
    plainchant account --ledger tickets.ledger --epsilon 8      create a ledger with this cap
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
        slack=numerical_slack,
    )
    if max_tokens is not None:
        document["batch_size"] = smallest_batch(MeanMechanism(settings), budget, max_tokens)
    if batch_size is not None:
        document["tokens_per_batch"] = MeanMechanism(settings).affordable(budget)
    if document.get("batch_size", 0) is None:
        console.warn(f"no batch of up to {LARGEST_BATCH:,} records pays for {max_tokens} tokens: raise epsilon or rho")
    console.table("", document.items())
    bare = ("–" if value is None else f"{value:.6g}" for value in document.values())
    console.result(document, " ".join(bare))


def _show_ledger(console: Console, path: Path, epsilon: float | None, delta: float) -> None:
    from plainchant.run.ledger import Ledger

    book = Ledger(path) if epsilon is None else Ledger.create(path, epsilon, delta)
    cap, spent, left, runs = book.cap, book.spent, book.left, book.runs
    document: dict[str, Any] = {
        "ledger": str(path),
        "epsilon": book.epsilon,
        "delta": book.delta,
        "rho": cap.rho,
        "rho_spent": spent.rho if spent.is_zcdp else None,
        "epsilon_spent": spent.epsilon(book.delta),
        "rho_left": left.rho,
        "cost": spent.as_dict(),
        "runs": runs,
    }
    share = spent.rho / cap.rho if spent.is_zcdp else None
    rows: list[tuple[str, Any]] = [
        ("cap", f"ε = {book.epsilon:g} at δ = {book.delta:g}, for all runs together"),
        (
            "spent",
            f"ε = {shown_epsilon(spent, book.delta):g}"
            + ("" if share is None else f", {share:.0%} of the budget")
            + (f" (ρ = {spent.rho:.4g} of {cap.rho:.4g})" if console.verbose and spent.is_zcdp else ""),
        ),
        ("left", "nothing: no further run may use this data" if left.is_zero else _left(book, left, console.verbose)),
    ]
    console.table(f"Ledger {path}", rows)
    if runs:
        console.say("")
        console.grid(
            ("run", "method", "ε at its δ", "δ", *["ρ"] * console.verbose, "begun", ""),
            [
                (
                    r["run"],
                    r["method"],
                    _epsilon(r),
                    f"{r['delta']:g}",
                    *[_rho(Cost.from_dict(r))] * console.verbose,
                    r["begun"],
                    _ended(r),
                )
                for r in runs
            ],
        )
    console.result(document, f"{document['rho_left']:.6g}")


def _left(book: "Ledger", left: Cost, verbose: bool) -> str:
    from plainchant.run.ledger import FITS

    # rounded down: a run that asks for it is accepted, and of nothing spent the cap is
    epsilon = int(left.epsilon(book.delta) * 1000) / 1000 if book.runs else book.epsilon
    rho = f" (ρ = {left.rho:.4g})" if verbose else ""
    if not book.runs:
        return f"a run of up to ε = {epsilon:g} at δ = {book.delta:g}{rho}"
    return (
        f"a run of up to about ε = {int(FITS * epsilon * 100) / 100:g} at δ = {book.delta:g} by the default method, or "
        f"{epsilon:g} without deals{rho}. Costs add up to less than the sum of their ε"
    )


def _epsilon(run: dict[str, Any]) -> str:
    """What a run costs by itself, at its own δ."""
    cost = Cost.from_dict(run)
    return "0" if cost.is_zero else f"{shown_epsilon(cost, run['delta']):g}"


def _ended(run: dict[str, Any]) -> str:
    """That a run has ended early, and is charged for no more than it drew."""
    return f"ended {run['ended']}: its noisy counts alone" if run.get("ended") else ""


def _rho(cost: Cost) -> str:
    """Its ρ for a table; a curve has none."""
    return f"{cost.rho:.4g}" if cost.is_zcdp else "curve"
