"""Several runs on the same data add up (guarantee 6.4)."""

import json

import pytest

from plainchant.config import SynthesisConfig
from plainchant.errors import ConfigError, PrivacyError
from plainchant.planning import make_plan
from plainchant.privacy.accounting import rho_of
from plainchant.run.ledger import Ledger


def guarantee(epsilon=2.0, **changes):
    return make_plan(SynthesisConfig(epsilon=epsilon, max_tokens=20, **changes)).guarantee


@pytest.fixture
def ledger(tmp_path):
    return Ledger.create(tmp_path / "data.ledger", 8.0, 1e-6)


def test_runs_add_up_as_rho(ledger):
    for name in ("a", "b"):
        ledger.enter(name, guarantee())
    assert ledger.spent.rho == pytest.approx(2 * rho_of(2.0, 1e-6))
    assert ledger.spent.epsilon(1e-6) > 2
    assert [run["run"] for run in Ledger(ledger.path).runs] == ["a", "b"]


def test_the_whole_cap_may_be_spent_and_not_a_hair_more(ledger):
    ledger.enter("a", guarantee(8.0))
    with pytest.raises(PrivacyError, match="nothing more"):
        ledger.enter("b", guarantee(0.5))
    assert len(ledger.runs) == 1


def test_a_refusal_names_an_epsilon_that_is_accepted(ledger):
    ledger.enter("a", guarantee(6.0))
    with pytest.raises(PrivacyError, match="plan with epsilon = ") as caught:
        ledger.enter("b", guarantee(6.0))
    left = float(str(caught.value).split("epsilon = ")[1].split(" ")[0])
    ledger.enter("b", guarantee(left))
    assert ledger.spent.rho <= ledger.cap.rho * (1 + 1e-9)


def test_a_run_is_entered_once(ledger):
    ledger.enter("a", guarantee())
    ledger.enter("a", guarantee())
    assert len(ledger.runs) == 1


def test_what_has_no_figure_in_advance_is_refused_and_public_text_is_free(ledger):
    with pytest.raises(PrivacyError, match="not known in advance"):
        ledger.check(guarantee(method="clustered-median"))
    assert ledger.check(guarantee(method="public")).is_zero


@pytest.mark.parametrize("content", ["", "{}", '{"epsilon": 1, "delta": 1e-6, "runs": [{"rho": -1}]}', "[]"])
def test_a_damaged_ledger_is_no_empty_ledger(ledger, content):
    ledger.path.write_text(content)
    with pytest.raises(ConfigError, match="not a ledger"):
        Ledger(ledger.path)


def test_none_is_not_an_empty_ledger_and_a_cap_stays(ledger, tmp_path):
    with pytest.raises(ConfigError, match="there is none"):
        Ledger(tmp_path / "other")
    with pytest.raises(ConfigError, match="exists already"):
        Ledger.create(ledger.path, 80.0, 1e-6)
    assert json.loads(ledger.path.read_text())["epsilon"] == 8.0
