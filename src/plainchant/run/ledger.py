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
from plainchant.errors import ConfigError, PrivacyError
from plainchant.planning import Guarantee
from plainchant.privacy.accounting import Cost
from plainchant.run.store import Marks, RunDirectory


class Ledger:
    """What all runs on one data set may cost together, and what they have cost (guarantee 6.4). A JSON file.

    * ρ of zCDP adds up over runs, whatever they have chosen in view of each other's releases.
    * A run is entered once, whole and before it draws anything; what it fails to use it does not get back.
    * What a run's entry pays for is released once: at each opening the run's directory and its entry take the same
      fresh mark, and a directory whose mark is not the entry's is a copy, or was restored, and is refused.
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
    def create(cls, path: Path, epsilon: float, delta: float) -> Self:
        """A new ledger with a cap.

        Raises:
            ConfigError: it exists, or cannot be written.
        """
        Cost.of(epsilon, delta)
        path = _resolved(path)
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
        """The most that all runs may cost."""
        return Cost.of(self.epsilon, self.delta)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The entries: run, method, unit, epsilon, delta, rho, begun, openings, mark."""
        runs: list[dict[str, Any]] = self._read()["runs"]
        return runs

    @property
    def spent(self) -> Cost:
        """What all entries cost together."""
        return sum((Cost.from_dict(run) for run in self.runs), Cost())

    @property
    def left(self) -> Cost:
        """What may still be spent."""
        return Cost(max(0.0, self.cap.rho - self.spent.rho))

    def check(self, guarantee: Guarantee) -> Cost:
        """What a run would add.

        Raises:
            PrivacyError: it has no such figure, or it would pass the cap.
        """
        cost = guarantee.cost
        if not cost.is_limited:
            raise PrivacyError(
                f"method = {guarantee.method}: its cost is not known in advance ({guarantee.kind}), so that no ledger "
                "can add it up; take a method with a guarantee known before the run, or run without --ledger"
            )
        # the cap is rounded down in its 12th digit, and so is every entry
        if not (self.spent + cost).fits(Cost(self.cap.rho * (1 + 1e-9))):
            left = self.left
            raise PrivacyError(
                f"ledger = {self.path}: has ρ = {left.rho:.4g} left of its cap (ε = {self.epsilon:g}, "
                f"δ = {self.delta:g}), and the run costs {cost.rho:.4g}; "
                + (
                    f"plan with epsilon = {_rounded_down(left.epsilon(self.delta))} at delta = {self.delta:g}"
                    if not left.is_zero
                    else "nothing more may be released from this data"
                )
            )
        return cost

    def enter(self, run: RunDirectory, guarantee: Guarantee) -> None:
        """Opens a run: enters it the first time, and later only where its directory is the one that was opened last.

        Raises:
            PrivacyError: it would pass the cap; its guarantee is not the one that was entered; or its directory, or the
                ledger, is a copy or was restored.
        """
        with _locked(self.path):
            content = self._read()
            entry = _entry_of(content, run.origin.name)
            if entry is None:
                entry = self._new_entry(run, guarantee)
                content["runs"].append(entry)
            else:
                self._check_entry(entry, run, guarantee)
            entry["openings"] += 1
            self._pass_on(content, entry, run)

    def confirm(self, run: RunDirectory, guarantee: Guarantee) -> None:
        """Before a run's release is written: nobody has opened a copy of it in the meantime, and from now on none can.

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

    def _new_entry(self, run: RunDirectory, guarantee: Guarantee) -> dict[str, Any]:
        if run.marks().last is not None:
            raise PrivacyError(
                f"ledger = {self.path}: has no entry of {run.path}, which a ledger has paid for; name that ledger. "
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
        promised = _promised(guarantee) | {"rho": guarantee.rho}
        different = [name for name, value in promised.items() if entry.get(name) != value]
        if different:
            raise PrivacyError(
                f"ledger = {self.path}: {run.path} was entered with "
                + ", ".join(f"{name} = {entry.get(name)}, not {promised[name]}" for name in different)
                + "; a run goes on with what it was entered with: put its files back as they were, or start a new run"
            )
        marks = run.marks()
        if entry.get("mark") is None or entry["mark"] not in (marks.last, marks.next):
            raise PrivacyError(
                f"ledger = {self.path}: {run.path} is not as its entry (openings: {entry.get('openings', 'unknown')}) "
                f"was last opened: the directory or the ledger is a copy, or was restored from one, and one entry pays "
                f"for one release; {_WAY_OUT}"
            )

    def _pass_on(self, content: dict[str, Any], entry: dict[str, Any], run: RunDirectory) -> None:
        """Gives directory and entry the same fresh mark.

        The directory notes the mark first, as the next one, and as the last one when the ledger has it. So wherever a
        crash falls, the entry's mark is one of the two that this directory knows. A copy, whenever it was made, stops
        knowing the entry's mark as soon as any other directory is opened: fresh marks are drawn, never counted up, so
        that no two directories can arrive at the same one.
        """
        mark = secrets.token_hex(8)
        run.save_marks(Marks(entry["mark"], mark))
        entry["mark"] = mark
        try:
            write_json(self.path, content)
        except OSError as error:
            raise ConfigError(
                f"ledger = {self.path}: cannot be written ({error.strerror}); nothing was released"
            ) from None
        run.save_marks(Marks(mark, None))

    def _read(self) -> dict[str, Any]:
        try:
            names = self.path.stat().st_nlink
            content = json.loads(self.path.read_text(encoding="utf-8"))
            Cost.of(content["epsilon"], content["delta"])
            if not all(Cost.from_dict(entry).is_limited for entry in content["runs"]):
                raise ValueError
        except FileNotFoundError:
            raise ConfigError(
                f"ledger = {self.path}: there is none; plainchant account --ledger {self.path} --epsilon E begins one"
            ) from None
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"ledger = {self.path}: is not a ledger that can be read; nothing was run") from None
        if names > 1:
            raise PrivacyError(
                f"ledger = {self.path}: has {names} names (hard links), and the next entry would part them, each "
                f"with a sum of its own; keep one name (find DIR -samefile {self.path} lists them)"
            )
        return dict(content)


_WAY_OUT = (
    "go on in the directory that was opened last, with the ledger as it is now; if that is lost, start a new run, "
    "which is charged anew"
)


def _resolved(path: Path) -> Path:
    """The file behind all links, so that one file has one lock and is replaced where it lies."""
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


def _promised(guarantee: Guarantee) -> dict[str, Any]:
    """What an entry stands for, besides ρ."""
    return {name: getattr(guarantee, name) for name in ("method", "unit", "epsilon", "delta")}


def _rounded_down(value: float) -> str:
    return f"{int(value * 1000) / 1000:g}"
