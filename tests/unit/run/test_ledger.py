"""Several runs on the same data add up (guarantee 6.4)."""

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time

import pytest

from plainchant.config import SynthesisConfig
from plainchant.errors import ConfigError, PrivacyError, RunError
from plainchant.generation.decoding import FinishedText
from plainchant.planning import make_plan
from plainchant.privacy.accounting import Cost, rho_of
from plainchant.privacy.histograms import WHOLE_LABEL, Cell
from plainchant.run.ledger import Ledger
from plainchant.run.store import Batch, Marks, RunDirectory


def guarantee(epsilon=2.0, **changes):
    return make_plan(SynthesisConfig(**{"epsilon": epsilon, "max_tokens": 20, "deals": False} | changes)).guarantee


@pytest.fixture
def ledger(tmp_path):
    return Ledger.create(tmp_path / "data.ledger", 8.0, 1e-6)


@pytest.fixture
def begin(tmp_path):
    def begin(name="a"):
        decided = make_plan(SynthesisConfig(epsilon=2.0, max_tokens=20, deals=False))
        return RunDirectory.create(tmp_path / name, decided, decided.guarantee, data="", private=True)

    return begin


def test_runs_add_up_as_rho(ledger, begin):
    runs = [begin(name) for name in ("a", "b")]
    for run in runs:
        ledger.enter(run, guarantee())
    assert ledger.spent.rho == pytest.approx(2 * rho_of(2.0, 1e-6))
    assert ledger.spent.epsilon(1e-6) > 2
    assert [entry["run"] for entry in Ledger(ledger.path).runs] == [run.origin.name for run in runs]


def test_a_ledger_has_one_unit(ledger, begin):
    customer = guarantee(unit_column="customer")
    # public text costs no unit anything, so it decides nothing and is bound by nothing
    ledger.enter(begin("public"), guarantee(method="public"))
    ledger.enter(begin("a"), customer)
    ledger.check(guarantee(method="public"))
    for other in (guarantee(), guarantee(unit_column="account")):
        with pytest.raises(PrivacyError, match="do not add up") as caught:
            ledger.check(other)
        assert caught.value.exit_code == 3
        with pytest.raises(PrivacyError, match="do not add up"):
            ledger.enter(begin(other.unit), other)
    ledger.enter(begin("b"), customer)
    assert [entry["unit"] for entry in ledger.runs] == ["one record", customer.unit, customer.unit]


def test_the_whole_cap_may_be_spent_and_not_a_hair_more(ledger, begin):
    ledger.enter(begin("a"), guarantee(8.0))
    with pytest.raises(PrivacyError, match="nothing more"):
        ledger.enter(begin("b"), guarantee(0.5))
    assert len(ledger.runs) == 1


def test_curves_and_rho_entries_add_up_and_pass_no_cap(ledger, begin):
    deals = Cost(0.01, tuple((float(order), 0.01 * order**1.5) for order in range(2, 65)))
    content = json.loads(ledger.path.read_text())
    old = {"run": "old", "method": "m", "unit": "one record", "begun": "", "openings": 1, "mark": None, "rho": 0.1}
    new = {
        "run": "new",
        "method": "m",
        "unit": "one record",
        "begun": "",
        "openings": 1,
        "mark": None,
        **deals.as_dict(),
    }
    ledger.path.write_text(json.dumps(content | {"runs": [old, new]}))
    assert ledger.spent == Cost(0.1) + deals
    assert 0 < ledger.left.rho < ledger.cap.rho
    left = ledger.left.epsilon(1e-6)
    with pytest.raises(PrivacyError, match="start a new run with"):
        ledger.check(guarantee(left * 1.05))
    ledger.enter(begin("a"), guarantee(left * 0.99))
    assert not ledger.spent.is_zcdp
    assert ledger.spent.epsilon(1e-6) <= 8.0


def test_an_entry_that_holds_a_curve_is_not_the_one_of_a_plain_run(ledger, begin):
    run = begin("a")
    ledger.enter(run, guarantee())
    content = json.loads(ledger.path.read_text())
    content["runs"][0] |= Cost(0.0, ((2.0, 0.1),)).as_dict()
    ledger.path.write_text(json.dumps(content))
    with pytest.raises(PrivacyError, match=r"rho = None, not .*, another cost curve"):
        ledger.enter(run, guarantee())


def test_a_refusal_names_an_epsilon_that_is_accepted(ledger, begin):
    ledger.enter(begin("a"), guarantee(6.0))
    other = begin("b")
    with pytest.raises(PrivacyError, match="start a new run with epsilon = ") as caught:
        ledger.enter(other, guarantee(6.0))
    left = float(str(caught.value).split("epsilon = ")[1].split(" ")[0])
    ledger.enter(other, guarantee(left))
    assert ledger.spent.rho <= ledger.cap.rho * (1 + 1e-9)


def test_a_run_is_entered_once_and_its_openings_are_counted(ledger, begin):
    run = begin()
    for count in (1, 2, 3):
        ledger.enter(run, guarantee())
        [entry] = ledger.runs
        assert entry["openings"] == count
        assert run.marks() == Marks(entry["mark"], None)


def test_what_has_no_figure_in_advance_is_refused_and_public_text_is_free(ledger):
    with pytest.raises(PrivacyError, match="not known in advance"):
        ledger.check(guarantee(method="clustered-median"))
    assert ledger.check(guarantee(method="public")).is_zero


HEAD = '{"epsilon": 1, "delta": 1e-6, "runs": '
CURVE = HEAD + '[{"unit": "u", "rho": null, "curve": {"rho": 0, "orders": [2], "values": []}}]}'
NEGATIVE, NO_UNIT = HEAD + '[{"unit": "u", "rho": -1}]}', HEAD + '[{"rho": 0.1}]}'


ORDERS = [
    HEAD + f'[], "orders": {own}}}'
    for own in ("[]", "[[1, 1e-6]]", "[[3, NaN]]", "[[2, 6e-7], [3, 6e-7]]", "[[2]]", "3")
]


@pytest.mark.parametrize("content", ["", "{}", NEGATIVE, "[]", CURVE, NO_UNIT, *ORDERS])
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


# one file, one sum


def crowd(paths, *, epsilon, turns=1):
    """Processes that enter runs at the same time, each through its own path; how many entries were accepted."""
    code = (
        "import sys; from pathlib import Path; import time\n"
        "from plainchant.config import SynthesisConfig; from plainchant.planning import make_plan\n"
        "from plainchant.errors import PrivacyError\n"
        "from plainchant.run.ledger import Ledger; from plainchant.run.store import RunDirectory\n"
        "plan = make_plan(SynthesisConfig(epsilon=float(sys.argv[3]), max_tokens=20, deals=False)); entered = 0\n"
        "paths = [Path(sys.argv[2] + str(number)) for number in range(int(sys.argv[4]))]\n"
        "runs = [RunDirectory.create(path, plan, plan.guarantee, data='', private=True) for path in paths]\n"
        "time.sleep(max(0, float(sys.argv[5]) - time.time()))\n"
        "for run in runs:\n"
        "    try: Ledger(Path(sys.argv[1])).enter(run, plan.guarantee); entered += 1\n"
        "    except PrivacyError: pass\n"
        "print(entered)\n"
    )
    arguments = [str(epsilon), str(turns), str(time.time() + 4)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(path.parent / f"run-{number}-"), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, path in enumerate(paths)
    ]
    return [int(process.communicate(timeout=120)[0]) for process in processes]


def linked(ledger, tmp_path):
    (tmp_path / "second").mkdir()
    link = tmp_path / "second" / "data.ledger"
    link.symlink_to(ledger.path)
    return link


def test_two_projects_share_a_cap_through_a_link(ledger, begin, tmp_path):
    link = linked(ledger, tmp_path)
    Ledger(link).enter(begin("a"), guarantee(8.0))
    assert link.is_symlink()
    assert not (tmp_path / "second" / "data.ledger.lock").exists()
    for path in (link, ledger.path):
        with pytest.raises(PrivacyError, match="nothing more"):
            Ledger(path).enter(begin(f"b{path.parent.name}"), guarantee(1.0))


def test_two_processes_at_once_through_a_link_spend_the_cap_once(ledger, tmp_path):
    link = linked(ledger, tmp_path)
    assert sum(crowd([link, ledger.path], epsilon=0.5, turns=12)) == 24
    assert len(ledger.runs) == 24
    assert len({entry["run"] for entry in ledger.runs}) == 24
    other = Ledger.create(tmp_path / "narrow.ledger", 3.0, 1e-6)
    narrow = tmp_path / "second" / "narrow"
    narrow.symlink_to(other.path)
    assert sum(crowd([other.path, narrow], epsilon=3.0)) == 1


def test_a_ledger_with_two_names_is_refused(ledger, begin, tmp_path):
    run = begin()
    second = tmp_path / "second.ledger"
    second.hardlink_to(ledger.path)
    for path in (second, ledger.path):
        with pytest.raises(PrivacyError, match=r"2 names .*keep one name"):
            Ledger(path)
    # and where the other name came after it was opened
    with pytest.raises(PrivacyError, match="2 names"):
        ledger.enter(run, guarantee())
    second.unlink()
    ledger.enter(run, guarantee())


def test_a_new_ledger_lies_where_a_link_leads_and_no_circle_is_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real.ledger")
    Ledger.create(tmp_path / "link", 8.0, 1e-6)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.ledger").is_file()
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(ConfigError):
        Ledger(tmp_path / "one")


def test_a_ledger_that_cannot_be_locked_is_named(ledger, begin, monkeypatch):
    run = begin()

    def refuse(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(ConfigError, match="cannot be locked"):
        ledger.enter(run, guarantee())
    assert ledger.runs == []
    assert run.marks() == Marks()


# one entry, one release


def copies(run, count):
    paths = [run.path.with_name(f"copy{number}") for number in range(count)]
    for path in paths:
        shutil.copytree(run.path, path)
    return [RunDirectory.open(path) for path in paths]


def accepted(ledger, runs):
    found = []
    for run in runs:
        try:
            ledger.enter(run, guarantee())
            ledger.confirm(run, guarantee())
            found.append(run)
        except PrivacyError as error:
            assert "opened last" in str(error)
            assert "start a new run" in str(error)
            assert error.exit_code == 3
    return found


def test_of_three_copies_one_goes_on(ledger, begin):
    run = begin()
    ledger.enter(run, guarantee())
    candidates = [*copies(run, 2), run]
    [going_on] = accepted(ledger, candidates)
    assert accepted(ledger, candidates) == [going_on]
    assert len(ledger.runs) == 1


def test_a_copy_of_a_run_at_work_or_the_run_is_refused_before_a_release(ledger, begin):
    run = begin()
    ledger.enter(run, guarantee())
    (copy,) = copies(run, 1)
    ledger.confirm(run, guarantee())
    with pytest.raises(PrivacyError, match="copy"):
        ledger.enter(copy, guarantee())
    ledger.enter(run, guarantee())


def test_a_copy_that_goes_on_takes_the_release_from_the_run_at_work(ledger, begin):
    run = begin()
    ledger.enter(run, guarantee())
    (copy,) = copies(run, 1)
    ledger.enter(copy, guarantee())
    with pytest.raises(PrivacyError, match="copy"):
        ledger.confirm(run, guarantee())
    ledger.confirm(copy, guarantee())


@pytest.mark.parametrize("opened_before", [False, True])
@pytest.mark.parametrize("survives", ["nothing", "next mark", "ledger"])
def test_a_crash_between_two_writes_locks_nobody_out_and_lets_no_second_copy_in(
    ledger, begin, monkeypatch, survives, opened_before
):
    run = begin()
    if opened_before:
        ledger.enter(run, guarantee())
    with monkeypatch.context() as patch:
        crash_at(patch, survives)
        with pytest.raises(KeyboardInterrupt):
            ledger.enter(run, guarantee())
    candidates = [*copies(run, 2), run]
    # whichever comes first goes on, and it alone
    for order in (candidates, candidates[::-1]):
        assert len(accepted(ledger, order)) == 1
    assert len(ledger.runs) == 1


def crash_at(patch, survives):
    saved = RunDirectory.save_marks

    def save_marks(self, marks):
        if survives == "nothing" or (survives == "ledger" and marks.next is None):
            raise KeyboardInterrupt
        saved(self, marks)

    def write_json(*_):
        raise KeyboardInterrupt

    patch.setattr(RunDirectory, "save_marks", save_marks)
    if survives == "next mark":
        patch.setattr("plainchant.run.ledger.write_json", write_json)


def test_many_crashes_and_copies_end_in_one_line_of_openings(ledger, begin, monkeypatch):
    """Random openings, crashes and copies: at any moment at most one directory and its unopened copies can go on."""
    generator = random.Random(0)
    runs = [begin()]
    ledger.enter(runs[0], guarantee())
    for step in range(60):
        run = generator.choice(runs)
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt, PrivacyError):
            if survives := generator.choice(["nothing", "next mark", "ledger", ""]):
                crash_at(patch, survives)
            ledger.enter(run, guarantee())
        if generator.random() < 0.2 and len(runs) < 8:
            shutil.copytree(run.path, run.path.with_name(f"s{step}"))
            runs.append(RunDirectory.open(run.path.with_name(f"s{step}")))
    generator.shuffle(runs)
    assert len(accepted(ledger, runs)) == 1


def test_a_restored_ledger_is_refused(ledger, begin):
    run = begin()
    empty = ledger.path.read_text()
    ledger.enter(run, guarantee())
    before = ledger.path.read_text()
    ledger.enter(run, guarantee())
    ledger.path.write_text(before)
    with pytest.raises(PrivacyError, match="restored"):
        ledger.enter(run, guarantee())
    ledger.path.write_text(empty)
    with pytest.raises(PrivacyError, match="no entry"):
        ledger.enter(run, guarantee())


@pytest.mark.parametrize("changed", [{"epsilon": 4.0}, {"delta": 1e-5}, {"unit_column": "customer"}])
def test_a_run_goes_on_with_the_guarantee_that_was_entered(ledger, begin, changed):
    run = begin()
    ledger.enter(run, guarantee())
    edited = make_plan(SynthesisConfig(**{"epsilon": 2.0, "max_tokens": 20, "deals": False} | changed)).guarantee
    for step in (ledger.enter, ledger.confirm):
        with pytest.raises(PrivacyError, match=r"was entered with .*, not "):
            step(run, edited)
    ledger.enter(run, guarantee())


# a run that ends before its first token


def formed(run, texts=0):
    """The run with its noisy counts drawn, and a batch for so many texts."""
    run.save_batches((Cell(0, WHOLE_LABEL, -3, int(texts > 0)),), [Batch(0, 0, texts)] if texts else [], [])
    return run


COUNTS = Cost(0.01)


def test_a_run_that_ends_before_its_first_token_is_charged_its_counts_alone(ledger, begin):
    run, other = begin("a"), begin("b")
    ledger.enter(other, guarantee())
    ledger.enter(run, guarantee())
    formed(run).end("no batch")
    assert ledger.settle(run, guarantee(), COUNTS)
    assert ledger.spent == guarantee().cost + COUNTS
    # once more changes nothing, and no copy goes on
    assert ledger.settle(run, guarantee(), COUNTS)
    for own in (run, *copies(run, 1)):
        for step in (ledger.enter, ledger.confirm):
            with pytest.raises(PrivacyError, match="start a new run"):
                step(own, guarantee())
    assert ledger.spent == guarantee().cost + COUNTS


def test_a_run_that_can_continue_keeps_its_whole_cost(ledger, begin):
    run = begin()
    ledger.enter(run, guarantee())
    with pytest.raises(RunError, match="has not ended"):
        ledger.settle(run, guarantee(), COUNTS)
    # nothing is drawn yet, or there is a batch to write from
    for unfinished in (run, formed(run, texts=2)):
        with pytest.raises(RunError, match="can continue"):
            unfinished.end("no batch")
        assert run.ended() is None
    assert ledger.spent == guarantee().cost


def test_a_text_or_a_vote_keeps_a_run_from_ending(begin):
    written, voted = formed(begin("a")), formed(begin("b"))
    written.commit(FinishedText(0, 0, "a text", 3, "end", 0.0, 0.0))
    voted.save_vote(0, [], [], {"round": 1})
    for run in (written, voted):
        with pytest.raises(RunError, match="can continue"):
            run.end("no batch")


def test_where_a_copy_may_have_drawn_the_whole_cost_stays(ledger, begin):
    """A copy was opened, or the run was opened twice: nobody knows what the other opening drew."""
    run = begin("a")
    ledger.enter(run, guarantee())
    (copy,) = copies(run, 1)
    ledger.enter(copy, guarantee())
    formed(run).end("no batch")
    with pytest.raises(PrivacyError, match="copy"):
        ledger.settle(run, guarantee(), COUNTS)
    # the copy is the one that goes on; it ends too, and its counts are not the only ones
    formed(copy).end("no batch")
    assert not ledger.settle(copy, guarantee(), COUNTS)
    assert ledger.spent == guarantee().cost


def test_a_copy_made_before_the_end_never_opens_after_it(ledger, begin):
    run = begin("a")
    ledger.enter(run, guarantee())
    early = copies(run, 1)
    formed(run).end("no batch")
    assert ledger.settle(run, guarantee(), COUNTS)
    with pytest.raises(PrivacyError, match="has ended"):
        ledger.enter(early[0], guarantee())


@pytest.mark.parametrize("survives", ["nothing", "the end", "the ledger"])
@pytest.mark.parametrize("first", ["the run", "a copy"])
def test_a_crash_as_a_run_ends_never_undercharges(ledger, begin, monkeypatch, survives, first):
    """Whatever survives: the entry is reduced only while no directory that has its mark can continue."""
    run = begin("a")
    ledger.enter(run, guarantee())
    (copy,) = copies(run, 1)
    formed(run)
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        if survives == "nothing":
            patch.setattr("plainchant.run.store.write_json", crash)
        if survives == "the end":
            patch.setattr("plainchant.run.ledger.write_json", crash)
        run.end("no batch")
        ledger.settle(run, guarantee(), COUNTS)
    reduced = survives == "the ledger"
    assert ledger.spent == (COUNTS if reduced else guarantee().cost)
    assert (run.ended() is None) == (survives == "nothing")
    if first == "a copy":
        # the copy could draw everything: then all of it is charged for good, whatever the run does later
        if reduced:
            with pytest.raises(PrivacyError):
                ledger.enter(copy, guarantee())
            return
        ledger.enter(copy, guarantee())
    if run.ended() is None:
        run.end("no batch")
    if first == "a copy":
        with pytest.raises(PrivacyError):
            ledger.settle(run, guarantee(), COUNTS)
        assert ledger.spent == guarantee().cost
    else:
        assert ledger.settle(run, guarantee(), COUNTS)
        assert ledger.spent == COUNTS
        with pytest.raises(PrivacyError):
            ledger.enter(copy, guarantee())


def crash(*_, **__):
    raise KeyboardInterrupt


def test_with_a_curve_beside_it_a_run_that_ends_is_charged_its_counts_alone(ledger, begin):
    run = begin("a")
    ledger.enter(run, guarantee())
    content = json.loads(ledger.path.read_text())
    curve = {"run": "x", "method": "m", "unit": "one record", "begun": "", "openings": 1, "mark": None}
    other = Cost(0.0, ((2.0, 0.001), (64.0, 0.03)))
    content["runs"].append(curve | other.as_dict())
    ledger.path.write_text(json.dumps(content))
    formed(run).end("no batch")
    assert ledger.settle(run, guarantee(), COUNTS)
    assert ledger.spent == COUNTS + other


@pytest.mark.parametrize("epsilon", [2.0, 8.0])
def test_a_run_with_deals_that_ends_is_charged_its_counts_alone(ledger, tmp_path, epsilon):
    decided = make_plan(SynthesisConfig(epsilon=epsilon, max_tokens=20))
    run = RunDirectory.create(tmp_path / "a", decided, decided.guarantee, data="", private=True)
    ledger.enter(run, decided.guarantee)
    orders = json.loads(ledger.path.read_text())["orders"]
    formed(run).end("no batch")
    assert ledger.settle(run, decided.guarantee, Cost(decided.rho_rebalance))
    assert ledger.spent == Cost(decided.rho_rebalance)
    # the orders stay those that were fixed before the counts were known
    assert json.loads(ledger.path.read_text())["orders"] == orders
    again = RunDirectory.create(tmp_path / "b", decided, decided.guarantee, data="", private=True)
    if epsilon == 8.0:
        with pytest.raises(PrivacyError, match="start a new run with"):
            ledger.enter(again, decided.guarantee)
    else:
        ledger.enter(again, decided.guarantee)
    assert json.loads(ledger.path.read_text())["orders"] == orders


@pytest.mark.parametrize(("epsilon", "rate"), [(1.0, 0.3), (4.0, 0.3), (8.0, 0.1)])
def test_a_run_on_a_sample_that_ends_keeps_its_whole_cost(ledger, tmp_path, epsilon, rate):
    """Whether it fits at an order of the filter or by itself alone: its counts say who may be in the sample."""
    config = SynthesisConfig(epsilon=epsilon, max_tokens=20, expected_units=300_000, sample_rate=rate, texts=10)
    decided = make_plan(config)
    run = RunDirectory.create(tmp_path / "a", decided, decided.guarantee, data="", private=True)
    ledger.enter(run, decided.guarantee)
    formed(run).end("no batch")
    assert not ledger.settle(run, decided.guarantee, Cost(decided.rho_rebalance))
    assert ledger.spent == decided.guarantee.cost
    # even where nothing more fits, public text does
    assert ledger.check(guarantee(method="public")).is_zero


def test_values_found_at_a_part_of_delta_are_never_refunded(ledger, begin):
    run = begin("a")
    ledger.enter(run, guarantee())
    formed(run).end("no batch")
    assert not ledger.settle(run, guarantee(), Cost(COUNTS.rho, delta=1e-8))


def test_values_found_at_a_part_of_delta_have_a_part_that_the_first_entry_fixes(ledger, tmp_path):
    columns = {"attributes": {"kind": {"type": "category"}}}

    def enter(name, book, epsilon=0.5, **changes):
        decided = make_plan(
            SynthesisConfig(**{"epsilon": epsilon, "max_tokens": 20, "deals": False, "columns": columns} | changes)
        )
        run = RunDirectory.create(tmp_path / name, decided, decided.guarantee, data="", private=True)
        book.enter(run, decided.guarantee)

    # half of δ where the first run finds values: five runs with a tenth of it each
    for number in range(5):
        enter(f"finds-{number}", ledger)
    with pytest.raises(PrivacyError, match=r"keeps δ = 5e-07 for values of attributes .* would cost 6e-07"):
        enter("finds-too-much", ledger)
    enter("finds-none", ledger, columns={})
    # a tenth where it does not
    other = Ledger.create(tmp_path / "other", 8.0, 1e-6)
    enter("begins", other, columns={})
    enter("finds", other)
    with pytest.raises(PrivacyError, match="keeps δ = 1e-07"):
        enter("finds-once-more", other)
    # a cap with a δ below what the first run would spend on values
    with pytest.raises(PrivacyError, match="would cost 1e-07; list the values"):
        enter("too-small", Ledger.create(tmp_path / "small", 8.0, 1e-8))


def test_the_first_entry_that_costs_anything_fixes_the_orders(ledger, begin):
    ledger.enter(begin("public"), guarantee(method="public"))
    assert "orders" not in json.loads(ledger.path.read_text())
    assert ledger.left == ledger.cap
    ledger.enter(begin("a"), guarantee())
    orders = json.loads(ledger.path.read_text())["orders"]
    assert sum(part for _, part in orders) == pytest.approx(0.9e-6)
    ledger.enter(begin("b"), guarantee(deals=True, texts=10))
    assert json.loads(ledger.path.read_text())["orders"] == orders


@pytest.mark.parametrize("cap", [1.0, 3.0, 8.0])
def test_after_a_small_run_there_is_room_for_a_large_one(tmp_path, cap):
    ledger = Ledger.create(tmp_path / "ledger", cap, 1e-6)
    for share in (0.25, 0.8):
        decided = make_plan(SynthesisConfig(epsilon=share * cap, max_tokens=48, texts=200, expected_units=5000))
        run = RunDirectory.create(tmp_path / str(share), decided, decided.guarantee, data="", private=True)
        ledger.enter(run, decided.guarantee)
    # the small one may have votes alone
    assert decided.deals is not None
    with pytest.raises(PrivacyError):
        ledger.check(decided.guarantee)
