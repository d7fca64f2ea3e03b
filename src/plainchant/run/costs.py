"""What a run has cost so far, measured on its output. Private (guarantee 5.3)."""

import dataclasses
from typing import Any

from plainchant.planning import Plan
from plainchant.privacy.accounting import ex_post
from plainchant.run.card import COSTS_NOTE, EX_POST_NOTE
from plainchant.run.store import RunDirectory
from plainchant.run.writers import all_used


def realised_costs(directory: RunDirectory, plan: Plan) -> dict[str, Any]:
    """What a run has cost so far, measured on its output (guarantee 5.3). Private: it depends on the data."""
    batches = {batch.batch: batch for batch in directory.batches()}
    costs = [entry for entry in directory.batch_costs() if entry[0] in batches]
    worst: dict[tuple[int, int], tuple[float, float]] = {}
    for batch, _, loss, rho in costs:
        own = batches[batch]
        # the summed worst cases may exceed the budget of a batch, but no record pays more than that budget
        most = plan.batch.rho if plan.deals is None else own.payment or 0.0
        # a unit is in one batch for the whole run or, with deals, in one of its cell for each of them
        place = (batch, 0) if plan.deals is None else (own.cell, own.deal)
        before = worst.get(place, (0.0, 0.0))
        worst[place] = max(before[0], loss), max(before[1], min(rho, most))
    together: dict[int, tuple[float, float]] = {}
    for (group, _), (loss, rho) in worst.items():
        before = together.get(group, (0.0, 0.0))
        together[group] = before[0] + loss, before[1] + rho
    measured = ex_post(
        [loss for loss, _ in together.values()],
        [rho for _, rho in together.values()],
        plan.rho_counts,
        plan.config.delta,
    )
    mechanism = plan.mechanism
    if plan.deals is not None:
        mechanism = mechanism.for_budget(
            max((batch.payment or 0.0 for batch in batches.values()), default=plan.deals.payment)
        )
    return {
        "note": EX_POST_NOTE if plan.mechanism.promise == "ex-post" else COSTS_NOTE,
        "ex_post": dataclasses.asdict(measured),
        "rho_counts": plan.rho_counts,
        "records": mechanism.paid([spent for own in directory.members().values() for _, spent in own]),
        "tokens": sum(tokens for _, tokens, _, _ in costs),
        **({} if plan.config.candidate_endpoint is None else {"endpoint": all_used(directory.requests())}),
        "batches": [{"batch": batch, "tokens": tokens, "loss": loss, "rho": rho} for batch, tokens, loss, rho in costs],
    }
