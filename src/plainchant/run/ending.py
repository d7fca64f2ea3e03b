"""A run that ends before its first token: what it drew, what it is charged, and what its user is told."""

from plainchant.errors import PrivacyError
from plainchant.planning import Plan
from plainchant.privacy.accounting import Cost
from plainchant.run.card import noisy_counts
from plainchant.run.ledger import Ledger
from plainchant.run.preparation import Preparation
from plainchant.run.store import Marks, RunDirectory

_REASON = "no noisy count is large enough for a batch"
# Labels whose noisy counts a message names.
_NAMED = 20


def has_no_batch(directory: RunDirectory, plan: Plan) -> bool:
    """Whether the noisy counts of a run are drawn, and no batch is there that records could write in."""
    return plan.config.written > 0 and directory.is_formed() and not any(own.texts for own in directory.batches())


def ended_without_batch(preparation: Preparation, ledger: Ledger | None) -> PrivacyError:
    """Ends a run that has no batch, and returns the error that says so, with the noisy counts that it drew.

    The order is what keeps the ledger right (guarantee 6.4): first the directory is marked as ended for good, then the
    entry is reduced to the noisy counts, and only then are these shown.

    Raises:
        PrivacyError: the ledger recognises the directory as a copy; nothing is shown.
    """
    directory, plan = preparation.directory, preparation.plan
    # attributes are counted in the same transaction as the cells
    drawn = Cost(plan.rho_rebalance) + plan.table
    if directory.ended() is None:
        directory.end(_REASON)
    charged = ""
    if ledger is not None:
        if directory.marks() == Marks():
            # begun without a ledger, which learns of it now
            ledger.enter(directory, preparation.guarantee)
        counts_alone = ledger.settle(directory, preparation.guarantee, drawn)
        charged = f" The ledger holds {'these counts alone' if counts_alone else 'the whole cost of the run'}."
    return PrivacyError(
        f"batch_size = {plan.settings.batch_size}: no noisy cell count is large enough for a batch that pays for a "
        f"text. Paid for and drawn: {_counts(directory, plan)}.{charged} This run "
        "has ended. If the counts are far below what the table holds, plainchant check says whether the labels are "
        "spelled as in it. If the data is too small: a larger ε or a smaller max_tokens allows smaller batches, and "
        "method = private-evolution needs none"
    )


def _counts(directory: RunDirectory, plan: Plan) -> str:
    counts = noisy_counts(directory.cells(), plan.config)
    shown = ", ".join(f"{'all units' if label is None else repr(label)} {count}" for label, count in counts[:_NAMED])
    rest = len(counts) - _NAMED
    attributes = ", and those of the attributes" if plan.config.columns.attributes else ""
    return f"noisy counts {shown}" + (f" and {rest} more labels" if rest > 0 else "") + attributes
