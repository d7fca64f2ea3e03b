"""What a run has cost so far, measured on its output. Private (guarantee 5.3)."""

import dataclasses
import math
from typing import Any

import numpy as np

from plainchant.planning import Plan
from plainchant.privacy.accounting import ex_post
from plainchant.run.card import EX_POST_NOTE
from plainchant.run.store import RunDirectory


def realised_costs(directory: RunDirectory, plan: Plan) -> dict[str, Any]:
    """What a run has cost so far, measured on its output (guarantee 5.3). Private: it depends on the data."""
    batches = {batch.batch for batch in directory.batches()}
    costs = [entry for entry in directory.batch_costs() if entry[0] in batches]
    # whatever the tokens could have cost the worst record, none pays more than its batch's budget
    most = math.inf if plan.rho_batch is None else plan.rho_batch
    measured = ex_post(
        [loss for _, _, loss, _ in costs],
        [min(rho, most) for _, _, _, rho in costs],
        plan.rho_counts,
        plan.config.delta,
    )
    return {
        "note": EX_POST_NOTE,
        "ex_post": dataclasses.asdict(measured),
        "rho_counts": plan.rho_counts,
        "records": _paid(directory, plan) if plan.rho_expected is not None else None,
        "tokens": sum(tokens for _, tokens, _, _ in costs),
        "batches": [{"batch": batch, "tokens": tokens, "loss": loss, "rho": rho} for batch, tokens, loss, rho in costs],
    }


def _paid(directory: RunDirectory, plan: Plan) -> dict[str, float | None]:
    """What the records in batches have paid of their budgets (guarantee 5.2)."""
    paid = [spent for members in directory.members().values() for _, spent in members]
    return {
        "median": float(np.median(paid)) if paid else 0.0,
        "largest": max(paid, default=0.0),
        "budget": plan.rho_batch,
    }
