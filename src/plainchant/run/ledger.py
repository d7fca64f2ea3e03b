"""What all runs on one data set cost together (guarantee 6.4)."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import filelock

from plainchant.data.files import write_json
from plainchant.errors import ConfigError, PrivacyError
from plainchant.planning import Guarantee
from plainchant.privacy.accounting import Cost


class Ledger:
    """What all runs on one data set may cost together, and what they have cost (guarantee 6.4). A JSON file.

    * ρ of zCDP adds up over runs, whatever they have chosen in view of each other's releases.
    * A run is entered once, whole and before it draws anything; what it fails to use it does not get back.

    Attributes:
        epsilon, delta: the cap.
    """

    def __init__(self, path: Path):
        """Reads a ledger.

        Raises:
            ConfigError: there is none, or it cannot be read.
        """
        self.path = path
        self._lock = filelock.FileLock(path.with_name(path.name + ".lock"))
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
        if path.exists():
            raise ConfigError(f"ledger = {path}: exists already, and its cap stays; leave --epsilon out to see it")
        try:
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
        """The entries: run, method, rho, begun."""
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

    def enter(self, run: str, guarantee: Guarantee) -> None:
        """Enters a run, once.

        Raises:
            PrivacyError: it would pass the cap.
        """
        with self._lock:
            content = self._read()
            if any(entry["run"] == run for entry in content["runs"]):
                return
            entry = {
                "run": run,
                "method": guarantee.method,
                **self.check(guarantee).as_dict(),
                "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            write_json(self.path, content | {"runs": [*content["runs"], entry]})

    def _read(self) -> dict[str, Any]:
        try:
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
        return dict(content)


def _rounded_down(value: float) -> str:
    return f"{int(value * 1000) / 1000:g}"
