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
    batches = {batch.batch for batch in directory.batches()}
    costs = [entry for entry in directory.batch_costs() if entry[0] in batches]
    # the summed worst cases may exceed the budget of a batch, but no record pays more than that budget
    measured = ex_post(
        [loss for _, _, loss, _ in costs],
        [min(rho, plan.batch.rho) for _, _, _, rho in costs],
        plan.rho_counts,
        plan.config.delta,
    )
    return {
        "note": EX_POST_NOTE if plan.mechanism.promise == "ex-post" else COSTS_NOTE,
        "ex_post": dataclasses.asdict(measured),
        "rho_counts": plan.rho_counts,
        "records": plan.mechanism.paid([spent for own in directory.members().values() for _, spent in own]),
        "tokens": sum(tokens for _, tokens, _, _ in costs),
        **({} if plan.config.candidate_endpoint is None else {"endpoint": all_used(directory.requests())}),
        "batches": [{"batch": batch, "tokens": tokens, "loss": loss, "rho": rho} for batch, tokens, loss, rho in costs],
    }
