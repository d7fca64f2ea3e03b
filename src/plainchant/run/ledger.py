"""What all runs on one data set cost together (guarantee 6.4)."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import filelock

from plainchant.data.files import SHARED, take_lock, write_json
from plainchant.errors import ConfigError, PrivacyError, RunError
from plainchant.planning import Guarantee
from plainchant.privacy.accounting import Budget, Cost, Filter
from plainchant.run.store import Marks, RunDirectory


class Ledger:
    """What all runs on one data set may cost together, and what they have cost (guarantee 6.4). A JSON file.

    * Costs add up over runs at Rényi orders that are fixed with the first entry that costs anything: a privacy filter.
      So the cap holds even if the settings of one run were chosen after seeing another's release. A part of δ, fixed
      then too, is kept for values of attributes that runs find in the data.
    * One ledger has one unit, that of its first entry that costs anything: costs to different units do not add up.
    * A run's whole cost is entered once, before it draws anything; what the run does not use is not refunded. One case
      apart: a run that ends before its first token, and can never continue, keeps the cost of its noisy counts only
      (but not a run on a sample).
    * One entry pays for one release: at each opening the run's directory and its entry get the same fresh mark. A
      directory whose mark is not the entry's is a copy, or was restored, and is refused.
    * One file has one lock and one sum: links are followed, and a file with several names is refused.

    Attributes:
        path: the file itself, links resolved.
        epsilon, delta: the cap.
    """

    def __init__(self, path: Path):
        """Reads a ledger.

        Raises:
            ConfigError: there is none, or it cannot be read.
            PrivacyError: the file has other names.
        """
        self.path = _resolved(path)
        content = self._read()
        self.epsilon = float(content["epsilon"])
        self.delta = float(content["delta"])

    @classmethod
    def create(cls, path: str | Path, epsilon: float, delta: float) -> Self:
        """A new ledger with a cap.

        Raises:
            ConfigError: it exists, or cannot be written.
        """
        Cost.of(epsilon, delta)
        path = _resolved(Path(path))
        try:
            with _locked(path):
                if path.exists():
                    raise ConfigError(
                        f"ledger = {path}: exists already, and its cap stays; leave --epsilon out to see it"
                    )
                write_json(path, {"epsilon": epsilon, "delta": delta, "runs": []})
        except OSError as error:
            raise ConfigError(f"ledger = {path}: cannot be written ({error.strerror})") from None
        return cls(path)

    @property
    def cap(self) -> Cost:
        """The largest total cost of all runs."""
        return Cost.of(self.epsilon, self.delta)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The entries: run, method, unit, epsilon, delta, rho or curve, begun, openings, mark; ended, if it has."""
        runs: list[dict[str, Any]] = self._read()["runs"]
        return runs

    @property
    def spent(self) -> Cost:
        """What all entries cost together."""
        return _sum_of(self._read())

    @property
    def left(self) -> Cost:
        """What may still be spent, as plain zCDP."""
        content = self._read()
        spent = _sum_of(content)
        return self.cap if spent.is_zero else self._filter(content, spent).left_after(spent)

    def check(self, guarantee: Guarantee) -> Cost:
        """What a run would add.

        Raises:
            PrivacyError: it has no such figure, protects another unit than the ledger, or would pass the cap.
        """
        cost = guarantee.cost
        if not cost.is_limited:
            raise PrivacyError(
                f"method = {guarantee.method}: its cost is not known in advance ({guarantee.kind}), so no ledger can "
                "add it up; use a method with a guarantee known before the run, or run without --ledger"
            )
        self._check_unit(guarantee)
        content = self._read()
        spent = _sum_of(content)
        known = self._filter(content, cost)
        # the first run fits if it does by itself, and what costs nothing whatever is spent
        alone = cost.is_zero or (spent.is_zero and cost.fits(self._budget))
        if not (alone or known.covers(spent + cost)):
            raise PrivacyError(f"ledger = {self.path}: {self._refusal(known, spent, cost)}")
        return cost

    def _refusal(self, known: Filter, spent: Cost, cost: Cost) -> str:
        """Why a run does not fit, and what would."""
        if not known.finds(spent + cost):
            return (
                f"keeps δ = {known.kept:.2g} for values of attributes that are found in the data, as its first entry "
                f"fixed it, and with this run they would cost {spent.delta + cost.delta:.2g}; list the values in the "
                "configuration, or plan with a smaller delta"
            )
        epsilon = _rounded_down(self.left.epsilon(self.delta))
        rest = f"ε = {epsilon}" if float(epsilon) else "nothing"
        return (
            f"has {rest} left of its cap (ε = {self.epsilon:g}, δ = {self.delta:g}), and the run costs "
            f"ε = {cost.epsilon(self.delta):.4g} by itself; "
            + (
                f"start a new run with {_fitting(epsilon, is_zcdp=cost.is_zcdp)} at delta = {self.delta:g}"
                if float(epsilon)
                else "nothing more may be released from this data"
            )
        )

    @property
    def _budget(self) -> Budget:
        return Budget(self.epsilon, self.delta)

    def _filter(self, content: dict[str, Any], cost: Cost) -> Filter:
        """The filter that the first entry that costs anything has fixed, or that an entry of this cost would fix."""
        if "orders" in content:
            return _filter_of(content)
        return Filter.beginning_with(self._budget, next(iter(_that_cost(content)), cost))

    def _check_unit(self, guarantee: Guarantee) -> None:
        """Costs to different units do not add up: a customer with k records may pay k² times one record's ρ."""
        # public text costs nothing, whatever the unit
        unit = next((run["unit"] for run in self.runs if not Cost.from_dict(run).is_zero), guarantee.unit)
        if guarantee.unit != unit and not guarantee.cost.is_zero:
            raise PrivacyError(
                f"ledger = {self.path}: counts what runs cost {unit}, and this run would count what it costs "
                f"{guarantee.unit}; such costs do not add up. Set unit_column as in the ledger's first run, or keep a "
                "ledger for each unit"
            )

    def enter(self, run: RunDirectory, guarantee: Guarantee) -> None:
        """Opens a run: enters it the first time; later only the directory that was opened last may open it again.

        Raises:
            PrivacyError: it would pass the cap; its guarantee is not the one that was entered; or its directory, or the
                ledger, is a copy or was restored.
        """
        with _locked(self.path):
            content = self._read()
            entry = _entry_of(content, run.origin.name)
            if entry is None:
                entry = self._new_entry(run, guarantee)
                if not guarantee.cost.is_zero:
                    content |= {"orders": self._filter(content, guarantee.cost).orders}
                content["runs"].append(entry)
            else:
                self._check_entry(entry, run, guarantee)
            entry["openings"] += 1
            self._pass_on(content, entry, run)

    def confirm(self, run: RunDirectory, guarantee: Guarantee) -> None:
        """Before a run's release is written: checks that no copy was opened, and makes sure that none can be later.

        Raises:
            PrivacyError: a copy was opened, or the guarantee is not the one that was entered.
        """
        with _locked(self.path):
            content = self._read()
            entry = _entry_of(content, run.origin.name)
            if entry is None:
                raise PrivacyError(f"ledger = {self.path}: has lost the entry of {run.path}; {_WAY_OUT}")
            self._check_entry(entry, run, guarantee)
            self._pass_on(content, entry, run)

    def settle(self, run: RunDirectory, guarantee: Guarantee, drawn: Cost) -> bool:
        """Books only what a run drew that has ended before its first token (guarantee 6.4).

        The directory is marked as ended before this is called, so at no moment is there an entry that was reduced and
        a directory that may continue. The entry keeps its whole cost where it cannot be ruled out that another process
        drew something: where the run was opened more than once. So does that of a run on a sample. A reduced entry
        loses its mark, so that no copy of the directory opens it again.

        Args:
            run: a directory that has ended.
            guarantee: as it was entered.
            drawn: the cost of what was drawn.

        Returns:
            Whether the entry is now the cost of what was drawn alone.

        Raises:
            RunError: the directory has not ended.
            PrivacyError: a copy was opened, or the guarantee is not the one that was entered.
        """
        if run.ended() is None:
            raise RunError(f"{run.path}: has not ended, so what the ledger holds for it stays")
        with _locked(self.path):
            content = self._read()
            entry = _entry_of(content, run.origin.name)
            if entry is None:
                raise PrivacyError(f"ledger = {self.path}: has lost the entry of {run.path}; {_WAY_OUT}")
            if entry.get("ended"):
                return True
            self._check_entry(entry, run, guarantee)
            known = self._filter(content, guarantee.cost)
            less = all(drawn.at(order) <= Cost.from_dict(entry).at(order) for order, _ in known.orders)
            # the counts of a sample say who is in it, and so what the rest would cost
            whole = drawn.delta or guarantee.cost.rate < 1
            if entry["openings"] != 1 or not less or whole or not known.covers(_sum_of(content)):
                return False
            entry.pop("curve", None)
            entry |= {**drawn.as_dict(), "ended": "before its first token", "mark": None}
            self._write(content)
        return True

    def _new_entry(self, run: RunDirectory, guarantee: Guarantee) -> dict[str, Any]:
        if run.marks().last is not None:
            raise PrivacyError(
                f"ledger = {self.path}: has no entry for {run.path}, which another ledger has paid for; name that one. "
                f"If this one was restored, {_WAY_OUT}"
            )
        return {
            "run": run.origin.name,
            **_promised(guarantee),
            **self.check(guarantee).as_dict(),
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "openings": 0,
            "mark": None,
        }

    def _check_entry(self, entry: dict[str, Any], run: RunDirectory, guarantee: Guarantee) -> None:
        if entry.get("ended"):
            raise PrivacyError(
                f"ledger = {self.path}: {run.path} has ended {entry['ended']}, and its entry pays for no more than the "
                "noisy counts that it drew; start a new run"
            )
        cost = guarantee.cost
        promised = _promised(guarantee) | {"rho": cost.as_dict()["rho"]}
        different = [
            f"{name} = {entry.get(name)}, not {value}" for name, value in promised.items() if entry.get(name) != value
        ]
        entered = Cost.from_dict(entry)
        if (entered.curve, entered.delta, entered.rate) != (cost.curve, cost.delta, cost.rate):
            different.append("another cost curve")
        if different:
            raise PrivacyError(
                f"ledger = {self.path}: {run.path} was entered with "
                + ", ".join(different)
                + "; a run continues only with the values it was entered with: restore its files, or start a new run"
            )
        marks = run.marks()
        if entry.get("mark") is None or entry["mark"] not in (marks.last, marks.next):
            raise PrivacyError(
                f"ledger = {self.path}: {run.path} does not match its entry (openings: "
                f"{entry.get('openings', 'unknown')}): the directory or the ledger is a copy, or was restored from "
                f"one, and one entry pays for one release; {_WAY_OUT}"
            )

    def _pass_on(self, content: dict[str, Any], entry: dict[str, Any], run: RunDirectory) -> None:
        """Gives directory and entry the same fresh mark.

        The directory records the mark first as the next one, and as the last one once the ledger has it. So after a
        crash at any point, the entry's mark is one of the two in this directory. A copy, whenever it was made, no
        longer holds the entry's mark as soon as any other directory is opened. Marks are drawn at random and not
        counted up, so no two directories can get the same one.
        """
        mark = secrets.token_hex(8)
        run.save_marks(Marks(entry["mark"], mark))
        entry["mark"] = mark
        self._write(content)
        run.save_marks(Marks(mark, None))

    def _write(self, content: dict[str, Any]) -> None:
        try:
            write_json(self.path, content)
        except OSError as error:
            raise ConfigError(
                f"ledger = {self.path}: cannot be written ({error.strerror}); nothing was released"
            ) from None

    def _read(self) -> dict[str, Any]:
        try:
            names = self.path.stat().st_nlink
            content = json.loads(self.path.read_text(encoding="utf-8"))
            Cost.of(content["epsilon"], content["delta"])
            if not all(Cost.from_dict(entry).is_limited and str(entry["unit"]) for entry in content["runs"]):
                raise ValueError
            if "orders" in content:
                _filter_of(content)
        except FileNotFoundError:
            raise ConfigError(
                f"ledger = {self.path}: there is none; plainchant account --ledger {self.path} --epsilon E creates one"
            ) from None
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"ledger = {self.path}: is not a ledger that can be read; nothing was run") from None
        if names > 1:
            raise PrivacyError(
                f"ledger = {self.path}: has {names} names (hard links), and the next entry would split them into files "
                f"with separate sums; keep one name (find DIR -samefile {self.path} lists them)"
            )
        return dict(content)


# What part of the ε that is left a run with deals may take, about: at the ledger's orders its curve is not lowest.
FITS = 0.9
_WAY_OUT = (
    "continue in the directory that was opened last, with the ledger as it is now; if that is lost, start a new run, "
    "which is charged again"
)


def _resolved(path: Path) -> Path:
    """The file behind all links, so that one file has one lock and is replaced in its folder."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        raise ConfigError(f"ledger = {path}: leads nowhere; name the file itself") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = filelock.FileLock(path.with_name(path.name + ".lock"), mode=SHARED)
    try:
        take_lock(lock)
    except OSError as error:
        raise ConfigError(
            f"ledger = {path}: cannot be locked ({error.strerror}); it must lie where this process may write and lock "
            "files, such as a local disk"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _entry_of(content: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((entry for entry in content["runs"] if entry["run"] == name), None)


def _filter_of(content: dict[str, Any]) -> Filter:
    """The filter that a ledger holds."""
    budget = Budget(content["epsilon"], content["delta"])
    return Filter(budget, tuple((order, part) for order, part in content["orders"]))


def _that_cost(content: dict[str, Any]) -> list[Cost]:
    """The costs of the entries that cost anything, in order."""
    return [cost for cost in map(Cost.from_dict, content["runs"]) if not cost.is_zero]


def _fitting(epsilon: str, *, is_zcdp: bool) -> str:
    """What fits into the rest; how much a curve takes of it is known once it is planned."""
    if is_zcdp:
        return f"epsilon = {epsilon}"
    return f"deals = false and epsilon = {epsilon}, or with deals about {FITS * float(epsilon):.2g} or less"


def _sum_of(content: dict[str, Any]) -> Cost:
    return sum(_that_cost(content), Cost())


def _promised(guarantee: Guarantee) -> dict[str, Any]:
    """What an entry records besides its cost."""
    return {name: getattr(guarantee, name) for name in ("method", "unit", "epsilon", "delta")}


def _rounded_down(value: float) -> str:
    return f"{int(value * 1000) / 1000:g}"
