"""A guarantee in words, the same on card, report and statement: what ε, δ and the cost mean for one unit."""

import math

from plainchant.planning import WEAK_EPSILON, Guarantee
from plainchant.privacy.accounting import rounded_up

# Up to these ε a promise is called strong and moderate (docs/how-it-works.md).
_STRONG, _MODERATE = 1.5, 5.0
INVENTED = (
    "Names, numbers and amounts in the texts are invented by the model, or known to it from its own training. The "
    "guarantee limits how far those of any one unit can show; it does not hide those that many units share."
)
DRAWN = (
    "The rows are drawn from a law that was fitted to noisy counts. Values that were found in the data are real ones, "
    "which many units share; numbers and days are drawn within their interval."
)


def times(epsilon: float) -> str:
    """The factor e^ε for reading, rounded up: a bound stays one.

    >>> [times(epsilon) for epsilon in (0, 0.001, 0.1, 1, 3, 8, 30)]
    ['1', '1.01', '1.11', '2.72', '20.1', '2,981', '10^14']
    """
    if epsilon > math.log(1e9):
        return f"10^{math.ceil(epsilon / math.log(10))}"
    factor = math.exp(epsilon)
    return f"{math.ceil(factor):,}" if factor >= 100 else f"{rounded_up(factor, 3):g}"


def one_in(probability: float) -> str:
    """A small probability for reading, rounded up: so the number is rounded down.

    >>> one_in(1e-6), one_in(1e-5), one_in(6e-6), one_in(1e-30)
    ('1 in 1,000,000', '1 in 100,000', '1 in 166,666', '1e-30')
    """
    # 1 / 1e-5 lies below 100,000 in its last digit
    return f"1 in {math.floor(1 / probability * (1 + 1e-12)):,}" if probability >= 1e-12 else f"{probability:g}"


def suspicion(epsilon: float) -> str:
    """What a suspicion of one in two becomes at most, rounded up, if δ is left aside.

    >>> suspicion(0), suspicion(1), suspicion(8)
    ('50 in 100', '74 in 100', '99.97 in 100')
    """
    share = 100 / (1 + math.exp(-epsilon))
    if share < 98:
        return f"{math.ceil(share)} in 100"
    return f"{rounded_up(share, 4):g} in 100" if share < 99.99 else "almost certainty"


def strength(epsilon: float) -> str:
    """How much a promise is worth by itself, in one sentence.

    >>> strength(8)
    'By itself this is a weak promise for the worst case; an audit says what attacks found.'
    """
    if epsilon <= _STRONG:
        return "This is a strong promise."
    if epsilon <= _MODERATE:
        return "This is a moderate promise."
    if epsilon <= WEAK_EPSILON:
        return "By itself this is a weak promise for the worst case; an audit says what attacks found."
    return "A promise with so large an ε means next to nothing."


def odds_in_words(epsilon: float) -> str:
    """What a promised ε means, in one line.

    >>> odds_in_words(1.0)
    'the odds of any conclusion change by at most 2.72 times. This is a strong promise.'
    """
    if epsilon == 0:
        return "nothing was read"
    return f"the odds of any conclusion change by at most {times(epsilon)} times. {strength(epsilon)}"


def promise_in_words(guarantee: Guarantee) -> str:
    """What the guarantee promises to one unit, in a few plain sentences without formulas."""
    if guarantee.kind == "none":
        return "There is no guarantee. This data may repeat private records word for word."
    if guarantee.kind == "ex-post" or guarantee.epsilon is None or guarantee.delta is None:
        return (
            "Every token was drawn from a distribution that no single unit can change much, and the largest possible "
            "change was measured. The measured figure depends on the private data and is not released. No figure was "
            "promised in advance."
        )
    if not guarantee.epsilon:
        return "No private data was read, so the texts say nothing about anybody in it."
    return (
        f"Take any one unit ({guarantee.unit}) out of the private data, or put one in: the odds of any conclusion from "
        f"this release change by at most {times(guarantee.epsilon)} times, except with probability "
        f"{one_in(guarantee.delta)}. {strength(guarantee.epsilon)} Both figures were fixed before the run and hold for "
        "any data."
    )


def cost_in_words(guarantee: Guarantee) -> str | None:
    """The cost that the figures follow from, for experts: ρ, or the range of a Rényi curve; None where there is none.

    >>> import plainchant as pc
    >>> cost_in_words(pc.plan(pc.SynthesisConfig(method="public")).guarantee)
    'ρ = 0 (zCDP)'
    """
    cost = guarantee.cost
    if not cost.is_limited:
        return None
    sampled = f", for a unit of a secret sample drawn at rate {cost.rate:.3g}" if cost.rate < 1 else ""
    if not cost.curve:
        except_with = f", except with probability {cost.delta:.3g}" if cost.delta else ""
        return f"ρ = {cost.rho:.6g} (zCDP){except_with}{sampled}"
    orders = [order for order, _ in cost.curve]
    above = f" on top of ρ = {cost.rho:.6g} (zCDP)" if cost.rho else ""
    if len(orders) == 1:
        return f"{cost.curve[0][1]:.6g} nats at the Rényi order {orders[0]:.4g}{above}{sampled}"
    return f"a Rényi curve of orders {orders[0]:.4g} to {orders[-1]:.4g}{above}{sampled}"
